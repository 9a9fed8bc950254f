//! `doctor --for rollout` and `--for prune`: what it says is what those commands then meet, and what the policy permits.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use serde_json::{Value, json};

mod support {
    pub mod bridge;
    pub mod doctor;
    pub mod ec2;
    pub mod fleet;
    pub mod git_cli;
    pub mod store;
    pub mod tools;
}

use support::doctor::Told;
use support::fleet::{Yard, error};

const COMMIT: &str = "abcdef0123456789012345678901234567890123";
const MACHINES: [&str; 5] = ["--launch-template", "chef", "--auto-scaling-group", "chef", "--refresh"];
const PRUNED: [&str; 4] = ["--keep", "1", "--keep-days", "0"];

/// A fleet that runs one commit, and the snapshot of another.
fn yard() -> Option<(Yard, String)> {
    let yard = Yard::new()?;
    yard.fleet();
    let snapshot = yard.snapshot(COMMIT);
    yard.cloud.bridge.settle();
    yard.changes();
    Some((yard, snapshot))
}

/// Examines from a job that is on no instance; nothing may be changed by it, whatever it says.
#[track_caller]
fn doctor(yard: &Yard, purpose: &str, more: &[&str]) -> Told {
    let before_it = (yard.versions(), yard.refreshes("chef"));
    let before: Value = yard.cloud.bridge.control("GET", "state", &json!({}));
    let told = Told::of(yard.run(&[&["doctor", "--json", "--for", purpose], more].concat()));
    assert_eq!(before, yard.cloud.bridge.control::<Value>("GET", "state", &json!({})), "something was changed");
    assert_eq!(before_it, (yard.versions(), yard.refreshes("chef")), "something was changed");
    told
}

fn deny(yard: &Yard, permission: &str) {
    let (service, action) = permission.split_once(':').unwrap();
    let code = if service == "ec2" { "UnauthorizedOperation" } else { "AccessDeniedException" };
    yard.faults(action, 0, error(code, 403));
}

fn allow(yard: &Yard) {
    let _: Value = yard.cloud.bridge.control("DELETE", "faults", &json!({}));
}

/// The permissions that were asked about.
fn permissions(told: &Told) -> BTreeSet<String> {
    told.checks.keys().filter(|name| name.contains(':')).cloned().collect()
}

/// Those that the policy has in the statements whose names are such.
fn permitted(is_meant: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let policy: Value = serde_json::from_str(include_str!("../docs/iam-policy.json")).unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter().filter(|it| is_meant(it["Sid"].as_str().unwrap()));
    let actions = statements.flat_map(|it| match &it["Action"] {
        Value::Array(several) => several.clone(),
        one => vec![one.clone()],
    });
    actions.map(|action| action.as_str().unwrap().to_owned()).collect()
}

/// The permissions that the calls since the last time needed.
fn called(yard: &Yard) -> BTreeSet<String> {
    let calls = yard.cloud.bridge.calls().calls;
    yard.cloud.bridge.clear_calls();
    calls.iter().filter(|call| call.service != "sts").map(|call| format!("{}:{}", call.service, call.action)).collect()
}

#[test]
fn root_a_rollout_that_would_work_is_told_with_what_it_would_do() {
    let Some((yard, snapshot)) = yard() else { return };
    let told = doctor(&yard, "rollout", &MACHINES);
    told.failed(0, &[]);
    assert_eq!(told.with("warning"), [""; 0], "{told:#?}");
    told.says("launch-template", &["launch template chef", "default version 1, latest 1"]);
    told.says("auto-scaling-groups", &["chef"]);
    told.says("snapshot", &[&snapshot, "the newest of chef"]);
    told.says(
        "rollout",
        &["would make a version", "move group chef to it from 1", "replace its machines (1 without the snapshot)"],
    );
    for action in ["UpdateAutoScalingGroup", "StartInstanceRefresh"] {
        told.says(&format!("autoscaling:{action}"), &["skipped", "no DryRun"]);
    }
    yard.rolls_out(&snapshot, &MACHINES[2..]);
}

#[test]
fn root_a_permission_that_a_rollout_lacks_fails_its_check_and_the_rollout() {
    let Some((yard, snapshot)) = yard() else { return };
    let all = [&MACHINES[..], &["--set-default", "--keep-versions", "1"]].concat();
    let needed = [
        "autoscaling:DescribeAutoScalingGroups",
        "autoscaling:DescribeInstanceRefreshes",
        "ec2:CreateLaunchTemplateVersion",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:DescribeSnapshots",
        "ec2:ModifyLaunchTemplate",
    ];
    for permission in needed {
        deny(&yard, permission);
        doctor(&yard, "rollout", &all).failed(3, &[permission]);
        allow(&yard);
    }
    let spare = ["ec2:DeleteLaunchTemplateVersions", "ec2:ModifyLaunchTemplate", "ec2:RunInstances"];
    for permission in spare {
        deny(&yard, permission);
        let told = doctor(&yard, "rollout", &MACHINES);
        assert_eq!((told.ended.code, told.with("warning")), (0, vec![permission]));
        allow(&yard);
    }
    deny(&yard, "ec2:CreateLaunchTemplateVersion");
    yard.rollout(&[&["--snapshot-id", &snapshot], &MACHINES[..]].concat()).failed(3, &["UnauthorizedOperation"]);
}

#[test]
fn root_what_is_not_there_or_does_not_fit_fails_with_the_exit_code_of_the_rollout() {
    let Some((yard, snapshot)) = yard() else { return };
    let data = "LaunchTemplateData.ImageId";
    yard.ec2("CreateLaunchTemplate", &[("LaunchTemplateName", "other"), (data, "ami-12345678")]);
    let other = [("LaunchTemplate.LaunchTemplateName", "other"), ("LaunchTemplate.Version", "1")];
    yard.group_from("foreign", "0", &other);
    yard.group("default", "0", "$Default");
    let groups: [(&str, &[&str], i32, &str, &str); 5] = [
        ("none", &["--auto-scaling-group", "chef"], 9, "launch-template", "none"),
        ("chef", &["--source-version", "7"], 9, "launch-template", "has no version 7"),
        ("chef", &["--auto-scaling-group", "nobody"], 9, "auto-scaling-groups", "no Auto Scaling group nobody"),
        ("chef", &["--auto-scaling-group", "foreign"], 2, "auto-scaling-groups", "launched from launch template other"),
        ("chef", &["--auto-scaling-group", "default"], 2, "rollout", "--set-default"),
    ];
    for (template, more, code, check, words) in groups {
        let arguments = [&["--launch-template", template], more].concat();
        let told = doctor(&yard, "rollout", &arguments);
        told.failed(code, &[check]);
        told.says(check, &[words]);
        yard.rollout(&[&["--snapshot-id", &snapshot], &arguments[..]].concat()).failed(code, &[words]);
    }
    let told = doctor(&yard, "rollout", &["--launch-template", "chef", "--volume-name", "web"]);
    told.failed(0, &[]);
    assert_eq!(told.with("warning"), ["snapshot"], "the first bake is still to come");
}

#[test]
fn root_pruning_is_told_what_it_lacks_and_deletes_nothing_then() {
    let Some((yard, snapshot)) = yard() else { return };
    let told = doctor(&yard, "prune", &[]);
    told.failed(0, &[]);
    assert_eq!(told.with("warning"), [""; 0], "{told:#?}");
    told.says("snapshots", &["2 of chef"]);
    let looks = permitted(|sid| ["Look", "LookForUsersOfSnapshots"].contains(&sid));
    let others = ["ec2:DeleteSnapshot".to_owned(), "ec2:DescribeSnapshotAttribute".to_owned()];
    let needed: Vec<String> = looks.into_iter().filter(|it| it != "ec2:DescribeVolumesModifications").chain(others).collect();
    yard.rolls_out(&snapshot, &["--auto-scaling-group", "chef", "--set-default"]);
    // The group's machine has a volume of the first snapshot: this one may go.
    yard.snapshot("1111111111111111111111111111111111111111");
    yard.snapshot("2222222222222222222222222222222222222222");
    let there = yard.cloud.bridge.state().snapshots.len();
    for permission in &needed {
        deny(&yard, permission);
        doctor(&yard, "prune", &[]).failed(3, &[permission]);
        let ended = yard.run(&[&["prune"], &PRUNED[..]].concat());
        assert!([3, 10].contains(&ended.code), "{permission}: {ended:?}");
        assert_eq!(yard.cloud.bridge.state().snapshots.len(), there, "{permission}");
        allow(&yard);
    }
    deny(&yard, "ec2:DescribeSnapshotAttribute");
    doctor(&yard, "prune", &["--include-shared"]).failed(0, &[]);
    deny(&yard, "ssm:GetParameter");
    doctor(&yard, "prune", &["--ssm-parameter", "/chef/snapshot", "--include-shared"]).failed(3, &["ssm:GetParameter"]);
    allow(&yard);
    assert_eq!(yard.run(&[&["prune"], &PRUNED[..]].concat()).code, 0);
    assert_eq!(yard.cloud.bridge.state().snapshots.len(), there - 1);
}

/// What doctor asks about, what the statements permit that the documentation names, and what is really called are the same.
#[test]
fn root_each_commands_statements_are_what_it_calls_and_what_doctor_asks_about() {
    let Some((yard, snapshot)) = yard() else { return };
    let all =
        ["--set-default", "--keep-versions", "1", "--launch-configuration-prefix", "chef", "--delete-unused-configurations"];
    let asked = permissions(&doctor(&yard, "rollout", &[&MACHINES[..], &all].concat()));
    let rollouts = permitted(|sid| sid.starts_with("Rollout"));
    let expected: BTreeSet<String> =
        rollouts.into_iter().chain(["ec2:DescribeSnapshots".into(), "ec2:RunInstances".into()]).collect();
    assert_eq!(asked, expected);

    let configuration = |name: &str, of: &str| {
        let mapping = "BlockDeviceMappings.member.1";
        let (device, ebs) = (format!("{mapping}.DeviceName"), format!("{mapping}.Ebs.SnapshotId"));
        let named = [("LaunchConfigurationName", name), ("ImageId", "ami-12345678"), ("InstanceType", "m5.large")];
        yard.scaling("CreateLaunchConfiguration", &[&named[..], &[(&device, "/dev/sdk"), (&ebs, of)]].concat());
    };
    configuration("old", &snapshot);
    yard.group_from("old", "0", &[("LaunchConfigurationName", "old")]);
    yard.cloud.bridge.clear_calls();
    let mut calls = BTreeSet::new();
    for number in 1..=3 {
        let snapshot = yard.snapshot(&number.to_string().repeat(40));
        let more = [&["--refresh"], &all[..], &["--auto-scaling-group", "chef", "--auto-scaling-group", "old"]].concat();
        yard.rolls_out(&snapshot, &more);
        calls.extend(called(&yard));
    }
    let uncalled: Vec<&str> = asked.difference(&calls).map(String::as_str).collect();
    assert_eq!((uncalled, calls.difference(&asked).count()), (vec!["ec2:RunInstances"], 0), "{calls:?}");

    let asked = permissions(&doctor(&yard, "prune", &[]));
    let mut statements = permitted(|sid| ["Look", "LookForUsersOfSnapshots", "DeleteOurSnapshots"].contains(&sid));
    statements.remove("ec2:DescribeVolumesModifications");
    statements.extend(["ec2:DescribeSnapshotAttribute".into(), "ssm:GetParameter".into()]);
    assert_eq!(asked, statements);
    yard.cloud.bridge.clear_calls();
    assert_eq!(yard.run(&[&["prune", "--ssm-parameter", "/chef/snapshot"], &PRUNED[..]].concat()).code, 0);
    let calls = called(&yard);
    let uncalled: Vec<&str> = asked.difference(&calls).map(String::as_str).collect();
    // No snapshot here is restored fast.
    assert_eq!((uncalled, calls.difference(&asked).count()), (vec!["ec2:DisableFastSnapshotRestores"], 0), "{calls:?}");
}

#[test]
fn root_a_job_without_a_region_is_told_so_and_nothing_else() {
    let Some((yard, _)) = yard() else { return };
    let mut program = yard.program(&[&["doctor", "--json", "--for", "rollout"], &MACHINES[..]].concat());
    let told = Told::of(support::ec2::Ended::of(program.env_remove("AWS_REGION").output().unwrap()));
    told.failed(2, &["region"]);
    assert!(told.with("ok").is_empty(), "{told:#?}");
    assert!(yard.cloud.calls().is_empty());
}

#[test]
fn root_what_no_machines_are_named_for_is_refused() {
    let Some((yard, _)) = yard() else { return };
    yard.run(&["doctor", "--for", "rollout"]).failed(2, &["where to roll out is not said", "--launch-template"]);
    yard.run(&["doctor", "--for", "prune", "--store", "local"]).failed(2, &["--for is for EC2"]);
}
