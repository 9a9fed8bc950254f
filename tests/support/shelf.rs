//! Snapshots of any age in the bridge's EC2, and who uses them.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::bridge::Bridge;
use super::ec2::{Ended, Stage};

const REGION: &str = "us-east-1";
const DAY: f64 = 24.0 * 3600.0;

/// A place with snapshots of one volume.
pub struct Shelf {
    pub stage: Stage,
    volume: String,
}

impl Shelf {
    /// Nothing without root.
    pub fn new() -> Option<Shelf> {
        let stage = Stage::new()?;
        let volume = stage.named_volume();
        // Its clock goes back for older ones.
        stage.cloud.bridge.limits(json!({ "snapshot_interval": -1e9 }));
        stage.cloud.bridge.clear_calls();
        Some(Shelf { stage, volume })
    }

    pub fn bridge(&self) -> &Bridge {
        &self.stage.cloud.bridge
    }

    /// What EC2 answers to somebody else.
    pub fn ec2(&self, action: &str, params: &[(&str, &str)]) -> String {
        self.bridge().ec2(REGION, action, params)
    }

    pub fn scaling(&self, action: &str, params: &[(&str, &str)]) -> String {
        self.bridge().call("autoscaling", REGION, action, params)
    }

    /// A snapshot of the volume name `chef`, so many days old.
    pub fn aged(&self, days: u32) -> String {
        self.named(days, "chef")
    }

    pub fn named(&self, days: u32, name: &str) -> String {
        self.tagged(
            days,
            &[("ebs-bake:key", "0123456789abcdef"), ("ebs-bake:volume", name), ("ebs-bake:commit", "fedcba9876543210")],
        )
    }

    pub fn tagged(&self, days: u32, tags: &[(&str, &str)]) -> String {
        let mut params = vec![("VolumeId".to_owned(), self.volume.clone())];
        params.push(("TagSpecification.1.ResourceType".into(), "snapshot".into()));
        for (number, (key, value)) in (1..).zip(tags) {
            params.push((format!("TagSpecification.1.Tag.{number}.Key"), (*key).into()));
            params.push((format!("TagSpecification.1.Tag.{number}.Value"), (*value).into()));
        }
        let params: Vec<(&str, &str)> = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let age = f64::from(days) * DAY;
        self.bridge().advance(-age);
        let answer = self.ec2("CreateSnapshot", &params);
        self.bridge().advance(age);
        tag(&answer, "snapshotId")
    }

    /// Several, oldest first.
    pub fn several<const N: usize>(&self, days: [u32; N]) -> [String; N] {
        days.map(|days| self.aged(days))
    }

    /// A launch template whose first version has the snapshot; its ID.
    pub fn template(&self, name: &str, snapshot: &str) -> String {
        let mapping = mapping("LaunchTemplateData.BlockDeviceMapping.1", snapshot);
        let image = ("LaunchTemplateData.ImageId", "ami-12345678");
        let kind = ("LaunchTemplateData.InstanceType", "m5.large");
        let params = [("LaunchTemplateName", name), image, kind, mapping[0].pair(), mapping[1].pair()];
        tag(&self.ec2("CreateLaunchTemplate", &params), "launchTemplateId")
    }

    /// Its next version.
    pub fn version(&self, template: &str, snapshot: &str) {
        let mapping = mapping("LaunchTemplateData.BlockDeviceMapping.1", snapshot);
        let params = [("LaunchTemplateId", template), ("SourceVersion", "1"), mapping[0].pair(), mapping[1].pair()];
        self.ec2("CreateLaunchTemplateVersion", &params);
    }

    /// A group without instances.
    pub fn group(&self, name: &str, source: &[(&str, &str)]) {
        let own = [("AutoScalingGroupName", name), ("MinSize", "0"), ("MaxSize", "2"), ("DesiredCapacity", "0")];
        let zone = [("AvailabilityZones.member.1", "us-east-1a")];
        self.scaling("CreateAutoScalingGroup", &[&own[..], &zone, source].concat());
    }

    pub fn configuration(&self, name: &str, snapshot: &str) {
        let mapping = mapping("BlockDeviceMappings.member.1", snapshot);
        let own = [("LaunchConfigurationName", name), ("ImageId", "ami-12345678"), ("InstanceType", "m5.large")];
        self.scaling("CreateLaunchConfiguration", &[&own[..], &[mapping[0].pair(), mapping[1].pair()]].concat());
    }

    pub fn image(&self, snapshot: &str) -> String {
        let mapping = mapping("BlockDeviceMapping.1", snapshot);
        tag(&self.ec2("RegisterImage", &[("Name", "an image"), mapping[0].pair(), mapping[1].pair()]), "imageId")
    }

    /// A volume made from the snapshot; its ID.
    pub fn volume_of(&self, snapshot: &str) -> String {
        self.stage.foreign_volume(&[("AvailabilityZone", "us-east-1a"), ("SnapshotId", snapshot)])
    }

    /// An instance that has such a volume; the volume's ID.
    pub fn held(&self, snapshot: &str) -> String {
        let volume = self.volume_of(snapshot);
        let host = self.stage.host.instance_id.as_str();
        self.ec2("AttachVolume", &[("VolumeId", &volume), ("InstanceId", host), ("Device", "/dev/sdk")]);
        volume
    }

    /// Writes a parameter of Systems Manager, whose protocol is another one.
    pub fn parameter(&self, name: &str, value: &str) {
        let address = self.bridge().api.strip_prefix("http://").unwrap();
        let body = json!({ "Name": name, "Value": value, "Type": "String", "Overwrite": true }).to_string();
        let length = body.len();
        let scope =
            format!("AWS4-HMAC-SHA256 Credential=other/20200101/{REGION}/ssm/aws4_request, SignedHeaders=host, Signature=0");
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: {scope}\r\n\
             X-Amz-Target: AmazonSSM.PutParameter\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    pub fn share(&self, snapshot: &str) {
        let what = [("Attribute", "createVolumePermission"), ("OperationType", "add"), ("UserId.1", "111122223333")];
        self.ec2("ModifySnapshotAttribute", &[&[("SnapshotId", snapshot)], &what[..]].concat());
    }

    pub fn fast_restore(&self, snapshot: &str, zone: &str) {
        self.ec2("EnableFastSnapshotRestores", &[("SourceSnapshotId.1", snapshot), ("AvailabilityZone.1", zone)]);
    }

    /// `prune --json`, and what it said of each snapshot.
    pub fn prune(&self, more: &[&str]) -> (Ended, Verdicts) {
        let ended = self.run(&[&["prune", "--json"], more].concat());
        let verdicts = Verdicts::of(&ended);
        (ended, verdicts)
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.stage.cloud.run(&self.stage.host, arguments)
    }

    /// The snapshots that are there.
    pub fn left(&self) -> BTreeSet<String> {
        self.bridge().state().snapshots.into_keys().collect()
    }

    /// How often actions were called whose names begin so.
    pub fn count(&self, prefix: &str) -> usize {
        let counts = self.bridge().calls().counts;
        counts.iter().filter(|(action, _)| action.starts_with(prefix)).map(|(_, count)| count).sum()
    }
}

/// What a run of `prune --json` said of each snapshot: action and reasons.
#[derive(Debug)]
pub struct Verdicts(BTreeMap<String, (String, String)>);

impl Verdicts {
    fn of(ended: &Ended) -> Verdicts {
        let value: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        let rows = value["snapshots"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let why = |row: &Value| row["why"].as_array().unwrap().iter().map(text).collect::<Vec<_>>().join("; ");
        Verdicts(rows.iter().map(|row| (text(&row["snapshot-id"]), (text(&row["action"]), why(row)))).collect())
    }

    /// A snapshot's action, whose reasons must have these words.
    #[track_caller]
    pub fn action(&self, id: &str, words: &str) -> &str {
        let (action, why) = self.0.get(id).unwrap_or_else(|| panic!("{id} is not in {self:?}"));
        assert!(why.contains(words), "{id} was {action}: {why:?} does not say {words:?}");
        action
    }

    pub fn ids(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }
}

/// A parameter of a call.
struct Parameter(String, String);

impl Parameter {
    fn pair(&self) -> (&str, &str) {
        (&self.0, &self.1)
    }
}

fn mapping(prefix: &str, snapshot: &str) -> [Parameter; 2] {
    let device = Parameter(format!("{prefix}.DeviceName"), "/dev/sdk".into());
    [device, Parameter(format!("{prefix}.Ebs.SnapshotId"), snapshot.into())]
}

/// The text of the first such element.
pub fn tag(xml: &str, name: &str) -> String {
    let rest = xml.split(&format!("<{name}>")).nth(1).unwrap_or_else(|| panic!("no {name} in {xml}"));
    rest.split('<').next().unwrap().to_owned()
}
