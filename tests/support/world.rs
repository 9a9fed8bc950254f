//! A host with a store of either kind and a repository, on which runs are killed or told to stop, and what must be true of it
//! afterwards.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ebs_bake::host::mount::in_private_namespace;
use proptest::prelude::Rng;
use serde_json::Value;

use super::bake::{self, Baked, Done, Host, Run, Running};
use super::bridge;
use super::ec2::Cloud;
use super::git_cli::Scratch;
use super::git_server::GitServer;
use super::seeded::random;

/// How long the kernel may take to end what a killed process has left.
const PATIENCE: Duration = Duration::from_secs(20);

/// An instance's own disk, which is nobody's business.
const ROOT_DISK: &str = "/dev/sda1";

pub struct World {
    pub host: Host,
    pub scratch: Scratch,
    /// `None`: the embedded store.
    pub cloud: Option<(Cloud, bridge::Host)>,
    commits: Cell<u64>,
    server: OnceCell<GitServer>,
}

/// What there is in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub volumes: usize,
    /// The volumes that are attached.
    pub attached: BTreeSet<String>,
}

impl World {
    pub fn local() -> World {
        Self::new(None)
    }

    /// EC2 whose states are held for so many looks.
    pub fn ec2(looks: u32) -> World {
        let cloud = Cloud::new();
        cloud.bridge.polls(looks);
        let instance = cloud.bridge.host("us-east-1a");
        Self::new(Some((cloud, instance)))
    }

    fn new(cloud: Option<(Cloud, bridge::Host)>) -> World {
        // A kill loses nothing that the kernel has: in memory these tests are as strict, and need not wait for a disk.
        let memory = Path::new("/dev/shm");
        let host = if memory.is_dir() { Host::under(memory) } else { Host::new() };
        let scratch = Scratch::new();
        scratch.repository("up");
        World { host, scratch, cloud, commits: Cell::new(0), server: OnceCell::new() }
    }

    pub fn store(&self) -> &'static str {
        if self.cloud.is_some() { "ec2" } else { "local" }
    }

    pub fn repository(&self) -> PathBuf {
        self.scratch.path("up")
    }

    /// A git host that has the repository too.
    pub fn server(&self) -> &GitServer {
        self.server.get_or_init(|| GitServer::start(&self.scratch.path("")))
    }

    /// Another commit: a file is changed, a directory goes and another comes, and there is a blob that no compression makes
    /// small, so that what was reachable before is soon more than half of what there is.
    pub fn commit(&self) -> String {
        self.commit_with(&[])
    }

    fn commit_with(&self, more: &[(&str, &str)]) -> String {
        let number = self.commits.replace(self.commits.get() + 1) + 1;
        let (directory, noise) = (format!("cookbooks/c{number}/recipes"), noise(number, 48 << 10));
        let _ = fs::remove_dir_all(self.repository().join("cookbooks"));
        let _ = fs::remove_file(self.repository().join("large"));
        fs::write(self.repository().join("noise"), noise).unwrap();
        let (readme, recipe) = (format!("{number}\n"), format!("{directory}/default.rb"));
        let other = format!("{directory}/{number}.rb");
        let files = [("README", readme.as_str()), (&recipe, "package 'x'\n"), (&other, &readme)];
        self.scratch.commit("up", &[&files, more].concat())
    }

    /// Another commit, with a file of so many MiB.
    pub fn commit_large(&self, mib: usize) -> String {
        let large = String::from_utf8(vec![b'x'; mib << 20]).unwrap();
        self.commit_with(&[("large", &large)])
    }

    pub fn bake(&self, options: &[&str]) -> Run {
        self.bake_from(self.repository().to_str().unwrap(), options)
    }

    pub fn bake_from(&self, repository: &str, options: &[&str]) -> Run {
        let mut run = self.program("bake");
        run.0.args(["--repository", repository]).args(options);
        run.env("EBS_BAKE_MOUNT_POINT", self.host.path("code/chef")).env("EBS_BAKE_STATE_DIR", self.host.path("state"))
    }

    pub fn program(&self, subcommand: &str) -> Run {
        match &self.cloud {
            None => self.host.program(subcommand),
            Some((cloud, instance)) => {
                let run = Run(cloud.program(instance, &[subcommand, "--log-format", "json", "--verbose"]));
                run.env("TMPDIR", self.host.path("tmp")).env("HOME", self.host.path("home"))
            }
        }
    }

    pub fn see(&self) -> Seen {
        match &self.cloud {
            None => {
                let devices = self.host.loop_devices();
                let attached = devices.into_iter().filter_map(|(_, image)| volume_of(&image)).collect();
                Seen { volumes: self.host.volumes().len(), attached }
            }
            Some((cloud, _)) => {
                cloud.bridge.settle();
                let mut ours = cloud.bridge.state().volumes;
                ours.retain(|_, it| it.attachment.as_ref().is_none_or(|it| it.device != ROOT_DISK));
                let attached = ours.iter().filter(|(_, volume)| volume.attachment.is_some()).map(|(id, _)| id.clone());
                Seen { volumes: ours.len(), attached: attached.collect() }
            }
        }
    }

    /// The images of all volumes, which may be blank.
    pub fn images(&self) -> Vec<PathBuf> {
        match &self.cloud {
            None => self.host.volumes().iter().map(|volume| volume.join("image")).collect(),
            Some((cloud, _)) => cloud.bridge.state().volumes.into_values().map(|volume| volume.image).collect(),
        }
    }

    /// Key and ID of all snapshots.
    pub fn snapshots(&self) -> Vec<(String, String)> {
        self.listed(&[])
    }

    /// Those of another region.
    pub fn snapshots_in(&self, region: &str) -> Vec<(String, String)> {
        self.listed(&["--region", region])
    }

    fn listed(&self, options: &[&str]) -> Vec<(String, String)> {
        let done = self.program("list").arg("--json").args(options).ended();
        assert_eq!(done.code, 0, "{done:?}");
        let listed: Value = serde_json::from_str(&done.stdout).unwrap();
        let text = |snapshot: &Value, name: &str| snapshot[name].as_str().unwrap_or_default().to_owned();
        let listed = listed["snapshots"].as_array().unwrap().iter();
        listed.map(|snapshot| (text(snapshot, "key"), text(snapshot, "snapshot-id"))).collect()
    }

    /// The calls since the last time that changed something; none of the embedded store.
    pub fn changes(&self) -> Vec<String> {
        let calls = self.cloud.iter().flat_map(|(cloud, _)| cloud.calls());
        calls.filter(|action| !["Describe", "Get"].iter().any(|prefix| action.starts_with(prefix))).collect()
    }

    /// The snapshot is a clean filesystem that has what git has at the commit, and `built` if a command wrote that.
    #[track_caller]
    pub fn assert_holds(&self, snapshot: &str, commit: &str, built: bool, when: &str) {
        let image = match &self.cloud {
            None => self.host.snapshot_image(snapshot),
            Some((cloud, _)) => cloud.bridge.state().snapshots[snapshot].image.clone(),
        };
        let checked = Command::new("e2fsck").args(["-f", "-n"]).arg(&image).output().unwrap();
        assert!(checked.status.success(), "{when}: {}", String::from_utf8_lossy(&checked.stdout));
        let mut want = self.expected(commit);
        let (have, said) = self.looked_into(&image, commit, when);
        assert_eq!(have.contains_key(Path::new("built")), built, "{when}");
        assert_eq!(said, if built { "?? built" } else { "" }, "{when}: git status and git fsck");
        want.retain(|path, _| path != Path::new("built"));
        let have = have.into_iter().filter(|(path, _)| path != Path::new("built")).collect();
        bake::assert_same(&have, &want);
    }

    fn expected(&self, commit: &str) -> BTreeMap<PathBuf, bake::Node> {
        let clone = self.host.clone_of(&self.repository(), commit);
        let tree = bake::tree_of(&clone);
        fs::remove_dir_all(clone).unwrap();
        tree
    }

    /// The tree of an image, and what git says of it. The mount is seen by one thread and goes with it.
    #[track_caller]
    fn looked_into(&self, image: &Path, commit: &str, when: &str) -> (BTreeMap<PathBuf, bake::Node>, String) {
        let point = self.host.path("looked-into");
        fs::create_dir_all(&point).unwrap();
        let (at, image, home, commit) = (point.clone(), image.to_owned(), self.host.path("home"), commit.to_owned());
        let look = move || {
            bake::succeed(Command::new("mount").args(["-o", "loop,ro,noload"]).arg(&image).arg(&at));
            let git = |arguments: &[&str]| bake::git(&home, &at, arguments);
            assert_eq!(git(&["rev-parse", "HEAD"]), commit);
            let said = [git(&["status", "--porcelain"]), git(&["fsck", "--full", "--strict", "--no-dangling"])].concat();
            Ok((bake::tree_of(&at), said))
        };
        let looked = in_private_namespace(look).unwrap_or_else(|error| panic!("{when}: {error}, see above"));
        fs::remove_dir(point).unwrap();
        looked
    }

    /// Nothing of a run that has ended goes on: its children die with it.
    #[track_caller]
    pub fn assert_alone(&self, session: i32, when: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = processes_of(session);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{when}: still there are {left:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// `cleanup` takes what killed runs left; then there is nothing but the store.
    #[track_caller]
    pub fn assert_clean(&self, volumes: usize, when: &str) {
        let done = self.program("cleanup").ended();
        assert_eq!(done.code, 0, "{when}: {done:?}");
        let seen = self.see();
        assert_eq!(seen, Seen { volumes, attached: BTreeSet::new() }, "{when}");
        // What a killed run made for its mount is nobody's: one or two empty directories.
        for directory in ["code/chef", "code"] {
            let _ = fs::remove_dir(self.host.path(directory));
        }
        self.assert_nothing_left(volumes);
    }

    #[track_caller]
    pub fn assert_nothing_left(&self, volumes: usize) {
        self.host.assert_nothing_left(if self.cloud.is_some() { 0 } else { volumes });
    }
}

impl Run {
    /// Starts it as the leader of a session, by which whatever it starts can be told.
    pub fn started_as_session(mut self) -> Running {
        // SAFETY: `setsid` is one system call; it allocates nothing and takes no lock.
        unsafe { self.0.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
        self.started()
    }

    /// Runs it to its end; also returns its session.
    pub fn ended_with_session(self) -> (Done, i32) {
        let run = self.started_as_session();
        let session = run.pid();
        (run.end(), session)
    }
}

/// Whether a run had to wait for another.
pub fn waited(baked: &Baked) -> bool {
    let notes = baked.done.events("note");
    notes.iter().any(|note| note["message"].as_str().unwrap_or_default().contains("in use"))
}

fn volume_of(image: &Path) -> Option<String> {
    Some(image.parent()?.file_name()?.to_str()?.to_owned())
}

/// Number and name of the living processes of a session.
fn processes_of(session: i32) -> Vec<String> {
    let of = |number: i32| {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        // The name is in parentheses and may hold any; state, parent, group and session follow.
        let (name, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let (state, owner) = (fields.next()?, fields.nth(2)?);
        (owner == session.to_string() && !["Z", "X"].contains(&state)).then(|| name.to_owned())
    };
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    numbers.filter_map(|entry| of(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Bytes that look random, the same for the same seed.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    random(seed).fill_bytes(&mut noise);
    noise
}
