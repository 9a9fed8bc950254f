//! Woodpecker with its Docker backend: `pipeline/backend/docker` and `pipeline/frontend/yaml` of woodpecker-ci/woodpecker.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;
use serde_yaml::Value;

use crate::ci_host::{BRANCH, CiHost, MESSAGE, RUN_URL, Step, TOKEN, Variables, variables};
use crate::store::needs_root;
use crate::yaml::{list, load, only, replaced, string};

fn predefined(ci: &CiHost) -> Variables {
    variables([
        ("CI", "woodpecker"),
        ("CI_REPO_CLONE_URL", &ci.url()),
        ("CI_COMMIT_SHA", &ci.commit),
        ("CI_COMMIT_REF", &format!("refs/heads/{BRANCH}")),
        ("CI_COMMIT_BRANCH", BRANCH),
        ("CI_COMMIT_MESSAGE", MESSAGE),
        ("CI_PIPELINE_URL", RUN_URL),
    ])
}

fn step(ci: &CiHost, name: &str) -> Step {
    let workflow = load("woodpecker.yml");
    let known = predefined(ci);
    let step = list(&workflow["steps"]).iter().find(|step| step["name"] == name).unwrap();
    only(step, &["name", "image", "pull", "privileged", "entrypoint", "environment", "commands", "when"]);
    let mut variables = known.clone();
    for (name, value) in step["environment"].as_mapping().into_iter().flatten() {
        let value = if value["from_secret"] == "git_token" { TOKEN.to_owned() } else { string(value) };
        variables.insert(string(name), value);
    }
    let substituted = |text: &Value| replaced(&string(text), "${", "}", |name| known.get(name).cloned());
    let (shell, script) = match list(&step["entrypoint"]) {
        // The first word is the program in the image, which has the privileges that it needs.
        [program, words @ .., last] => {
            assert_eq!((program.as_str(), &step["image"], &step["privileged"]), (Some("ebs-bake"), program, &Value::from(true)));
            variables.extend(ci.container_variables());
            let words = words.iter().map(string);
            ([env!("CARGO_BIN_EXE_ebs-bake").to_owned()].into_iter().chain(words).collect(), string(last))
        }
        // The shell of the image, where the program is found by its name.
        _ => {
            assert_eq!((&step["image"], step.get("privileged")), (&Value::from("ebs-bake"), None));
            variables.extend(ci.container_variables().into_iter().filter(|(name, _)| name != "PATH"));
            let _ = symlink(env!("CARGO_BIN_EXE_ebs-bake"), ci.host.path("bin/ebs-bake"));
            let commands = list(&step["commands"]).iter().map(|command| format!("echo +\n{}\n", substituted(command)));
            (["sh", "-e", "-c"].map(str::to_owned).to_vec(), commands.collect())
        }
    };
    let status = |filter: &Value| assert_eq!(filter["status"], Value::from(vec!["failure"]));
    let on_failure = step.get("when").map(|when| list(when).iter().for_each(status)).is_some();
    Step { shell, script, variables, on_failure }
}

fn job(ci: &CiHost) -> Vec<Step> {
    ["bake", "clean up", "roll out"].map(|name| step(ci, name)).to_vec()
}

#[test]
fn root_woodpecker_bakes_and_rolls_out() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::on_ec2();
    ci.succeeds(&job(&ci));
    ci.assert_rolled_out(&ci.url(), RUN_URL);
    let names = fs::read_dir(ci.workspace("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["snapshot.env"]);
}

#[test]
fn root_woodpecker_cleans_up_after_a_failure_and_rolls_nothing_out() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    ci.containers_have(&[("EBS_BAKE_AFTER_CHECKOUT", "false")]);
    let ran = ci.job(&job(&ci));
    assert_eq!(ran.iter().map(|ran| ran.code).collect::<Vec<_>>(), [7, 0], "{ran:#?}");
    ci.assert_nothing_left(0);
}

/// `docker stop`: process 1 of the container, which is the program, gets SIGTERM.
#[test]
fn root_woodpecker_when_cancelled_leaves_nothing() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    ci.bakes_hang();
    let ran = ci.cancelled(&job(&ci)[0], Signal::SIGTERM, false);
    assert_eq!(ran.code, 143, "{ran:?}");
    ci.assert_nothing_left(0);
    assert_eq!(fs::read_dir(ci.workspace("")).unwrap().count(), 0);
}
