//! What the program says about itself and about mistakes, word for word.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says what it skips")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs the program in an empty directory with nothing in its environment.
fn ebs_bake(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebs-bake"));
    command.args(arguments).env_clear().envs(variables.iter().copied()).current_dir(&directory).stdin(Stdio::null());
    command.output().unwrap()
}

/// What it printed: stdout, a mark, stderr, the exit code.
fn shown(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let Output { status, stdout, stderr } = ebs_bake(arguments, variables);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    format!("{}---- stderr ----\n{}---- exit {} ----\n", text(stdout), text(stderr), status.code().unwrap())
}

fn printed(arguments: &[&str]) -> String {
    let output = ebs_bake(arguments, &[]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help() {
    insta::assert_snapshot!("help", printed(&["--help"]));
    for command in ["bake", "doctor", "list", "prune", "restore", "cleanup", "rollout", "user-data", "completions", "man"] {
        insta::assert_snapshot!(format!("help-{command}"), printed(&[command, "--help"]));
        assert_eq!(printed(&[command, "--help"]), printed(&[command, "-h"]), "one help, not two");
    }
}

#[test]
fn version() {
    assert_eq!(printed(&["--version"]), format!("ebs-bake {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn mistakes_on_the_command_line() {
    let lines: &[&[&str]] = &[
        &[],
        &["bak"],
        &["bake"],
        &["bake", "extra"],
        &["bake", "--volume-sise", "8"],
        &["bake", "--volume-size"],
        &["bake", "--volume-size", "big"],
        &["bake", "--after", "kep"],
        &["bake", "--git-token", "x"],
        &["bake", "--volume-name", "../etc"],
        &["bake", "--ref", "a", "--ref", "b"],
        &["restore"],
        &["rollout"],
        &["rollout", "--latest", "--launch-template", "chef", "--refresh"],
        &["user-data"],
        &["user-data", "--role", "web server"],
        &["completions"],
        &["completions", "tcsh"],
    ];
    let text: String = lines.iter().map(|line| format!("$ ebs-bake {}\n{}\n", line.join(" "), shown(line, &[]))).collect();
    insta::assert_snapshot!("mistakes", text);
}

#[test]
fn mistakes_on_github_and_as_json() {
    let github = shown(&["bake", "--after", "50%"], &[("GITHUB_ACTIONS", "true")]);
    insta::assert_snapshot!("mistake-github", github);
    let output = ebs_bake(&["restore", "--log-format", "json"], &[]);
    let object: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&object["event"], &object["exit-code"]), (&"error".into(), &2.into()));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_filter_of_traces_that_cannot_be_read_is_a_mistake() {
    let text = shown(&["list", "--store", "local", "--local-dir", "."], &[("EBS_BAKE_TRACE", "ebs_bake=loud")]);
    assert!(text.contains("error: EBS_BAKE_TRACE is no filter") && text.contains("hint: a level"), "{text}");
    assert!(text.starts_with("---- stderr") && text.ends_with("---- exit 2 ----\n"), "{text}");
}

/// Feeds a script to another program's syntax check, where that program is installed.
fn check(program: &str, arguments: &[&str], script: &str) {
    let mut command = Command::new(program);
    let child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        eprintln!("{program} is not installed: its check is skipped");
        return;
    };
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn completions_are_valid_scripts() {
    check("bash", &["-n"], &printed(&["completions", "bash"]));
    check("zsh", &["-n"], &printed(&["completions", "zsh"]));
    check("fish", &["--no-execute"], &printed(&["completions", "fish"]));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(printed(&["completions", shell]).contains("volume-name"), "{shell}");
    }
}

#[test]
fn the_manual_has_every_command_and_no_faults() {
    let page = printed(&["man"]);
    check("groff", &["-man", "-ww", "-Tutf8", "-z"], &page);
    check("mandoc", &["-Tlint", "-Werror"], &page);
    assert!(page.starts_with(".ie") || page.starts_with(".TH"), "{}", &page[..80]);
    for part in ["EBS\\-BAKE BAKE", "EBS\\-BAKE RESTORE", "volume\\-name", "EBS_BAKE_VOLUME_NAME"] {
        assert!(page.contains(part) || page.contains(&part.replace("\\-", "-")), "{part}");
    }
}
