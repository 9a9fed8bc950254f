//! The program as it is shipped: small, static, and able to run where there is nothing else.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod support {
    pub mod engine;
    pub mod git_cli;
    pub mod git_server;
    pub mod store;
    pub mod tls;
    pub mod tools;
}

use std::fs;
use std::process::Command;

use support::engine::program;
use support::git_cli::Scratch;
use support::git_server::GitServer;
use support::store::needs_root;
use support::tls::terminate_tls;
use support::tools::run;

/// In bytes.
const LARGEST: u64 = 22_000_000;

#[test]
fn root_the_program_is_small_and_static() {
    // It is built for the image, by root.
    if !needs_root() {
        return;
    }
    let program = program();
    let size = fs::metadata(&program).unwrap().len();
    assert!(size <= LARGEST, "{size} bytes");
    let headers = run(Command::new("readelf").args(["--wide", "--program-headers", "--dynamic"]).arg(&program));
    assert!(!headers.contains("INTERP") && !headers.contains("(NEEDED)"), "it is not static:\n{headers}");
    let sections = run(Command::new("readelf").args(["--wide", "--sections"]).arg(&program));
    assert!(!sections.contains(".symtab") && !sections.contains(".debug_info"), "it is not stripped");
}

#[test]
fn root_the_program_has_nothing_by_which_tests_kill_it() {
    if !needs_root() {
        return;
    }
    let mut command = Command::new(program());
    command.args(["bake", "--repository", "/nowhere"]).env_clear().env("EBS_BAKE_TEST_SIGNAL_AT", "before phase resolve=SIGKILL");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(said.contains("EBS_BAKE_TEST_SIGNAL_AT: there is no such option"), "{said}");
}

#[test]
fn root_the_program_needs_nothing_to_look_up_names_and_to_talk_tls() {
    if !needs_root() {
        return;
    }
    let scratch = Scratch::new();
    let commit = scratch.repository("up");
    let server = GitServer::start(&scratch.path(""));
    let port = terminate_tls(&scratch.path(""), &server.address);
    for directory in ["root/etc", "root/tmp"] {
        fs::create_dir_all(scratch.path(directory)).unwrap();
    }
    fs::copy(program(), scratch.path("root/ebs-bake")).unwrap();
    fs::copy(scratch.path("cert"), scratch.path("root/etc/ca.pem")).unwrap();
    fs::write(scratch.path("root/etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    // As where a desktop or a cloud's distribution has sources of its own: one that is not there, and would end the search.
    fs::write(scratch.path("root/etc/nsswitch.conf"), "hosts: mdns4_minimal [UNAVAIL=return] files dns\n").unwrap();
    let mut command = Command::new("/usr/sbin/chroot");
    command.arg(scratch.path("root")).args(["/ebs-bake", "bake", "--store", "local", "--local-dir", "/tmp/store", "--dry-run"]);
    command.args(["--repository", &format!("https://localhost:{port}/up")]).env_clear().env("SSL_CERT_FILE", "/etc/ca.pem");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("main at {}", &commit[..12])), "{output:?}");
}
