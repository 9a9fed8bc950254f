//! The checks as a part of a bake, on real volumes.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/git_cli.rs"]
mod git_cli;
mod support;

use bake::{Done, Host};
use git_cli::Scratch;
use support::needs_root;

/// A repository with a chef-repo whose role `web` asks for a recipe that is not there.
fn start() -> (Host, Scratch) {
    let (host, scratch) = (Host::new(), Scratch::new());
    scratch.repository("up");
    let metadata = ("cookbooks/nginx/metadata.rb", "name 'nginx'\nversion '1.0.0'\n");
    scratch.commit(
        "up",
        &[metadata, ("cookbooks/nginx/recipes/default.rb", ""), ("roles/web.rb", "run_list 'role[base]',\n  'nginx::source'\n")],
    );
    scratch.commit("up", &[("roles/base.json", "{\"run_list\": [\"nginx\"]}\n")]);
    (host, scratch)
}

/// The findings in the log: severity, place and message.
fn findings(done: &Done) -> Vec<String> {
    let text = |event: &serde_json::Value| {
        format!(
            "{} {}:{}: {}",
            event["severity"].as_str().unwrap(),
            event["file"].as_str().unwrap(),
            event["line"],
            event["message"].as_str().unwrap()
        )
    };
    done.events("finding").iter().map(text).collect()
}

const BROKEN: &str = "roles/web.rb:2: cookbook \"nginx\" has no recipe \"source\"";

#[test]
fn root_what_chef_would_stumble_over_is_not_baked() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    let failed = host.bake(&up).args(["--checks", "chef"]).failed(11);
    failed.says("the checks found 1 error in the repository", "--on-findings warn");
    assert_eq!(findings(&failed.done), [format!("error {BROKEN}")]);
    assert_eq!(failed.done.events("failed").pop().unwrap()["phase"], "check");
    assert!(host.snapshots().is_empty());
    host.assert_nothing_left(0);

    // On a volume that was there before: it stays, and the next commit is baked on it.
    let commit = scratch.commit("up", &[("cookbooks/nginx/recipes/source.rb", "")]);
    let good = host.bake(&up).env("EBS_BAKE_CHECKS", "chef").baked();
    assert_eq!(good.done.detail("check"), "1 cookbook, 2 roles: 0 errors, 0 warnings");
    host.assert_holds(&good.id, &up, &commit);
    scratch.commit("up", &[("roles/web.rb", "run_list 'role[bas]'")]);
    host.bake(&up).args(["--checks", "chef"]).failed(11);
    host.assert_nothing_left(1);
    assert_eq!(host.snapshots().len(), 1);
    let commit = scratch.commit("up", &[("roles/web.rb", "run_list 'role[base]'")]);
    let again = host.bake(&up).args(["--checks", "chef"]).baked();
    assert_eq!(again.done.detail("checkout"), "1 written, 0 removed");
    host.assert_holds(&again.id, &up, &commit);
    host.assert_nothing_left(1);
}

#[test]
fn root_findings_may_be_warnings_and_a_snapshot_remembers_what_it_passed() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    let warned = host.bake(&up).args(["--checks", "chef", "--on-findings", "warn", "--require-role", "base"]).baked();
    assert_eq!(findings(&warned.done), [format!("warning {BROKEN}")]);
    assert_eq!(warned.done.detail("check"), "1 cookbook, 2 roles: 1 error, 0 warnings");
    host.assert_nothing_left(1);

    // The checks are no part of the content: the snapshot is the answer whatever is checked, and what it did not pass is said.
    let unchecked = |arguments: &[&str]| {
        let again = host.bake(&up).args(arguments).baked();
        assert!(again.reused() && again.id == warned.id, "{again:?}");
        again.done.warnings()
    };
    assert_eq!(unchecked(&[]), "");
    assert_eq!(unchecked(&["--require-role", "base"]), "");
    let expected = |what: &str| {
        format!("snapshot {} was there already and is used unchecked: it did not pass {what} when it was made", warned.id)
    };
    assert_eq!(unchecked(&["--checks", "chef", "--require-role", "base"]), expected("chef"));
    assert_eq!(unchecked(&["--checks", "chef", "--require-role", "web"]), expected("chef, role:web"));
}

#[test]
fn root_a_required_role_must_be_there_with_or_without_the_checks() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    let failed = host.bake(&up).args(["--require-role", "web", "--require-role", "bases"]).failed(11);
    failed.says("--require-role: there is no role \"bases\" (did you mean \"base\"?)", "the roles are: base, web");
    // With the checks' own findings as warnings a role that is required is required all the same.
    let failed = host.bake(&up).args(["--require-role", "db", "--checks", "chef", "--on-findings", "warn"]).failed(11);
    failed.says("there is no role \"db\"", "base, web");
    assert_eq!(findings(&failed.done).len(), 1);
    host.bake(&up).args(["--require-role", "web", "--chef-path", "cookbooks"]).failed(11).says("no role \"web\"", "--chef-path");
    assert!(host.snapshots().is_empty());
    host.assert_nothing_left(0);

    // What a command makes is checked too: it is in the snapshot.
    let script = "mkdir -p built/roles && echo '{}' > built/roles/db.json";
    let run = host.bake(&up).args(["--after-checkout", script, "--require-role", "db", "--chef-path", "built"]);
    let baked = run.baked();
    assert_eq!(baked.done.detail("check"), "the roles are there");
    let steps: Vec<String> = baked.done.events("finished").iter().map(|it| it["phase"].as_str().unwrap().to_owned()).collect();
    let at = |phase: &str| steps.iter().position(|step| step == phase).unwrap();
    assert!(at("after-checkout") < at("check") && at("check") < at("unmount"), "{steps:?}");
    assert!(host.bake(&up).args(["--require-role", "web"]).baked().done.warnings().is_empty());
    host.assert_nothing_left(1);
}

#[test]
fn root_a_dry_run_says_what_would_be_checked() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let done = host.bake(scratch.path("up")).args(["--dry-run", "--checks", "chef", "--require-role", "web\ndb"]).ended();
    let notes: Vec<String> = done.events("note").iter().map(|it| it["message"].as_str().unwrap().to_owned()).collect();
    assert!(notes.contains(&"would check it: chef, role:db, role:web".to_owned()), "{notes:?}");
    let none = host.bake(scratch.path("up")).args(["--dry-run", "--checks", "none"]).env("EBS_BAKE_CHECKS", "chef").ended();
    assert!(!none.stderr.contains("would check it"), "{none:?}");
}
