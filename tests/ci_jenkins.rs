//! The Jenkinsfile: read by a linter, and run by Groovy with steps that do what Jenkins' do (`ci_jenkins/declarative.groovy`).
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/bridge.rs"]
mod bridge;
#[path = "support/ci_host.rs"]
mod ci_host;
#[path = "support/ec2.rs"]
mod ec2;
#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/git_cli.rs"]
mod git_cli;
#[path = "support/git_server.rs"]
mod git_server;
#[path = "support/store.rs"]
mod store;
#[path = "support/tools.rs"]
mod tools;

use std::fs;
use std::process::Command;

use ci_host::{BRANCH, CiHost, MESSAGE, RUN_URL, Ran, TOKEN, Variables, example, variables};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use store::needs_root;
use tools::node_tool;

/// What the agent and the git plugin say in a classic job; `CREDENTIALS`, `ABORT` and `RESULT` are for the stand-in.
fn predefined(ci: &CiHost) -> Variables {
    let credentials = ci.host.path("credentials.json");
    fs::write(&credentials, json!({ "git-token": TOKEN }).to_string()).unwrap();
    variables([
        ("JENKINS_URL", "https://ci.example.com/"),
        ("BUILD_URL", RUN_URL),
        ("BUILD_NUMBER", "42"),
        ("EXECUTOR_NUMBER", "1"),
        ("GIT_URL", &ci.url()),
        ("GIT_COMMIT", &ci.commit),
        ("GIT_BRANCH", &format!("origin/{BRANCH}")),
        ("GIT_COMMIT_MESSAGE", MESSAGE),
        ("WORKSPACE", &ci.host.text("workspace")),
        ("CREDENTIALS", credentials.to_str().unwrap()),
        ("ABORT", &ci.host.text("abort")),
        ("RESULT", &ci.host.text("result.json")),
    ])
}

/// Runs the Jenkinsfile; `meanwhile` once it was started.
fn build(ci: &CiHost, meanwhile: impl FnOnce()) -> (Ran, Value) {
    let words = [example("tests/ci_jenkins/declarative.groovy"), example("ci-examples/Jenkinsfile")]
        .map(|path| path.display().to_string());
    let words: Vec<String> = ["groovy".to_owned()].into_iter().chain(words).collect();
    let groovy = ci.command(&words, &predefined(ci)).spawn().unwrap();
    meanwhile();
    let ran = Ran::of(groovy.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    let result = serde_json::from_str(&fs::read_to_string(ci.host.path("result.json")).unwrap()).unwrap();
    (ran, result)
}

#[test]
fn the_jenkinsfile_passes_its_linter() {
    let mut linter = node_tool("npm-groovy-lint");
    linter.args(["--noserver", "--failon", "error", "--no-insight"]).arg(example("ci-examples/Jenkinsfile"));
    let output = linter.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

/// Otherwise a mistake in the Jenkinsfile would not be seen.
#[test]
fn mistakes_are_seen_before_anything_is_run() {
    let directory = tempfile::tempdir().unwrap();
    let right = fs::read_to_string(example("ci-examples/Jenkinsfile")).unwrap();
    let mistakes = [
        ("", "", "right"),
        ("stages {", "stagess {", "wrong: Pipeline has no section or step 'stagess'"),
        ("unsuccessful {", "unsuccesful {", "wrong: post has no condition 'unsuccesful'"),
        ("githubPush()", "gitHubPush()", "wrong: Triggers has no section or step 'gitHubPush'"),
        ("            steps {", "            step {", "wrong: Stage has no section or step 'step'"),
        ("agent { label 'ec2' }", "", "wrong: Pipeline has no agent"),
        ("lock(resource:", "lock(resources:", "wrong: lock: [resources:ebs-bake-chef]"),
        ("returnStdout:", "returnStdOut:", "wrong: sh: [returnStdOut, script]"),
        ("withCredentials(", "withCredential(", "wrong: Steps has no section or step 'withCredential'"),
        ("script: '''", "script: \"${env.GIT_BRANCH}\" + '''", "wrong: sh: the script has the text of a variable in it"),
    ];
    let files = mistakes.iter().enumerate().map(|(number, (from, to, _))| {
        assert!(right.contains(from), "{from}");
        let file = directory.path().join(format!("Jenkinsfile.{number}"));
        fs::write(&file, right.replacen(from, to, 1)).unwrap();
        file
    });
    let mut groovy = Command::new("groovy");
    groovy.arg(example("tests/ci_jenkins/declarative.groovy")).arg("--validate").args(files.collect::<Vec<_>>());
    let output = groovy.output().unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    let expected: Vec<_> = mistakes.iter().map(|(_, _, said)| *said).collect();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn root_jenkins_bakes_and_rolls_out() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::on_ec2();
    let (ran, result) = build(&ci, || ());
    let snapshot = ci.assert_rolled_out(&ci.url(), RUN_URL);
    assert_eq!(result["stages"], json!({ "Bake": "SUCCESS", "Roll out": "SUCCESS" }));
    assert_eq!(result["env"], json!({ "SNAPSHOT_ID": snapshot }));
    assert_eq!(result["locked"], json!(["ebs-bake-chef"]));
    assert_eq!(ci.calls("docker").len(), 2, "nothing is cleaned up after a success");
    assert!(
        !ran.stderr.contains(TOKEN) && ran.stderr.contains("+ exec docker run"),
        "the shell's trace has no secret: {}",
        ran.stderr
    );
}

#[test]
fn root_jenkins_cleans_up_after_a_failure_and_rolls_nothing_out() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    ci.containers_have(&[("EBS_BAKE_AFTER_CHECKOUT", "false")]);
    let (ran, result) = build(&ci, || ());
    assert_eq!((&result["result"], &result["stages"]), (&json!("FAILURE"), &json!({ "Bake": "FAILURE" })));
    assert!(ran.stderr.contains("script returned exit code 7"), "{}", ran.stderr);
    ci.assert_cleaned_up();
    ci.assert_nothing_left(0);
}

/// The client gets SIGTERM, because it has become the step's process.
#[test]
fn root_jenkins_when_aborted_stops_the_container() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    ci.bakes_hang();
    let (ran, result) = build(&ci, || {
        ci.waits_for(|| ci.host.path("hanging").exists());
        fs::write(ci.host.path("abort"), "").unwrap();
    });
    assert_eq!((&result["result"], &result["stages"]), (&json!("ABORTED"), &json!({ "Bake": "ABORTED" })));
    assert!(ran.stderr.contains("No such container"), "it had ended before it was to be stopped: {}", ran.stderr);
    assert!(!ran.stderr.contains("did not stop"), "{}", ran.stderr);
    ci.assert_cleaned_up();
    ci.assert_nothing_left(0);
}

/// As when the agent's host is short of memory: the container goes on, and `post` stops it.
#[test]
fn root_jenkins_when_the_client_is_killed_stops_the_container() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    ci.bakes_hang();
    let (ran, result) = build(&ci, || {
        ci.waits_for(|| ci.host.path("hanging").exists());
        let client = fs::read_to_string(ci.host.path("bin/ebs-bake-1-42.client")).unwrap();
        kill(Pid::from_raw(client.parse().unwrap()), Signal::SIGKILL).unwrap();
    });
    assert_eq!(result["result"], "FAILURE");
    assert!(ran.stderr.contains("script returned exit code 137") && !ran.stderr.contains("No such container"), "{}", ran.stderr);
    ci.assert_cleaned_up();
    ci.assert_nothing_left(0);
}
