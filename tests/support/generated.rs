//! Parts of files that are made from something else: tables of options above all. `UPDATE_DOCS=1` writes them.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::fs;
use std::path::Path;

/// The part of a file between the lines with the marks `<name>: begin` and `<name>: end` must be this. With `UPDATE_DOCS` in the
/// environment it becomes so.
#[track_caller]
pub fn assert_generated(file: &str, name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mark = |mark: &str| text.find(&format!("{name}: {mark}")).unwrap_or_else(|| panic!("{file} has no mark {name}: {mark}"));
    let begin = mark("begin") + text[mark("begin")..].find('\n').expect("a mark is a line") + 1;
    let end = text[..mark("end")].rfind('\n').expect("a mark is a line") + 1;
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{}{expected}{}", &text[..begin], &text[end..]))
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        return;
    }
    assert!(text[begin..end] == *expected, "{name} in {file}: out of date, its mark says how to write it anew");
}

/// A text in single quotes, as YAML has them.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
