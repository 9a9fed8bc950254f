//! `docker-run.sh`, and the job around it that docs/ci.md shows for systems that have no example.

use std::fs;

use nix::sys::signal::Signal;

use crate::checks::code_blocks;
use crate::ci_host::{BRANCH, CiHost, RUN_URL, Step, TOKEN, Variables, example, variables};
use crate::store::needs_root;
use crate::yaml::text;

/// The script with arguments.
fn script(arguments: &str, variables: Variables) -> Step {
    let shell = ["sh", "-e", "-c"].map(str::to_owned).to_vec();
    let script = format!("exec '{}' {arguments}", example("ci-examples/docker-run.sh").display());
    Step { shell, script, variables, on_failure: false }
}

/// The job of docs/ci.md, for this host's repository and token.
fn documented(ci: &CiHost) -> Step {
    let page = fs::read_to_string(example("docs/ci.md")).unwrap();
    let [job] = code_blocks(&page, "sh").try_into().unwrap();
    ci.scratch.git("chef-repo", &["reset", "-q", "--hard", &ci.commit]);
    let token = ci.host.path("home/git-token");
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let copy = ci.workspace("docker-run.sh");
    fs::copy(example("ci-examples/docker-run.sh"), copy).unwrap();
    let changes =
        [("https://git.example.com/infra/chef-repo", ci.url()), ("/etc/ebs-bake/git-token", token.display().to_string())];
    let changed = changes.iter().fold(job, |job, (from, to)| {
        assert!(job.contains(from), "{from} is not in the job");
        job.replace(from, to)
    });
    let quoted = format!("'refs/heads/{}'", BRANCH.replace('\'', "'\\''"));
    let script = changed.replace("EBS_BAKE_REF=main", &format!("EBS_BAKE_REF={quoted}"));
    Step { shell: ["sh", "-e", "-c"].map(str::to_owned).to_vec(), script, variables: Variables::new(), on_failure: false }
}

#[test]
fn root_the_documented_job_bakes_and_rolls_out() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::on_ec2();
    ci.succeeds(&[documented(&ci)]);
    ci.assert_rolled_out(&ci.url(), "");
}

#[test]
fn root_the_documented_job_cleans_up_when_it_fails_and_when_it_is_cancelled() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    let job = documented(&ci);
    ci.containers_have(&[("EBS_BAKE_AFTER_CHECKOUT", "false")]);
    assert_eq!(ci.run(&job).code, 7);
    ci.assert_cleaned_up();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let ci = CiHost::new();
        let job = documented(&ci);
        ci.bakes_hang();
        assert_eq!(ci.cancelled(&job, signal, false).code, 143);
        ci.assert_cleaned_up();
        ci.assert_nothing_left(0);
    }
}

/// In a job of a system that ebs-bake knows nothing has to be said.
#[test]
fn root_docker_run_hands_on_what_the_ci_system_says_and_files_that_are_named() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    let (token, web_identity) = (ci.host.path("home/git-token"), ci.host.path("home/web-identity"));
    fs::write(&token, TOKEN).unwrap();
    fs::write(&web_identity, "").unwrap();
    let known = variables([
        ("DRONE", "true"),
        ("DRONE_GIT_HTTP_URL", &ci.url()),
        ("DRONE_COMMIT_SHA", &ci.commit),
        ("DRONE_COMMIT_REF", &format!("refs/heads/{BRANCH}")),
        ("DRONE_BUILD_LINK", RUN_URL),
        ("EBS_BAKE_GIT_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", web_identity.to_str().unwrap()),
        ("SECRET_OF_SOMETHING_ELSE", "x"),
    ]);
    let printed = ci.succeeds(&[script("bake --snapshot-tag 'team=a b'", known)]);
    let [snapshot] = ci.host.snapshots().try_into().unwrap();
    assert_eq!(printed, format!("{}\n", snapshot["snapshot-id"].as_str().unwrap()));
    assert_eq!((&snapshot["ref"], &snapshot["run-url"]), (&format!("refs/heads/{BRANCH}").into(), &RUN_URL.into()));
    let [call] = ci.calls("docker").try_into().unwrap();
    assert!(call.contains(&format!("--volume={0}:{0}:ro", web_identity.display())), "{call:?}");
    assert!(!call.iter().any(|word| word.contains("SECRET") || word.contains("PATH=")), "{call:?}");
    assert_eq!(call[call.len() - 4..], ["ebs-bake", "bake", "--snapshot-tag", "team=a b"]);
    ci.assert_nothing_left(1);
}

#[test]
fn root_docker_run_becomes_the_client() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    ci.bakes_hang();
    let bake = script("bake", variables([("EBS_BAKE_REPOSITORY", &ci.url()), ("EBS_BAKE_GIT_TOKEN", TOKEN), ("CONTAINER", "x")]));
    assert_eq!(ci.cancelled(&bake, Signal::SIGTERM, false).code, 143);
    let [call] = ci.calls("docker").try_into().unwrap();
    assert!(call.windows(2).any(|words| words == ["--name", "x"]), "{call:?}");
    ci.assert_nothing_left(0);
    assert!(text("docker-run.sh").starts_with("#!/bin/sh\n"));
}
