//! The action that rolls out, on a runner that is no EC2 instance and whose user is not root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use serde_json::Value;

use crate::action::root;
use crate::engine::Engine;
use crate::fleet::{REGION, Yard};
use crate::job::{Job, of_runner, program};
use crate::store::needs_root;
use crate::tools::run;

/// The user of GitHub's hosted runners.
const USER: u32 = 1001;

#[test]
fn root_a_rollout_without_privileges_writes_the_files_of_the_runners_user() {
    if !needs_root() {
        return;
    }
    let (job, yard) = (Job::new(), Yard::new().unwrap());
    yard.fleet();
    let snapshot = yard.snapshot("abcdef0123456789012345678901234567890123");
    let host = &job.host;
    let (json, output, bin) = (host.path("workspace/rollout.json"), host.path("output"), host.path("bin"));
    for directory in ["workspace", "bin"] {
        fs::create_dir(host.path(directory)).unwrap();
    }
    fs::write(&output, "").unwrap();
    for path in [&host.path("workspace"), &output] {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    fs::set_permissions(&output, fs::Permissions::from_mode(0o600)).unwrap();
    // This process is root and may call the engine; only the container is the user's.
    program(&bin.join("id"), &format!("#!/bin/sh\necho {USER}\n"));

    let mut rollout = Command::new(root().join("scripts/github-action.sh"));
    of_runner(rollout.arg("rollout").current_dir(host.path("workspace")), &host.path("home"));
    let path = rollout.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path?.to_str()).unwrap();
    let path = format!("{}:{path}", bin.display());
    rollout.env("PATH", path).env("GITHUB_WORKSPACE", host.path("workspace")).env("GITHUB_OUTPUT", &output);
    rollout.env("GITHUB_ACTIONS", "true").env("CONTAINER", "ebs-bake-test-rollout").env("IMAGE", Engine::shared().image());
    rollout.env("AWS_ENDPOINT_URL", &yard.cloud.bridge.api).env("AWS_REGION", REGION).env("AWS_EC2_METADATA_DISABLED", "true");
    rollout.env("AWS_ACCESS_KEY_ID", "roller").env("AWS_SECRET_ACCESS_KEY", "not-checked");
    rollout.env("EBS_BAKE_SNAPSHOT_ID", &snapshot).env("EBS_BAKE_LAUNCH_TEMPLATE", "chef");
    rollout.env("EBS_BAKE_AUTO_SCALING_GROUP", "chef").env("EBS_BAKE_REFRESH", "true").env("EBS_BAKE_OUTPUT_JSON", &json);
    assert_eq!(run(&mut rollout), format!("{snapshot}\n"));

    yard.assert_rolled_out(&snapshot);
    let outputs = fs::read_to_string(&output).unwrap();
    assert!(outputs.starts_with("snapshot-id<<") && outputs.contains(&format!("\n{snapshot}\n")), "{outputs}");
    let told: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(told["launch-template-version"], 2);
}
