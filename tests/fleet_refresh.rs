//! Machines that are replaced: instance refreshes that succeed, fail, run already, or are given up by us.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use nix::sys::signal::Signal;
use serde_json::{Value, json};

mod support {
    pub mod bridge;
    pub mod ec2;
    pub mod fleet;
    pub mod git_cli;
    pub mod store;
    pub mod tools;
}

use support::ec2::Stage;
use support::fleet::{Yard, error, text};

const ONE: &str = "0123456789012345678901234567890123456789";
const TWO: &str = "abcdef0123456789012345678901234567890123";

const REFRESH: [&str; 3] = ["--auto-scaling-group", "web", "--refresh"];

/// Two snapshots, the first of which is in the template, and a group `web` of one machine that has version 1.
fn yard() -> Option<(Yard, [String; 2])> {
    let yard = Yard::new()?;
    let snapshots = [yard.snapshot(ONE), yard.snapshot(TWO)];
    yard.template(&snapshots[0]);
    yard.group("web", "1", "1");
    yard.changes();
    Some((yard, snapshots))
}

fn machine(yard: &Yard) -> String {
    text(&yard.look("web"), "InstanceId")
}

/// A refresh that somebody else starts.
fn start(yard: &Yard, version: &str) {
    let desired = "DesiredConfiguration.LaunchTemplate";
    yard.scaling(
        "StartInstanceRefresh",
        &[
            ("AutoScalingGroupName", "web"),
            (&format!("{desired}.LaunchTemplateName"), "chef"),
            (&format!("{desired}.Version"), version),
        ],
    );
}

#[test]
fn root_machines_are_replaced_once_and_have_the_snapshot_then() {
    let Some((yard, [_, two])) = yard() else { return };
    let (before, json) = (machine(&yard), yard.cloud.path("out.json"));
    let more = [&REFRESH[..], &["--output-json", json.to_str().unwrap()]].concat();
    let ended = yard.rolls_out(&two, &more);
    for words in ["group web: instance refresh is Pending", "is InProgress", "is Successful", "~ refresh"] {
        assert!(ended.stderr.contains(words), "{words:?}: {}", ended.stderr);
    }
    assert_eq!(yard.changing_actions(), ["CreateLaunchTemplateVersion", "StartInstanceRefresh"]);
    assert_eq!((yard.version_of("web"), yard.versions_of_machines("web")), ("2".into(), vec!["2".into()]));
    assert_ne!(machine(&yard), before);
    let state = yard.cloud.bridge.state();
    let ours = |device: &str| device == "/dev/sdk";
    assert!(state.volumes.values().any(|volume| volume.attachment.as_ref().is_some_and(|it| ours(&it.device))));
    let told: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(told["instance-refreshes"].as_object().unwrap().keys().collect::<Vec<_>>(), ["web"]);

    let machine_now = machine(&yard);
    yard.rolls_out(&two, &more);
    assert_eq!((yard.changing_actions(), machine(&yard)), (vec![], machine_now), "all is as it shall be");
    yard.rolls_out(&two, &[&more[..], &["--refresh-all"]].concat());
    assert_eq!(yard.changing_actions(), ["StartInstanceRefresh"]);
}

#[test]
fn root_the_way_back_begins_with_what_machines_have() {
    let Some((yard, [one, two])) = yard() else { return };
    yard.rolls_out(&two, &REFRESH);
    // As after a refresh that failed half-way: the group launches version 1 again, and has a machine of version 2.
    let pinned =
        [("AutoScalingGroupName", "web"), ("LaunchTemplate.LaunchTemplateName", "chef"), ("LaunchTemplate.Version", "1")];
    yard.scaling("UpdateAutoScalingGroup", &pinned);
    assert_eq!(yard.versions_of_machines("web"), ["2"]);
    let back = [&["--launch-template", "chef", "--previous"][..], &REFRESH].concat();
    assert_eq!(yard.rollout(&back).snapshot(), one);
    assert_eq!(yard.versions_of_machines("web"), ["1"]);
    yard.rollout(&back).failed(5, &["no older completed snapshot"]);
}

#[test]
fn root_preferences_are_handed_on() {
    let Some((yard, [_, two])) = yard() else { return };
    let wishes = [
        "--refresh-min-healthy",
        "80",
        "--refresh-max-healthy",
        "120",
        "--refresh-warmup",
        "2m",
        "--refresh-auto-rollback",
        "--refresh-checkpoints",
        "50,100",
        "--refresh-checkpoint-delay",
        "1m",
        "--no-wait",
    ];
    let ended = yard.rolls_out(&two, &[&REFRESH[..], &wishes].concat());
    assert!(!ended.stderr.contains("InProgress"), "it is not followed: {}", ended.stderr);
    let start = yard.changes().into_iter().find(|call| call.action == "StartInstanceRefresh").unwrap();
    for (name, value) in [
        ("Preferences.MinHealthyPercentage", "80"),
        ("Preferences.MaxHealthyPercentage", "120"),
        ("Preferences.InstanceWarmup", "120"),
        ("Preferences.AutoRollback", "true"),
        ("Preferences.SkipMatching", "true"),
        ("Preferences.CheckpointPercentages.member.1", "50"),
        ("Preferences.CheckpointPercentages.member.2", "100"),
        ("Preferences.CheckpointDelay", "60"),
        ("DesiredConfiguration.LaunchTemplate.Version", "2"),
    ] {
        assert_eq!(start.params.get(name), Some(&json!(value)), "{name}: {start:?}");
    }
}

#[test]
fn root_a_refresh_that_fails_or_is_rolled_back_is_an_error_with_its_reason() {
    let Some((yard, [one, two])) = yard() else { return };
    let reason = "1 instance is unhealthy: chef-client ended with 1";
    for (end, more) in
        [("Failed", &[][..]), ("Failed", &["--refresh-auto-rollback"][..]), ("RollbackFailed", &[]), ("Cancelled", &[])]
    {
        yard.fault("StartInstanceRefresh", json!({ "becomes": end, "reason": reason }));
        let ended = yard.rollout_to_template(&two, &[&REFRESH[..], more].concat());
        let said = if more.is_empty() { end } else { "RollbackSuccessful" };
        ended.failed(9, &[&format!("group web is {said}: {reason}"), &format!("--snapshot-id {one} to go back"), "x refresh"]);
        assert_eq!(ended.stdout, "");
        assert_eq!((yard.version_of("web"), yard.refreshes("web")[0].as_str()), ("1".into(), said));
    }
    assert_eq!(yard.numbers().len(), 2, "the version is taken again");
}

#[test]
fn root_a_refresh_whose_answer_was_lost_is_followed_and_not_started_twice() {
    let Some((yard, [_, two])) = yard() else { return };
    yard.cloud.bridge.timing(json!({ "refresh.in-progress": { "polls": 3 } }));
    yard.fault("StartInstanceRefresh", json!("drop-after"));
    yard.rolls_out(&two, &REFRESH);
    assert_eq!((yard.refreshes("web"), yard.version_of("web")), (vec!["Successful".to_owned()], "2".into()));
}

#[test]
fn root_a_refresh_for_the_same_is_taken_over_and_another_waited_for() {
    let Some((yard, [one, two])) = yard() else { return };
    yard.rolls_out(&two, &[]);
    yard.cloud.bridge.timing(json!({ "refresh.in-progress": { "polls": 2 } }));
    yard.changes();
    let desired = "DesiredConfiguration.LaunchTemplate";
    let id = text(&yard.ec2("DescribeLaunchTemplateVersions", &[("LaunchTemplateName", "chef")]), "launchTemplateId");
    let params = [
        ("AutoScalingGroupName", "web"),
        (&format!("{desired}.LaunchTemplateId"), id.as_str()),
        (&format!("{desired}.Version"), "2"),
    ];
    yard.scaling("StartInstanceRefresh", &params);
    let ended = yard.rolls_out(&two, &REFRESH);
    assert!(ended.stderr.contains("web is being refreshed already"), "{}", ended.stderr);
    assert_eq!((yard.changing_actions(), yard.version_of("web")), (vec![], "2".into()));

    start(&yard, "2");
    let ended = yard.rolls_out(&one, &REFRESH);
    assert!(ended.stderr.contains("for another configuration; waiting for its end"), "{}", ended.stderr);
    assert_eq!((yard.changing_actions(), yard.version_of("web")), (vec!["StartInstanceRefresh".to_owned()], "1".into()));
    assert_eq!(yard.refreshes("web"), ["Successful"; 3]);
}

#[test]
fn root_what_takes_too_long_goes_on_by_itself() {
    let Some((yard, [one, two])) = yard() else { return };
    yard.cloud.bridge.timing(json!({ "refresh.in-progress": "never" }));
    let brief = [&REFRESH[..], &["--wait-timeout", "3s"]].concat();
    yard.rollout_to_template(&two, &brief).failed(9, &["not ended within 3 s", "of group web", "goes on by itself"]);
    yard.rollout_to_template(&one, &[&brief[..], &["--refresh-all"]].concat()).failed(9, &["of another configuration"]);
    assert_eq!(yard.refreshes("web"), ["InProgress"]);
}

#[test]
fn root_being_interrupted_ends_the_following_and_not_the_refresh() {
    let Some((yard, [_, two])) = yard() else { return };
    yard.cloud.bridge.timing(json!({ "refresh.in-progress": "never" }));
    let more = ["--snapshot-id", &two, "--launch-template", "chef"];
    let mut run = yard.start(&[&more[..], &REFRESH].concat());
    run.until("is InProgress");
    run.signal(Signal::SIGINT);
    let ended = run.end();
    ended.failed(130, &["interrupted by SIGINT; what was started goes on", "of group web", "cancel-instance-refresh"]);
    assert_eq!(yard.refreshes("web"), ["InProgress"]);

    yard.changes();
    let mut run = yard.start(&[&more[..], &REFRESH].concat());
    run.until("is InProgress");
    yard.cloud.bridge.settle();
    assert_eq!(run.end().snapshot(), two);
    assert_eq!((yard.changing_actions(), yard.version_of("web")), (vec![], "2".into()));
}

#[test]
fn root_all_groups_are_followed_also_when_one_fails() {
    let Some((yard, [_, two])) = yard() else { return };
    yard.group("api", "1", "1");
    yard.group("idle", "0", "1");
    yard.group("latest", "1", "$Latest");
    let effect = json!({ "becomes": "Failed", "reason": "unhealthy" });
    let rule = json!({ "action": "StartInstanceRefresh", "match": { "AutoScalingGroupName": "web" }, "effect": effect });
    yard.cloud.bridge.rule(rule);
    let others = ["api", "idle", "latest"].map(|name| ["--auto-scaling-group", name]).concat();
    let ended = yard.rollout_to_template(&two, &[&REFRESH[..], &others].concat());
    ended.failed(9, &["of group web is Failed: unhealthy"]);
    assert_eq!(["web", "api", "idle", "latest"].map(|name| yard.version_of(name)), ["1", "2", "2", "$Latest"]);
    assert_eq!(yard.versions_of_machines("latest"), ["2"]);
    assert!(yard.refreshes("idle").is_empty(), "it has no machine");
}

#[test]
fn root_machines_of_a_launch_configuration_are_replaced_too() {
    let Some((yard, [one, two])) = yard() else { return };
    let mapping = "BlockDeviceMappings.member.1";
    yard.scaling(
        "CreateLaunchConfiguration",
        &[
            ("LaunchConfigurationName", "old"),
            ("ImageId", "ami-12345678"),
            ("InstanceType", "m5.large"),
            (&format!("{mapping}.DeviceName"), "/dev/sdk"),
            (&format!("{mapping}.Ebs.SnapshotId"), &one),
        ],
    );
    yard.group_from("batch", "1", &[("LaunchConfigurationName", "old")]);
    yard.fault("StartInstanceRefresh", json!("drop-after"));
    let to = ["--snapshot-id", &two, "--launch-configuration-prefix", "chef", "--auto-scaling-group", "batch", "--refresh"];
    yard.changes();
    yard.rollout(&to).snapshot();
    assert_eq!(yard.refreshes("batch"), ["Successful"]);
    let calls = yard.changes();
    let start = calls.iter().find(|call| call.action == "StartInstanceRefresh").unwrap();
    assert!(!start.params.keys().any(|name| name.contains("SkipMatching") || name.contains("Desired")), "{start:?}");
    let before = text(&yard.look("batch"), "InstanceId");
    yard.rollout(&to).snapshot();
    assert_eq!((yard.changing_actions(), text(&yard.look("batch"), "InstanceId")), (vec![], before));
}

#[test]
fn root_what_is_refused_is_told() {
    let Some((yard, [_, two])) = yard() else { return };
    yard.fault("StartInstanceRefresh", error("AccessDenied", 403));
    yard.rollout_to_template(&two, &REFRESH).failed(3, &["StartInstanceRefresh", "docs/iam-policy.json"]);
    yard.faults("DescribeInstanceRefreshes", 2, error("Throttling", 400));
    // One runs, says Auto Scaling, and shows none.
    yard.fault("StartInstanceRefresh", error("InstanceRefreshInProgress", 400));
    yard.rolls_out(&two, &REFRESH);
    assert_eq!(yard.refreshes("web"), ["Successful"]);
}

#[test]
fn root_a_bake_rolls_out_what_it_baked() {
    let Some(stage) = Stage::new() else { return };
    let yard = Yard { cloud: stage.cloud };
    let one = yard.snapshot(ONE);
    yard.template(&one);
    yard.group("web", "1", "1");
    let config = yard.cloud.path("home/ebs-bake.yml");
    std::fs::write(&config, "rollout: true\nlaunch-template: chef\nauto-scaling-group: web\nrefresh: yes\nset-default: yes\n")
        .unwrap();
    let bake = |more: &[&str]| yard.cloud.bake(&stage.host, &stage.repository, more);

    bake(&["--launch-template", "none"]).failed(9, &["launch template none"]);
    bake(&["--no-wait"]).failed(2, &["--no-wait"]);
    bake(&["--store", "local"]).failed(2, &["--rollout is for EC2"]);
    let dry = bake(&["--dry-run"]);
    assert!(dry.stderr.contains("would roll it out to launch template chef, group web, and replace"), "{}", dry.stderr);

    let json = yard.cloud.path("out.json");
    let ended = bake(&["--output-json", json.to_str().unwrap()]);
    let baked = ended.snapshot();
    assert!(ended.stderr.contains("created and rolled out"), "{}", ended.stderr);
    assert_eq!(
        (yard.default(), yard.version_of("web"), yard.versions_of_machines("web")),
        ("2".into(), "2".into(), vec!["2".into()])
    );
    let told: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!((&told["launch-template-version"], &told["previous-snapshot-id"]), (&json!(2), &json!(one)));

    yard.changes();
    assert_eq!(bake(&[]).snapshot(), baked);
    assert_eq!(yard.changing_actions(), [""; 0]);
    std::fs::remove_file(config).unwrap();
    yard.fault("StartInstanceRefresh", json!({ "becomes": "Failed", "reason": "unhealthy" }));
    let to = ["--rollout", "--launch-template", "chef", "--auto-scaling-group", "web", "--refresh", "--fleet-volume-size", "16"];
    bake(&to).failed(9, &["unhealthy", &format!("snapshot {baked} is good, but not rolled out")]);
}
