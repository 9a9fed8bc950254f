//! The container image and the program in it: what is there, what is not, and how large it may be.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod support {
    pub mod engine;
    pub mod store;
    pub mod tools;
}

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::engine::Engine;
use support::store::needs_root;
use support::tools::{python_tool, run};

/// In bytes, as a registry keeps it.
const LARGEST: u64 = 60_000_000;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs a script in a container without privileges.
fn in_image(script: &str) -> Output {
    let engine = Engine::shared();
    engine.docker(&["run", "--rm", "--network", "none", "--entrypoint", "sh", engine.image(), "-c", script]).output().unwrap()
}

#[test]
fn root_the_image_has_what_it_needs_and_no_more() {
    if !needs_root() {
        return;
    }
    let mut test = Command::new(python_tool("container-structure-test"));
    test.args(["test", "--driver", "tar", "--config"]).arg(source("tests/image/structure.yaml"));
    run(test.arg("--image").arg(Engine::shared().archive()));
    let found =
        in_image("for name in sh ps mkfs.ext4 e2fsck resize2fs cc make cargo git ssh curl python3; do command -v $name; done");
    let expected = "/usr/bin/sh\n/usr/bin/ps\n/usr/sbin/mkfs.ext4\n/usr/sbin/e2fsck\n/usr/sbin/resize2fs\n";
    assert_eq!(String::from_utf8_lossy(&found.stdout), expected, "{found:?}");
    let left =
        in_image("find /var/lib/apt/lists /work /tmp /code/chef -mindepth 1; find / -xdev -name '*.deb'; find /src /root/.cargo");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "{left:?}");
    let files = in_image("stat -c %u:%g /usr/local/bin/ebs-bake && test -s /etc/ssl/certs/ca-certificates.crt");
    assert!(files.status.success() && files.stdout == b"0:0\n", "{files:?}");
}

#[test]
fn root_the_image_is_small() {
    if !needs_root() {
        return;
    }
    let mut gzip =
        Command::new("gzip").args(["--stdout"]).arg(Engine::shared().archive()).stdout(Stdio::piped()).spawn().unwrap();
    let size = std::io::copy(&mut gzip.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
    assert!(gzip.wait().unwrap().success());
    assert!(size <= LARGEST, "{size} bytes compressed");
}

#[test]
fn root_the_image_runs_the_program_and_what_ci_systems_run() {
    if !needs_root() {
        return;
    }
    let engine = Engine::shared();
    let version = run(&mut engine.docker(&["run", "--rm", "--network", "none", engine.image(), "--version"]));
    assert_eq!(version, concat!("ebs-bake ", env!("CARGO_PKG_VERSION"), "\n"));
    let help = run(&mut engine.docker(&["run", "--rm", "--network", "none", engine.image()]));
    assert!(help.contains("Usage: ebs-bake"), "{help}");
    // Jenkins keeps a container with `cat` and looks into it with `ps`; GitLab feeds `sh` a script.
    let said = in_image("ps -A -o args | grep -c ps && ebs-bake --version");
    assert!(said.status.success(), "{said:?}");
}

#[test]
fn the_dockerfile_names_this_version_and_this_rust() {
    let dockerfile = fs::read_to_string(source("Dockerfile")).unwrap();
    let argument = |name: &str| {
        let line = dockerfile.lines().find_map(|line| line.strip_prefix(&format!("ARG {name}=")));
        line.unwrap_or_else(|| panic!("no {name}")).to_owned()
    };
    assert_eq!(argument("VERSION"), env!("CARGO_PKG_VERSION"));
    let rust = argument("RUST_IMAGE");
    let least = concat!(env!("CARGO_PKG_RUST_VERSION"), ".");
    assert!(rust.starts_with(&format!("rust:{least}")), "{rust} is not Rust {least}");
}

#[test]
fn hadolint_and_shellcheck_have_nothing_to_say() {
    run(Command::new(python_tool("hadolint")).arg(source("Dockerfile")));
    let mut shellcheck = Command::new(python_tool("shellcheck"));
    for directory in ["scripts", "tests/image"] {
        let entries = fs::read_dir(source(directory)).unwrap().map(|entry| entry.unwrap().path());
        shellcheck.args(entries.filter(|path| path.extension().is_some_and(|it| it == "sh")));
    }
    run(shellcheck.arg(source(".ci/run")));
}
