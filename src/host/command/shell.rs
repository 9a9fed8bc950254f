//! The user's own command.

use std::io::{self, PipeWriter};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::unistd::Pid;

use crate::cancel::Cancel;
use crate::error::{Kind, OrFail, Result};

use super::output::Lines;

/// A shell command of the user's, run in a directory with the environment of this process minus its secrets.
///
/// When it has ended, what it left running in its process group is killed: an open file would keep the volume from being
/// unmounted. A daemon that put itself into a session of its own escapes that; the unmount then fails and names it.
#[derive(Debug, Clone)]
pub struct Shell {
    /// Handed to `sh -c`.
    pub script: String,
    /// Where it runs.
    pub directory: PathBuf,
    /// Environment variables that it shall not see.
    pub withheld: Vec<String>,
}

impl Shell {
    /// Runs it to its end and calls `line` with each line that it writes to standard output or standard error: at most
    /// 4 KiB of it, invalid UTF-8 replaced, control characters as they came. What the exit status means is the caller's matter.
    ///
    /// Errors: it cannot be started (kind `Device`), or the run was cancelled (kind `Interrupted`).
    pub fn run(&self, cancel: &Cancel, line: impl FnMut(&str)) -> Result<ExitStatus> {
        cancel.check()?;
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(&self.script).current_dir(&self.directory).stdin(Stdio::null());
        command.env("PWD", &self.directory);
        for name in &self.withheld {
            command.env_remove(name);
        }
        let cannot = || format!("cannot run a command in {}", self.directory.display());
        let switch = DeadManSwitch::arm().or_fail(Kind::Device, cannot)?;
        super::supervise(command, Some(switch.group()), &mut Lines::new(line), cancel)
            .or_fail(Kind::Device, cannot)?
            .ok_or_else(|| cancel.error())
    }
}

/// Kills a process group when this process dies, however it dies: the group's members live in our mount namespace and
/// would keep the volume mounted. A shell, which leads the group and so is there before its first member, waits for the end of a
/// pipe that only we hold.
struct DeadManSwitch {
    guard: Child,
    _held_open: PipeWriter,
}

impl DeadManSwitch {
    fn arm() -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new("/bin/sh");
        // What asks the group to end is not for the guard.
        command.args(["-c", "trap '' HUP INT TERM; read -r _; kill -s KILL 0"]);
        command.env_clear().current_dir("/").process_group(0);
        command.stdin(reader).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(DeadManSwitch { guard: command.spawn()?, _held_open: writer })
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.guard.id().cast_signed())
    }
}

impl Drop for DeadManSwitch {
    fn drop(&mut self) {
        // The group has ended, and its number is kept from being another's until here.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}
