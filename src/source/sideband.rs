//! What a git host writes for people to read, made harmless.

/// Longer lines are cut: nobody reads them.
const LONGEST_LINE: usize = 1000;

/// Splits a stream into lines and hands each on without control characters. Of a line that overwrites itself with
/// carriage returns (a progress display) only the last state counts.
pub(super) struct Lines<F: FnMut(&str)> {
    line: Vec<u8>,
    sink: F,
}

impl<F: FnMut(&str)> Lines<F> {
    pub fn new(sink: F) -> Self {
        Lines { line: Vec::new(), sink }
    }

    /// The next piece of the stream.
    pub fn push(&mut self, text: &[u8]) {
        for byte in text {
            match byte {
                b'\n' => self.end(),
                _ if self.line.last() == Some(&b'\r') => {
                    self.line.clear();
                    self.line.push(*byte);
                }
                _ if self.line.len() < LONGEST_LINE || *byte == b'\r' => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn end(&mut self) {
        let text: String = String::from_utf8_lossy(&self.line).chars().filter(|c| !c.is_control()).collect();
        self.line.clear();
        if !text.trim().is_empty() {
            (self.sink)(text.trim_end());
        }
    }
}

impl<F: FnMut(&str)> Drop for Lines<F> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut lines = Lines::new(|line: &str| seen.push(line.to_owned()));
        pieces.iter().for_each(|piece| lines.push(piece));
        drop(lines);
        seen
    }

    #[test]
    fn lines_are_split_cleaned_and_bounded() {
        assert_eq!(
            lines(&[b"Coun", b"ting: 1%\rCounting: 50%\r", b"Counting: 100%, done.\nnext"]),
            ["Counting: 100%, done.", "next"]
        );
        assert_eq!(lines(&[b"\x1b[2J::add-mask::x\x07\n\n \r\n"]), ["[2J::add-mask::x"]);
        assert_eq!(lines(&[&[b'a'; 5000]])[0].len(), LONGEST_LINE);
    }
}
