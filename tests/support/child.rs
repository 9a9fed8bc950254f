//! Other processes that use a store: this test binary, run again.

#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use ebs_bake::storage::local::LocalStore;
use ebs_bake::storage::{Attachment, BlockStorage, NewSnapshot, NewVolume, Tags, VolumeId};

use super::store::block_on;

const ROLE: &str = "EBS_BAKE_TEST_ROLE";
const DIR: &str = "EBS_BAKE_TEST_DIR";
const ID: &str = "EBS_BAKE_TEST_ID";

/// A child process; killed, if it still runs, when this is dropped.
pub struct Other {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Other {
    /// Starts a process that plays `role` on the store in `dir`.
    pub fn start(role: &str, dir: &Path, id: &str) -> Other {
        Self::spawn(Command::new(std::env::current_exe().unwrap()), role, dir, id)
    }

    /// The same where `/dev` is empty, as it is for devices that came after a container was started.
    pub fn start_without_dev(role: &str, dir: &Path, id: &str) -> Other {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", "mount -t tmpfs none /dev && exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        Self::spawn(command, role, dir, id)
    }

    fn spawn(command: Command, role: &str, dir: &Path, id: &str) -> Other {
        let mut command = cast(command, role, dir, id);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Other { process, output }
    }

    /// What the role says next.
    pub fn said(&mut self) -> String {
        for line in (&mut self.output).lines() {
            if let Some(said) = line.unwrap().split_once("SAYS ") {
                return said.1.to_owned();
            }
        }
        panic!("the other process ended without a word");
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Lets the role go on, which ends it with this word.
    pub fn finish_saying(mut self, word: &str) {
        drop(self.process.stdin.take());
        assert_eq!(self.said(), word);
        self.finish();
    }

    /// Lets the role end by itself.
    pub fn finish(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The command of a process that plays `role` on the store in `dir`.
pub fn command(role: &str, dir: &Path, id: &str) -> Command {
    cast(Command::new(std::env::current_exe().unwrap()), role, dir, id)
}

fn cast(mut command: Command, role: &str, dir: &Path, id: &str) -> Command {
    command.args(["--exact", "played_by_a_child", "--nocapture", "--test-threads", "1"]);
    command.env(ROLE, role).env(DIR, dir).env(ID, id);
    command
}

/// In a child, plays its role; does nothing otherwise.
pub fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let store = LocalStore::open(std::env::var_os(DIR).unwrap()).unwrap();
    let id = std::env::var(ID).unwrap();
    match role.as_str() {
        "attach" => attach(&store, &id.parse().unwrap()),
        "persist" => {
            attach(&store, &id.parse().unwrap());
            block_on(store.keep_attached(&id.parse().unwrap())).unwrap();
        }
        "attach and detach" => {
            attach(&store, &id.parse().unwrap());
            block_on(store.detach(&id.parse().unwrap(), None)).unwrap();
            say("detached");
        }
        "create" => {
            let volume = NewVolume { size_gib: 1, source: None, tags: restored(), token: None };
            say(block_on(store.create_volume(&volume)).unwrap().1.id.as_str());
            wait();
        }
        "everything" => everything(&store),
        _ => panic!("no role {role:?}"),
    }
}

/// Each operation once, from an empty directory on.
fn everything(store: &LocalStore) {
    let new = |source| NewVolume { size_gib: 1, source, tags: Tags::new(), token: None };
    let snapshot = |volume: &VolumeId| NewSnapshot { volume: volume.clone(), tags: Tags::new(), description: String::new() };
    block_on(async {
        let volume = store.create_volume(&new(None)).await.unwrap().1.id;
        let Attachment::Here { device, .. } = store.attach(&volume).await.unwrap().1 else { panic!("not attached") };
        let written =
            std::fs::OpenOptions::new().write(true).open(device).and_then(|device| device.write_all_at(&[7; 8192], 4096));
        written.unwrap();
        let first = store.create_snapshot(&snapshot(&volume)).await.unwrap();
        store.grow_volume(&volume, 2).await.unwrap();
        let second = store.create_snapshot(&snapshot(&volume)).await.unwrap();
        let copy = store.create_volume(&new(Some(first.id.clone()))).await.unwrap().1.id;
        store.attach(&copy).await.unwrap();
        store.detach(&copy, None).await.unwrap();
        store.detach(&volume, None).await.unwrap();
        store.delete_snapshot(&second.id).await.unwrap();
        store.delete_volume(&copy).await.unwrap();
    });
}

/// The tag of volumes that `restore` makes.
pub fn restored() -> Tags {
    Tags::from([(ebs_bake::key::tag::RESTORED.to_owned(), "snap-0123456789abcdef0".to_owned())])
}

fn attach(store: &LocalStore, id: &VolumeId) {
    let Attachment::Here { device, .. } = block_on(store.attach(id)).unwrap().1 else { panic!("not attached") };
    say(&device);
    wait();
}

/// Until the parent lets go.
fn wait() {
    let _ = std::io::stdin().lines().next();
}

fn say(word: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "SAYS {word}").unwrap();
    stdout.flush().unwrap();
}
