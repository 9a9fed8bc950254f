//! Snapshots in other regions, for other accounts, and under a name.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use serde_json::{Value, json};

mod support {
    pub mod bridge;
    pub mod ec2;
    pub mod git_cli;
    pub mod store;
    pub mod tools;
}

use support::bridge::SnapshotState;
use support::ec2::{Ended, Stage};

const HOME: &str = "us-east-1";
const ALL: [&str; 8] =
    ["--copy-to", "eu-west-1", "--copy-to", "us-west-2", "--share-with", "111122223333", "--ssm-parameter", "/chef/latest"];

/// Region and copy of each snapshot, oldest first.
fn snapshots(stage: &Stage) -> Vec<(String, SnapshotState)> {
    stage.cloud.bridge.state().snapshots.into_iter().collect()
}

fn copies_in(stage: &Stage, region: &str) -> Vec<String> {
    snapshots(stage).into_iter().filter(|(_, it)| it.copy && it.region == region).map(|(id, _)| id).collect()
}

/// The actions that change something, in their order.
fn changes(stage: &Stage) -> Vec<String> {
    let is_change = |action: &String| !["Describe", "Get"].iter().any(|prefix| action.starts_with(prefix));
    stage.cloud.calls().into_iter().filter(is_change).collect()
}

fn outputs(stage: &Stage, more: &[&str]) -> (Ended, Value) {
    let file = stage.cloud.path("outputs.json");
    let ended = stage.bake(&[more, &["--output-json", file.to_str().unwrap()]].concat());
    let outputs = serde_json::from_slice(&std::fs::read(file).unwrap_or(b"null".to_vec())).unwrap();
    (ended, outputs)
}

#[test]
fn root_a_snapshot_is_copied_shared_and_announced_in_this_order_and_once() {
    let Some(stage) = Stage::new() else { return };
    let (ended, first) = outputs(&stage, &ALL);
    let id = ended.snapshot();
    let copies = [copies_in(&stage, "eu-west-1"), copies_in(&stage, "us-west-2")];
    assert_eq!(first["copies"], json!({ "eu-west-1": copies[0][0], "us-west-2": copies[1][0] }));
    assert_eq!((copies[0].len(), copies[1].len()), (1, 1));
    let calls = changes(&stage);
    let share = ["ModifySnapshotAttribute"; 3];
    let announce = ["PutParameter"; 3];
    assert_eq!(calls[calls.len() - 8..], [&["CopySnapshot"; 2][..], &share, &announce].concat());

    let ended = stage.bake(&ALL);
    assert_eq!(ended.snapshot(), id);
    assert_eq!(changes(&stage), [""; 0], "{}", ended.stderr);
    stage.bake(&["--share-with", "444455556666"]).snapshot();
    assert_eq!(changes(&stage), ["ModifySnapshotAttribute"]);
}

#[test]
fn root_an_encrypted_snapshot_is_copied_with_another_key() {
    let Some(stage) = Stage::new() else { return };
    stage.bake(&["--encrypted", "--copy-to", "eu-west-1,alias/chef"]).snapshot();
    let calls = stage.cloud.bridge.calls().calls;
    let copy = calls.iter().find(|call| call.action == "CopySnapshot").unwrap();
    assert_eq!((copy.region.as_str(), &copy.params["KmsKeyId"]), ("eu-west-1", &json!("alias/chef")));
    assert!(copy.params["PresignedUrl"].as_str().unwrap().contains("SourceRegion=us-east-1"), "{copy:?}");
    assert_eq!(copies_in(&stage, "eu-west-1").len(), 1);
}

#[test]
fn root_a_copy_whose_answer_was_lost_is_found_and_not_made_twice() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("CopySnapshot", json!("drop-after"));
    stage.bake(&["--copy-to", "eu-west-1"]).snapshot();
    assert_eq!((stage.count("CopySnapshot"), copies_in(&stage, "eu-west-1").len()), (1, 1));
}

#[test]
fn root_a_copy_that_fails_is_told_and_nothing_is_announced() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("CopySnapshot", json!({ "becomes": "error" }));
    let (ended, outputs) = outputs(&stage, &["--copy-to", "eu-west-1", "--ssm-parameter", "/chef/latest"]);
    ended.failed(8, &["failed", "is good", "run again"]);
    assert_eq!((ended.stdout.as_str(), outputs, stage.count("PutParameter")), ("", Value::Null, 0));
    stage.bake(&["--copy-to", "eu-west-1", "--ssm-parameter", "/chef/latest"]).snapshot();
    assert_eq!((copies_in(&stage, "eu-west-1").len(), stage.count("CreateSnapshot")), (2, 1), "the failed one and a good one");
}

#[test]
fn root_what_is_not_permitted_names_the_policy() {
    let Some(stage) = Stage::new() else { return };
    for (action, code, option) in [
        ("CopySnapshot", "UnauthorizedOperation", ["--copy-to", "eu-west-1"]),
        ("ModifySnapshotAttribute", "UnauthorizedOperation", ["--share-with", "111122223333"]),
        ("PutParameter", "AccessDeniedException", ["--ssm-parameter", "latest"]),
    ] {
        stage.fault(action, json!({ "error": { "code": code, "status": 403 } }));
        stage.bake(&option).failed(3, &[action, "docs/iam-policy.json"]);
    }
    let message = "Encrypted snapshots with EBS default key cannot be shared";
    let error = json!({ "code": "OperationNotPermitted", "status": 400, "message": message });
    stage.fault("ModifySnapshotAttribute", json!({ "error": error }));
    stage.bake(&["--share-with", "111122223333"]).failed(5, &[message, "--kms-key-id", "is good"]);
}

#[test]
fn root_what_cannot_be_published_is_refused_before_anything_is_done() {
    let Some(stage) = Stage::new() else { return };
    stage.bake(&["--copy-to", "eu-west-1", "--no-wait"]).failed(2, &["--no-wait"]);
    stage.bake(&["--store", "local", "--ssm-parameter", "x"]).failed(2, &["are for EC2"]);
    stage.bake(&["--region", HOME, "--copy-to", HOME]).failed(2, &["--copy-to us-east-1"]);
    stage.bake(&["--copy-to", "eu-west-1", "--copy-to", "eu-west-1,key"]).failed(2, &["named twice"]);
    assert_eq!(changes(&stage), [""; 0]);
    let ended = stage.bake(&[&ALL[..], &["--dry-run"]].concat());
    for words in ["would copy it to eu-west-1", "would share it with 111122223333", "the parameter /chef/latest"] {
        assert!(ended.stderr.contains(words), "{ended:?}");
    }
    assert_eq!(changes(&stage), [""; 0]);
}
