//! What integration tests share.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod host;

/// `false`: this test needs root and cannot run here, which it has said on standard error. In CI (`CI` is set) that is a failure.
#[must_use]
pub fn needs_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "this test needs root, and in CI it must not be skipped");
    #[expect(clippy::print_stderr, reason = "a skipped test shall be seen")]
    {
        eprintln!("skipped: {} needs root", std::thread::current().name().unwrap_or("this test"));
    }
    false
}
