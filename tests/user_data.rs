//! What `user-data` prints, byte for byte, and what it refuses.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

#[path = "support/tools.rs"]
mod tools;

fn user_data(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebs-bake"));
    command.arg("user-data").args(arguments).env_clear().current_dir("/").output().unwrap()
}

fn printed(arguments: &[&str]) -> Vec<u8> {
    let output = user_data(arguments);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn text(arguments: &[&str]) -> String {
    String::from_utf8(printed(arguments)).unwrap()
}

/// Exit code 2 and a message with these words.
#[track_caller]
fn refused(arguments: &[&str], words: &[&str]) {
    let output = user_data(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
}

/// A command in which everything is that shells and encodings treat specially.
const AWKWARD: &str =
    "printf '%s\\n' \"it's $ROLE = `id`\" | tee -a /x;  \n\tif [ a = b ]; then echo gr\u{fc}n \u{1f373}\\; fi # 100% \\\n";

#[test]
fn the_script_has_the_settings_and_nothing_else_of_them() {
    let script = text(&[
        "--role",
        "web",
        "--environment",
        "prod",
        "--chef-path",
        "infra/",
        "--retry-pause",
        "1500ms",
        "--device",
        "/dev/sdf",
    ]);
    let (head, rest) = script.split_once("# settings: begin\n").unwrap();
    let settings = rest.split_once("# settings: end\n").unwrap().0;
    assert!(head.starts_with("#!/bin/sh\n"), "cloud-init goes by the first line");
    let expected = "\
role='web'
environment='prod'
volume_name='chef'
device='/dev/sdf'
mount_point='/chef'
device_timeout='120'
chef_path='infra'
cookbook_paths='vendor/cookbooks berks-cookbooks cookbooks site-cookbooks'
chef=''
chef_license=''
attempts='3'
retry_pause='2'
expect_commit=''
expect_repository=''
on_success=''
on_failure=''
";
    assert_eq!(settings, expected);
    // The file that the script is made from has the same settings, so that what is checked there holds.
    let names = |text: &str| -> Vec<String> { text.lines().map(|line| line.split('=').next().unwrap().to_owned()).collect() };
    let template = std::fs::read_to_string(root().join("src/fleet/user_data/boot.sh")).unwrap();
    let of_template = template.split_once("# settings: begin\n").unwrap().1.split_once("# settings: end\n").unwrap().0;
    assert_eq!(names(settings), names(of_template));
}

#[test]
fn every_format_gives_the_same_script() {
    let arguments = ["--role", "web", "--on-success", AWKWARD];
    let with = |format: &str| printed(&[&arguments[..], &["--format", format]].concat());
    let script = with("script");
    assert_eq!(printed(&arguments), script);

    let base64 = with("base64");
    let line = base64.strip_suffix(b"\n").unwrap();
    assert_eq!(STANDARD.decode(line).unwrap(), script);

    let gzip = with("gzip");
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, script);
    assert_eq!((&gzip[..4], &gzip[4..8]), (&[0x1f, 0x8b, 8, 0][..], &[0; 4][..]), "no name and no time");

    for arguments in [&arguments[..], &["--role", "web"]] {
        let mime = printed(&[arguments, &["--format", "mime"]].concat());
        assert!(mime.is_ascii() && mime.split(|byte| *byte == b'\n').all(|line| line.len() < 998));
        let parts = "import sys, email; message = email.message_from_string(sys.stdin.buffer.read().decode())
[part] = [part for part in message.walk() if part.get_content_maintype() != 'multipart']
assert part.get_content_type() == 'text/x-shellscript' and part.get_filename() == 'ebs-bake.sh' and not message.defects
sys.stdout.buffer.write(part.get_payload(decode=True))";
        assert_eq!(String::from_utf8(through("python3", &["-c", parts], &mime)).unwrap(), text(arguments));
    }
    for format in ["script", "mime", "base64", "gzip"] {
        assert_eq!(with(format), with(format), "{format}: equal settings give equal bytes");
    }
}

/// What a program makes of its input.
fn through(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn what_ec2_does_not_take_is_refused() {
    let long = "echo a lot; ".repeat(1000);
    for format in ["script", "mime", "base64"] {
        refused(&["--role", "web", "--on-failure", &long, "--format", format], &["bytes, and EC2 takes 16384", "--format gzip"]);
    }
    assert!(printed(&["--role", "web", "--on-failure", &long, "--format", "gzip"]).len() < 16384);
    // Base64 makes it larger than that, but is not what counts.
    let room = 16384 - printed(&["--role", "web"]).len();
    let fits = "x".repeat(room);
    assert_eq!(text(&["--role", "web", "--on-failure", &fits, "--format", "base64"]).len(), 16384_usize.div_ceil(3) * 4 + 1);
    refused(&["--role", "web", "--on-failure", &(fits + "x")], &["the user data has 16385 bytes"]);
    let noise: String = (0..700_u32).map(|number| STANDARD.encode(Sha256::digest(number.to_le_bytes()))).collect();
    refused(&["--role", "web", "--on-failure", &noise, "--format", "gzip"], &["shorten --on-success and --on-failure"]);
}

#[test]
fn names_that_are_none_are_refused() {
    refused(&[], &["--role is not given"]);
    for role in ["a b", "$(id)", "web]", "../web", "a'b", "", "a\nb"] {
        refused(&["--role", role], &["--role"]);
        refused(&["--role", "web", "--environment", role], &["--environment"]);
    }
    refused(&["--role", "web", "--mount-point", "/che f"], &["--mount-point", "is not an absolute path"]);
    refused(&["--role", "web", "--cookbook-path", "../x"], &["--cookbook-path"]);
    refused(&["--role", "web", "--device-timeout", "0s"], &["--device-timeout"]);
    refused(&["--role", "web", "--attempts", "0"], &["--attempts"]);
    refused(&["--role", "web", "--expect-repository", "https://"], &[]);
}

#[test]
fn an_image_has_one_line() {
    let line = "LABEL=chef /chef auto ro,noatime,nosuid,nodev,nofail,x-systemd.device-timeout=30s 0 0\n";
    assert_eq!(text(&["--fstab"]), line);
    let other = text(&["--fstab", "--volume-name", "infra", "--mount-point", "/srv/infra", "--device-timeout", "2m"]);
    let (infra, two_minutes) = ("LABEL=infra /srv/infra", "x-systemd.device-timeout=120s");
    assert_eq!(other, line.replace("LABEL=chef /chef", infra).replace("x-systemd.device-timeout=30s", two_minutes));
}

#[test]
fn the_manifest_is_compared_as_it_is_written() {
    let script = text(&["--role", "web", "--expect-repository", "https://user:secret@Example.com/team/repo.git"]);
    assert!(script.contains("expect_repository='https://example.com/team/repo'\n"), "{script}");
    assert!(!script.contains("secret"));
}

#[test]
fn shellcheck_has_nothing_to_say() {
    let printed = tempfile::NamedTempFile::new().unwrap();
    let arguments = ["--role", "web", "--on-success", AWKWARD, "--chef-license", "accept"];
    std::fs::write(printed.path(), text(&arguments)).unwrap();
    let scripts = ["src/fleet/user_data/boot.sh", "tests/boot/root.sh", "tests/boot/start.sh", "tests/boot/chef-solo"];
    let mut command = Command::new(tools::python_tool("shellcheck"));
    let scripts = scripts.iter().map(|script| root().join(script)).chain([printed.path().to_owned()]);
    let output = command.args(["--shell", "sh"]).args(scripts).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
