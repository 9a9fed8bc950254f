//! CodeBuild, which has an instance bake by Run Command ("Build specification reference", AWS-RunShellScript).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_yaml::Value;

use crate::ci_host::{BRANCH, CiHost, MESSAGE, RUN_URL, Ran, Step, TOKEN, Variables, variables};
use crate::store::needs_root;
use crate::yaml::{list, load, mapping, only, string, text};

const TOKEN_FILE: &str = "/etc/ebs-bake/git-token";

fn predefined(ci: &CiHost) -> Variables {
    let mut predefined = variables([
        ("CODEBUILD_BUILD_ID", "chef:01890c5f-0000-4000-8000-000000000042"),
        ("CODEBUILD_BUILD_URL", RUN_URL),
        ("CODEBUILD_SOURCE_REPO_URL", &ci.url()),
        ("CODEBUILD_RESOLVED_SOURCE_VERSION", &ci.commit),
        ("CODEBUILD_SOURCE_VERSION", MESSAGE),
        ("AWS_REGION", "us-east-1"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/01890c5f-0000-4000-8000-000000000042"),
        ("CODEBUILD_WEBHOOK_HEAD_REF", &format!("refs/heads/{BRANCH}")),
    ]);
    predefined.extend(mapping(&load("codebuild-buildspec.yml")["env"]["variables"]));
    predefined
}

/// A source directory with the script, whose token is in a file of this host; time passes at once.
fn checked_out(ci: &CiHost) {
    let token = ci.host.path("home/git-token");
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let script = text("codebuild-host.sh");
    assert!(script.contains(TOKEN_FILE));
    fs::write(ci.workspace("codebuild-host.sh"), script.replace(TOKEN_FILE, token.to_str().unwrap())).unwrap();
    let sleep = ci.host.path("bin/sleep");
    fs::write(&sleep, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&sleep, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs the commands of a phase up to one that fails. Of a command stays what it exported.
fn commands(ci: &CiHost, commands: &Value, known: &mut Variables) -> Vec<Ran> {
    let mut ran: Vec<Ran> = Vec::new();
    for command in list(commands) {
        let exported = ci.host.path("root/exported");
        let script = format!("{}\nended=$?; env -0 >{}; exit $ended", string(command), exported.display());
        let shell = vec!["sh".to_owned(), "-c".to_owned()];
        ran.push(ci.run(&Step { shell, script, variables: known.clone(), on_failure: false }));
        if ran.last().unwrap().code != 0 {
            break;
        }
        let exported = fs::read_to_string(exported).unwrap();
        *known = exported
            .split_terminator('\0')
            .map(|line| line.split_once('=').unwrap())
            .map(|(a, b)| (a.into(), b.into()))
            .collect();
    }
    ran
}

/// Runs a build; what it exports to later actions if it succeeded.
fn build(ci: &CiHost) -> Result<Variables, Vec<Ran>> {
    checked_out(ci);
    let buildspec = load("codebuild-buildspec.yml");
    only(&buildspec, &["version", "env", "phases"]);
    only(&buildspec["env"], &["variables", "exported-variables"]);
    let mut known = predefined(ci);
    for (phase, does) in only(&buildspec["phases"], &["build", "post_build"]) {
        only(does, &["on-failure", "commands", "finally"]);
        assert!(phase == "post_build" || does["on-failure"] == "ABORT", "a build that failed is not rolled out");
        let ran = commands(ci, &does["commands"], &mut known);
        let finally = commands(ci, &does["finally"], &mut known);
        let ran: Vec<Ran> = ran.into_iter().chain(finally).collect();
        if ran.iter().any(|ran| ran.code != 0) {
            return Err(ran);
        }
    }
    let exported = list(&buildspec["env"]["exported-variables"]).iter().map(string);
    Ok(exported.map(|name| (name.clone(), known[&name].clone())).collect())
}

#[test]
fn root_codebuild_has_an_instance_bake_and_rolls_out() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::on_ec2();
    let exported = build(&ci).unwrap();
    assert_eq!(exported, variables([("SNAPSHOT_ID", &ci.assert_rolled_out(&ci.url(), RUN_URL))]));
    let sent: Vec<_> = ci.calls("aws").into_iter().filter(|call| call[1] == "send-command").collect();
    assert_eq!(sent.len(), 1, "nothing is cleaned up after a build that succeeded: {sent:#?}");
}

#[test]
fn root_codebuild_shows_why_a_bake_failed_and_cleans_up() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    ci.containers_have(&[("EBS_BAKE_AFTER_CHECKOUT", "echo no berries >&2; false")]);
    let ran = build(&ci).unwrap_err();
    assert_ne!(ran[0].code, 0);
    assert!(ran[0].stderr.contains("no berries"), "{ran:#?}");
    assert_eq!(ran[1].code, 0, "{ran:#?}");
    ci.assert_cleaned_up();
    ci.assert_nothing_left(0);
}
