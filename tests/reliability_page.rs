//! docs/reliability.md promises nothing that no test holds.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn each_promise_names_tests_that_there_are() {
    let page = read("docs/reliability.md");
    let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")).collect();
    let rows: Vec<_> = rows.into_iter().filter(|(_, tests)| tests.contains("tests/")).collect();
    assert!(rows.len() >= 13, "{rows:?}");
    for (promise, tests) in rows {
        let mut program = String::new();
        let mut count = 0;
        for name in quoted(tests) {
            if name.starts_with("tests/") {
                program = read(name);
                continue;
            }
            assert!(program.contains(&format!("fn {name}()")), "{promise:?}: there is no test {name}");
            count += 1;
        }
        assert!(count > 0, "{promise:?} names no test");
    }
}

#[test]
fn figures_stand_in_each_section() {
    let page = read("docs/reliability.md");
    for section in page.split("<!-- ").skip(1).filter(|section| section.contains(": begin -->")) {
        let (name, rest) = section.split_once(": begin -->").unwrap();
        assert!(rest.trim().len() > 40, "no figures of {name}: run `make soak`");
    }
}
