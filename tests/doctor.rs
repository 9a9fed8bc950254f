//! `doctor` by the shipped program: on instances of the bridge's EC2, and with the embedded store. It changes nothing.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

mod support {
    pub mod bridge;
    pub mod doctor;
    pub mod ec2;
    pub mod git_cli;
    pub mod store;
    pub mod tools;
}

use support::bridge::Host;
use support::doctor::Told;
use support::ec2::{Cloud, Ended};
use support::git_cli::Scratch;
use support::store::needs_root;

/// The most calls that one examination may cost.
const MOST_CALLS: usize = 16;

/// A cloud and an instance with an EBS volume: what it boots from.
struct Stage {
    cloud: Cloud,
    host: Host,
}

impl Stage {
    /// Nothing without root.
    fn new() -> Option<Stage> {
        needs_root().then(|| {
            let cloud = Cloud::new();
            let host = cloud.bridge.host("us-east-1a");
            Stage { cloud, host }
        })
    }

    fn program(&self, more: &[&str]) -> Command {
        let mut command = self.cloud.program(&self.host, &["doctor", "--mount-point"]);
        command.arg(self.cloud.path("code/chef")).args(["--state-dir"]).arg(self.cloud.path("state")).args(more);
        command
    }

    /// Examines this host; nothing may be changed by it, nor may it cost many calls.
    #[track_caller]
    fn doctor(&self, more: &[&str]) -> Told {
        self.cloud.bridge.settle();
        self.cloud.calls();
        let before: Value = self.cloud.bridge.control("GET", "state", &json!({}));
        let told = Told::of(Ended::of(self.program(&[&["--json"], more].concat()).output().unwrap()));
        let after: Value = self.cloud.bridge.control("GET", "state", &json!({}));
        assert_eq!(before, after, "something was changed");
        let calls = self.cloud.calls();
        assert!(calls.len() <= MOST_CALLS, "{} calls: {calls:?}", calls.len());
        self.nothing_left();
        told
    }

    #[track_caller]
    fn nothing_left(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.cloud.path("").display().to_string();
        assert!(!mounts.contains(here.trim_end_matches('/')), "a mount is left");
        assert!(!self.cloud.path("code").exists() && !self.cloud.path("state").exists(), "a directory is left");
        assert_eq!(fs::read_dir(self.cloud.path("tmp")).unwrap().count(), 0, "a temporary file is left");
    }

    fn deny(&self, action: &str) {
        let error = json!({ "error": { "code": "UnauthorizedOperation", "status": 403, "message": "Not for you." } });
        self.cloud.bridge.rule(json!({ "action": action, "times": 0, "effect": error }));
    }

    /// A volume of a bake, attached nowhere.
    fn baked(&self) -> String {
        let scratch = Scratch::new();
        scratch.repository("origin");
        self.cloud.bake(&self.host, &scratch.path("origin"), &[]).snapshot();
        self.cloud.bridge.settle();
        let state = self.cloud.bridge.state();
        let free = state.volumes.iter().find(|(_, volume)| volume.attachment.is_none());
        free.map(|(id, _)| id.clone()).expect("the bake made a volume")
    }

    fn foreign_volume(&self, params: &[(&str, &str)]) -> String {
        let xml = self.cloud.bridge.ec2("us-east-1", "CreateVolume", params);
        xml.split("<volumeId>").nth(1).unwrap().split('<').next().unwrap().to_owned()
    }

    fn attach(&self, volume: &str, host: &Host, device: &str) {
        let params = [("VolumeId", volume), ("InstanceId", &host.instance_id), ("Device", device)];
        self.cloud.bridge.ec2("us-east-1", "AttachVolume", &params);
    }
}

#[test]
fn root_an_instance_where_all_is_well_passes_before_and_after_the_first_bake() {
    let Some(stage) = Stage::new() else { return };
    let before = stage.doctor(&["--region", "us-east-1"]);
    before.failed(0, &[]);
    let about_what_there_is = [
        "ec2:AttachVolume",
        "ec2:CopySnapshot",
        "ec2:CreateSnapshot",
        "ec2:DeleteSnapshot",
        "ec2:DeleteVolume",
        "ec2:DescribeSnapshotAttribute",
        "ec2:DetachVolume",
        "ec2:ModifySnapshotAttribute",
        "ec2:ModifyVolume",
    ];
    assert_eq!(before.with("skipped"), about_what_there_is);
    before.says("volume", &["blank"]);
    before.says("instance", &[&stage.host.instance_id, "metadata service"]);
    before.says("region", &["us-east-1", "--region"]);
    before.says("credentials", &["arn:aws:"]);
    assert!(before.ended.stderr.is_empty(), "{}", before.ended.stderr);

    let volume = stage.baked();
    let after = stage.doctor(&[]);
    after.failed(0, &[]);
    assert_eq!(after.with("ok").len(), after.checks.len(), "{after:#?}");
    after.says("volume", &[&volume, "free"]);
}

#[test]
fn root_a_volume_that_is_gone_would_be_made_from_its_last_snapshot() {
    let Some(stage) = Stage::new() else { return };
    let volume = stage.baked();
    stage.cloud.bridge.ec2("us-east-1", "DeleteVolume", &[("VolumeId", &volume)]);
    let told = stage.doctor(&[]);
    told.failed(0, &[]);
    told.says("volume", &["would be made from snap-"]);
    told.says("ec2:CreateVolume", &["permitted"]);
}

#[test]
fn root_dry_runs_send_what_a_bake_sends() {
    let Some(stage) = Stage::new() else { return };
    let volume = stage.baked();
    let sent_by_the_bake = stage.cloud.bridge.calls().calls;
    stage.cloud.bridge.clear_calls();
    assert!(stage.program(&["--json"]).output().unwrap().status.success());
    let tried = stage.cloud.bridge.calls().calls;
    for action in ["CreateVolume", "AttachVolume", "CreateSnapshot", "DetachVolume"] {
        let of = |calls: &[support::bridge::Call]| calls.iter().find(|call| call.action == action).unwrap().params.clone();
        let (bake, mut dry) = (of(&sent_by_the_bake), of(&tried));
        assert_eq!(dry.remove("DryRun"), Some(json!("true")), "{action}");
        assert!(bake.keys().all(|name| dry.contains_key(name) || is_about_the_commit(name)), "{action}: {bake:?} {dry:?}");
        let tags = |params: &BTreeMap<String, Value>| -> Vec<Value> {
            params.iter().filter(|(name, _)| name.ends_with(".Key")).map(|(_, value)| value.clone()).collect()
        };
        assert!(tags(&dry).iter().all(|tag| tags(&bake).contains(tag)), "{action}: {dry:?}");
        assert!(tags(&bake).iter().all(|tag| tags(&dry).contains(tag) || tag == "ebs-bake:ref"), "{action}: {dry:?}");
    }
    assert!(tried.iter().any(|call| call.action == "DeleteVolume" && call.params["VolumeId"] == json!(volume)));
}

/// A commit may have a ref and so one tag more.
fn is_about_the_commit(name: &str) -> bool {
    name.starts_with("TagSpecification")
}

#[test]
fn root_a_container_behind_the_hop_limit_is_told_what_to_do() {
    let Some(stage) = Stage::new() else { return };
    stage.cloud.bridge.imds(&stage.host, json!({ "mode": "hop-limit" }));
    let told = stage.doctor(&["--region", "us-east-1"]);
    told.failed(2, &["metadata"]);
    told.says("metadata", &["hop limit", "--network host", "--instance-id"]);
    assert!(told.with("skipped").contains(&"ec2:AttachVolume"));
    for mode in ["disabled", "refuse"] {
        stage.cloud.bridge.imds(&stage.host, json!({ "mode": mode }));
        let told = stage.doctor(&["--region", "us-east-1"]);
        told.failed(2, &["metadata"]);
        assert!(!told.checks["metadata"]["detail"].as_str().unwrap().contains("hop limit"), "{mode}: {told:#?}");
    }
    let (id, zone) = (stage.host.instance_id.as_str(), stage.host.zone.as_str());
    let stated = stage.doctor(&["--region", "us-east-1", "--instance-id", id, "--availability-zone", zone]);
    stated.failed(0, &[]);
    stated.says("instance", &["--instance-id"]);
    stated.says("metadata", &["not needed"]);
}

#[test]
fn root_who_says_another_instance_or_region_than_this_is_told() {
    let Some(stage) = Stage::new() else { return };
    let told = stage.doctor(&["--region", "eu-west-1", "--instance-id", "i-00000001"]);
    assert_eq!(told.ended.code, 2, "{told:#?}");
    told.says("instance", &["i-00000001", &stage.host.instance_id]);
    told.says("zone", &["us-east-1a is not in region eu-west-1"]);
}

#[test]
fn root_one_denied_action_fails_that_check_and_no_other() {
    let Some(stage) = Stage::new() else { return };
    stage.baked();
    stage.deny("AttachVolume");
    let told = stage.doctor(&[]);
    told.failed(3, &["ec2:AttachVolume"]);
    told.says("ec2:AttachVolume", &["UnauthorizedOperation", "Not for you.", "docs/iam-policy.json"]);
}

#[test]
fn root_looking_for_volumes_that_is_denied_skips_what_needs_it() {
    let Some(stage) = Stage::new() else { return };
    stage.deny("DescribeVolumes");
    let told = stage.doctor(&[]);
    told.failed(3, &["ec2:DescribeVolumes"]);
    assert!(["volume", "device-name", "ec2:CreateVolume"].iter().all(|name| told.with("skipped").contains(name)), "{told:#?}");
    assert!(told.with("ok").contains(&"ec2:DescribeSnapshots"));
}

#[test]
fn root_an_action_that_only_some_options_need_is_a_warning_until_they_are_given() {
    let Some(stage) = Stage::new() else { return };
    stage.baked();
    stage.deny("ModifyVolume");
    let told = stage.doctor(&[]);
    told.failed(0, &[]);
    assert_eq!(told.with("warning"), ["ec2:ModifyVolume"]);
    told.says("ec2:ModifyVolume", &["--volume-size"]);
    stage.doctor(&["--volume-size", "16"]).failed(3, &["ec2:ModifyVolume"]);
}

#[test]
fn root_a_volume_that_a_bake_would_refuse_is_told_with_its_exit_code() {
    let Some(stage) = Stage::new() else { return };
    let volume = stage.baked();
    let other = stage.cloud.bridge.host("us-east-1a");
    stage.attach(&volume, &other, "/dev/sdf");
    let elsewhere = stage.doctor(&[]);
    elsewhere.failed(4, &["volume"]);
    elsewhere.says("volume", &[&volume, &other.instance_id]);
    let far = stage.foreign_volume(&[("AvailabilityZone", "us-east-1b"), ("Size", "1")]);
    let told = stage.doctor(&["--volume-id", &far]);
    told.failed(5, &["volume"]);
    told.says("volume", &[&far, "us-east-1b"]);
    let params = [("AvailabilityZone", "us-east-1a"), ("Size", "4"), ("VolumeType", "io2"), ("Iops", "100")];
    let shared = stage.foreign_volume(&[&params[..], &[("MultiAttachEnabled", "true")]].concat());
    let told = stage.doctor(&["--volume-id", &shared]);
    told.failed(5, &["volume"]);
    told.says("volume", &["Multi-Attach"]);
}

#[test]
fn root_a_device_name_that_is_taken_is_told_with_the_volume_that_has_it() {
    let Some(stage) = Stage::new() else { return };
    let taker = stage.foreign_volume(&[("AvailabilityZone", "us-east-1a"), ("Size", "1")]);
    stage.attach(&taker, &stage.host, "/dev/sdk");
    let told = stage.doctor(&[]);
    told.failed(5, &["device-name"]);
    told.says("device-name", &["/dev/sdk", &taker, "--device"]);
    stage.doctor(&["--device", "/dev/sdm"]).failed(0, &[]);
    // The volume itself may have the name.
    stage.doctor(&["--volume-id", &taker]).failed(0, &[]);
}

#[test]
fn root_credentials_that_are_not_valid_fail_and_spare_the_rest() {
    let Some(stage) = Stage::new() else { return };
    let expired = json!({ "error": { "code": "ExpiredToken", "status": 400 } });
    stage.cloud.bridge.rule(json!({ "action": "GetCallerIdentity", "times": 0, "effect": expired }));
    let told = stage.doctor(&[]);
    told.failed(3, &["credentials"]);
    told.says("credentials", &["ExpiredToken", "expired"]);
    assert_eq!(stage.cloud.calls(), [""; 0]);
}

#[test]
fn root_many_pending_snapshots_are_worth_a_warning_even_from_two_pages() {
    let Some(stage) = Stage::new() else { return };
    stage.cloud.bridge.limits(json!({ "snapshot_interval": 0, "concurrent_snapshots": 1000, "page_size": 50 }));
    let volume = stage.foreign_volume(&[("AvailabilityZone", "us-east-1a"), ("Size", "1")]);
    for _ in 0..85 {
        stage.cloud.bridge.ec2("us-east-1", "CreateSnapshot", &[("VolumeId", &volume)]);
    }
    for id in stage.cloud.bridge.state().snapshots.keys() {
        stage.cloud.bridge.set_state(id, "pending");
    }
    let before = stage.cloud.bridge.state().snapshots.len();
    assert_eq!(before, 85);
    let told = Told::of(Ended::of(stage.program(&["--json"]).output().unwrap()));
    told.failed(0, &[]);
    assert_eq!(told.with("warning"), ["pending-snapshots"]);
    told.says("pending-snapshots", &["85 of 100", "raised"]);
}

#[test]
fn root_a_program_that_is_missing_fails() {
    let Some(stage) = Stage::new() else { return };
    // In a mount namespace of its own, in which a file that is none covers the program.
    let script = "for directory in /usr/sbin /sbin /usr/bin /bin; do
                      [ ! -e $directory/mkfs.ext4 ] || mount --bind /dev/null $directory/mkfs.ext4 || exit 99
                  done
                  exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_ebs-bake"), "doctor", "--json", "--mount-point"]);
    command.arg(stage.cloud.path("code/chef")).env_clear().envs(stage.cloud.variables(&stage.host)).stdin(Stdio::null());
    command.current_dir(stage.cloud.path("home"));
    let told = Told::of(Ended::of(command.output().unwrap()));
    told.failed(6, &["mkfs.ext4"]);
    told.says("mkfs.ext4", &["not installed", "e2fsprogs"]);
    told.says("e2fsck", &["version"]);
}

/// Without any capability, and otherwise as it is given.
fn as_nobody(stage: &Stage, arguments: &[&str]) -> Told {
    // A copy: the build directory may be closed to others.
    let program = stage.cloud.path("ebs-bake");
    fs::copy(env!("CARGO_BIN_EXE_ebs-bake"), &program).unwrap();
    for name in ["", "home", "tmp"] {
        fs::set_permissions(stage.cloud.path(name), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]).arg(program);
    command.args(["doctor", "--json"]).args(arguments).env_clear().envs(stage.cloud.variables(&stage.host));
    command.current_dir(stage.cloud.path("home")).stdin(Stdio::null());
    Told::of(Ended::of(command.output().unwrap()))
}

#[test]
fn root_who_is_not_root_is_told_what_is_missing() {
    let Some(stage) = Stage::new() else { return };
    let told = as_nobody(&stage, &[]);
    told.failed(3, &["capabilities"]);
    told.says("capabilities", &["CAP_SYS_ADMIN", "CAP_MKNOD", "sudo"]);
    let skipped = told.with("skipped");
    assert!(
        ["mount-namespace", "devtmpfs", "mount-point", "block-device"].iter().all(|name| skipped.contains(name)),
        "{told:#?}"
    );
    assert!(told.with("ok").contains(&"ec2:CreateVolume"), "the rest is told all the same: {told:#?}");
    let store = stage.cloud.path("store").display().to_string();
    as_nobody(&stage, &["--local-dir", &store]).failed(3, &["capabilities"]);
    stage.nothing_left();
}

#[test]
fn root_the_embedded_store_is_examined_where_it_is_or_would_be() {
    let Some(stage) = Stage::new() else { return };
    let store = stage.cloud.path("store");
    let directory = store.to_str().unwrap();
    let told = stage.doctor(&["--local-dir", directory]);
    told.failed(0, &[]);
    assert!(told.with("warning").iter().all(|name| *name == "reflinks"), "{told:#?}");
    told.says("store-directory", &["made when it is needed"]);
    told.says("loop-device", &["/dev/loop"]);
    assert!(!store.exists());
    assert_eq!(stage.cloud.calls(), [""; 0], "it asks nobody");
    fs::create_dir(&store).unwrap();
    fs::write(store.join("precious"), "").unwrap();
    stage.doctor(&["--local-dir", directory]).failed(2, &["store-directory"]);
}

#[test]
fn root_a_mount_point_that_cannot_be_used_fails() {
    let Some(stage) = Stage::new() else { return };
    let point = stage.cloud.path("full");
    fs::create_dir(&point).unwrap();
    fs::write(point.join("file"), "").unwrap();
    let store = stage.cloud.path("store").display().to_string();
    let told =
        stage.cloud.program(&stage.host, &["doctor", "--json", "--local-dir", &store, "--mount-point"]).arg(&point).output();
    let told = Told::of(Ended::of(told.unwrap()));
    told.failed(6, &["mount-point"]);
    told.says("mount-point", &["is not empty", "--mount-point"]);
}

#[test]
fn root_the_table_has_a_line_for_each_check_and_fits() {
    let Some(stage) = Stage::new() else { return };
    stage.deny("CreateVolume");
    let json = stage.doctor(&[]);
    let ended = Ended::of(stage.program(&[]).output().unwrap());
    ended.failed(3, &["1 of ", "checks failed"]);
    assert!(ended.stdout.starts_with("CHECK "), "{}", ended.stdout);
    let names = |told: &Told| -> Vec<Value> {
        let value: Value = serde_json::from_str(&told.ended.stdout).unwrap();
        value["checks"].as_array().unwrap().iter().map(|check| check["name"].clone()).collect()
    };
    stage.cloud.bridge.imds(&stage.host, json!({ "mode": "refuse" }));
    assert_eq!(names(&json), names(&stage.doctor(&[])), "the order depends on nothing");
    for name in json.checks.keys() {
        assert_eq!(
            ended.stdout.lines().filter(|line| line.split(' ').next() == Some(name)).count(),
            1,
            "{name}: {}",
            ended.stdout
        );
    }
    assert!(ended.stdout.contains("hint: docs/iam-policy.json"), "{}", ended.stdout);
    assert!(ended.stdout.lines().all(|line| line.chars().count() <= 100), "{}", ended.stdout);
}
