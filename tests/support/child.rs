//! Other processes that use a store: this test binary, run again.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use ebs_bake::storage::local::LocalStore;
use ebs_bake::storage::{Attachment, BlockStorage, NewSnapshot, NewVolume, SnapshotId, Tags, VolumeId};

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

    fn spawn(mut command: Command, role: &str, dir: &Path, id: &str) -> Other {
        command.args(["--exact", "played_by_a_child", "--nocapture", "--test-threads", "1"]);
        command.env(ROLE, role).env(DIR, dir).env(ID, id);
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

/// In a child, plays its role; does nothing otherwise.
pub fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let store = LocalStore::open(std::env::var_os(DIR).unwrap()).unwrap();
    let id = std::env::var(ID).unwrap();
    match role.as_str() {
        "attach" => attach(&store, &id.parse().unwrap()),
        "persist" => {
            attach(&store, &id.parse().unwrap());
            block_on(store.persist(&id.parse().unwrap())).unwrap();
        }
        "attach and detach" => {
            attach(&store, &id.parse().unwrap());
            block_on(store.detach(&id.parse().unwrap())).unwrap();
            say("detached");
        }
        "create" => {
            let volume = NewVolume { size_gib: 1, source: None, tags: restored() };
            say(block_on(store.create_volume(&volume)).unwrap().id.as_str());
            wait();
        }
        "snapshots" => loop {
            let new = NewSnapshot { volume: id.parse().unwrap(), tags: Tags::new(), description: String::new() };
            block_on(store.create_snapshot(&new)).unwrap();
            say("another");
        },
        "volumes" => {
            let source: SnapshotId = id.parse().unwrap();
            loop {
                let new = NewVolume { size_gib: 1, source: Some(source.clone()), tags: Tags::new() };
                let volume = block_on(store.create_volume(&new)).unwrap().id;
                block_on(store.attach(&volume)).unwrap();
                block_on(store.detach(&volume)).unwrap();
                block_on(store.delete_volume(&volume)).unwrap();
                say("another");
            }
        }
        _ => panic!("no role {role:?}"),
    }
}

/// The tag of volumes that `restore` makes.
pub fn restored() -> Tags {
    Tags::from([(ebs_bake::key::tag::RESTORED.to_owned(), "snap-0123456789abcdef0".to_owned())])
}

fn attach(store: &LocalStore, id: &VolumeId) {
    let Attachment::Here { device, .. } = block_on(store.attach(id)).unwrap() else { panic!("not attached") };
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
