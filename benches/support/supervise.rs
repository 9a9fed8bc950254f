//! Nothing is left behind: the measuring is done by a child process in a process group and a mount namespace of its own, in one
//! temporary directory. When it ends, by itself or because we were told to stop, its group is ended, with which the mounts
//! go, and then the loop devices and the files.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;

/// How long programs get to clean up when we are told to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the worker, cleans up after it, and exits.
pub fn run() -> ! {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the benchmark makes and mounts filesystems: run it as root");
        std::process::exit(3);
    }
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD]);
    signals.thread_block().expect("signals can be blocked");
    let scratch = tempfile::Builder::new().prefix("ebs-bake-bench-").tempdir().expect("a temporary directory");
    let mut worker = start(scratch.path());
    let group = Pid::from_raw(worker.id().cast_signed());
    let code = loop {
        match signals.wait().expect("signals can be waited for") {
            Signal::SIGCHLD => match worker.try_wait().expect("our child") {
                Some(status) => break code(status),
                None => continue,
            },
            signal => {
                let _ = killpg(group, Signal::SIGTERM);
                end(&mut worker);
                break 128 + signal as i32;
            }
        }
    };
    let _ = killpg(group, Signal::SIGKILL);
    detach(scratch.path());
    if let Err(error) = scratch.close() {
        eprintln!("could not remove everything: {error}");
    }
    std::process::exit(code);
}

/// The worker is ended by signals like any program; it has inherited that they are blocked.
pub fn unblock() {
    SigSet::all().thread_unblock().expect("signals can be unblocked");
}

fn start(scratch: &Path) -> Child {
    let scratch = scratch.canonicalize().expect("it was just made");
    Command::new(std::env::current_exe().expect("this program's path"))
        .arg("--worker")
        .arg(&scratch)
        // The user's configuration of git and of ebs-bake shall not be measured.
        .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("HOME", "/nonexistent")])
        .env("TMPDIR", &scratch)
        .env_remove("GITHUB_ACTIONS")
        .current_dir(&scratch)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("this program can be started again")
}

fn end(worker: &mut Child) {
    let until = Instant::now() + PATIENCE;
    while worker.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = worker.kill();
    let _ = worker.wait();
    // What it ran may still be cleaning up.
    std::thread::sleep(Duration::from_millis(500));
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or(1)
}

/// Detaches loop devices over our files: those of a script that was killed.
fn detach(scratch: &Path) {
    let Ok(devices) = std::fs::read_dir("/sys/block") else { return };
    for device in devices.flatten() {
        let backing = std::fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(backing.trim()).starts_with(scratch) {
            let _ = Command::new("losetup").arg("-d").arg(Path::new("/dev").join(device.file_name())).status();
        }
    }
}
