//! Buildkite. How its agent uploads pipelines, runs commands and cancels: buildkite/agent, `internal/job/executor.go` and
//! `internal/process`.

use std::fs;

use nix::sys::signal::Signal;

use crate::ci_host::{BRANCH, CiHost, MESSAGE, RUN_URL, Step, TOKEN, Variables, example, variables};
use crate::store::needs_root;
use crate::yaml::{list, load, mapping, only, string};

fn predefined(ci: &CiHost) -> Variables {
    variables([
        ("BUILDKITE", "true"),
        ("BUILDKITE_REPO", &format!("git@{}:chef-repo", ci.server.address.split(':').next().unwrap())),
        ("BUILDKITE_COMMIT", &ci.commit),
        ("BUILDKITE_BRANCH", BRANCH),
        ("BUILDKITE_TAG", ""),
        ("BUILDKITE_MESSAGE", MESSAGE),
        ("BUILDKITE_PULL_REQUEST", "false"),
        ("BUILDKITE_BUILD_URL", RUN_URL),
        ("BUILDKITE_JOB_ID", "01890c5f-0000-4000-8000-000000000042"),
    ])
}

/// What `buildkite-agent pipeline upload` makes of a text.
fn uploaded(text: &str, known: &Variables) -> String {
    let (mut done, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['$', '\\']) {
        done.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$").or_else(|| rest.strip_prefix("\\$")) {
            done.push('$');
            rest = after;
            continue;
        }
        let name = rest[1..].trim_start_matches('{');
        let name = &name[..name.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(name.len())];
        if rest.starts_with('\\') || name.is_empty() {
            done.push_str(&rest[..1]);
            rest = &rest[1..];
        } else {
            done.push_str(known.get(name).map_or("", String::as_str));
            rest = rest[1..].trim_start_matches('{')[name.len()..].trim_start_matches('}');
        }
    }
    done + rest
}

fn step(ci: &CiHost, label: &str) -> Step {
    let pipeline = load("buildkite.yml");
    let known = predefined(ci);
    let step = list(&pipeline["steps"]).iter().find(|step| step["label"] == label).unwrap();
    let understood = ["label", "key", "agents", "concurrency", "concurrency_group", "timeout_in_minutes", "secrets", "command"];
    only(step, &[&understood[..], &["depends_on", "if"]].concat());
    let mut variables = known.clone();
    variables.extend(mapping(&pipeline["env"]).into_iter().map(|(name, value)| (name, uploaded(&value, &known))));
    variables.insert("EBS_BAKE_REPOSITORY".into(), ci.url());
    variables.extend(list(&step["secrets"]).iter().map(|secret| (string(secret), TOKEN.to_owned())));
    variables.extend(step.get("key").map(|key| ("BUILDKITE_STEP_KEY".to_owned(), string(key))));
    let shell = ["/bin/bash", "-e", "-c"].map(str::to_owned).to_vec();
    Step { shell, script: uploaded(&string(&step["command"]), &known), variables, on_failure: false }
}

/// The hook, as it runs after a step: the agent's own script sources it and goes on.
fn pre_exit(step: &Step, exit_status: &str) -> Step {
    let mut variables = step.variables.clone();
    variables.insert("BUILDKITE_COMMAND_EXIT_STATUS".into(), exit_status.into());
    let script = format!(". '{}' && touch went-on", example("ci-examples/buildkite-pre-exit.sh").display());
    Step { shell: vec!["sh".into(), "-c".into()], script, variables, on_failure: false }
}

#[test]
fn root_buildkite_bakes_and_rolls_out() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::on_ec2();
    let (bake, rollout) = (step(&ci, "Bake"), step(&ci, "Roll out"));
    ci.succeeds(&[bake.clone(), pre_exit(&bake, "0"), rollout.clone(), pre_exit(&rollout, "1")]);
    assert_eq!(ci.calls("docker").len(), 2, "after a bake that succeeded, and after other jobs, the hook does nothing");
    let snapshot = ci.assert_rolled_out(&ci.url(), RUN_URL);
    assert_eq!(fs::read_to_string(ci.host.path("bin/meta-data.snapshot-id")).unwrap(), snapshot);
}

#[test]
fn root_buildkite_hands_nothing_on_after_a_failure() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    ci.containers_have(&[("EBS_BAKE_AFTER_CHECKOUT", "false")]);
    let bake = step(&ci, "Bake");
    assert_eq!(ci.run(&bake).code, 7);
    assert!(!ci.host.path("bin/meta-data.snapshot-id").exists());
    assert_eq!(ci.run(&pre_exit(&bake, "7")).code, 0);
    assert!(ci.workspace("went-on").exists());
    ci.assert_cleaned_up();
    ci.assert_nothing_left(0);
}

/// The agent signals the process group, and kills it after ten seconds.
#[test]
fn root_buildkite_when_cancelled_leaves_nothing() {
    if !needs_root() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let ci = CiHost::new();
        ci.bakes_hang();
        let bake = step(&ci, "Bake");
        assert_eq!(ci.cancelled(&bake, signal, true).code, -(signal as i32));
        assert_eq!(ci.run(&pre_exit(&bake, "-1")).code, 0);
        ci.assert_cleaned_up();
        ci.assert_nothing_left(0);
        assert!(!ci.host.path("bin/meta-data.snapshot-id").exists());
    }
}
