//! The bridge does what it promises: its own tests, in Python, with boto3 as the client.

#![allow(clippy::unwrap_used)]

mod support {
    pub mod bridge;
    pub mod tools;
}

use std::process::Command;

#[test]
fn root_the_bridge_is_as_strict_as_its_documents() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and in CI it must not be skipped");
        return;
    }
    let mut command = Command::new(support::bridge::python());
    let output =
        command.args(["-m", "unittest", "discover", "--quiet", "--start-directory"]).arg(support::bridge::source()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
