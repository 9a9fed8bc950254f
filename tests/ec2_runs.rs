//! Runs on EC2 that are stopped, and what clears away after them.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

use serde_json::json;

mod support {
    pub mod bridge;
    pub mod ec2;
    pub mod git_cli;
    pub mod store;
    pub mod tools;
}

use support::ec2::Stage;

/// As terminated by SIGTERM.
const TERMINATED: i32 = 143;

#[test]
fn root_a_run_that_is_terminated_while_it_waits_for_the_attachment_gives_back_what_it_made() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("AttachVolume", json!({ "takes": "never" }));
    let run = stage.start(&[]);
    while stage.count("AttachVolume") == 0 {
        std::thread::yield_now();
    }
    run.terminate();
    assert_eq!(run.end().code, TERMINATED);
    stage.cloud.rests(0, 0);
}

#[test]
fn root_a_run_that_is_terminated_while_its_snapshot_is_pending_leaves_that_one_to_the_next() {
    let Some(stage) = Stage::new() else { return };
    stage.cloud.bridge.timing(json!({ "snapshot.pending": "never" }));
    let mut run = stage.start(&["--log-format", "json"]);
    run.until(r#""phase":"wait""#);
    run.terminate();
    assert_eq!(run.end().code, TERMINATED);
    stage.cloud.rests(1, 1);
    let id = stage.bake(&[]).snapshot();
    assert!(stage.cloud.bridge.state().snapshots.contains_key(&id));
    stage.cloud.rests(1, 1);
}

#[test]
fn root_a_snapshot_of_a_volume_that_was_attached_anew_meanwhile_is_no_answer() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("CreateSnapshot", json!({ "delay": 3 }));
    let run = stage.start(&[]);
    while stage.cloud.bridge.state().snapshots.is_empty() {
        std::thread::yield_now();
    }
    stage.attach_anew();
    run.end().failed(6, &["was attached anew", "was deleted: it may hold something else"]);
    stage.cloud.rests(0, 0);
    stage.bake(&[]).snapshot();
    stage.cloud.rests(1, 1);
}

#[test]
fn root_a_run_that_cannot_give_a_volume_back_says_so() {
    let Some(stage) = Stage::new() else { return };
    let denied = json!({ "error": { "status": 403, "code": "UnauthorizedOperation", "message": "no" } });
    stage.faults("DetachVolume", 0, denied);
    let ended = stage.bake(&["--after-checkout", "false"]);
    let (volume, _) = stage.attached();
    ended.failed(ended.code, &["cleaning up failed too", &volume, "could not be given back"]);
    stage.cloud.bridge.clear_faults();
    assert_eq!(stage.cloud.run(&stage.host, &["cleanup"]).code, 0);
    stage.cloud.rests(1, 0);
}

#[test]
fn root_what_ebs_bake_did_not_make_it_does_not_delete() {
    let Some(stage) = Stage::new() else { return };
    let volume = stage.named_volume();
    stage.bake(&["--after", "delete"]).failed(2, &[&volume, "was not made by ebs-bake"]);
    stage.bake(&["--after", "delete", "--volume-id", &volume]).failed(2, &[&volume]);
    stage.cloud.rests(1, 0);
}

#[test]
fn root_cleanup_gives_back_what_nothing_uses() {
    let Some(stage) = Stage::new() else { return };
    let (cloud, host) = (&stage.cloud, &stage.host);
    let snapshot = stage.bake(&["--after", "keep"]).snapshot();
    let (volume, _) = stage.attached();
    let held = stage.hold_the_device();
    assert_eq!(cloud.run(host, &["cleanup"]).code, 0);
    assert_eq!(stage.attached().0, volume, "another run has it");
    drop(held);
    let ended = cloud.run(host, &["cleanup"]);
    assert!(ended.stderr.contains(&format!("removed the attachment of volume {volume}")), "{ended:?}");
    cloud.rests(1, 1);

    let mount_point = cloud.path("restored");
    let mount_point = mount_point.to_str().unwrap();
    let restored = cloud.run(host, &["restore", "--snapshot-id", &snapshot, "--mount-point", mount_point]);
    assert_eq!(restored.code, 0, "{restored:?}");
    let _unmounted = Unmount(mount_point);
    assert_eq!(cloud.run(host, &["cleanup"]).code, 0);
    assert!(std::fs::exists(format!("{mount_point}/README")).unwrap(), "it is mounted");
    drop(_unmounted);
    let ended = cloud.run(host, &["cleanup"]);
    assert!(ended.stderr.contains("which restore made"), "{ended:?}");
    cloud.rests(1, 1);
}

struct Unmount<'a>(&'a str);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).output();
    }
}
