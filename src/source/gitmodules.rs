//! Reading `.gitmodules`: git's configuration format, without includes (a repository must not name files of this machine).

use std::collections::BTreeMap;

/// What is said about one submodule: keys in lower case, the last value of each.
pub(super) type Section = BTreeMap<String, String>;

/// The `[submodule "name"]` sections by name. `None` if the text is not in git's configuration format.
pub(super) fn parse(text: &str) -> Option<BTreeMap<String, Section>> {
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let mut current: Option<String> = None;
    let mut rest = text.trim_start_matches('\u{feff}');
    loop {
        rest = rest.trim_start();
        match rest.chars().next() {
            None => return Some(sections),
            Some('#' | ';') => rest = rest.split_once('\n').map_or("", |(_, after)| after),
            Some('[') => {
                let (name, after) = header(&rest[1..])?;
                rest = after;
                current = name;
                if let Some(name) = &current {
                    sections.entry(name.clone()).or_default();
                }
            }
            Some(_) => {
                let (key, value, after) = assignment(rest)?;
                rest = after;
                if let Some(section) = current.as_ref().and_then(|name| sections.get_mut(name)) {
                    section.insert(key, value);
                }
            }
        }
    }
}

/// What follows `[`: the submodule's name, or none for any other section.
fn header(text: &str) -> Option<(Option<String>, &str)> {
    let end = text.find(['"', ']', '\n'])?;
    let section = text[..end].trim();
    match text.as_bytes()[end] {
        b']' => Some((None, &text[end + 1..])),
        b'"' => {
            let mut name = String::new();
            let mut chars = text[end + 1..].char_indices();
            loop {
                match chars.next()? {
                    (at, '"') => {
                        let after = text[end + 1 + at + 1..].strip_prefix(']')?;
                        return Some((section.eq_ignore_ascii_case("submodule").then_some(name), after));
                    }
                    (_, '\\') => name.push(chars.next()?.1),
                    (_, '\n') => return None,
                    (_, c) => name.push(c),
                }
            }
        }
        _ => None,
    }
}

/// `key = value` or `key` alone, and what follows.
fn assignment(text: &str) -> Option<(String, String, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(text.len());
    let key = text[..end].to_ascii_lowercase();
    let after = text[end..].trim_start_matches([' ', '\t', '\r']);
    if key.is_empty() {
        return None;
    }
    match after.strip_prefix('=') {
        Some(after) => value(after.trim_start_matches([' ', '\t'])).map(|(value, after)| (key, value, after)),
        None if after.is_empty() || after.starts_with(['\n', '#', ';']) => Some((key, "true".to_owned(), after)),
        None => None,
    }
}

/// A value up to the end of its line: quotes, escapes, comments and continued lines.
fn value(text: &str) -> Option<(String, &str)> {
    let (mut value, mut quoted, mut kept) = (String::new(), false, 0);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\n' if quoted => return None,
            '\n' => return finish(value, kept, &text[at..]),
            '#' | ';' if !quoted => return finish(value, kept, text[at..].find('\n').map_or("", |end| &text[at + end..])),
            '"' => {
                quoted = !quoted;
                kept = value.len();
            }
            '\\' => {
                match chars.next()?.1 {
                    '\n' => continue,
                    'n' => value.push('\n'),
                    't' => value.push('\t'),
                    'b' => value.push('\u{8}'),
                    c @ ('"' | '\\') => value.push(c),
                    _ => return None,
                }
                kept = value.len();
            }
            c => {
                value.push(c);
                if quoted || !c.is_whitespace() {
                    kept = value.len();
                }
            }
        }
    }
    if quoted { None } else { finish(value, kept, "") }
}

/// White space at the end does not count, unless it was quoted.
fn finish(mut value: String, kept: usize, after: &str) -> Option<(String, &str)> {
    value.truncate(kept);
    Some((value, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_read_as_git_reads_them() {
        let text = "; comment\n[core]\n\tbare = true\n[submodule \"a \\\"b\\\" c\"] # x\n\tPath = \"vendor/ a\" ; y\n\turl=../b.git  \n\
                    \tupdate\n[submodule \"two\"]\r\n\turl = https://exam\\\nple.com/r#x\n url = \"x\\\\y\"";
        let sections = parse(text).unwrap();
        assert_eq!(sections.keys().collect::<Vec<_>>(), ["a \"b\" c", "two"]);
        let first = &sections["a \"b\" c"];
        assert_eq!((first["path"].as_str(), first["url"].as_str(), first["update"].as_str()), ("vendor/ a", "../b.git", "true"));
        assert_eq!(sections["two"]["url"], "x\\y");
    }

    #[test]
    fn nonsense_is_not_guessed_at() {
        for text in ["[submodule \"a", "[submodule \"a\" ]", "[sub", "= x", "[a]\nk = \"x\n", "[a]\nk = \\x\n", "[a]\nk v\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
