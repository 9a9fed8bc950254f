//! This machine as instances of the bridge's EC2, and the shipped program on them.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::bridge::{Bridge, Host, Lease};

/// A bridge, and a place of this test's own.
pub struct Cloud {
    pub bridge: Lease,
    directory: tempfile::TempDir,
}

impl Cloud {
    pub fn new() -> Cloud {
        let directory = tempfile::Builder::new().prefix("ebs-bake-ec2-").tempdir().unwrap();
        for name in ["home", "tmp"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let bridge = Bridge::lease();
        // The pause between two snapshots of a volume has a test of its own.
        bridge.limits(serde_json::json!({ "snapshot_interval": 0 }));
        Cloud { bridge, directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The environment of a process on an instance; nothing of ours is in it.
    pub fn variables(&self, host: &Host) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut variables = self.bridge.environment(host);
        variables.push(("EBS_BAKE_SYSFS_ROOT", text(&host.sysfs)));
        variables.push(("PATH", std::env::var("PATH").unwrap()));
        variables.push(("HOME", text(&self.path("home"))));
        variables.push(("TMPDIR", text(&self.path("tmp"))));
        variables
    }

    /// The program on an instance.
    pub fn program(&self, host: &Host, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebs-bake"));
        command.env_clear().envs(self.variables(host)).args(arguments).stdin(Stdio::null());
        command.current_dir(self.path("home"));
        command
    }

    /// Bakes the head of a repository.
    pub fn bake(&self, host: &Host, repository: &Path, more: &[&str]) -> Ended {
        let mut command = self.program(host, &["bake", "--verbose", "--repository"]);
        command.arg(repository).arg("--mount-point").arg(self.path(&format!("mnt-{}", host.instance_id))).args(more);
        Ended::of(command.output().unwrap())
    }

    /// The actions called since the last time that this was asked.
    pub fn calls(&self) -> Vec<String> {
        let calls = self.bridge.calls().calls.into_iter().map(|call| call.action).collect();
        self.bridge.clear_calls();
        calls
    }

    /// Nothing is attached but the instances' own disks, and there are so many volumes and snapshots of ours.
    #[track_caller]
    pub fn rests(&self, volumes: usize, snapshots: usize) {
        self.bridge.settle();
        let state = self.bridge.state();
        let ours: Vec<_> = state.volumes.iter().filter(|(_, it)| !self.is_root(it)).collect();
        let attached: Vec<_> = ours.iter().filter(|(_, volume)| volume.attachment.is_some()).collect();
        assert!(attached.is_empty(), "left attached: {attached:?}");
        assert_eq!((ours.len(), state.snapshots.len()), (volumes, snapshots), "{ours:?} {:?}", state.snapshots);
    }

    /// An instance's root volume is nobody's business.
    fn is_root(&self, volume: &super::bridge::VolumeState) -> bool {
        volume.attachment.as_ref().is_some_and(|attachment| attachment.device == "/dev/sda1")
    }
}

/// What a process left.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn of(output: Output) -> Ended {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// The snapshot's ID: the one line of a bake that went well.
    #[track_caller]
    pub fn snapshot(&self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout.trim().to_owned()
    }

    /// It failed with this code and said all of this.
    #[track_caller]
    pub fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not said: {}", self.stderr);
        }
    }
}
