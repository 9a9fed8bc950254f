//! What a user can say of volumes and snapshots in EC2, and what becomes of them.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use serde_json::{Value, json};

mod support {
    pub mod bridge;
    pub mod ec2;
    pub mod git_cli;
    pub mod store;
    pub mod tools;
}

use support::ec2::Stage;

/// The parameters of the last call of an action.
fn last(stage: &Stage, action: &str) -> BTreeMap<String, Value> {
    let calls = stage.cloud.bridge.calls().calls;
    calls.into_iter().rfind(|call| call.action == action).unwrap().params
}

/// Key and value of the tags in a call.
fn tags(params: &BTreeMap<String, Value>) -> BTreeMap<&str, &str> {
    let text = |name: String| params.get(&name).and_then(Value::as_str);
    let pair = |n: usize| {
        let name = |what: &str| format!("TagSpecification.1.Tag.{n}.{what}");
        Some((text(name("Key"))?, text(name("Value")).unwrap_or_default()))
    };
    (1..50).map_while(pair).collect()
}

#[test]
fn root_a_new_volume_is_what_the_user_says() {
    let Some(stage) = Stage::new() else { return };
    let wanted = ["--volume-size", "12", "--iops", "4000", "--throughput", "250", "--kms-key-id", "alias/chef"];
    stage.bake(&[&wanted[..], &["--after", "delete"]].concat()).snapshot();
    let made = last(&stage, "CreateVolume");
    let expected = json!({ "Size": "12", "VolumeType": "gp3", "Iops": "4000", "Throughput": "250", "Encrypted": "true",
                           "KmsKeyId": "alias/chef", "AvailabilityZone": "us-east-1a" });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(made.get(name), Some(value), "{made:?}");
    }
    assert!(!made.contains_key("VolumeInitializationRate"), "a blank volume has nothing to load");
    stage.cloud.rests(0, 1);
    stage.change();
    stage.bake(&["--volume-initialization-rate", "200", "--volume-type", "io2", "--iops", "500"]).snapshot();
    let made = last(&stage, "CreateVolume");
    assert_eq!((&made["VolumeInitializationRate"], &made["VolumeType"]), (&json!("200"), &json!("io2")));
    assert_eq!(made["Size"], json!("12"), "as large as the snapshot");
    stage.bake(&["--volume-name", "other", "--iops", "1"]).failed(2, &["CreateVolume", "Invalid"]);
}

#[test]
fn root_a_volume_grows_and_does_not_shrink() {
    let Some(stage) = Stage::new() else { return };
    stage.bake(&[]).snapshot();
    stage.change();
    let ended = stage.bake(&["--volume-size", "9"]);
    assert!(ended.stderr.contains("grew from 8 to 9 GiB"), "{ended:?}");
    let id = ended.snapshot();
    assert_eq!(stage.cloud.bridge.state().snapshots[&id].size, 9);
    stage.change_again();
    stage.bake(&["--volume-size", "8"]).failed(2, &["has 9 GiB", "would shrink"]);
    stage.cloud.rests(1, 2);
}

#[test]
fn root_a_snapshot_has_the_users_tags_and_ours_in_the_call_that_makes_it() {
    let Some(stage) = Stage::new() else { return };
    stage.bake(&["--snapshot-tag", "team=a b", "--snapshot-tag", "Name=mine\ncost=", "--volume-name", "web"]).snapshot();
    let params = last(&stage, "CreateSnapshot");
    let tags = tags(&params);
    for (key, value) in
        [("team", "a b"), ("Name", "mine"), ("cost", ""), ("ebs-bake:volume", "web"), ("ebs-bake:ref", "refs/heads/main")]
    {
        assert_eq!(tags.get(key), Some(&value), "{tags:?}");
    }
    assert!(tags.contains_key("ebs-bake:key") && tags.contains_key("ebs-bake:run"), "{tags:?}");
    assert!(params["Description"].as_str().unwrap().starts_with("main at "), "{params:?}");
    let listed = stage.cloud.run(&stage.host, &["list", "--volume-name", "web"]);
    assert!(listed.stdout.contains("refs/heads/main") || listed.stdout.contains("main"), "{listed:?}");
}

#[test]
fn root_a_pending_snapshot_is_waited_for_or_not_and_never_made_twice() {
    let Some(stage) = Stage::new() else { return };
    stage.cloud.bridge.timing(json!({ "snapshot.pending": "never" }));
    let id = stage.bake(&["--no-wait"]).snapshot();
    stage.bake(&["--wait-timeout", "1s"]).failed(8, &[&id, "did not complete within 1 s", "--wait-timeout"]);
    let mut run = stage.start(&[]);
    run.until("is pending");
    stage.cloud.bridge.settle();
    assert_eq!(run.end().snapshot(), id);
    assert_eq!(stage.count("CreateSnapshot"), 1);
    stage.cloud.rests(1, 1);
}

#[test]
fn root_a_failed_snapshot_is_told_and_made_again() {
    let Some(stage) = Stage::new() else { return };
    stage.fault("CreateSnapshot", json!({ "becomes": "error" }));
    stage.bake(&[]).failed(8, &["failed", "run again: a new one is made"]);
    let ended = stage.bake(&[]);
    assert!(ended.stderr.contains("of this commit is unusable"), "{ended:?}");
    ended.snapshot();
    stage.cloud.rests(1, 2);
}
