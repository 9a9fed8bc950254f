//! Snapshots, launch templates, launch configurations and groups in the bridge's cloud, and rollouts by the shipped program.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::process::Command;

use serde_json::{Value, json};

use super::bridge::{Call, Host};
use super::ec2::{Baking, Cloud, Ended};
use super::store::needs_root;

pub const REGION: &str = "us-east-1";
pub const USER_DATA: &str = "IyEvYmluL3NoCg==";
/// What the machines of [`Yard::fleet`] run.
pub const COMMIT_BEFORE: &str = "0000000000000000000000000000000000000001";

/// A cloud with machines, seen from a CI job somewhere else.
pub struct Yard {
    pub cloud: Cloud,
}

impl Yard {
    /// Nothing without root.
    pub fn new() -> Option<Yard> {
        needs_root().then(|| Yard { cloud: Cloud::new() })
    }

    fn job() -> Host {
        let nowhere = String::new();
        let imds = "http://127.0.0.1:9".to_owned();
        Host { instance_id: nowhere.clone(), zone: nowhere, region: REGION.into(), sysfs: "/".into(), dev: "/".into(), imds }
    }

    fn command(&self, more: &[&str]) -> Command {
        self.program(&[&["rollout"], more].concat())
    }

    pub fn program(&self, arguments: &[&str]) -> Command {
        let mut command = self.cloud.program(&Self::job(), arguments);
        command.env("AWS_REGION", REGION);
        command
    }

    /// Any command.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.program(arguments).output().unwrap())
    }

    /// `rollout` with these arguments.
    pub fn rollout(&self, more: &[&str]) -> Ended {
        Ended::of(self.command(more).output().unwrap())
    }

    /// The same for the template and a snapshot.
    pub fn rollout_to_template(&self, snapshot: &str, more: &[&str]) -> Ended {
        self.rollout(&[&["--snapshot-id", snapshot, "--launch-template", "chef"], more].concat())
    }

    /// The same, and it must go well.
    #[track_caller]
    pub fn rolls_out(&self, snapshot: &str, more: &[&str]) -> Ended {
        let ended = self.rollout_to_template(snapshot, more);
        assert_eq!(ended.snapshot(), snapshot);
        ended
    }

    pub fn start(&self, more: &[&str]) -> Baking {
        Baking::start(self.command(more))
    }

    // Snapshots

    /// A snapshot as ebs-bake makes it.
    pub fn snapshot(&self, commit: &str) -> String {
        self.snapshot_of("chef", commit, "1")
    }

    pub fn snapshot_of(&self, name: &str, commit: &str, size: &str) -> String {
        let repository = "https://example.com/chef";
        let tags =
            [("ebs-bake:volume", name), ("ebs-bake:commit", commit), ("ebs-bake:key", "k"), ("ebs-bake:repository", repository)];
        self.snapshot_with(size, &tags)
    }

    pub fn snapshot_with(&self, size: &str, tags: &[(&str, &str)]) -> String {
        let volume = self.ec2("CreateVolume", &[("AvailabilityZone", "us-east-1a"), ("Size", size)]);
        let volume = text(&volume, "volumeId");
        let mut params = vec![("VolumeId".to_owned(), volume), ("TagSpecification.1.ResourceType".into(), "snapshot".into())];
        for (number, (key, value)) in (1..).zip(tags) {
            let name = format!("TagSpecification.1.Tag.{number}");
            params.extend([(format!("{name}.Key"), (*key).to_owned()), (format!("{name}.Value"), (*value).to_owned())]);
        }
        let params: Vec<(&str, &str)> = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        text(&self.ec2("CreateSnapshot", &params), "snapshotId")
    }

    // Launch templates

    /// A launch template `chef` with user data and three mappings, that of `/dev/sdk` with this snapshot.
    pub fn template(&self, snapshot: &str) -> String {
        self.template_with(snapshot, &[])
    }

    pub fn template_with(&self, snapshot: &str, more: &[(&str, &str)]) -> String {
        let data = "LaunchTemplateData";
        let foreign = self.snapshot_with("1", &[("Name", "foreign")]);
        let params = [
            ("LaunchTemplateName".to_owned(), "chef".to_owned()),
            (format!("{data}.ImageId"), "ami-12345678".into()),
            (format!("{data}.InstanceType"), "m5.large".into()),
            (format!("{data}.UserData"), USER_DATA.into()),
            (format!("{data}.EbsOptimized"), "true".into()),
            (format!("{data}.BlockDeviceMapping.1.DeviceName"), "/dev/sda1".into()),
            (format!("{data}.BlockDeviceMapping.1.Ebs.VolumeSize"), "8".into()),
            (format!("{data}.BlockDeviceMapping.2.DeviceName"), "/dev/sdb".into()),
            (format!("{data}.BlockDeviceMapping.2.Ebs.SnapshotId"), foreign),
            (format!("{data}.BlockDeviceMapping.2.Ebs.Encrypted"), "true".into()),
            (format!("{data}.BlockDeviceMapping.3.DeviceName"), "/dev/sdk".into()),
            (format!("{data}.BlockDeviceMapping.3.Ebs.SnapshotId"), snapshot.into()),
            (format!("{data}.BlockDeviceMapping.3.Ebs.VolumeType"), "gp3".into()),
            (format!("{data}.BlockDeviceMapping.3.Ebs.DeleteOnTermination"), "true".into()),
        ];
        let params = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(more.iter().copied());
        let params: Vec<(&str, &str)> = params.collect();
        text(&self.ec2("CreateLaunchTemplate", &params), "launchTemplateId")
    }

    /// Its versions' elements, oldest first.
    pub fn versions(&self) -> Vec<String> {
        let xml = self.ec2("DescribeLaunchTemplateVersions", &[("LaunchTemplateName", "chef")]);
        let mut versions: Vec<String> = xml.split("<launchTemplateId>").skip(1).map(str::to_owned).collect();
        versions.sort_by_key(|version| text(version, "versionNumber").parse::<i64>().unwrap());
        versions
    }

    pub fn numbers(&self) -> Vec<String> {
        self.versions().iter().map(|version| text(version, "versionNumber")).collect()
    }

    pub fn default(&self) -> String {
        let versions = self.versions();
        text(versions.iter().find(|it| text(it, "defaultVersion") == "true").unwrap(), "versionNumber")
    }

    // Groups

    /// What the examples for CI systems find: the template, and a group `chef` of one machine.
    pub fn fleet(&self) {
        self.template(&self.snapshot(COMMIT_BEFORE));
        self.group("chef", "1", "1");
        self.changes();
    }

    /// That fleet runs this snapshot. It was rolled out once, and of all mappings only the one for it is another.
    #[track_caller]
    pub fn assert_rolled_out(&self, snapshot: &str) {
        let mut changes = self.changing_actions();
        changes.retain(|action| action.contains("Template") || action.contains("Refresh") || action.contains("Group"));
        assert_eq!(changes, ["CreateLaunchTemplateVersion", "StartInstanceRefresh"]);
        let versions = self.versions();
        let [old, new] = versions.as_slice() else { panic!("two versions are expected: {versions:#?}") };
        let before = texts(old, "snapshotId").pop().unwrap();
        assert_eq!(texts(new, "deviceName"), ["/dev/sda1", "/dev/sdb", "/dev/sdk"]);
        assert_eq!(texts(new, "snapshotId").pop().as_deref(), Some(snapshot));
        assert_eq!(template_data(new), template_data(&old.replace(&before, snapshot)));
        assert_eq!((self.refreshes("chef"), self.versions_of_machines("chef")), (vec!["Successful".into()], vec!["2".into()]));
    }

    /// A group of so many machines, launched from this version of the template.
    pub fn group(&self, name: &str, size: &str, version: &str) {
        let source = [("LaunchTemplate.LaunchTemplateName", "chef"), ("LaunchTemplate.Version", version)];
        self.group_from(name, size, &source);
    }

    pub fn group_from(&self, name: &str, size: &str, source: &[(&str, &str)]) {
        let shape = [
            ("AutoScalingGroupName", name),
            ("MinSize", "0"),
            ("MaxSize", "4"),
            ("DesiredCapacity", size),
            ("AvailabilityZones.member.1", "us-east-1a"),
        ];
        self.scaling("CreateAutoScalingGroup", &[&shape, source].concat());
    }

    /// A group's element.
    pub fn look(&self, name: &str) -> String {
        self.scaling("DescribeAutoScalingGroups", &[("AutoScalingGroupNames.member.1", name)])
    }

    /// The version that a group is launched from.
    pub fn version_of(&self, name: &str) -> String {
        let xml = self.look(name);
        let instances =
            xml.find("<Instances>").map_or(xml.clone(), |at| xml[..at].to_owned() + xml.split("</Instances>").nth(1).unwrap());
        text(&instances, "Version")
    }

    /// The versions that its machines were launched from.
    pub fn versions_of_machines(&self, name: &str) -> Vec<String> {
        let xml = self.look(name);
        let instances = xml.split("<Instances>").nth(1).and_then(|rest| rest.split("</Instances>").next());
        instances.map(|xml| texts(xml, "Version")).unwrap_or_default()
    }

    /// The refreshes of a group, newest first: their statuses.
    pub fn refreshes(&self, name: &str) -> Vec<String> {
        texts(&self.scaling("DescribeInstanceRefreshes", &[("AutoScalingGroupName", name)]), "Status")
    }

    // Calls

    /// By somebody else.
    pub fn ec2(&self, action: &str, params: &[(&str, &str)]) -> String {
        self.cloud.bridge.ec2(REGION, action, params)
    }

    pub fn scaling(&self, action: &str, params: &[(&str, &str)]) -> String {
        self.cloud.bridge.call("autoscaling", REGION, action, params)
    }

    pub fn fault(&self, action: &str, effect: Value) {
        self.cloud.bridge.fault(action, effect);
    }

    pub fn faults(&self, action: &str, times: u32, effect: Value) {
        self.cloud.bridge.rule(json!({ "action": action, "times": times, "effect": effect }));
    }

    /// The calls that change something, since the last time that this was asked.
    pub fn changes(&self) -> Vec<Call> {
        let calls = self.cloud.bridge.calls().calls;
        self.cloud.bridge.clear_calls();
        calls.into_iter().filter(|call| !call.action.starts_with("Describe")).collect()
    }

    pub fn changing_actions(&self) -> Vec<String> {
        self.changes().into_iter().map(|call| call.action).collect()
    }
}

/// The data of a version's element, in parts and in no order of theirs.
pub fn template_data(version: &str) -> Vec<String> {
    let data = version.split("<launchTemplateData>").nth(1).unwrap().split("</launchTemplateData>").next().unwrap();
    let mut parts: Vec<String> = data.split("</").map(str::to_owned).collect();
    parts.sort();
    parts
}

/// The first text of an element.
#[track_caller]
pub fn text(xml: &str, name: &str) -> String {
    texts(xml, name).into_iter().next().unwrap_or_else(|| panic!("no <{name}> in {xml}"))
}

/// The texts of all elements with this name.
pub fn texts(xml: &str, name: &str) -> Vec<String> {
    let open = format!("<{name}>");
    xml.split(&open).skip(1).map(|rest| rest.split('<').next().unwrap_or_default().to_owned()).collect()
}

/// An answer with an error.
pub fn error(code: &str, status: u16) -> Value {
    json!({ "error": { "code": code, "status": status } })
}
