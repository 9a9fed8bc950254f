//! A snapshot in Auto Scaling groups: pinned and following ones, mixed ones, and those with launch configurations.
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

use support::fleet::{USER_DATA, Yard, error, text, texts};

const ONE: &str = "0123456789012345678901234567890123456789";
const TWO: &str = "abcdef0123456789012345678901234567890123";

fn yard() -> Option<(Yard, [String; 2])> {
    let yard = Yard::new()?;
    let snapshots = [yard.snapshot(ONE), yard.snapshot(TWO)];
    Some((yard, snapshots))
}

fn groups<'a>(names: &[&'a str]) -> Vec<&'a str> {
    names.iter().flat_map(|name| ["--auto-scaling-group", *name]).collect()
}

#[test]
fn root_pinned_groups_are_moved_and_the_others_left_alone() {
    let Some((yard, [one, two])) = yard() else { return };
    yard.template(&one);
    for (name, version) in [("web", "1"), ("api", "1"), ("latest", "$Latest"), ("other", "1")] {
        yard.group(name, "0", version);
    }
    yard.changes();
    let ended = yard.rolls_out(&two, &groups(&["web", "api", "latest"]));
    assert_eq!(["web", "api", "latest", "other"].map(|name| yard.version_of(name)), ["2", "2", "$Latest", "1"]);
    assert_eq!(yard.changing_actions(), ["CreateLaunchTemplateVersion", "UpdateAutoScalingGroup", "UpdateAutoScalingGroup"]);
    assert!(ended.stderr.contains("web was moved to it, api was moved to it, latest has it"), "{}", ended.stderr);
    yard.rolls_out(&two, &groups(&["web", "api", "latest"]));
    assert_eq!(yard.changing_actions(), [""; 0]);

    // Back again: what follows the latest version needs a new one.
    yard.rolls_out(&one, &groups(&["web", "latest"]));
    assert_eq!((yard.version_of("web"), yard.numbers().len()), ("3".into(), 3));
    yard.rollout_to_template(&two, &groups(&["web"])).snapshot();
    assert_eq!((yard.version_of("web"), yard.numbers().len()), ("2".into(), 3));
}

#[test]
fn root_a_mixed_group_keeps_all_but_the_version() {
    let Some((yard, [one, two])) = yard() else { return };
    yard.template(&one);
    let policy = "MixedInstancesPolicy";
    let template = format!("{policy}.LaunchTemplate");
    let own = format!("{template}.LaunchTemplateSpecification");
    let params = [
        (format!("{own}.LaunchTemplateName"), "chef"),
        (format!("{own}.Version"), "1"),
        (format!("{template}.Overrides.member.1.InstanceType"), "c6g.large"),
        (format!("{template}.Overrides.member.1.LaunchTemplateSpecification.LaunchTemplateName"), "arm"),
        (format!("{template}.Overrides.member.1.LaunchTemplateSpecification.Version"), "1"),
        (format!("{template}.Overrides.member.2.InstanceType"), "m5.large"),
        (format!("{template}.Overrides.member.2.WeightedCapacity"), "2"),
        (format!("{policy}.InstancesDistribution.OnDemandBaseCapacity"), "1"),
    ];
    let params: Vec<(&str, &str)> = params.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let data = [("LaunchTemplateName", "arm"), ("LaunchTemplateData.ImageId", "ami-12345678")];
    yard.ec2("CreateLaunchTemplate", &data);
    yard.group_from("web", "0", &params);
    let before = yard.look("web");
    let ended = yard.rolls_out(&two, &groups(&["web"]));
    assert!(ended.stderr.contains("also launched from launch template arm"), "{}", ended.stderr);
    let own = |xml: &str| xml.split("</LaunchTemplateSpecification>").next().unwrap().to_owned();
    let after = yard.look("web");
    assert_eq!((text(&own(&before), "Version"), text(&own(&after), "Version")), ("1".into(), "2".into()));
    for name in ["InstanceType", "WeightedCapacity", "OnDemandBaseCapacity", "LaunchTemplateName"] {
        assert_eq!(texts(&before, name), texts(&after, name), "{name}");
    }
    let of_override = |xml: &str| text(xml.split("<Overrides>").nth(1).unwrap(), "Version");
    assert_eq!(of_override(&after), "1");
}

#[test]
fn root_a_group_of_another_kind_is_refused_with_what_to_do() {
    let Some((yard, [one, two])) = yard() else { return };
    yard.template(&one);
    let data = [("LaunchTemplateName", "other"), ("LaunchTemplateData.ImageId", "ami-12345678")];
    yard.ec2("CreateLaunchTemplate", &data);
    yard.group_from("foreign", "0", &[("LaunchTemplate.LaunchTemplateName", "other")]);
    configuration(&yard, "old", &one, &[]);
    yard.group_from("old-fashioned", "0", &[("LaunchConfigurationName", "old")]);
    yard.group("web", "0", "1");
    yard.changes();
    yard.rollout_to_template(&two, &groups(&["foreign"])).failed(2, &["launch template other, not launch template chef"]);
    let words = ["is launched from launch configuration old", "--launch-configuration-prefix"];
    yard.rollout_to_template(&two, &groups(&["web", "old-fashioned"])).failed(2, &words);
    let by_configuration = ["--snapshot-id", &two, "--launch-configuration-prefix", "chef"];
    let refused = |more: &[&str], words: &[&str]| yard.rollout(&[&by_configuration[..], more].concat()).failed(2, words);
    refused(&groups(&["web"]), &["is launched from a template", "--launch-template"]);
    refused(&[], &["a group is needed"]);
    let rate = [&groups(&["old-fashioned"])[..], &["--fleet-volume-initialization-rate", "200"]].concat();
    refused(&rate, &["cannot have one"]);
    let rollback = [&groups(&["old-fashioned"])[..], &["--refresh", "--refresh-auto-rollback"]].concat();
    refused(&rollback, &["launch configuration", "numbered versions"]);
    assert_eq!(yard.changing_actions(), [""; 0]);
}

/// A launch configuration that says much, and whose `/dev/sdk` has this snapshot.
fn configuration(yard: &Yard, name: &str, snapshot: &str, more: &[(&str, &str)]) {
    let params = [
        ("LaunchConfigurationName", name),
        ("ImageId", "ami-12345678"),
        ("InstanceType", "m5.large"),
        ("KeyName", "ops"),
        ("UserData", USER_DATA),
        ("SecurityGroups.member.1", "sg-00000001"),
        ("SecurityGroups.member.2", "sg-00000002"),
        ("SpotPrice", "0.05"),
        ("IamInstanceProfile", "web"),
        ("InstanceMonitoring.Enabled", "true"),
        ("EbsOptimized", "true"),
        ("AssociatePublicIpAddress", "true"),
        ("MetadataOptions.HttpTokens", "required"),
        ("BlockDeviceMappings.member.1.DeviceName", "/dev/sda1"),
        ("BlockDeviceMappings.member.1.Ebs.VolumeSize", "8"),
        ("BlockDeviceMappings.member.2.DeviceName", "/dev/sdk"),
        ("BlockDeviceMappings.member.2.Ebs.SnapshotId", snapshot),
        ("BlockDeviceMappings.member.2.Ebs.VolumeType", "gp3"),
        ("BlockDeviceMappings.member.2.Ebs.DeleteOnTermination", "true"),
    ];
    yard.scaling("CreateLaunchConfiguration", &[&params, more].concat());
}

fn configuration_of(yard: &Yard, group: &str) -> String {
    text(&yard.look(group), "LaunchConfigurationName")
}

/// An element, without what no two configurations have in common.
fn content(yard: &Yard, name: &str) -> Vec<String> {
    let xml = yard.scaling("DescribeLaunchConfigurations", &[("LaunchConfigurationNames.member.1", name)]);
    let own = ["LaunchConfigurationName>", "LaunchConfigurationARN>", "CreatedTime>", "RequestId>"];
    let mut parts: Vec<String> =
        xml.split("</").map(str::to_owned).filter(|part| !own.iter().any(|it| part.contains(it))).collect();
    parts.sort();
    parts
}

fn configurations(yard: &Yard) -> Vec<String> {
    let mut names = texts(&yard.scaling("DescribeLaunchConfigurations", &[]), "LaunchConfigurationName");
    names.sort();
    names
}

const PREFIX: [&str; 2] = ["--launch-configuration-prefix", "chef"];

#[test]
fn root_a_launch_configuration_is_copied_with_another_snapshot() {
    let Some((yard, [one, two])) = yard() else { return };
    configuration(&yard, "old", &one, &[]);
    for name in ["web", "api"] {
        yard.group_from(name, "0", &[("LaunchConfigurationName", "old")]);
    }
    yard.changes();
    let json = yard.cloud.path("out.json");
    let more =
        [&["--snapshot-id", &two, "--output-json", json.to_str().unwrap()][..], &PREFIX, &groups(&["web", "api"])].concat();
    yard.rollout(&more).snapshot();
    let name = configuration_of(&yard, "web");
    let parts: Vec<&str> = name.split('-').collect();
    assert_eq!((parts[0], parts[1], parts[2].len()), ("chef", &TWO[..12], 12));
    assert_eq!(configuration_of(&yard, "api"), name);
    let calls = yard.changing_actions();
    assert_eq!(calls, ["CreateLaunchConfiguration", "UpdateAutoScalingGroup", "UpdateAutoScalingGroup"], "one for both");
    let (old, new) = (content(&yard, "old"), content(&yard, &name));
    let differing: Vec<&String> = new.iter().filter(|part| !old.contains(part)).collect();
    assert_eq!((old.len(), new.len(), differing.len()), (new.len(), old.len(), 1), "{differing:?}");
    assert!(differing[0].contains(&two));
    for said in [USER_DATA, "0.05", "ops", "sg-00000002", "required"] {
        assert!(new.iter().any(|part| part.contains(said)), "{said}");
    }
    let told: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(told["launch-configurations"], json!({ "web": name, "api": name }));
    assert_eq!(told["previous-snapshot-id"], json!(one));

    yard.rollout(&more).snapshot();
    assert_eq!(yard.changing_actions(), [""; 0]);
}

#[test]
fn root_configurations_that_nothing_uses_go_if_they_are_ours() {
    let Some((yard, [one, two])) = yard() else { return };
    for name in ["old", "chef-by-hand", "chef-0123456789ab-by-hand"] {
        configuration(&yard, name, &one, &[]);
    }
    yard.group_from("web", "0", &[("LaunchConfigurationName", "old")]);
    yard.group_from("api", "0", &[("LaunchConfigurationName", "old")]);
    let to = |snapshot: &str, group: &str, more: &[&str]| {
        yard.rollout(&[&["--snapshot-id", snapshot][..], &PREFIX, &groups(&[group]), more].concat()).snapshot();
        configuration_of(&yard, group)
    };
    let first = to(&two, "web", &[]);
    let second = to(&one, "web", &["--delete-unused-configurations"]);
    assert!(!configurations(&yard).contains(&first));
    let kept = to(&two, "api", &[]);
    assert_eq!(kept, first, "the name says what is in it");
    yard.fault("DeleteLaunchConfiguration", json!("drop-after"));
    let third = to(&two, "web", &["--delete-unused-configurations", "--fleet-volume-size", "2"]);
    let mut expected = vec!["old".to_owned(), "chef-by-hand".into(), "chef-0123456789ab-by-hand".into(), kept, third];
    expected.sort();
    assert_eq!(configurations(&yard), expected, "without {second}");
}

#[test]
fn root_a_configuration_whose_answer_was_lost_is_made_once() {
    let Some((yard, [one, two])) = yard() else { return };
    configuration(&yard, "old", &one, &[]);
    yard.group_from("web", "0", &[("LaunchConfigurationName", "old")]);
    let rollout = || yard.rollout(&[&["--snapshot-id", &two][..], &PREFIX, &groups(&["web"])].concat());
    // Made, and then nothing more is heard of Auto Scaling: as if the run had been killed.
    yard.fault("CreateLaunchConfiguration", json!("drop-after"));
    yard.fault("UpdateAutoScalingGroup", error("ValidationError", 400));
    rollout().failed(9, &["UpdateAutoScalingGroup: ValidationError"]);
    assert_eq!((configurations(&yard).len(), configuration_of(&yard, "web")), (2, "old".into()));
    yard.changes();
    rollout().snapshot();
    assert_eq!(yard.changing_actions(), ["UpdateAutoScalingGroup"]);
    assert_eq!(configurations(&yard).len(), 2);
}

#[test]
fn root_an_account_that_cannot_make_configurations_is_told_of_templates() {
    let Some((yard, [one, two])) = yard() else { return };
    configuration(&yard, "old", &one, &[]);
    yard.group_from("web", "0", &[("LaunchConfigurationName", "old")]);
    let message = "The Launch Configuration creation operation is not available in your account. Use launch templates to create \
                   configuration templates for your Auto Scaling groups.";
    let error = json!({ "code": "UnsupportedOperation", "status": 400, "message": message });
    yard.fault("CreateLaunchConfiguration", json!({ "error": error }));
    let ended = yard.rollout(&[&["--snapshot-id", &two][..], &PREFIX, &groups(&["web"])].concat());
    ended.failed(9, &["not available in your account", "move the group to a launch template", "--launch-template"]);
    assert_eq!(configuration_of(&yard, "web"), "old");
}
