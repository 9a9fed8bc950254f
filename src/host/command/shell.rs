//! The user's own command.

use std::io::{self, PipeWriter};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

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
        let mut switch = None;
        super::supervise(command, &mut Lines::new(line), cancel, |group| {
            switch = Some(DeadManSwitch::arm(group)?);
            Ok(())
        })
        .or_fail(Kind::Device, || format!("cannot run a command in {}", self.directory.display()))?
        .ok_or_else(|| cancel.error())
    }
}

/// Kills a process group when this process dies, however it dies: the group's members live in our mount namespace and
/// would keep the volume mounted. A shell waits for the end of a pipe that only we hold.
struct DeadManSwitch {
    guard: Child,
    _held_open: PipeWriter,
}

impl DeadManSwitch {
    fn arm(group: u32) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new("/bin/sh");
        // The group's number is passed as an argument, not as text of the script.
        command.args(["-c", r#"read -r _; kill -s KILL -- "-$1""#, "ebs-bake-guard"]).arg(group.to_string());
        command.env_clear().current_dir("/").process_group(0);
        command.stdin(reader).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(DeadManSwitch { guard: command.spawn()?, _held_open: writer })
    }
}

impl Drop for DeadManSwitch {
    fn drop(&mut self) {
        // Before the pipe closes: the group has ended, its number may be another's by now.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}
