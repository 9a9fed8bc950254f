//! Having a device to ourselves, on this host.
//!
//! Two means, each with a job of its own: a [`DeviceLock`] keeps other runs of this program out (and udev, which honours it:
//! systemd's "Locking Block Device Access"), an [`Exclusive`] claim proves that nothing in the kernel uses the device.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sys_mount::{Mount, MountFlags};

use crate::cancel::Cancel;
use crate::error::{Error, Kind, OrFail, Result};
use crate::step;

use super::capabilities::MAY_MOUNT;
use super::device::{Device, Node};
use super::mount::in_private_namespace;
use super::{mountinfo, processes};

/// The pause between two tries doubles from here …
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// … up to here: a lock is held for seconds or minutes, and trying costs nothing.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often a pause looks at the cancellation.
const TICK: Duration = Duration::from_millis(50);

/// A process that is killed releases its locks first, then its mount namespace, whose mounts the kernel unmounts when it comes to
/// it.
const LINGERING: Duration = Duration::from_secs(3);

/// The device's lock on this host: `flock(2)` on its node of a *devtmpfs*, which is one inode in every mount namespace and
/// container. It survives mounting and unmounting; the kernel releases it when this value or the process goes.
#[derive(Debug)]
pub struct DeviceLock {
    _file: Flock<File>,
}

impl DeviceLock {
    /// Takes the lock, waiting for up to `timeout`. `on_wait` is called after each vain try with the time waited so far and
    /// the holder, if it can be seen.
    ///
    /// Errors: kind `Contended` after the time-out, `Interrupted` on cancellation, `Device` if there is no devtmpfs to be had.
    pub fn acquire(
        device: &Device,
        timeout: Duration,
        cancel: &Cancel,
        mut on_wait: impl FnMut(Duration, Option<String>),
    ) -> Result<Self> {
        let began = Instant::now();
        let mut file = open_shared_node(device)?;
        let mut pause = FIRST_PAUSE;
        loop {
            cancel.check()?;
            let lock = || Flock::lock(file, FlockArg::LockExclusiveNonblock);
            file = match step::around("locking the device", lock) {
                Ok(file) => return Ok(DeviceLock { _file: file }),
                Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => file,
                Err((_, errno)) => {
                    return Err(Error::new(Kind::Device, format!("cannot lock {}", device.name)).because(errno));
                }
            };
            let holder = holder_of(&file);
            let waited = began.elapsed();
            if waited >= timeout {
                return Err(contended(device, waited, holder));
            }
            on_wait(waited, holder);
            sleep(pause.min(timeout - waited), cancel)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

fn contended(device: &Device, waited: Duration, holder: Option<String>) -> Error {
    let holder = holder.unwrap_or_else(|| "a process that is not visible from here".to_owned());
    let message = format!("{} is locked by {holder}; waited {:.1} s for it", device.name, waited.as_secs_f64());
    Error::new(Kind::Contended, message).hint("wait for the other run to end, or give more time with --lock-timeout")
}

fn holder_of(file: &File) -> Option<String> {
    let metadata = file.metadata().ok()?;
    processes::flock_holder(metadata.dev(), metadata.ino()).map(processes::describe)
}

fn sleep(pause: Duration, cancel: &Cancel) -> Result<()> {
    let end = Instant::now() + pause;
    loop {
        cancel.check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(TICK));
    }
}

/// Whether there is a devtmpfs for locks, and where: `/dev` itself, or one that can be mounted. What is mounted is unmounted.
///
/// # Errors
/// `Device`, with a hint.
pub fn probe_devtmpfs() -> Result<&'static str> {
    let failed = || "there is no devtmpfs, which the lock between runs needs";
    let mounts = mountinfo::of_this_thread().or_fail(Kind::Device, failed)?;
    if is_devtmpfs(&mounts) {
        return Ok("/dev is one");
    }
    on_private_devtmpfs(|_| ()).or_fail(Kind::Device, failed).map_err(|error| error.hint(MAY_MOUNT))?;
    Ok("one can be mounted")
}

fn is_devtmpfs(mounts: &[mountinfo::MountInfo]) -> bool {
    mountinfo::at(mounts, Path::new("/dev")).is_some_and(|mount| mount.fstype == "devtmpfs")
}

/// Opens the device's node of a devtmpfs: of `/dev` if that is one, else of one mounted for the moment of opening.
fn open_shared_node(device: &Device) -> Result<File> {
    let failed = || format!("cannot open {} on a devtmpfs, which the lock between runs needs", device.name);
    let mounts = mountinfo::of_this_thread().or_fail(Kind::Device, failed)?;
    let opened = match is_devtmpfs(&mounts) {
        true => Ok(open_in(Path::new("/dev"), device)),
        false => {
            let device = device.clone();
            on_private_devtmpfs(move |directory| open_in(directory, &device))
        }
    };
    let file = opened.or_fail(Kind::Device, failed).map_err(|error| error.hint(MAY_MOUNT))?;
    file.or_fail(Kind::Device, failed).map_err(|error| error.hint(device.may_open()))
}

fn open_in(dev: &Path, device: &Device) -> io::Result<File> {
    let path = dev.join(devtmpfs_name(device));
    Node::at(path, device).open_as(OpenOptions::new().read(true))
}

/// The kernel's own name for the node (`DEVNAME` of the device's uevent).
fn devtmpfs_name(device: &Device) -> String {
    let uevent = fs::read_to_string(format!("/sys/dev/block/{}:{}/uevent", device.major, device.minor)).unwrap_or_default();
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| device.name.replace('!', "/"), str::to_owned)
}

/// Containers have a tmpfs at `/dev`. Mounted on a directory that is there, in a mount namespace that ends with this call, a
/// devtmpfs leaves nothing behind, whenever the process is killed; an open file keeps it alive.
fn on_private_devtmpfs<T: Send + 'static>(work: impl FnOnce(&Path) -> T + Send + 'static) -> Result<T> {
    in_private_namespace(|| {
        let directory = std::env::temp_dir();
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        let mount = || Mount::builder().fstype("devtmpfs").flags(flags).mount("devtmpfs", &directory);
        let mounted = step::around("mounting a devtmpfs", mount);
        mounted.or_fail(Kind::Device, || format!("cannot mount a devtmpfs on {}", directory.display()))?;
        Ok(work(&directory))
    })
}

/// A claim on the whole device (`open(2)` with `O_EXCL`): while it is held nothing can mount the device in any namespace,
/// nor make a filesystem on it; that it was had proves that nothing had it mounted.
#[derive(Debug)]
pub struct Exclusive {
    _file: File,
}

impl Exclusive {
    /// Claims the device, or fails with an error of kind `Device` that says who uses it, as far as that can be seen.
    pub fn open(device: &Device) -> Result<Self> {
        let node = device.node()?;
        match step::around("claiming the device", || node.open_exclusively()) {
            Ok(file) => Ok(Exclusive { _file: file }),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Err(in_use(device)),
            Err(error) => Err(Error::new(Kind::Device, format!("cannot open {}", device.name)).because(error)),
        }
    }

    /// Checks that the device could be claimed, without keeping it. Mounts of a process that was killed are given a moment
    /// to go.
    pub fn probe(device: &Device) -> Result<()> {
        let deadline = Instant::now() + LINGERING;
        loop {
            match Self::open(device).map(drop) {
                Err(_) if Instant::now() < deadline => std::thread::sleep(TICK),
                outcome => return outcome,
            }
        }
    }
}

fn in_use(device: &Device) -> Error {
    let mut users = processes::mounts_anywhere(device.number(), &device.name);
    users.extend(stacked_on(device));
    let users = if users.is_empty() { "by something that is not visible from here".to_owned() } else { users.join("; ") };
    Error::new(Kind::Device, format!("{} is in use: {users}", device.name))
        .hint("nothing else may use the volume during a bake: unmount it there")
}

/// Devices made on top of this one: LVM, RAID, encryption.
fn stacked_on(device: &Device) -> Vec<String> {
    let holders = PathBuf::from("/sys/block").join(&device.name).join("holders");
    let entries = fs::read_dir(holders).into_iter().flatten().flatten();
    entries.map(|entry| format!("claimed by {}", entry.file_name().to_string_lossy())).collect()
}
