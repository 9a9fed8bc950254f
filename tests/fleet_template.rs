//! A snapshot in a launch template.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use serde_json::{Value, json};

mod support {
    pub mod bridge;
    pub mod ec2;
    pub mod fleet;
    pub mod git_cli;
    pub mod store;
    pub mod tools;
}

use support::fleet::{USER_DATA, Yard, error, template_data, text, texts};

const ONE: &str = "0123456789012345678901234567890123456789";
const TWO: &str = "abcdef0123456789012345678901234567890123";

/// A yard with two snapshots, the first of which is in the template.
fn yard() -> Option<(Yard, [String; 2])> {
    let yard = Yard::new()?;
    let snapshots = [yard.snapshot(ONE), yard.snapshot(TWO)];
    yard.template(&snapshots[0]);
    Some((yard, snapshots))
}

#[test]
fn root_a_version_has_the_snapshot_and_everything_else_of_its_source() {
    let Some(yard) = Yard::new() else { return };
    let (one, two) = (yard.snapshot(ONE), yard.snapshot(TWO));
    let mapping = "LaunchTemplateData.BlockDeviceMapping.4";
    let name = format!("{mapping}.DeviceName");
    yard.template_with(&one, &[(&name, "/dev/sdc"), (&format!("{mapping}.VirtualName"), "ephemeral0")]);
    yard.rolls_out(&two, &[]);
    let versions = yard.versions();
    assert_eq!((versions.len(), yard.default()), (2, "1".into()));
    let (old, new) = (&versions[0], &versions[1]);
    assert_eq!(texts(new, "snapshotId"), [texts(old, "snapshotId")[0].clone(), two.clone()]);
    let description = text(new, "versionDescription");
    assert_eq!(description, format!("ebs-bake: {two}, commit {TWO} of https://example.com/chef"));
    // Nothing but the snapshot, and what tells the versions apart.
    assert_eq!(template_data(&new.replace(&two, &one)), template_data(old));
    assert_eq!(text(new, "userData"), USER_DATA);

    yard.changes();
    yard.rolls_out(&two, &[]);
    assert_eq!(yard.changing_actions(), [""; 0], "the version is there");
    yard.rolls_out(&one, &[]);
    assert_eq!(yard.changing_actions(), [""; 0], "the source has it");
}

#[test]
fn root_the_default_goes_forth_and_back() {
    let Some((yard, [one, two])) = yard() else { return };
    let json = yard.cloud.path("out.json");
    let outputs = ["--output-json", json.to_str().unwrap()];
    let read = || serde_json::from_slice::<Value>(&std::fs::read(&json).unwrap()).unwrap();
    let to = ["--launch-template", "chef", "--set-default"];
    assert_eq!(yard.rollout(&[&to[..], &["--latest"], &outputs].concat()).snapshot(), two);
    assert_eq!(yard.default(), "2");
    let told = read();
    assert_eq!((&told["snapshot-id"], &told["commit"]), (&json!(two), &json!(TWO)));
    assert_eq!((&told["launch-template-version"], &told["previous-snapshot-id"]), (&json!(2), &json!(one)));

    yard.cloud.bridge.limits(json!({ "page_size": 1 }));
    let ended = yard.rollout(&[&to[..], &["--previous"], &outputs].concat());
    yard.cloud.bridge.limits(json!({ "page_size": null }));
    assert_eq!((ended.snapshot(), yard.default(), yard.numbers().len()), (one.clone(), "1".into(), 2));
    assert!(ended.stderr.contains(&format!("rolling out {one} of commit 012345678901")), "{}", ended.stderr);
    assert_eq!(read()["previous-snapshot-id"], json!(two));
    yard.rollout(&[&to[..], &["--previous"]].concat()).failed(5, &["no older completed snapshot"]);
}

#[test]
fn root_only_what_is_given_of_the_volume_changes() {
    let Some((yard, [_, two])) = yard() else { return };
    let wishes = ["--fleet-volume-size", "4", "--fleet-volume-initialization-rate", "200", "--fleet-keep-volumes"];
    yard.rolls_out(&two, &wishes);
    let versions = yard.versions();
    let mapping = versions[1].split("/dev/sdk").nth(1).unwrap();
    let mapping = mapping.split("</item>").next().unwrap();
    assert_eq!((text(mapping, "volumeSize"), text(mapping, "volumeType")), ("4".into(), "gp3".into()));
    assert_eq!(text(mapping, "deleteOnTermination"), "false");
    let call = yard.changes().into_iter().find(|call| call.action == "CreateLaunchTemplateVersion").unwrap();
    assert!(call.params.values().any(|value| value == "200"), "{call:?}");
}

#[test]
fn root_a_device_that_is_not_mapped_is_added() {
    let Some((yard, [_, two])) = yard() else { return };
    yard.rolls_out(&two, &["--fleet-device", "/dev/sdm"]);
    assert_eq!(texts(&yard.versions()[1], "deviceName"), ["/dev/sda1", "/dev/sdb", "/dev/sdk", "/dev/sdm"]);
    yard.rollout_to_template(&two, &["--fleet-device", "/dev/xvdk"]).failed(2, &["/dev/sdk, which is the same device"]);
}

#[test]
fn root_what_cannot_be_is_refused_before_anything_is_changed() {
    let Some((yard, [_, two])) = yard() else { return };
    let other = yard.snapshot_of("other", TWO, "1");
    let bare = yard.snapshot_with("1", &[("Name", "bare")]);
    let large = yard.snapshot_of("chef", TWO, "3");
    yard.cloud.bridge.set_state(&other, "completed");
    let failed = yard.snapshot(ONE);
    yard.cloud.bridge.set_state(&failed, "error");
    yard.group("pinned", "0", "1");
    yard.group("latest", "0", "$Latest");
    yard.group("default", "0", "$Default");
    yard.changes();

    let refused = |snapshot: &str, code: i32, more: &[&str], words: &[&str]| {
        yard.rollout_to_template(snapshot, more).failed(code, words);
    };
    refused("snap-00000000", 5, &[], &["no snapshot snap-00000000 in us-east-1", "--copy-to"]);
    let elsewhere = [("LaunchTemplateName", "chef"), ("LaunchTemplateData.ImageId", "ami-12345678")];
    yard.cloud.bridge.ec2("eu-west-1", "CreateLaunchTemplate", &elsewhere);
    refused(&two, 5, &["--region", "eu-west-1"], &[&format!("no snapshot {two} in eu-west-1")]);
    refused(&failed, 8, &[], &["is unusable"]);
    refused(&other, 2, &[], &["is of volume \"other\", not \"chef\"", "--volume-name"]);
    refused(&two, 2, &["--volume-name", "other"], &["is of volume \"chef\""]);
    refused(&bare, 2, &[], &["was not made by ebs-bake"]);
    refused(&large, 2, &["--fleet-volume-size", "2"], &["needs 3 GiB"]);
    refused(&two, 9, &["--source-version", "7"], &["has no version 7", "the latest is 1"]);
    refused(&two, 9, &["--auto-scaling-group", "none"], &["there is no Auto Scaling group none"]);
    refused(&two, 2, &["--auto-scaling-group", "default"], &["follows the default version", "--set-default"]);
    let rolls_back = ["--refresh", "--refresh-auto-rollback", "--auto-scaling-group", "latest"];
    refused(&two, 2, &rolls_back, &["follows $Latest", "numbered versions"]);
    let template = ["--snapshot-id", &two, "--launch-template", "none"];
    yard.rollout(&template).failed(9, &["InvalidLaunchTemplateName.NotFoundException", "--launch-template"]);
    yard.rollout(&["--launch-template", "chef", "--latest", "--volume-name", "none"]).failed(5, &["no completed snapshot"]);
    assert_eq!(yard.changing_actions(), [""; 0]);
    assert_eq!(yard.numbers(), ["1"]);

    yard.cloud.bridge.timing(json!({ "snapshot.pending": "never" }));
    yard.fault("DescribeSnapshots", json!({ "override": { "*": { "status": "pending", "progress": "45%" } } }));
    refused(&two, 8, &[], &["is pending at 45 %"]);
}

#[test]
fn root_what_somebody_else_rolled_out_is_not_taken_back_by_accident() {
    let Some((yard, [_, two])) = yard() else { return };
    let ami = [("LaunchTemplateName", "chef"), ("SourceVersion", "1"), ("LaunchTemplateData.ImageId", "ami-87654321")];
    yard.ec2("CreateLaunchTemplateVersion", &ami);
    yard.group("web", "0", "2");
    yard.changes();
    let group = ["--auto-scaling-group", "web"];
    yard.rollout_to_template(&two, &group).failed(2, &["version 2", "differs from version 1", "--source-version 2"]);
    assert_eq!(yard.changing_actions(), [""; 0]);
    yard.rolls_out(&two, &[&group[..], &["--source-version", "2"]].concat());
    assert_eq!((text(&yard.versions()[2], "imageId"), yard.version_of("web")), ("ami-87654321".into(), "3".into()));
    let ended = yard.rolls_out(&two, &[]);
    assert!(ended.stderr.contains("warning: version 3") && ended.stderr.contains("the latest, differs"), "{}", ended.stderr);
}

#[test]
fn root_a_version_whose_answer_was_lost_is_made_once() {
    let Some((yard, [_, two])) = yard() else { return };
    yard.faults("CreateLaunchTemplateVersion", 2, json!("drop-after"));
    yard.rolls_out(&two, &["--set-default"]);
    let calls = yard.changing_actions();
    assert_eq!(calls.iter().filter(|action| *action == "CreateLaunchTemplateVersion").count(), 3);
    assert_eq!((yard.numbers().len(), yard.default()), (2, "2".into()));
}

#[test]
fn root_a_version_that_is_not_what_was_asked_for_is_used_by_nothing() {
    let Some((yard, [_, two])) = yard() else { return };
    yard.group("web", "0", "1");
    let lost = json!({ "*": { "launchTemplateData/blockDeviceMappingSet/item/ebs/snapshotId": null } });
    yard.fault("CreateLaunchTemplateVersion", json!({ "override": lost }));
    let ended = yard.rollout_to_template(&two, &["--set-default", "--auto-scaling-group", "web"]);
    ended.failed(9, &["version 2 of launch template chef", "is not what was asked for", "nothing was moved"]);
    assert_eq!((yard.default(), yard.version_of("web")), ("1".into(), "1".into()));
}

#[test]
fn root_throttling_and_server_errors_pass() {
    let Some((yard, [_, two])) = yard() else { return };
    yard.group("web", "0", "1");
    for (action, code) in [
        ("DescribeLaunchTemplateVersions", "RequestLimitExceeded"),
        ("CreateLaunchTemplateVersion", "Unavailable"),
        ("ModifyLaunchTemplate", "InternalError"),
        ("DescribeAutoScalingGroups", "Throttling"),
        ("UpdateAutoScalingGroup", "Throttling"),
    ] {
        yard.fault(action, error(code, 503));
    }
    // Every call counts for every rule: the answer to the second one.
    let contention = json!({ "action": "UpdateAutoScalingGroup", "nth": 2, "effect": error("ResourceContention", 400) });
    yard.cloud.bridge.rule(contention);
    yard.rolls_out(&two, &["--set-default", "--auto-scaling-group", "web"]);
    assert_eq!((yard.version_of("web"), yard.numbers().len()), ("2".into(), 2));
}

#[test]
fn root_what_is_not_permitted_names_the_policy() {
    let Some((yard, [_, two])) = yard() else { return };
    yard.group("web", "0", "1");
    for (action, code) in [
        ("DescribeLaunchTemplateVersions", "UnauthorizedOperation"),
        ("CreateLaunchTemplateVersion", "UnauthorizedOperation"),
        ("ModifyLaunchTemplate", "UnauthorizedOperation"),
        ("DescribeAutoScalingGroups", "AccessDenied"),
        ("UpdateAutoScalingGroup", "AccessDenied"),
    ] {
        yard.fault(action, error(code, 403));
        let more = ["--set-default", "--auto-scaling-group", "web"];
        yard.rollout_to_template(&two, &more).failed(3, &[action, "docs/iam-policy.json"]);
    }
}

#[test]
fn root_old_versions_go_but_for_those_in_use() {
    let Some((yard, [one, two])) = yard() else { return };
    yard.group("kept", "0", "1");
    for size in ["2", "3", "4", "5", "6"] {
        yard.rolls_out(&one, &["--fleet-volume-size", size]);
    }
    yard.ec2("CreateLaunchTemplateVersion", &[("LaunchTemplateName", "chef"), ("SourceVersion", "1")]);
    yard.scaling(
        "UpdateAutoScalingGroup",
        &[("AutoScalingGroupName", "kept"), ("LaunchTemplate.LaunchTemplateName", "chef"), ("LaunchTemplate.Version", "3")],
    );
    assert_eq!(yard.numbers().len(), 7);
    yard.changes();
    yard.fault("DeleteLaunchTemplateVersions", json!("drop-after"));
    yard.rolls_out(&two, &["--keep-versions", "2"]);
    // 1 is the default and not ours, 3 is the group's, 6 and 8 are the newest of ours, 7 is somebody else's.
    assert_eq!(yard.numbers(), ["1", "3", "6", "7", "8"]);
    assert_eq!(yard.rollout_to_template(&two, &["--keep-versions", "2"]).snapshot(), two);
    assert_eq!(yard.numbers().len(), 5);

    yard.fault("DeleteLaunchTemplateVersions", error("UnauthorizedOperation", 403));
    let ended = yard.rollout_to_template(&one, &["--keep-versions", "1"]);
    ended.failed(10, &["is rolled out", "DeleteLaunchTemplateVersions", "docs/iam-policy.json"]);
    assert_eq!(ended.stdout.trim(), one);
}

#[test]
fn root_a_dry_run_shows_the_differences_and_changes_nothing() {
    let Some((yard, [one, two])) = yard() else { return };
    yard.group("web", "1", "1");
    yard.changes();
    let more = ["--auto-scaling-group", "web", "--refresh", "--set-default", "--keep-versions", "3", "--dry-run"];
    let ended = yard.rollout_to_template(&two, &more);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{}", ended.stderr);
    for words in [
        format!("from version 1, with another /dev/sdk: snapshot-id {one} → {two}"),
        "would make it the default version, which is 1".into(),
        "would move group web to it from 1".into(),
        "would replace its machines (1 without the snapshot)".into(),
        "but for the newest 3 versions".into(),
    ] {
        assert!(ended.stderr.contains(&words), "{words:?} is not said: {}", ended.stderr);
    }
    assert_eq!(yard.changing_actions(), [""; 0]);
}
