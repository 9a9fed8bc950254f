//! Tables for people: columns as wide as they need, and a last one that takes more lines where its text is long.

use unicode_width::UnicodeWidthStr;

use super::escape;

/// The last column is never narrower, whatever the others need.
const NARROWEST: usize = 30;

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    heading: &'static str,
    right: bool,
    most: usize,
}

impl Column {
    /// Of text.
    pub const fn text(heading: &'static str) -> Column {
        Column { heading, right: false, most: usize::MAX }
    }

    /// Of numbers, which stand below each other.
    pub const fn number(heading: &'static str) -> Column {
        Column { right: true, ..Column::text(heading) }
    }

    /// Longer texts are cut, which shows.
    pub const fn at_most(self, most: usize) -> Column {
        Column { most, ..self }
    }
}

/// A line for each row, below the headings. A row has a cell for each column; what it has more begins further lines of the last
/// one. Cells may hold anything: what could do harm to a terminal or a log is written as escapes.
///
/// The table has `width` columns of characters at most, if there are [`NARROWEST`] for the last.
pub fn table(columns: &[Column], rows: Vec<Vec<String>>, width: usize) -> String {
    let last = columns.len() - 1;
    let headings = columns.iter().map(|column| column.heading.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(headings).chain(rows).map(|row| shown(columns, row)).collect();
    let widths: Vec<usize> = (0..last).map(|at| rows.iter().map(|row| row[at].width()).max().unwrap_or(0)).collect();
    let indent = widths.iter().map(|width| width + 2).sum();
    let room = width.saturating_sub(indent).max(NARROWEST);
    let mut text = String::new();
    for row in rows {
        let (cells, long) = row.split_at(last);
        for ((cell, column), width) in cells.iter().zip(columns).zip(&widths) {
            let padding = " ".repeat(width - cell.width());
            text += &if column.right { padding + cell + "  " } else { cell.clone() + &padding + "  " };
        }
        text += &long.iter().flat_map(|part| wrapped(part, room)).collect::<Vec<_>>().join(&format!("\n{:indent$}", ""));
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// A row's cells as they can be shown.
fn shown(columns: &[Column], row: Vec<String>) -> Vec<String> {
    let most = |at: usize| columns.get(at).map_or(usize::MAX, |column| column.most);
    row.iter().enumerate().map(|(at, cell)| shortened(escape::line(cell), most(at))).collect()
}

/// At most so many columns.
fn shortened(mut text: String, most: usize) -> String {
    if text.width() > most {
        while text.width() >= most {
            text.pop();
        }
        text.push('…');
    }
    text
}

/// Broken between words into lines of up to so many columns, and where a word is longer, in it.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
        while let Some(rest) = lines.last_mut().and_then(|line| cut(line, width)) {
            lines.push(rest);
        }
    }
    lines
}

/// Takes what is beyond the width off the line.
fn cut(line: &mut String, width: usize) -> Option<String> {
    if line.width() <= width {
        return None;
    }
    let ends = line.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| line[..*end].width() <= width).last().filter(|end| *end < line.len())?;
    Some(line.split_off(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [Column::text("NAME").at_most(6), Column::number("SIZE"), Column::text("WHY")];

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_are_aligned_and_the_last_one_wraps() {
        let rows = vec![
            row(&["日本日本", "8", "because it is longer than a line can be, which has to be wrapped", "and more"]),
            row(&["\u{1b}[2J", "1000", ""]),
        ];
        let expected = "\
NAME    SIZE  WHY
日本…      8  because it is longer than a
              line can be, which has to be
              wrapped
              and more
\\u{1b…  1000
";
        assert_eq!(table(&COLUMNS, rows, 20), expected);
    }

    #[test]
    fn nothing_is_wider_than_it_may_be_and_nothing_is_lost() {
        let arn = format!("arn:aws:sts::123456789012:assumed-role/{}", "日".repeat(100));
        let wide = table(&COLUMNS, vec![row(&["a", "1", &arn])], 60);
        assert!(wide.lines().all(|line| line.width() <= 60), "{wide}");
        assert_eq!(wide.matches('日').count(), 100);
    }
}
