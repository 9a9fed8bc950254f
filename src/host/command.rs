//! The one place that starts other programs.
//!
//! Every child leads a process group of its own, is asked to end (SIGTERM, then SIGKILL) when the run is cancelled, and
//! does not outlive this process. All calls block.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, io};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::cancel::Cancel;
use crate::error::{Error, Kind, OrFail, Result};
use crate::step;

mod output;
mod shell;

pub use shell::Shell;

use output::{Sink, Tail, drain};

/// Administration tools live here; the PATH of a CI job often lacks it.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// How long a child has to end after SIGTERM before SIGKILL follows. Well within the 7 s that a cancelled GitHub job has.
const GRACE: Duration = Duration::from_secs(2);

/// How often a waiting parent looks at the cancellation and at the child. Output and the end of output wake it at once.
const TICK: Duration = Duration::from_millis(50);

/// How long to read on after the child has ended, for what is still in the pipe; a daemon that it left behind may hold
/// the pipe open for ever.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Where the program is: searched in PATH, then in `/usr/sbin` and `/sbin`.
pub fn find(name: &str) -> Option<PathBuf> {
    find_in(name, env::var_os("PATH").as_deref())
}

fn find_in(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let listed = path.map(|path| env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    listed
        .into_iter()
        .filter(|directory| directory.is_absolute())
        .chain(SYSTEM_DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok()
}

/// Checks that all these programs are there, so that a run fails before it has made anything.
pub fn require(names: &[&str]) -> Result<()> {
    let missing: Vec<&str> = names.iter().copied().filter(|name| find(name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(missing_error(&missing))
}

fn missing_error(names: &[&str]) -> Error {
    let e2fsprogs = names.iter().all(|name| matches!(*name, "mkfs.ext4" | "e2fsck" | "resize2fs"));
    let plural = if names.len() == 1 { "is" } else { "are" };
    let error = Error::new(Kind::Device, format!("{} {plural} not installed", names.join(", ")));
    error.hint(if e2fsprogs { "install e2fsprogs" } else { "install it, or add its directory to PATH" })
}

/// What became of a program that ran to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// The last lines that it wrote to standard output and standard error.
    pub tail: String,
}

/// A program of the system with its arguments. It gets an environment of PATH and LANG=C alone (so that its messages and
/// behaviour do not depend on the caller), no input, and its output is kept.
#[derive(Debug)]
pub struct Program {
    name: String,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, &'static str)>,
}

impl Program {
    /// A program by its file name.
    pub fn new(name: &str) -> Self {
        Program { name: name.to_owned(), arguments: Vec::new(), environment: Vec::new() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// Runs it to its end, whatever its exit code. Errors: it cannot be started, a signal killed it (kind `Device`), or the
    /// run was cancelled (kind `Interrupted`).
    pub fn run(&self, cancel: &Cancel) -> Result<Output> {
        cancel.check()?;
        let path = find(&self.name).ok_or_else(|| missing_error(&[&self.name]))?;
        let mut command = std::process::Command::new(path);
        let directories = env::var_os("PATH").unwrap_or_default();
        command.args(&self.arguments).env_clear().env("PATH", directories).env("LANG", "C");
        command.envs(self.environment.iter().copied()).stdin(Stdio::null());
        let mut tail = Tail::default();
        let began = Instant::now();
        let status = supervise(command, None, &mut tail, cancel)
            .or_fail(Kind::Device, || format!("cannot run {}", self.name))?
            .ok_or_else(|| cancel.error())?;
        tracing::debug!("{} {:?} in {:?}: {}", self.name, self.arguments, began.elapsed(), describe(status));
        let tail = tail.text();
        match status.code() {
            Some(code) => Ok(Output { code, tail }),
            None => Err(with_tail(Error::new(Kind::Device, format!("{}: {}", self.name, describe(status))), &tail)),
        }
    }

    /// Runs it; an exit code other than 0 is an error of kind `Device` with the last lines of what the program said.
    pub fn run_ok(&self, cancel: &Cancel) -> Result<Output> {
        let output = self.run(cancel)?;
        if output.code == 0 {
            return Ok(output);
        }
        Err(with_tail(Error::new(Kind::Device, format!("{} failed with exit code {}", self.name, output.code)), &output.tail))
    }
}

fn with_tail(error: Error, tail: &str) -> Error {
    if tail.is_empty() { error } else { error.because(tail) }
}

/// How a program ended, in words: `exit code 3`, `killed by SIGKILL`.
pub fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {}", signal.as_str()),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// Starts the command, feeds what it writes to `sink` and waits until it ends; `None`: it was ended because the run is
/// cancelled. Either way nothing of its process group is left: that of `leader`, or one of its own.
fn supervise(
    command: std::process::Command,
    leader: Option<Pid>,
    sink: &mut dyn Sink,
    cancel: &Cancel,
) -> io::Result<Option<ExitStatus>> {
    let (mut reader, writer) = io::pipe()?;
    output::set_nonblocking(&reader)?;
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut group = step::around(format_args!("starting {name}"), || Group::start(command, leader, writer))?;
    step::before(format_args!("the end of {name}"));
    let mut asked_to_end: Option<Instant> = None;
    let mut open = true;
    while !group.has_ended()? {
        if cancel.is_cancelled() {
            match asked_to_end {
                None => {
                    group.signal(Signal::SIGTERM);
                    asked_to_end = Some(Instant::now());
                }
                Some(since) if since.elapsed() >= GRACE => group.signal(Signal::SIGKILL),
                Some(_) => {}
            }
        }
        if open {
            open = drain(&mut reader, sink, TICK)?;
        } else {
            std::thread::sleep(TICK / 10);
        }
    }
    let status = group.end()?;
    step::after(format_args!("the end of {name}"));
    let deadline = Instant::now() + AFTERMATH;
    while open && Instant::now() < deadline {
        open = drain(&mut reader, sink, TICK)?;
    }
    sink.finish();
    Ok(asked_to_end.is_none().then_some(status))
}

/// A child and its process group; dropped before its end, the whole group is killed.
struct Group {
    child: Child,
    pid: Pid,
    /// Who leads the group: the child itself, or who is reaped after it.
    leader: Pid,
    reaped: bool,
}

impl Group {
    fn start(mut command: std::process::Command, leader: Option<Pid>, writer: io::PipeWriter) -> io::Result<Group> {
        let parent = nix::unistd::getpid();
        command.process_group(leader.map_or(0, Pid::as_raw)).stdout(writer.try_clone()?).stderr(writer);
        // SAFETY: between fork and exec only two system calls are made, both async-signal-safe; nothing allocates.
        unsafe { command.pre_exec(move || die_with(parent)) };
        let child = command.spawn()?;
        let pid = Pid::from_raw(child.id().cast_signed());
        Ok(Group { child, pid, leader: leader.unwrap_or(pid), reaped: false })
    }

    /// Whether the child has ended. It is left unreaped, so that its number, which may be the group's, is not used again.
    fn has_ended(&self) -> io::Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid), flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(false),
            Ok(_) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    fn signal(&self, signal: Signal) {
        // A group that is gone is what we want.
        let _ = killpg(self.leader, signal);
    }

    /// Kills what the child left behind in its group, then reaps the child.
    fn end(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGKILL);
        self.reaped = true;
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.end();
        }
    }
}

/// Lets the kernel kill this process when the thread that started it ends: that thread waits for it, so only with the
/// whole process.
fn die_with(parent: Pid) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before the line above; then nobody would tell.
    if nix::unistd::getppid() != parent {
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
