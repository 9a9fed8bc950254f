//! The whole way: a commit is baked and rolled out, a new machine of the group boots from it and runs its role; the next commit
//! takes its place, and what nobody uses any more goes.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use serde_json::json;

mod support {
    #[allow(dead_code)]
    pub mod bake;
    pub mod bridge;
    pub mod ec2;
    pub mod fleet;
    pub mod git_cli;
    pub mod node;
    pub mod store;
    pub mod tools;
}

use support::bridge::Host;
use support::fleet::{REGION, Yard, text};
use support::git_cli::Scratch;
use support::node;

/// Rolls a snapshot out to the group and replaces its machine.
fn roll_out(yard: &Yard, snapshot: &str) {
    yard.rolls_out(snapshot, &["--auto-scaling-group", "web", "--refresh"]);
    yard.cloud.bridge.settle();
}

/// Boots the machine that the group has now, with the volume that EC2 gave it, and returns the commit that it booted from.
fn boot(yard: &Yard) -> String {
    let instance = text(&yard.look("web"), "InstanceId");
    // As a machine, it has its disks.
    yard.cloud.bridge.launch(json!({ "instance_id": instance, "region": REGION }));
    let volumes = yard.cloud.bridge.state().volumes;
    let is_its = |volume: &&support::bridge::VolumeState| {
        volume.attachment.as_ref().is_some_and(|it| it.instance == instance && it.device == "/dev/sdk")
    };
    let device = volumes.values().find(is_its).unwrap().device.clone().unwrap().dev;
    let (major, minor) = device.split_once(':').unwrap();
    let device = libc::makedev(major.parse().unwrap(), minor.parse().unwrap());

    let machine = node::node(&["--role", "web"]);
    let booted = machine.boot(&(node::appears_as(device, "/dev/xvdk") + "exec /boot-script"));
    assert!(machine.read("/var/log/chef-run").starts_with("role web\n"), "{booted:?}");
    booted.is_good().status["commit"].as_str().unwrap().to_owned()
}

/// Deletes what is neither the newest nor used; whether this snapshot stayed.
fn survives_pruning(yard: &Yard, ci: &Host, snapshot: &str) -> bool {
    let ended = yard.cloud.run(ci, &["prune", "--keep", "1", "--keep-days", "0"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    yard.cloud.bridge.state().snapshots.contains_key(snapshot)
}

#[test]
fn root_from_a_commit_to_a_machine_that_runs_it_and_on_to_the_next() {
    let Some(yard) = Yard::new() else { return };
    let (scratch, ci) = (Scratch::new(), yard.cloud.bridge.host("us-east-1a"));
    let repository = scratch.path("chef");
    let bake = || yard.cloud.bake(&ci, &repository, &["--require-role", "web", "--checks", "chef"]).snapshot();
    yard.template(&yard.snapshot_with("1", &[("Name", "somebody's")]));
    yard.group("web", "1", "1");

    let commit = node::repository(&scratch, &[]);
    let first = bake();
    roll_out(&yard, &first);
    assert_eq!(boot(&yard), commit);

    let commit = scratch.commit("chef", &[("cookbooks/app/recipes/default.rb", "# app, changed\n")]);
    let second = bake();
    assert!(survives_pruning(&yard, &ci, &first), "a machine and its template use it");
    roll_out(&yard, &second);
    assert_eq!(boot(&yard), commit);
    assert!(!survives_pruning(&yard, &ci, &first), "nobody uses it any more");
    assert!(survives_pruning(&yard, &ci, &second));
}
