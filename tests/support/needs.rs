//! What a test needs from the machine. Where it is missing a test says so and is skipped; in CI (`CI` is set) it fails.

use std::io::Write;

/// Whether this process is root.
#[must_use]
pub fn needs_root() -> bool {
    needs(nix::unistd::geteuid().is_root(), "root")
}

/// Whether something that a test needs is there.
#[must_use]
pub fn needs(is_there: bool, what: &str) -> bool {
    assert!(is_there || std::env::var_os("CI").is_none(), "this test needs {what}, and in CI it must not be skipped");
    if !is_there {
        let test = std::thread::current();
        let _ = writeln!(std::io::stderr(), "skipped: {} needs {what}", test.name().unwrap_or("this test"));
    }
    is_there
}
