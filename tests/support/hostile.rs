//! A machine on which a bake meets a repository or a git host that means harm, and what must be true of it afterwards.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;

use super::bake::{self, Host, Node, Run, assert_same, tree_of};
use super::git_cli::Scratch;
use super::git_server::GitServer;
use super::packs::tree;
use super::reliability::record;

/// Of the program, with everything that it starts, in MiB: what a bake of a few files takes is far below.
pub const MEMORY: u64 = 400;
/// Where a delta is put together: as much as the largest that git makes takes.
pub const MEMORY_OF_DELTAS: u64 = MEMORY + 1280;
/// Where a tree is as large as it may be.
pub const MEMORY_OF_TREES: u64 = 900;

/// What happened in each group of attacks: how many, and the most memory.
static NOTED: Mutex<BTreeMap<&str, (u64, u64)>> = Mutex::new(BTreeMap::new());

/// A machine, a git host, and what is around the mount point.
pub struct Stage {
    pub host: Host,
    pub scratch: Scratch,
    pub server: GitServer,
    precious: BTreeMap<PathBuf, Node>,
    group: &'static str,
}

/// How a run ended.
pub struct Ended {
    pub code: i32,
    pub said: String,
}

impl Stage {
    pub fn new(group: &'static str) -> Stage {
        let (host, scratch) = (Host::new(), Scratch::new());
        scratch.repository("up");
        let server = GitServer::start(&scratch.path(""));
        for name in ["outside", "code"] {
            fs::create_dir(host.path(name)).unwrap();
        }
        fs::write(host.path("outside/precious"), "precious").unwrap();
        let precious = tree_of(&host.path("outside"));
        Stage { host, scratch, server, precious, group }
    }

    pub fn bake(&self) -> Run {
        self.host.bake(self.server.url("up"))
    }

    /// Runs it, and looks that what is around is as it was and that it took no more memory than this.
    #[track_caller]
    pub fn run(&self, run: Run, memory: u64) -> Ended {
        let (status, mebibytes, said) = measured(run, &self.host);
        assert_same(&tree_of(&self.host.path("outside")), &self.precious);
        assert_eq!(bake::names_in(&self.host.path("home")), Vec::<String>::new(), "something was written, or run");
        assert!(mebibytes <= memory, "{mebibytes} MiB of memory: {said}");
        let mut all = NOTED.lock().unwrap();
        let noted = all.entry(self.group).or_default();
        *noted = (noted.0 + 1, noted.1.max(mebibytes));
        let mut figures = "Each is a run of the whole program against a git host that serves it.\n\n\
                           | Attack | Runs | Most memory (MiB) |\n|---|--:|--:|\n"
            .to_owned();
        for (group, (runs, most)) in all.iter() {
            writeln!(figures, "| {group} | {runs} | {most} |").unwrap();
        }
        record("hostile", &figures);
        Ended { code: status.code().or(status.signal().map(|signal| -signal)).unwrap(), said }
    }

    /// It is refused as a fault of the repository: one event with one line, no control characters, nothing left behind.
    #[track_caller]
    pub fn refused(&self, run: Run, words: &str) {
        self.refused_within(run, words, MEMORY);
    }

    #[track_caller]
    pub fn refused_within(&self, run: Run, words: &str, memory: u64) {
        let Ended { code, said } = self.run(run, memory);
        assert_eq!(code, 7, "{said}");
        let errors: Vec<&str> = said.lines().filter(|line| line.contains("\"event\":\"error\"")).collect();
        let [error] = errors.as_slice() else { panic!("one error is expected: {said}") };
        assert!(error.contains(words), "{words:?} is not said: {error}");
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
        assert_eq!(self.host.loop_devices(), []);
        assert_eq!(self.host.snapshots().len(), 0);
    }

    /// Puts an object into the repository, whatever it is.
    pub fn object(&self, kind: &str, content: &[u8]) -> String {
        let mut command = self.scratch.command("up", &["hash-object", "-t", kind, "--literally", "-w", "--stdin"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(content).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn tree(&self, items: &[(&str, &[u8], &str)]) -> String {
        self.object("tree", &tree(items))
    }

    /// Makes `main` a commit of this tree.
    pub fn publish(&self, tree: &str) {
        let commit = self.scratch.git("up", &["commit-tree", tree, "-m", "x"]);
        self.scratch.git("up", &["update-ref", "refs/heads/main", &commit]);
    }
}

/// How a run ended, the most memory that it had at once in MiB, and what it said.
#[allow(clippy::zombie_processes, reason = "wait4 waits for it: it tells the memory")]
fn measured(mut run: Run, host: &Host) -> (ExitStatus, u64, String) {
    let log = host.path("log");
    let child = run.0.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let (status, usage) = wait(child.id());
    (status, usage.ru_maxrss.cast_unsigned() >> 10, fs::read_to_string(log).unwrap())
}

pub fn wait(pid: u32) -> (ExitStatus, libc::rusage) {
    // SAFETY: an all-zero rusage is a value of it; the kernel writes a status and a rusage there; the process is our child, and
    // nobody else waits for it.
    let (mut status, mut usage) = (0, unsafe { std::mem::zeroed() });
    // SAFETY: as above.
    let waited = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, &raw mut usage) };
    assert_eq!(waited, pid.cast_signed());
    (ExitStatus::from_raw(status), usage)
}
