//! What the tests of docs/reliability.md share: how much they do, and where they write down what they did.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::fs;
use std::io::Write;
use std::path::Path;

/// How many rounds: a part of them in `make test`, all of them in `make soak` (`SOAK` is set).
pub fn rounds(test: u64, soak: u64) -> u64 {
    if is_soak() { soak } else { test }
}

/// Whether this is the long run.
pub fn is_soak() -> bool {
    std::env::var_os("SOAK").is_some()
}

/// Writes the figures of a run into docs/reliability.md, between the marks `<name>: begin` and `<name>: end`, if it is the long run.
/// Otherwise it only looks that the page has the marks.
#[track_caller]
pub fn record(name: &str, figures: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md");
    let file = fs::File::open(&path).unwrap_or_else(|error| panic!("docs/reliability.md: {error}"));
    // Test programs may run side by side.
    let _lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let mark = |mark: &str| {
        let mark = format!("<!-- {name}: {mark} -->\n");
        let at = text.find(&mark).unwrap_or_else(|| panic!("docs/reliability.md has no mark {mark:?}"));
        (at, at + mark.len())
    };
    let ((_, begin), (end, _)) = (mark("begin"), mark("end"));
    if is_soak() {
        fs::write(&path, format!("{}{}\n{}", &text[..begin], figures.trim_end(), &text[end..])).unwrap();
    }
}

/// Says what a test was at when it fails.
pub struct At<'a>(pub &'a str);

impl Drop for At<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "this was: {}", self.0);
        }
    }
}
