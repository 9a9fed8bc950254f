//! What EC2 does to a bake: numbered as in `tests/bridge/README.md`. Each test looks what is left afterwards.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use serde_json::{Value, json};

mod support {
    pub mod bridge;
    pub mod ec2;
    pub mod git_cli;
    pub mod store;
    pub mod tools;
}

use support::bridge::Host;
use support::ec2::Stage;
use support::store::needs_root;

/// For what never comes.
const BRIEF: [&str; 2] = ["--attach-timeout", "2s"];

/// An answer with an error.
fn error(code: &str, status: u16) -> Value {
    json!({ "error": { "code": code, "status": status } })
}

#[test]
fn root_fault_1_a_snapshot_whose_answer_was_lost_is_found_and_not_made_twice() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("CreateSnapshot", json!("drop-after"));
    stage.bake(&[]).snapshot();
    assert_eq!(stage.count("CreateSnapshot"), 1);
    stage.cloud.rests(1, 1);
}

#[test]
fn root_fault_2_such_a_snapshot_may_take_its_time_to_be_listed() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("CreateSnapshot", json!({ "drop-after": true, "hide": { "polls": 4 } }));
    stage.bake(&[]).snapshot();
    assert_eq!(stage.count("CreateSnapshot"), 1);
    stage.cloud.rests(1, 1);
}

#[test]
fn root_fault_3_an_answer_after_our_deadline_is_none() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("CreateSnapshot", json!({ "delay": 33 }));
    stage.bake(&[]).snapshot();
    assert_eq!(stage.count("CreateSnapshot"), 1);
    stage.cloud.rests(1, 1);
}

#[test]
fn root_fault_4_the_rate_of_a_volume_is_waited_out() {
    let Some(stage) = Stage::new() else { return };
    stage.faults("CreateSnapshot", 3, error("SnapshotCreationPerVolumeRateExceeded", 400));
    stage.bake(&[]).snapshot();
    stage.cloud.rests(1, 1);
}

#[test]
fn root_fault_5_too_many_pending_snapshots_are_waited_for() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("CreateSnapshot", error("ConcurrentSnapshotLimitExceeded", 400));
    let ended = stage.bake(&[]);
    assert!(ended.stderr.contains("too many snapshots are pending"), "{}", ended.stderr);
    ended.snapshot();
    stage.cloud.rests(1, 1);
}

#[test]
fn root_fault_6_a_storm_of_503_passes() {
    let Some(stage) = Stage::new() else { return };
    for action in ["DescribeSnapshots", "DescribeVolumes", "CreateVolume", "AttachVolume", "DetachVolume"] {
        stage.faults(action, 2, error("Unavailable", 503));
    }
    stage.faults("CreateSnapshot", 1, error("RequestLimitExceeded", 503));
    stage.bake(&[]).snapshot();
    stage.cloud.rests(1, 1);
}

#[test]
fn root_fault_7_a_client_token_that_was_used_up_is_replaced_once() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("CreateVolume", error("IdempotentParameterMismatch", 400));
    stage.bake(&[]).snapshot();
    assert_eq!(stage.count("CreateVolume"), 2);
    stage.cloud.rests(1, 1);
}

#[test]
fn root_fault_8_a_volume_that_comes_to_nothing_is_deleted_again() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("CreateVolume", json!({ "becomes": "error" }));
    stage.bake(&[]).failed(5, &["came to nothing"]);
    stage.cloud.rests(0, 0);
}

#[test]
fn root_fault_9_a_state_that_runs_backwards_attaches_nothing_twice() {
    let Some(stage) = Stage::new() else { return };
    stage.bake(&["--after", "keep"]).snapshot();
    stage.cloud.bridge.settle();
    stage.change();
    let free = json!({ "override": { "*": { "status": "available", "attachmentSet": null } } });
    stage.cloud.bridge.rule(json!({ "action": "DescribeVolumes", "nth": 2, "effect": free }));
    stage.cloud.bridge.clear_calls();
    stage.bake(&["--after", "detach"]).snapshot();
    assert!(stage.count("AttachVolume") <= 1);
    stage.cloud.rests(1, 2);
}

#[test]
fn root_fault_10_a_volume_under_another_name_is_used_as_it_is() {
    let Some(stage) = Stage::new() else { return };
    stage.bake(&["--after", "keep", "--device", "/dev/sdm"]).snapshot();
    stage.cloud.bridge.settle();
    stage.change();
    let ended = stage.bake(&["--after", "detach"]);
    assert!(ended.stderr.contains("as /dev/sdm"), "{}", ended.stderr);
    ended.snapshot();
    stage.cloud.rests(1, 2);
}

#[test]
fn root_fault_11_what_is_stuck_in_attaching_is_given_up_and_detached() {
    let Some(stage) = Stage::new() else { return };
    for (name, refused) in [("one", None), ("two", Some("IncorrectState")), ("three", Some("InvalidAttachment.NotFound"))] {
        stage.fault("AttachVolume", json!({ "takes": "never" }));
        refused.into_iter().for_each(|code| stage.fault("DetachVolume", error(code, 400)));
        let ended = stage.bake(&[&BRIEF[..], &["--volume-name", name]].concat());
        ended.failed(5, &["was not attached", "within 2 s"]);
        stage.cloud.rests(0, 0);
    }
}

#[test]
fn root_fault_12_a_volume_that_is_in_use_here_or_elsewhere_is_looked_at() {
    let Some(stage) = Stage::new() else { return };
    let volume = stage.named_volume();
    let other = stage.cloud.bridge.host("us-east-1a");
    stage.fault("AttachVolume", error("VolumeInUse", 400));
    let attach = |host: &Host| {
        let params = [("VolumeId", volume.as_str()), ("InstanceId", &host.instance_id), ("Device", "/dev/sdf")];
        stage.cloud.bridge.ec2("us-east-1", "AttachVolume", &params);
    };
    attach(&other);
    stage.bake(&[]).failed(4, &["is attached to", &other.instance_id]);
    let state = stage.cloud.bridge.state();
    assert_eq!(state.volumes[&volume].attachment.as_ref().unwrap().instance, other.instance_id);
}

#[test]
fn root_fault_13_a_device_name_that_is_taken_is_told_with_the_volume_that_has_it() {
    let Some(stage) = Stage::new() else { return };
    let taker = stage.foreign_volume(&[("AvailabilityZone", "us-east-1a"), ("Size", "1")]);
    let params = [("VolumeId", taker.as_str()), ("InstanceId", &stage.host.instance_id), ("Device", "/dev/sdk")];
    stage.cloud.bridge.ec2("us-east-1", "AttachVolume", &params);
    stage.bake(&[]).failed(5, &["/dev/sdk is taken", &taker]);
    assert_eq!(stage.cloud.bridge.state().volumes.values().filter(|it| it.size == 8 && it.attachment.is_none()).count(), 0);
}

#[test]
fn root_fault_14_two_volumes_of_one_name_are_told_even_from_two_pages() {
    let Some(stage) = Stage::new() else { return };
    let (one, two) = (stage.named_volume(), stage.named_volume());
    stage.cloud.bridge.limits(json!({ "page_size": 1 }));
    stage.bake(&[]).failed(5, &[&one, &two]);
    stage.cloud.rests(2, 0);
}

#[test]
fn root_fault_15_credentials_that_expired_for_good_are_told() {
    let Some(stage) = Stage::new() else { return };
    stage.faults("*", 0, error("RequestExpired", 400));
    stage.bake(&[]).failed(3, &["RequestExpired", "expired"]);
    stage.cloud.rests(0, 0);
}

#[test]
fn root_fault_15_credentials_that_were_renewed_are_taken() {
    let Some(stage) = Stage::new() else { return };
    for action in ["DescribeSnapshots", "CreateVolume", "CreateSnapshot", "DetachVolume"] {
        stage.fault(action, error("ExpiredToken", 400));
    }
    stage.bake(&[]).snapshot();
    stage.cloud.rests(1, 1);
}

#[test]
fn root_fault_16_a_volume_with_multi_attach_is_refused() {
    let Some(stage) = Stage::new() else { return };
    let params = [
        ("AvailabilityZone", "us-east-1a"),
        ("Size", "4"),
        ("VolumeType", "io2"),
        ("Iops", "100"),
        ("MultiAttachEnabled", "true"),
    ];
    let volume = stage.foreign_volume(&params);
    stage.bake(&["--volume-id", &volume]).failed(5, &[&volume, "Multi-Attach"]);
    stage.cloud.rests(1, 0);
}

#[test]
fn root_fault_17_a_volume_in_another_zone_is_refused() {
    let Some(stage) = Stage::new() else { return };
    let volume = stage.foreign_volume(&[("AvailabilityZone", "us-east-1b"), ("Size", "1")]);
    stage.bake(&["--volume-id", &volume]).failed(5, &[&volume, "us-east-1b", "--volume-id"]);
    stage.cloud.rests(1, 0);
}

#[test]
fn root_fault_18_a_device_that_never_appears_is_told() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("AttachVolume", json!({ "device": { "present": false } }));
    stage.bake(&BRIEF).failed(6, &["did not appear"]);
    stage.cloud.rests(0, 0);
}

#[test]
fn root_fault_19_a_link_to_another_device_misleads_nobody() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("AttachVolume", json!({ "device": { "link_to": "nvme0n1" } }));
    stage.bake(&[]).snapshot();
    stage.cloud.rests(1, 1);
}

#[test]
fn root_fault_20_a_device_that_does_not_tell_its_volume_is_not_written_to() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("AttachVolume", json!({ "device": { "serial": null } }));
    stage.bake(&BRIEF).failed(6, &["cannot tell which volume"]);
    stage.cloud.rests(0, 0);
}

#[test]
fn root_fault_22_another_namespace_number_is_fine() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("AttachVolume", json!({ "device": { "namespace": 2 } }));
    stage.bake(&[]).snapshot();
    stage.cloud.rests(1, 1);
}

#[test]
fn root_fault_23_a_device_without_size_is_not_taken() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("AttachVolume", json!({ "device": { "size": 0 } }));
    stage.bake(&BRIEF).failed(6, &["did not appear"]);
    stage.cloud.rests(0, 0);
}

#[test]
fn root_fault_24_a_device_that_cannot_be_read_is_not_formatted() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("AttachVolume", json!({ "device": { "eio": true } }));
    assert_eq!(stage.bake(&[]).code, 6);
    stage.cloud.rests(0, 0);
}

#[test]
fn root_fault_25_a_volume_that_was_attached_anew_while_it_was_waited_for_is_looked_for_anew() {
    let Some(stage) = Stage::new() else { return };
    stage.bake(&["--after", "keep"]).snapshot();
    stage.change();
    let held = stage.hold_the_device();
    let mut run = stage.start(&[]);
    run.until("is in use");
    stage.attach_anew();
    drop(held);
    run.end().snapshot();
    assert_eq!((stage.count("CreateVolume"), stage.cloud.bridge.state().snapshots.len()), (1, 2));
}

#[test]
fn root_fault_26_a_partition_table_is_not_overwritten() {
    let Some(stage) = Stage::new() else { return };
    let volume = stage.named_volume();
    stage.fault("AttachVolume", json!({ "device": { "partition_table": true } }));
    stage.bake(&[]).failed(6, &[&volume, "refusing to format"]);
    stage.cloud.rests(1, 0);
}

#[test]
fn root_fault_27_disks_of_the_instance_itself_are_passed_over() {
    if !needs_root() {
        return;
    }
    let stage = Stage::like(json!({ "zone": "us-east-1a", "instance_store": 1 }));
    stage.bake(&[]).snapshot();
    stage.cloud.rests(1, 1);
}

#[test]
fn root_xen_disks_are_found_by_name() {
    if !needs_root() {
        return;
    }
    let stage = Stage::like(json!({ "zone": "us-east-1a", "layout": "xen" }));
    stage.bake(&[]).snapshot();
    stage.cloud.rests(1, 1);
}

#[test]
fn root_what_is_not_permitted_is_told_with_the_policy() {
    let Some(stage) = Stage::new() else { return };
    stage.faults("DescribeSnapshots", 0, error("UnauthorizedOperation", 403));
    stage.bake(&[]).failed(3, &["UnauthorizedOperation", "docs/iam-policy.json"]);
    stage.cloud.rests(0, 0);
}

#[test]
fn root_fault_51_a_container_behind_the_hop_limit_is_told_what_to_do() {
    let Some(stage) = Stage::new() else { return };
    stage.cloud.bridge.imds(&stage.host, json!({ "mode": "hop-limit" }));
    stage.bake(&["--region", "us-east-1"]).failed(2, &["--network host", "--instance-id"]);
    let stated = ["--region", "us-east-1", "--instance-id", &stage.host.instance_id, "--availability-zone", &stage.host.zone];
    stage.bake(&stated).snapshot();
    stage.cloud.rests(1, 1);
}
