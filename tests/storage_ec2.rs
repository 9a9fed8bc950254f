//! The store on EC2, through the bridge: the contract of every store, and bakes by the shipped program.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ebs_bake::cancel::Cancel;
use ebs_bake::config::{Ec2, Ec2Volume};
use ebs_bake::host::device::SysFs;
use ebs_bake::report::Report;
use ebs_bake::storage::Attachment;
use ebs_bake::storage::ec2::Ec2Store;

mod support {
    pub mod bridge;
    pub mod contract;
    pub mod ec2;
    pub mod git_cli;
    pub mod store;
    pub mod tools;
}

use support::bridge::Host;
use support::contract;
use support::ec2::Cloud;
use support::git_cli::Scratch;
use support::store::{block_on, needs_root};

/// Set in the process that runs the contract, with the environment of an instance.
const INSIDE: &str = "EBS_BAKE_TEST_INSIDE";

/// Nothing without root.
fn cloud() -> Option<Cloud> {
    needs_root().then(Cloud::new)
}

fn host(cloud: &Cloud) -> Host {
    cloud.bridge.host("us-east-1a")
}

fn repository(scratch: &Scratch) -> PathBuf {
    scratch.repository("origin");
    scratch.path("origin")
}

fn store() -> Ec2Store {
    let volume = Ec2Volume { kind: "gp3".into(), ..Ec2Volume::default() };
    let settings = Ec2 { device: "/dev/sdk".into(), attach_timeout: Duration::from_secs(90), volume, ..Ec2::default() };
    Ec2Store::new(settings, sysfs(), Report::silent(), Cancel::new())
}

fn sysfs() -> SysFs {
    SysFs::new(std::env::var_os("EBS_BAKE_SYSFS_ROOT").unwrap())
}

fn open(attachment: &Attachment) -> File {
    let Attachment::Here { locator, .. } = attachment else { panic!("not attached here: {attachment:?}") };
    sysfs().find(locator).unwrap().unwrap().node().unwrap().open(true).unwrap()
}

#[test]
fn root_ec2_store_passes_the_contract() {
    if std::env::var_os(INSIDE).is_some() {
        let (store, other) = (store(), store());
        let subject = contract::Subject {
            store: &store,
            other: &other,
            open: &open,
            run: "only".into(),
            one_at_a_time: Some(Default::default()),
        };
        return block_on(contract::run(&subject));
    }
    let Some(cloud) = cloud() else { return };
    let instance = host(&cloud);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "root_ec2_store_passes_the_contract", "--nocapture"]);
    let output =
        command.env_clear().envs(cloud.variables(&instance)).env(INSIDE, "1").env("RUST_BACKTRACE", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    cloud.rests(0, 0);
}

#[test]
fn root_a_commit_is_baked_once_and_costs_one_call_afterwards() {
    let Some(cloud) = cloud() else { return };
    let (scratch, instance) = (Scratch::new(), host(&cloud));
    let repository = repository(&scratch);
    let first = cloud.bake(&instance, &repository, &[]).snapshot();
    cloud.rests(1, 1);
    cloud.calls();
    assert_eq!(cloud.bake(&instance, &repository, &[]).snapshot(), first);
    assert_eq!(cloud.calls(), ["DescribeSnapshots"]);
    scratch.commit("origin", &[("README", "changed\n")]);
    assert_ne!(cloud.bake(&instance, &repository, &[]).snapshot(), first);
    cloud.rests(1, 2);
}

#[test]
fn root_a_bake_on_an_attached_volume_costs_few_calls() {
    let Some(cloud) = cloud() else { return };
    let (scratch, instance) = (Scratch::new(), host(&cloud));
    let repository = repository(&scratch);
    cloud.bake(&instance, &repository, &["--after", "keep"]).snapshot();
    cloud.bridge.settle();
    scratch.commit("origin", &[("README", "changed\n")]);
    cloud.calls();
    cloud.bake(&instance, &repository, &["--after", "keep"]).snapshot();
    let calls = cloud.calls();
    assert!(calls.len() <= 8, "{calls:?}");
    assert_eq!(calls.iter().filter(|call| *call == "CreateSnapshot").count(), 1, "{calls:?}");
    assert!(!calls.iter().any(|call| call == "AttachVolume" || call == "DetachVolume"), "{calls:?}");
}

#[test]
fn root_a_volume_that_is_attached_elsewhere_is_not_taken() {
    let Some(cloud) = cloud() else { return };
    let (scratch, one, two) = (Scratch::new(), host(&cloud), host(&cloud));
    let repository = repository(&scratch);
    cloud.bake(&one, &repository, &["--after", "keep"]).snapshot();
    scratch.commit("origin", &[("README", "changed\n")]);
    cloud.bake(&two, &repository, &[]).failed(4, &["is attached to", &one.instance_id]);
    let state = cloud.bridge.state();
    let attachments = state.volumes.values().filter_map(|volume| volume.attachment.as_ref());
    let holders: Vec<&str> = attachments.filter(|it| it.device == "/dev/sdk").map(|it| it.instance.as_str()).collect();
    assert_eq!(holders, [one.instance_id.as_str()]);
}

#[test]
fn root_another_zone_goes_on_from_the_snapshot() {
    let Some(cloud) = cloud() else { return };
    let (scratch, one, two) = (Scratch::new(), host(&cloud), cloud.bridge.host("us-east-1b"));
    let repository = repository(&scratch);
    let first = cloud.bake(&one, &repository, &[]).snapshot();
    scratch.commit("origin", &[("README", "changed\n")]);
    let ended = cloud.bake(&two, &repository, &[]);
    assert!(ended.stderr.contains(&format!("from {first}")), "{}", ended.stderr);
    assert_ne!(ended.snapshot(), first);
    cloud.rests(2, 2);
}
