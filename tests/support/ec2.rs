//! This machine as instances of the bridge's EC2, and the shipped program on them.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::bridge::{Bridge, Host, Lease, VolumeState};
use super::git_cli::Scratch;
use super::store::needs_root;

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
        bridge.limits(json!({ "snapshot_interval": 0 }));
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
        Ended::of(self.baking(host, repository, more).output().unwrap())
    }

    /// A bake that is not run yet.
    pub fn baking(&self, host: &Host, repository: &Path, more: &[&str]) -> Command {
        let mut command = self.program(host, &["bake", "--verbose", "--repository"]);
        command.arg(repository).arg("--mount-point").arg(self.path(&format!("mnt-{}", host.instance_id))).args(more);
        command
    }

    /// Any command.
    pub fn run(&self, host: &Host, arguments: &[&str]) -> Ended {
        Ended::of(self.program(host, arguments).output().unwrap())
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
    fn is_root(&self, volume: &VolumeState) -> bool {
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

/// A bake or another command that runs.
pub struct Baking {
    child: Child,
    log: BufReader<ChildStderr>,
    said: String,
}

impl Cloud {
    /// Starts to bake the head of a repository.
    pub fn start(&self, host: &Host, repository: &Path, more: &[&str]) -> Baking {
        Baking::start(self.baking(host, repository, more))
    }
}

impl Baking {
    pub fn start(mut command: Command) -> Baking {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Baking { child, log, said: String::new() }
    }

    /// Reads the log until it says this.
    #[track_caller]
    pub fn until(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "it ended without {words:?}: {}", self.said);
            self.said += &line;
        }
    }

    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ended {
        self.log.read_to_string(&mut self.said).unwrap();
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        Ended { code, stdout, stderr: std::mem::take(&mut self.said) }
    }
}

impl Drop for Baking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cloud, an instance and a repository.
pub struct Stage {
    pub cloud: Cloud,
    pub host: Host,
    scratch: Scratch,
    pub repository: PathBuf,
}

impl Stage {
    /// Nothing without root.
    pub fn new() -> Option<Stage> {
        needs_root().then(|| Stage::like(json!({ "zone": "us-east-1a" })))
    }

    pub fn like(spec: Value) -> Stage {
        let (cloud, scratch) = (Cloud::new(), Scratch::new());
        let host = cloud.bridge.launch(spec);
        scratch.repository("origin");
        let repository = scratch.path("origin");
        Stage { cloud, host, scratch, repository }
    }

    pub fn bake(&self, more: &[&str]) -> Ended {
        self.cloud.bake(&self.host, &self.repository, more)
    }

    /// Another commit.
    pub fn change(&self) {
        self.scratch.commit("origin", &[("README", "changed\n")]);
    }

    pub fn change_again(&self) {
        self.scratch.commit("origin", &[("README", "changed again\n")]);
    }

    pub fn fault(&self, action: &str, effect: Value) {
        self.cloud.bridge.fault(action, effect);
    }

    pub fn faults(&self, action: &str, times: u32, effect: Value) {
        self.cloud.bridge.rule(json!({ "action": action, "times": times, "effect": effect }));
    }

    /// A volume that somebody else made.
    pub fn foreign_volume(&self, params: &[(&str, &str)]) -> String {
        let xml = self.cloud.bridge.ec2("us-east-1", "CreateVolume", params);
        let rest = xml.split("<volumeId>").nth(1).unwrap();
        rest.split('<').next().unwrap().to_owned()
    }

    /// Two tags that make a volume ours.
    pub fn named_volume(&self) -> String {
        self.foreign_volume(&[
            ("AvailabilityZone", "us-east-1a"),
            ("Size", "1"),
            ("TagSpecification.1.ResourceType", "volume"),
            ("TagSpecification.1.Tag.1.Key", "ebs-bake:volume"),
            ("TagSpecification.1.Tag.1.Value", "chef"),
        ])
    }

    pub fn count(&self, action: &str) -> usize {
        self.cloud.bridge.calls().counts.get(action).copied().unwrap_or(0)
    }

    pub fn start(&self, more: &[&str]) -> Baking {
        self.cloud.start(&self.host, &self.repository, more)
    }

    /// The one volume that is attached as `/dev/sdk`.
    pub fn attached(&self) -> (String, VolumeState) {
        let is_ours = |volume: &VolumeState| volume.attachment.as_ref().is_some_and(|it| it.device == "/dev/sdk");
        self.cloud.bridge.state().volumes.into_iter().find(|(_, volume)| is_ours(volume)).unwrap()
    }

    /// The lock on its device, as another run has it.
    pub fn hold_the_device(&self) -> Flock<File> {
        let (_, volume) = self.attached();
        let minor = volume.device.unwrap().dev.split_once(':').unwrap().1.to_owned();
        let node = File::open(format!("/dev/loop{minor}")).unwrap();
        Flock::lock(node, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error).unwrap()
    }

    /// Somebody detaches the volume and attaches it again.
    pub fn attach_anew(&self) {
        let (id, volume) = self.attached();
        let instance = volume.attachment.unwrap().instance;
        let bridge = &self.cloud.bridge;
        bridge.ec2("us-east-1", "DetachVolume", &[("VolumeId", &id)]);
        bridge.ec2("us-east-1", "AttachVolume", &[("VolumeId", &id), ("InstanceId", &instance), ("Device", "/dev/sdk")]);
    }
}
