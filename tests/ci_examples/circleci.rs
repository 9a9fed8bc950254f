//! CircleCI: steps of a machine runner, the workspace between jobs, and `$BASH_ENV` between steps ("Configuration reference").

use std::fs;

use nix::sys::signal::Signal;
use serde_yaml::Value;

use crate::ci_host::{BRANCH, CiHost, MESSAGE, RUN_URL, Step, TOKEN, Variables, variables};
use crate::store::needs_root;
use crate::yaml::{list, load, mapping, only, replaced, string};

fn predefined(ci: &CiHost) -> Variables {
    variables([
        ("CIRCLECI", "true"),
        ("CIRCLE_REPOSITORY_URL", &format!("git@{}:chef-repo", ci.server.address.split(':').next().unwrap())),
        ("CIRCLE_SHA1", &ci.commit),
        ("CIRCLE_BRANCH", BRANCH),
        ("CIRCLE_BUILD_URL", RUN_URL),
        ("CIRCLE_WORKFLOW_JOB_ID", "01890c5f-0000-4000-8000-000000000042"),
        ("BASH_ENV", &ci.host.text("root/bash-env")),
        // Of the context.
        ("EBS_BAKE_GIT_TOKEN", TOKEN),
    ])
}

/// The steps of a job, on a machine where no job was before.
fn job(ci: &CiHost, name: &str) -> Vec<Step> {
    let config = load("circleci.yml");
    let job = &config["jobs"][name];
    let mut variables = predefined(ci);
    variables.extend(mapping(&job["environment"]));
    variables.extend(variables.contains_key("EBS_BAKE_REPOSITORY").then(|| ("EBS_BAKE_REPOSITORY".to_owned(), ci.url())));
    let shared = ci.host.text("shared-workspace");
    let plain = |program: &[&str], argument: String| Step {
        shell: program.iter().map(|word| (*word).to_owned()).collect(),
        script: argument,
        variables: variables.clone(),
        on_failure: false,
    };
    let step = |step: &Value| {
        let (kind, step) = step.as_mapping().unwrap().iter().next().unwrap();
        match kind.as_str().unwrap() {
            "run" => {
                only(step, &["name", "command", "when"]);
                let pipeline = |name: &str| match name {
                    "pipeline.git.branch" => Some(BRANCH.to_owned()),
                    name => name.starts_with("pipeline.").then(|| MESSAGE.to_owned()),
                };
                let command = replaced(&string(&step["command"]), "<<", ">>", pipeline);
                let on_failure = step.get("when").map(|when| assert_eq!(when, "on_fail")).is_some();
                Step { on_failure, ..plain(&["/bin/bash", "-eo", "pipefail", "-c"], command) }
            }
            "persist_to_workspace" => {
                assert_eq!(step["root"], ".");
                let [path] = list(&step["paths"]) else { panic!("one path is expected") };
                plain(&["cp", "-t", &shared], string(path))
            }
            "attach_workspace" => plain(&["cp", "-r", &format!("{shared}/.")], string(&step["at"])),
            other => panic!("step {other:?} is not understood here"),
        }
    };
    list(&job["steps"]).iter().map(step).collect()
}

fn new_machine(ci: &CiHost) {
    for directory in [ci.workspace(""), ci.host.path("shared-workspace")] {
        let _ = fs::create_dir(&directory);
    }
    let _ = fs::remove_file(ci.host.path("root/bash-env"));
    for entry in fs::read_dir(ci.workspace("")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

#[test]
fn root_circleci_bakes_and_rolls_out() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::on_ec2();
    new_machine(&ci);
    ci.succeeds(&job(&ci, "bake"));
    new_machine(&ci);
    ci.succeeds(&job(&ci, "rollout"));
    let id = ci.assert_rolled_out(&ci.url(), RUN_URL);
    assert_eq!(fs::read_to_string(ci.host.path("root/bash-env")).unwrap(), format!("export SNAPSHOT_ID={id}\n"));
}

#[test]
fn root_circleci_cleans_up_after_a_failure_and_hands_nothing_on() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    new_machine(&ci);
    ci.containers_have(&[("EBS_BAKE_AFTER_CHECKOUT", "false")]);
    let ran = ci.job(&job(&ci, "bake"));
    assert_eq!(ran.iter().map(|ran| ran.code).collect::<Vec<_>>(), [7, 0], "{ran:#?}");
    assert_eq!(fs::read_dir(ci.host.path("shared-workspace")).unwrap().count(), 0);
    ci.assert_cleaned_up();
    ci.assert_nothing_left(0);
}

#[test]
fn root_circleci_when_signalled_leaves_nothing() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    new_machine(&ci);
    ci.bakes_hang();
    let ran = ci.cancelled(&job(&ci, "bake")[0], Signal::SIGTERM, false);
    assert_eq!(ran.code, 143, "{ran:?}");
    ci.assert_nothing_left(0);
}
