//! Killing a process right before one of its changes to the world, each in turn: what a timer hits only by luck.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The system calls that change files, locks or devices.
const CHANGES: &[libc::c_long] = &[
    libc::SYS_mkdirat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_fsync,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_ftruncate,
    libc::SYS_pwrite64,
    libc::SYS_flock,
    libc::SYS_ioctl,
    libc::SYS_mknodat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
];

/// Runs a command and kills it (SIGKILL, so it never happens) at its change number `nth`, counted from 0. Returns the
/// number of the system call, or `None` if the command made fewer changes and succeeded.
pub fn run_until_change(mut command: Command, nth: usize) -> Option<u64> {
    command.process_group(0).stdout(Stdio::null());
    // SAFETY: `traceme` is one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    #[expect(clippy::zombie_processes, reason = "waitpid below waits for all of its group")]
    let child = command.spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Stopped(pid, Signal::SIGTRAP), "stopped by exec");
    ptrace::setoptions(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL).unwrap();
    ptrace::syscall(pid, None).unwrap();
    let mut changes = 0;
    let mut killed = None;
    loop {
        // All threads of the process; other tests' children are in other groups.
        match waitpid(Pid::from_raw(-pid.as_raw()), Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::PtraceSyscall(thread) if killed.is_none() => {
                if let Some(number) = change(thread) {
                    if changes == nth {
                        killed = Some(number);
                        kill(pid, Signal::SIGKILL).unwrap();
                        continue;
                    }
                    changes += 1;
                }
                resume(thread, None);
            }
            // Each new thread begins with a stop of its own.
            WaitStatus::Stopped(thread, Signal::SIGSTOP | Signal::SIGTRAP) | WaitStatus::PtraceEvent(thread, ..) => {
                resume(thread, None)
            }
            WaitStatus::Stopped(thread, signal) => resume(thread, signal),
            WaitStatus::PtraceSyscall(thread) => resume(thread, None),
            WaitStatus::Exited(ended, code) if ended == pid => {
                assert_eq!(code, 0);
                return None;
            }
            WaitStatus::Signaled(ended, ..) if ended == pid => return killed,
            _ => {}
        }
    }
}

/// A thread that was killed meanwhile cannot go on, which is no error.
fn resume(thread: Pid, signal: impl Into<Option<Signal>>) {
    let _ = ptrace::syscall(thread, signal);
}

/// The number of the system call that a thread is about to make, if it is a change.
fn change(thread: Pid) -> Option<u64> {
    let info = ptrace::syscall_info(thread).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: `op` says that this is the variant.
    let entry = unsafe { info.u.entry };
    let creates = entry.nr == libc::SYS_openat as u64 && entry.args[2] & libc::O_CREAT as u64 != 0;
    (creates || CHANGES.contains(&(entry.nr as libc::c_long))).then_some(entry.nr)
}
