//! A machine that bakes one repository, on either store, and what must be true there.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bake::{Host as Machine, Run};
use super::bridge::Host as Instance;
use super::ec2::Cloud;
use super::git_cli::Scratch;

/// The actions of EC2 that change something a bake uses.
const CHANGES: [&str; 7] =
    ["AttachVolume", "CreateSnapshot", "CreateVolume", "DeleteSnapshot", "DeleteVolume", "DetachVolume", "ModifyVolume"];

/// A machine with its own directories, a repository, and a store.
pub struct Site {
    pub machine: Machine,
    pub scratch: Scratch,
    /// On EC2: the cloud, and the instance that this machine is.
    pub ec2: Option<(Cloud, Instance)>,
}

impl Site {
    pub fn local() -> Site {
        let (machine, scratch) = (Machine::new(), Scratch::new());
        scratch.repository("up");
        Site { machine, scratch, ec2: None }
    }

    pub fn ec2() -> Site {
        let cloud = Cloud::new();
        let instance = cloud.bridge.host("us-east-1a");
        Site { ec2: Some((cloud, instance)), ..Site::local() }
    }

    /// One of each.
    pub fn both() -> [Site; 2] {
        [Site::local(), Site::ec2()]
    }

    pub fn name(&self) -> &'static str {
        if self.ec2.is_some() { "ec2" } else { "local" }
    }

    pub fn cloud(&self) -> &Cloud {
        &self.ec2.as_ref().unwrap().0
    }

    pub fn repository(&self) -> PathBuf {
        self.scratch.path("up")
    }

    pub fn head(&self) -> String {
        self.scratch.git("up", &["rev-parse", "HEAD"])
    }

    /// A commit that no other is like.
    pub fn commit(&self, what: &str) -> String {
        self.scratch.commit("up", &[("README", what), (&format!("roles/{what}.rb"), what)])
    }

    /// A bake of the repository's head.
    pub fn bake(&self) -> Run {
        match &self.ec2 {
            None => self.machine.bake(self.repository()),
            Some((_, instance)) => self.bake_on(instance),
        }
    }

    /// The same on another instance.
    pub fn bake_on(&self, instance: &Instance) -> Run {
        let run = Run(self.cloud().baking(instance, &self.repository(), &["--log-format", "json"]));
        // Who called what is told by the key.
        run.env("AWS_ACCESS_KEY_ID", &instance.instance_id)
    }

    /// The snapshots that are not failed: commit → IDs, the oldest first.
    pub fn snapshots(&self) -> BTreeMap<String, Vec<String>> {
        let listed = match &self.ec2 {
            None => self.machine.snapshots(),
            Some((cloud, instance)) => {
                let listed = cloud.run(instance, &["list", "--json"]);
                assert_eq!(listed.code, 0, "{listed:?}");
                let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
                listed["snapshots"].as_array().unwrap().clone()
            }
        };
        let mut by_commit: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for snapshot in listed.iter().filter(|snapshot| snapshot["state"] != "error") {
            let text = |name: &str| snapshot[name].as_str().unwrap().to_owned();
            by_commit.entry(text("commit")).or_default().push(text("snapshot-id"));
        }
        by_commit
    }

    /// The snapshot is what a clone at this commit is: the image itself is looked at, past the program.
    #[track_caller]
    pub fn assert_holds(&self, id: &str, commit: &str) {
        let image = match &self.ec2 {
            None => self.machine.snapshot_image(id),
            Some((cloud, _)) => cloud.bridge.state().snapshots[id].image.clone(),
        };
        self.machine.mounted(&image, "ro,noload", |root| self.machine.assert_is(root, &self.repository(), commit));
    }

    /// There is one snapshot of each of these commits, which is the one that was answered with, and holds the commit.
    #[track_caller]
    pub fn assert_one_each(&self, answers: &BTreeMap<String, String>) {
        let expected: BTreeMap<_, _> = answers.iter().map(|(commit, id)| (commit.clone(), vec![id.clone()])).collect();
        assert_eq!(self.snapshots(), expected, "snapshots that are there, and those that were answered with");
        answers.iter().for_each(|(commit, id)| self.assert_holds(id, commit));
    }

    /// One volume, which is attached nowhere, and nothing else of any run.
    #[track_caller]
    pub fn assert_at_rest(&self, snapshots: usize) {
        match &self.ec2 {
            None => {
                self.machine.wait_for_devices();
                self.machine.assert_nothing_left(1);
                assert_eq!(self.machine.snapshots().len(), snapshots);
            }
            Some((cloud, _)) => cloud.rests(1, snapshots),
        }
    }

    /// The device of the one volume, which is attached.
    pub fn device(&self) -> PathBuf {
        match &self.ec2 {
            None => match self.machine.loop_devices().as_slice() {
                [(device, _)] => device.clone(),
                others => panic!("one device is expected, not {others:?}"),
            },
            Some((cloud, _)) => {
                let state = cloud.bridge.state();
                let ours = state.volumes.values().find(|it| it.attachment.as_ref().is_some_and(|at| at.device == "/dev/sdk"));
                ours.unwrap().device.as_ref().unwrap().node.clone()
            }
        }
    }

    /// A namespace ends with its last process; the kernel may take a moment for its mounts.
    pub fn wait_until_unused(&self) {
        use std::os::unix::fs::OpenOptionsExt;
        let device = self.device();
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&device) {
            assert!(Instant::now() < deadline, "{}: {error}", device.display());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything that a run could have changed without leave: the store's parts, and on EC2 the calls that change something
    /// since [`Site::begin`].
    pub fn seen(&self) -> Value {
        let (devices, volumes) = (self.machine.loop_devices(), self.machine.volumes());
        let calls = self.ec2.as_ref().map(|(cloud, _)| {
            let counts = cloud.bridge.calls().counts;
            counts.into_iter().filter(|(action, _)| CHANGES.contains(&action.as_str())).collect::<BTreeMap<_, _>>()
        });
        json!({ "devices": format!("{devices:?}"), "volumes": volumes, "snapshots": self.snapshots(), "calls": calls })
    }

    /// Counts calls anew.
    pub fn begin(&self) {
        if let Some((cloud, _)) = &self.ec2 {
            cloud.bridge.clear_calls();
        }
    }
}

/// A process in a mount namespace of its own that nobody waits for, as a container whose client is gone; killed with the value.
pub struct Orphan(nix::unistd::Pid);

impl Orphan {
    /// Starts a program where `/dev` is a container's: no devtmpfs, and none of the host's devices. It has become an orphan
    /// when this returns.
    pub fn start(command: &Command, log: &Path) -> Orphan {
        let dev = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec \"$0\" \"$@\"";
        let script = format!("unshare -m sh -c '{dev}' \"$@\" > {} 2>&1 & echo $!", log.display());
        Orphan::of(&script, command)
    }

    /// Mounts a device, reads along its file `README`, and stays.
    pub fn mounting(device: &Path, point: &Path, ready: &Path) -> Orphan {
        let mount = format!(
            "mount {0} {1} && exec 3<{1}/README && touch {2} && exec sleep 600",
            device.display(),
            point.display(),
            ready.display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &mount]);
        Orphan::of("unshare -m \"$@\" >/dev/null 2>&1 & echo $!", &command)
    }

    fn of(script: &str, command: &Command) -> Orphan {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
        shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if command.get_envs().next().is_none() {
            shell.env("PATH", std::env::var_os("PATH").unwrap());
        }
        shell.current_dir(command.get_current_dir().unwrap_or(Path::new("/")));
        Orphan(nix::unistd::Pid::from_raw(super::bake::succeed(&mut shell).trim().parse().unwrap()))
    }

    pub fn pid(&self) -> i32 {
        self.0.as_raw()
    }

    /// Sees a path as the orphan does.
    pub fn path(&self, path: &Path) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.0)).join(path.strip_prefix("/").unwrap())
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGKILL);
    }
}
