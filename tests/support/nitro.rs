//! A Nitro-like host: an instance that is a virtual machine. The program under test runs inside, EC2 and the git host outside; its power
//! can be cut.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bake::{Host as Place, assert_same, tree_of};
use super::bridge::{Host, VolumeState};
use super::ec2::{Cloud, Ended};
use super::git_cli::Scratch;
use super::git_server::GitServer;
use super::machine::{Machine, SILENCE, from_inside};
use super::store::{Mounted, needs, needs_root};
use super::tools::run;

/// A cloud, an instance of it that is a machine, and a repository that is served to it.
pub struct Nitro {
    machine: Option<Machine>,
    pub cloud: Cloud,
    pub host: Host,
    pub scratch: Scratch,
    place: Place,
    server: GitServer,
}

impl Nitro {
    /// Nothing where a machine cannot be had.
    pub fn new() -> Option<Nitro> {
        let has_qemu = || Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
        if !needs_root() || !needs(cfg!(target_arch = "x86_64"), "x86_64") || !needs(has_qemu(), "qemu-system-x86") {
            return None;
        }
        let (cloud, scratch) = (Cloud::new(), Scratch::new());
        let host = cloud.bridge.launch(json!({ "zone": "us-east-1a", "layout": "machine" }));
        scratch.repository("origin");
        let server = GitServer::start(&scratch.path(""));
        let machine = Some(Machine::boot(&cloud.bridge, &host));
        Some(Nitro { machine, cloud, host, scratch, place: Place::new(), server })
    }

    pub fn machine(&mut self) -> &mut Machine {
        self.machine.as_mut().expect("it runs")
    }

    /// Another commit: so many files, which differ from those of other numbers.
    pub fn commit(&self, number: u64, files: u64) -> String {
        let content = |file: u64| format!("{number} {file}\n").repeat(1 + (file * 97 % 700) as usize);
        let files: Vec<_> = (0..files).map(|file| (format!("cookbooks/{}/{file}", file % 20), content(file))).collect();
        let files: Vec<_> = files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
        self.scratch.commit("origin", &files)
    }

    /// The command that bakes the head of the repository.
    pub fn baking(&self, more: &[&str]) -> String {
        let url = from_inside(&self.server.url("origin"));
        let arguments = ["bake", "--log-format", "json", "--verbose", "--mount-point", "/chef", "--repository", &url];
        self.program(&[&arguments, more].concat())
    }

    pub fn program(&self, arguments: &[&str]) -> String {
        let mut words = vec!["env".to_owned(), "-i".into(), "PATH=/bin".into(), "HOME=/root".into()];
        let variables = self.cloud.bridge.environment(&self.host);
        words.extend(variables.iter().map(|(name, value)| format!("{name}={}", from_inside(value))));
        words.push("ebs-bake".into());
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    pub fn bake(&mut self, more: &[&str]) -> Ended {
        let command = self.baking(more);
        self.machine().run(&command)
    }

    /// Starts to bake.
    pub fn start(&mut self, more: &[&str]) {
        let command = self.baking(more);
        self.machine().start(&command);
    }

    /// Reads the log up to an event of a phase; `false`: the run ended without it.
    #[track_caller]
    pub fn until(&mut self, event: &str, phase: &str) -> bool {
        let is_it = |line: Value| line["event"] == event && line["phase"] == phase;
        self.machine().until(|line| serde_json::from_str(line).is_ok_and(is_it))
    }

    /// Cuts the power.
    pub fn cut(&mut self) {
        self.machine = None;
    }

    pub fn boot(&mut self) {
        self.machine = Some(Machine::boot(&self.cloud.bridge, &self.host));
    }

    /// The kernel's name of the disk with this serial number.
    pub fn disk(&mut self, serial: &str) -> Option<String> {
        let script = format!("cd /sys/block; for d in nvme*; do [ \"$(cat $d/device/serial)\" != {serial} ] || echo $d; done");
        Some(self.machine().says(&script)).filter(|name| !name.is_empty())
    }

    /// What the kernel mounted last.
    pub fn mounted_last(&mut self) -> String {
        let log = self.machine().says("dmesg");
        let mounts = log.lines().filter(|line| line.contains("mounted filesystem"));
        let last = mounts.filter_map(|line| Some(line.split_once("EXT4-fs (")?.1.split_once(')')?.0)).next_back();
        last.expect("something was mounted").to_owned()
    }

    /// A call of EC2 by somebody else.
    pub fn ec2(&self, action: &str, params: &[(&str, &str)]) -> String {
        self.cloud.bridge.ec2(&self.host.region, action, params)
    }

    /// Attaches a volume to the machine.
    pub fn attach(&self, volume: &str, device: &str) {
        self.ec2("AttachVolume", &[("VolumeId", volume), ("InstanceId", &self.host.instance_id), ("Device", device)]);
    }

    pub fn detach(&self, volume: &str) {
        self.ec2("DetachVolume", &[("VolumeId", volume)]);
        self.let_go();
        assert_eq!(self.cloud.bridge.state().volumes[volume].state, "available");
    }

    /// Waits until the kernel has let go of what EC2 was asked to detach.
    #[track_caller]
    fn let_go(&self) {
        let is_leaving =
            |volume: &VolumeState| volume.attachment.as_ref().is_some_and(|it| ["detaching", "busy"].contains(&&*it.state));
        let deadline = Instant::now() + SILENCE;
        while self.cloud.bridge.state().volumes.values().any(is_leaving) {
            assert!(Instant::now() < deadline, "the kernel does not let go of a disk");
            std::thread::sleep(Duration::from_millis(20));
            self.cloud.bridge.settle();
        }
    }

    /// As `Cloud::rests`, but a power cut may have left a disk that is still being detached.
    #[track_caller]
    pub fn rests(&self, volumes: usize, snapshots: usize) {
        self.let_go();
        self.cloud.rests(volumes, snapshots);
    }

    /// The snapshot has what a clone of the commit has, and neither git nor e2fsck finds anything to say about it.
    #[track_caller]
    pub fn assert_holds(&self, snapshot: &str, commit: &str) {
        let expected = self.place.clone_of(&self.scratch.path("origin"), commit);
        let image = &self.cloud.bridge.state().snapshots[snapshot].image;
        run(Command::new("e2fsck").args(["-f", "-n"]).arg(image));
        let mounted = Mounted::image(image);
        assert_same(&tree_of(&mounted.path()), &tree_of(&expected));
        self.place.assert_git_is_content(&mounted.path(), commit);
    }
}
