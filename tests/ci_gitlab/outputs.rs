//! What GitLab and a shell make of the env file of a bake, whatever the ref is called.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::bake::{Host, names_in};
use crate::dotenv::{decoded, strict};
use crate::git_cli::Scratch;
use crate::store::needs_root;

/// Names that git allows and that somebody who opens a merge request may choose.
fn nasty() -> Vec<String> {
    let mut names: Vec<String> = [
        "$(touch${IFS}canary)",
        "`touch${IFS}canary`",
        "a\"b'c;touch${IFS}canary;#",
        "a&touch${IFS}canary|b>canary",
        "$CI_JOB_TOKEN$$%PATH%%41",
        "KEY=value,x=y",
        "-n",
        "a!b!!c",
        "käse/✓/日本語/\u{202e}x\u{2028}y",
    ]
    .map(str::to_owned)
    .into();
    names.push(format!("long/{}", "ä$".repeat(75)));
    names
}

/// The variables that `.` of a shell sets, and that it did nothing else.
fn sourced(file: &std::path::Path) -> BTreeMap<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let script = "set -eu; set -a; . \"$1\"; env -0";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(file).current_dir(&directory).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    let output = shell.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(names_in(directory.path()), [""; 0], "something was run");
    let text = String::from_utf8(output.stdout).unwrap();
    let pairs = text.split_terminator('\0').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).filter(|(name, _)| name != "PATH" && name != "PWD").collect()
}

#[test]
fn root_any_ref_arrives_whole_and_runs_nothing() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = (Host::new(), Scratch::new());
    scratch.repository("a b's $(touch canary)");
    let file = host.path("bake.env");
    for name in nasty() {
        scratch.git("a b's $(touch canary)", &["update-ref", &format!("refs/heads/{name}"), "HEAD"]);
        let reference = format!("refs/heads/{name}");
        let baked = host
            .bake(scratch.path("a b's $(touch canary)"))
            .env("EBS_BAKE_REF", &reference)
            .env("EBS_BAKE_OUTPUT_ENV", &file)
            .baked();
        let variables = strict(&fs::read(&file).unwrap());
        assert_eq!(variables["SNAPSHOT_ID"], baked.id);
        assert_eq!(decoded(&variables["REF"]), reference);
        assert_eq!(decoded(&variables["REPOSITORY"]), baked.result["repository"].as_str().unwrap());
        assert_eq!(sourced(&file), variables, "a shell and GitLab agree");
    }
    assert!(!names_in(&host.path("home")).iter().any(|name| name == "canary"));
    host.assert_nothing_left(1);
}
