//! The real program on real loop devices, for tests: a store, a mount point and temporary directories of the test's own,
//! and what must be true of them afterwards.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The directory that has the mounts which others can see.
const SHARED: &str = "shared";

/// The phases of a bake that `--after-checkout` is a part of, in order.
pub const PHASES: [&str; 12] = [
    "resolve",
    "look-up",
    "volume",
    "attach",
    "fetch",
    "lock",
    "filesystem",
    "mount",
    "checkout",
    "after-checkout",
    "unmount",
    "snapshot",
];

/// A machine as far as the program sees it: where it keeps things, and nothing of the user's environment.
pub struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Host {
        Self::under(&std::env::temp_dir())
    }

    /// With everything in this directory.
    pub fn under(parent: &Path) -> Host {
        let directory = tempfile::Builder::new().prefix("e2e-").tempdir_in(parent).unwrap();
        let host = Host { directory };
        // What is unmounted here is unmounted in the namespaces of other runs too, as on a host with systemd. Where mounts are
        // private, those of others that start meanwhile keep a restored volume busy.
        let root = host.path(SHARED);
        fs::create_dir(&root).unwrap();
        succeed(Command::new("mount").arg("--bind").args([&root, &root]));
        succeed(Command::new("mount").arg("--make-shared").arg(&root));
        for name in ["home", "tmp"] {
            fs::create_dir(host.path(name)).unwrap();
        }
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The program with this machine's directories; `log` as JSON, so that it can be examined.
    pub fn program(&self, subcommand: &str) -> Run {
        self.program_logging(subcommand, "json")
    }

    /// The same with another form of log.
    pub fn program_logging(&self, subcommand: &str, format: &str) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebs-bake"));
        command.env_clear().current_dir(self.path("home")).stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("LC_ALL", "C");
        command.env("HOME", self.path("home")).env("TMPDIR", self.path("tmp"));
        command.args([subcommand, "--local-dir"]).arg(self.path("store")).args(["--log-format", format, "--verbose"]);
        Run(command)
    }

    /// A bake of a repository's default branch.
    pub fn bake(&self, repository: impl AsRef<Path>) -> Run {
        let mut run = self.program("bake");
        run.0.arg("--repository").arg(repository.as_ref());
        run.env("EBS_BAKE_MOUNT_POINT", self.path("code/chef")).env("EBS_BAKE_STATE_DIR", self.path("state"))
    }

    /// What is in the store, as `list --json` tells it.
    pub fn snapshots(&self) -> Vec<Value> {
        let done = self.program("list").arg("--json").ended();
        assert_eq!(done.code, 0, "{done:?}");
        let listed: Value = serde_json::from_str(&done.stdout).unwrap();
        listed["snapshots"].as_array().unwrap().clone()
    }

    /// The images of the volumes in the store.
    pub fn volumes(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("store/volumes")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }

    /// The image of the one volume.
    pub fn volume(&self) -> PathBuf {
        match self.volumes().as_slice() {
            [volume] => volume.join(image_name(volume)),
            others => panic!("one volume is expected, not {others:?}"),
        }
    }

    /// The image of a snapshot.
    pub fn snapshot_image(&self, id: &str) -> PathBuf {
        let entry = self.path("store/snapshots").join(id);
        entry.join(image_name(&entry))
    }

    /// Loop devices on files of this machine's directory. Those that were attached in a container say of their file only where
    /// it is in the directory that the container had.
    pub fn loop_devices(&self) -> Vec<(PathBuf, PathBuf)> {
        let volumes: Vec<PathBuf> =
            self.volumes().iter().map(|path| path.strip_prefix(self.path("store")).unwrap().into()).collect();
        let is_ours = |file: &Path| {
            file.starts_with(self.directory.path()) || file.parent().is_some_and(|at| volumes.iter().any(|it| at.ends_with(it)))
        };
        let mut found = Vec::new();
        for entry in fs::read_dir("/sys/block").unwrap().flatten() {
            let Ok(backing) = fs::read(entry.path().join("loop/backing_file")) else { continue };
            let backing = PathBuf::from(std::ffi::OsStr::from_bytes(backing.trim_ascii_end()));
            if is_ours(&backing) {
                found.push((Path::new("/dev").join(entry.file_name()), backing));
            }
        }
        found
    }

    /// Places below this machine's directory where something is mounted.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| point.starts_with(self.directory.path()) && *point != self.path(SHARED)).collect()
    }

    /// Nothing stays of a run but the store with so many volumes: no device, no mount, no directory, no temporary file.
    #[track_caller]
    pub fn assert_nothing_left(&self, volumes: usize) {
        assert_eq!(self.loop_devices(), [], "loop devices are left");
        assert_eq!(self.mounts(), Vec::<PathBuf>::new(), "mounts are left");
        assert!(!self.path("code").exists(), "the mount point is left");
        assert_eq!(names_in(&self.path("tmp")), [""; 0], "temporary files are left");
        assert_eq!(names_in(&self.path("store/staging")), [""; 0], "half-made things are left in the store");
        assert_eq!(self.volumes().len(), volumes, "volumes");
    }

    /// Mounts a snapshot with `restore` and lets the caller look at it.
    pub fn restored<T>(&self, id: &str, look: impl FnOnce(&Path) -> T) -> T {
        let point = self.path(SHARED).join("restored");
        let done = self.program("restore").args(["--snapshot-id", id, "--mount-point"]).arg(&point).ended();
        assert_eq!((done.code, done.stdout.as_str()), (0, ""), "{done:?}");
        let seen = look(&point);
        let done = self.program("restore").arg("--detach").arg("--mount-point").arg(&point).ended();
        assert_eq!(done.code, 0, "{done:?}");
        let _ = fs::remove_dir(&point);
        seen
    }

    /// The snapshot holds what a clone of the repository at this commit holds: the same bytes and the same modes, and if
    /// it has a git directory, git finds nothing to say about it.
    #[track_caller]
    pub fn assert_holds(&self, id: &str, repository: &Path, commit: &str) {
        self.restored(id, |root| self.assert_is(root, repository, commit));
    }

    /// What is mounted there is what a clone holds.
    #[track_caller]
    pub fn assert_is(&self, root: &Path, repository: &Path, commit: &str) {
        let expected = self.clone_of(repository, commit);
        assert_same(&tree_of(root), &tree_of(&expected));
        if root.join(".git").exists() {
            self.assert_git_is_content(root, commit);
        }
        fs::remove_dir_all(expected).unwrap();
    }

    /// `git status` is clean, `git fsck` passes, HEAD is the commit.
    #[track_caller]
    pub fn assert_git_is_content(&self, root: &Path, commit: &str) {
        assert_eq!(self.git(root, &["rev-parse", "HEAD"]), commit);
        assert_eq!(self.git(root, &["status", "--porcelain"]), "", "git status");
        assert_eq!(self.git(root, &["fsck", "--full", "--strict", "--no-dangling"]), "", "git fsck");
    }

    /// What the git command line makes of the commit, with the modes of the usual umask.
    pub fn clone_of(&self, repository: &Path, commit: &str) -> PathBuf {
        let at = self.path("expected");
        let _ = fs::remove_dir_all(&at);
        let script = "umask 022 && git clone -q --no-checkout \"$1\" \"$2\" && git -C \"$2\" checkout -q --detach \"$3\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(repository).arg(&at).arg(commit);
        let output = hermetic(&mut command, &self.path("home")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        at
    }

    /// Runs git in a directory whatever owner it has; what it said on both streams.
    #[track_caller]
    pub fn git(&self, directory: &Path, arguments: &[&str]) -> String {
        git(&self.path("home"), directory, arguments)
    }

    /// Mounts the volume between two runs, as an administrator would, and lets the caller do something to it.
    pub fn by_hand(&self, options: &str, change: impl FnOnce(&Path)) {
        self.mounted(&self.volume(), options, change);
        self.wait_for_devices();
    }

    /// Mounts an image and lets the caller look at it.
    pub fn mounted(&self, image: &Path, options: &str, look: impl FnOnce(&Path)) {
        let point = self.path(SHARED).join("by-hand");
        fs::create_dir_all(&point).unwrap();
        succeed(Command::new("mount").args(["-o", &format!("loop,{options}")]).arg(image).arg(&point));
        look(&point);
        // On a busy machine something may have it open for a moment.
        let deadline = Instant::now() + Duration::from_secs(20);
        while !Command::new("umount").arg(&point).stderr(Stdio::null()).status().unwrap().success() {
            assert!(Instant::now() < deadline, "{} cannot be unmounted", point.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        fs::remove_dir(&point).unwrap();
    }

    /// The kernel releases a loop device a moment after its last user went.
    pub fn wait_for_devices(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.loop_devices().is_empty() {
            assert!(Instant::now() < deadline, "still attached: {:?}", self.loop_devices());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for point in self.mounts().into_iter().rev() {
            let _ = Command::new("umount").arg(point).status();
        }
        for (device, _) in self.loop_devices() {
            let _ = Command::new("losetup").arg("-d").arg(device).status();
        }
        let _ = Command::new("umount").arg("-l").arg(self.path(SHARED)).status();
    }
}

/// A run of the program that is being put together.
pub struct Run(pub Command);

impl Run {
    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Run {
        self.0.arg(argument);
        self
    }

    pub fn args<I: IntoIterator<Item: AsRef<std::ffi::OsStr>>>(mut self, arguments: I) -> Run {
        self.0.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Run {
        self.0.env(name, value);
        self
    }

    /// Runs it to its end.
    pub fn ended(mut self) -> Done {
        Done::of(self.0.output().unwrap())
    }

    /// Runs it to its end, which must be good; the ID on stdout.
    #[track_caller]
    pub fn baked(self) -> Baked {
        let done = self.ended();
        assert_eq!(done.code, 0, "{done:?}");
        Baked::of(done)
    }

    /// Runs it to its end, which must be this error: nothing on stdout, one error with a hint on stderr.
    #[track_caller]
    pub fn failed(self, code: i32) -> Failed {
        let done = self.ended();
        assert_eq!((done.code, done.stdout.as_str()), (code, ""), "{done:?}");
        let errors = done.events("error");
        let [error] = errors.as_slice() else { panic!("one error is expected: {done:?}") };
        assert_eq!(error["exit-code"], code);
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        let causes = error["causes"].to_string();
        Failed { message: text("message"), hint: text("hint"), causes, done }
    }

    /// Starts it and reads along.
    pub fn started(mut self) -> Running {
        let mut child = self.0.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Running { child: Some(child), log, seen: Vec::new() }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    pub fn of(output: Output) -> Done {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().or(output.status.signal().map(|signal| -signal)).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Done { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The log's events of this name; every line of the log must be one.
    #[track_caller]
    pub fn events(&self, name: &str) -> Vec<Value> {
        let parsed = self.stderr.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
        parsed.filter(|event| event["event"] == name).collect()
    }

    /// What a phase came to, the last time that it ended well.
    pub fn phase(&self, phase: &str) -> Option<(String, String)> {
        let finished = self.events("finished").into_iter().rfind(|event| event["phase"] == phase)?;
        let text = |name: &str| finished[name].as_str().unwrap_or_default().to_owned();
        Some((text("change"), text("detail")))
    }

    /// The detail of a phase that must have ended well.
    #[track_caller]
    pub fn detail(&self, phase: &str) -> String {
        self.phase(phase).unwrap_or_else(|| panic!("no {phase} in {}", self.stderr)).1
    }

    /// The messages of all warnings.
    pub fn warnings(&self) -> String {
        let all = self.events("warning");
        all.iter().map(|event| event["message"].as_str().unwrap_or_default()).collect::<Vec<_>>().join("\n")
    }
}

/// A run that made or found a snapshot.
#[derive(Debug)]
pub struct Baked {
    pub id: String,
    /// The fields of `--output-json`.
    pub result: Value,
    pub done: Done,
}

impl Baked {
    /// What a run that ended well says: the ID on stdout.
    #[track_caller]
    pub fn of(done: Done) -> Baked {
        let id = done.stdout.strip_suffix('\n').unwrap_or_default().to_owned();
        assert!(id.starts_with("snap-") && !id.contains(char::is_whitespace), "stdout is one line with the ID: {done:?}");
        assert_eq!(done.events("error"), Vec::<Value>::new());
        let result = done.events("result").pop().expect("a result is logged");
        assert_eq!(result["snapshot-id"], id.as_str());
        Baked { id, result, done }
    }

    pub fn reused(&self) -> bool {
        self.result["reused"] == true
    }
}

/// A run that failed as it should.
#[derive(Debug)]
pub struct Failed {
    pub message: String,
    pub hint: String,
    pub causes: String,
    pub done: Done,
}

impl Failed {
    /// The message and the hint, and neither is without a word.
    #[track_caller]
    pub fn says(&self, message: &str, hint: &str) -> &Failed {
        assert!(self.message.contains(message), "{message:?} is not in: {} / {} / {}", self.message, self.hint, self.causes);
        assert!(self.hint.contains(hint), "{hint:?} is not in the hint: {} ({})", self.hint, self.message);
        assert!(!self.message.contains('\n'), "{}", self.message);
        self
    }
}

/// A run that goes on; killed, if it still does, with the value.
pub struct Running {
    child: Option<Child>,
    log: BufReader<std::process::ChildStderr>,
    seen: Vec<String>,
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, Child::id) as i32
    }

    /// Reads the log up to an event of a phase (`("started", "fetch")`); `false`: the run ended without it.
    pub fn until(&mut self, event: &str, phase: &str) -> bool {
        self.until_line(|line| line["event"] == event && line["phase"] == phase)
    }

    pub fn until_line(&mut self, wanted: impl Fn(&Value) -> bool) -> bool {
        let mut line = String::new();
        while self.log.read_line(&mut line).unwrap() > 0 {
            let found = serde_json::from_str(&line).is_ok_and(|event| wanted(&event));
            self.seen.push(std::mem::take(&mut line));
            if found {
                return true;
            }
        }
        false
    }

    pub fn signal(&self, signal: i32) {
        let signal = nix::sys::signal::Signal::try_from(signal).unwrap();
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal);
    }

    /// Waits for the end.
    pub fn end(mut self) -> Done {
        while self.until_line(|_| false) {}
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        Done::of(Output { stderr: self.seen.concat().into_bytes(), ..output })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn hermetic<'a>(command: &'a mut Command, home: &Path) -> &'a mut Command {
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").stdin(Stdio::null())
}

/// Runs git in a directory whatever owner it has; what it said on both streams.
#[track_caller]
pub fn git(home: &Path, directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "safe.directory=*", "-c", "protocol.file.allow=always"]).args(arguments).current_dir(directory);
    let output = hermetic(&mut command, home).env("GIT_OPTIONAL_LOCKS", "0").output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim_end().to_owned();
    assert!(output.status.success(), "git {arguments:?}: {said}");
    said
}

/// Runs a program that must succeed.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn image_name(entry: &Path) -> OsString {
    let largest = fs::read_dir(entry).unwrap().map(|file| file.unwrap()).max_by_key(|file| file.metadata().unwrap().len());
    largest.unwrap().file_name()
}

pub fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// A file, a link or a directory: its kind, permissions, and bytes or target.
#[derive(PartialEq, Eq)]
pub struct Node {
    kind: char,
    mode: u32,
    content: Vec<u8>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = String::from_utf8_lossy(&self.content[..self.content.len().min(60)]).into_owned();
        write!(f, "{}{:o} {} bytes {start:?}", self.kind, self.mode, self.content.len())
    }
}

/// What is in a directory, without git's own and the manifest.
pub fn tree_of(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut tree = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let at_root = directory == root;
            let name = path.file_name().unwrap();
            if name == ".git" || at_root && (name == ".ebs-bake.json" || name == "lost+found") {
                continue;
            }
            let metadata = fs::symlink_metadata(&path).unwrap();
            let kind = metadata.file_type();
            let (kind, content) = match () {
                () if kind.is_dir() => {
                    directories.push(path.clone());
                    ('d', Vec::new())
                }
                () if kind.is_symlink() => ('l', fs::read_link(&path).unwrap().into_os_string().as_bytes().to_vec()),
                () if kind.is_socket() || kind.is_fifo() => ('?', Vec::new()),
                () => ('-', fs::read(&path).unwrap()),
            };
            let node = Node { kind, mode: metadata.mode() & 0o7777, content };
            tree.insert(path.strip_prefix(root).unwrap().to_owned(), node);
        }
    }
    tree
}

/// Says which paths differ, not all that are the same.
#[track_caller]
pub fn assert_same(have: &BTreeMap<PathBuf, Node>, want: &BTreeMap<PathBuf, Node>) {
    let paths = have.keys().chain(want.keys());
    let mut differences: Vec<_> = paths.filter(|path| have.get(*path) != want.get(*path)).collect();
    differences.dedup();
    let told: Vec<_> = differences.iter().take(10).map(|path| (path, have.get(*path), want.get(*path))).collect();
    assert!(differences.is_empty(), "{} paths differ (path, is, should be): {told:#?}", differences.len());
    assert!(!want.is_empty(), "nothing was compared");
}
