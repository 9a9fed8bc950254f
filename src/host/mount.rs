//! Mounting, and unmounting for real.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use sys_mount::{MountFlags, UnmountFlags};

use crate::error::{Error, Kind, OrFail, Result};
use crate::step;

use super::capabilities::MAY_MOUNT;
use super::device::{Device, Node};
use super::{mountinfo, processes};

/// How long an unmount is tried while the filesystem is busy: a process that was just killed may still be closing its files.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// The pause between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Gives this process a mount namespace of its own, so that what it mounts is seen by nobody else and goes when the process
/// does, even if it is killed. To be called before any other thread is started: threads of a process have a namespace each.
///
/// The mounts become *slaves*, not private: what the host unmounts during the run goes here too, else this process would
/// keep the host's other disks busy.
pub fn enter_private_namespace() -> Result<()> {
    let failed = || "cannot get a mount namespace of our own".to_owned();
    let threads = fs::read_dir("/proc/self/task").or_fail(Kind::Device, failed)?.count();
    if threads != 1 {
        return Err(Error::new(Kind::Device, format!("{}: {threads} threads are running", failed())));
    }
    leave_namespace().or_fail(Kind::Permission, failed)
}

/// Gives the calling thread a mount namespace of its own, in which its mounts are slaves.
fn leave_namespace() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
}

/// Does something in a thread with a mount namespace of its own: what is mounted goes with the thread, or with the process.
///
/// # Errors
/// `Permission` when there is no namespace to be had; those of `work`.
pub fn in_private_namespace<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let inside = || {
        let entered = leave_namespace().or_fail(Kind::Permission, || "cannot get a mount namespace of our own");
        entered.map_err(|error| error.hint(MAY_MOUNT))?;
        work()
    };
    thread::spawn(inside).join().unwrap_or_else(|_| Err(Error::new(Kind::Device, "an internal thread panicked")))
}

/// Whether this process can have a mount namespace of its own and mount in it. Nothing of it stays.
///
/// # Errors
/// `Permission`, with a hint.
pub fn probe() -> Result<()> {
    in_private_namespace(|| {
        let directory = std::env::temp_dir();
        let mounted = sys_mount::Mount::builder().fstype("tmpfs").mount("tmpfs", &directory);
        let mounted = mounted.or_fail(Kind::Permission, || format!("cannot mount a tmpfs on {}", directory.display()));
        mounted.map(drop).map_err(|error| error.hint(MAY_MOUNT))
    })
}

/// An empty directory to mount on. The directories that had to be made for it are removed with the value, if they are empty.
#[derive(Debug)]
pub struct MountPoint {
    path: PathBuf,
    /// Outermost first.
    created: Vec<PathBuf>,
}

impl MountPoint {
    /// Makes what is missing of `path`. Errors, of kind `Device` with a hint: it is a symbolic link, not a directory, not
    /// empty, or something is mounted there.
    ///
    /// Symbolic links among the parents are resolved first; [`MountPoint::path`] has none.
    pub fn prepare(path: &Path) -> Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(unfit(path, "is not a directory below the root", "name another one"));
        };
        if !path.is_absolute() {
            return Err(unfit(path, "is not an absolute path", "write it from the root on"));
        }
        let mut point = MountPoint { path: PathBuf::new(), created: Vec::new() };
        point.create_all(parent)?;
        let parent = parent.canonicalize().or_fail(Kind::Device, || format!("cannot use {}", parent.display()))?;
        point.path = parent.join(name);
        point.create(&point.path.clone())?;
        point.check()?;
        Ok(point)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn create_all(&mut self, directory: &Path) -> Result<()> {
        if directory.is_dir() {
            return Ok(());
        }
        if let Some(parent) = directory.parent() {
            self.create_all(parent)?;
        }
        self.create(directory)
    }

    fn create(&mut self, directory: &Path) -> Result<()> {
        let make = || DirBuilder::new().mode(0o755).create(directory);
        match step::around("making the mount point", make) {
            Ok(()) => self.created.push(directory.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let message = format!("cannot make the directory {}", directory.display());
                return Err(Error::new(Kind::Device, message).hint("name another place with --mount-point").because(error));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let path = &self.path;
        let unreadable = || format!("cannot examine {}", path.display());
        let kind = fs::symlink_metadata(path).or_fail(Kind::Device, unreadable)?.file_type();
        if kind.is_symlink() {
            return Err(unfit(path, "is a symbolic link", "name the directory that it leads to"));
        }
        if !kind.is_dir() {
            return Err(unfit(path, "is not a directory", "name another place with --mount-point"));
        }
        let mounts = mountinfo::of_this_thread().or_fail(Kind::Device, unreadable)?;
        if let Some(mount) = mountinfo::at(&mounts, path) {
            let what = format!("has {} mounted on it", mount.source.display());
            return Err(unfit(path, &what, "unmount that, or name another place with --mount-point"));
        }
        if fs::read_dir(path).or_fail(Kind::Device, unreadable)?.next().is_some() {
            return Err(unfit(path, "is not empty", "a mount would hide its files; name another place with --mount-point"));
        }
        Ok(())
    }

    /// Keeps the directories that were made.
    fn keep(mut self) -> PathBuf {
        self.created.clear();
        std::mem::take(&mut self.path)
    }
}

fn unfit(path: &Path, what: &str, hint: &str) -> Error {
    Error::new(Kind::Device, format!("mount point {} {what}", path.display())).hint(hint)
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        for directory in self.created.iter().rev() {
            // Never more than an empty directory: were the volume still mounted there, its files would be lost.
            if step::around("removing the mount point", || fs::remove_dir(directory)).is_err() {
                return;
            }
        }
    }
}

/// How to mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Write nothing to the device at all, not even to replay a journal.
    pub read_only: bool,
}

/// What this type of filesystem needs to be told; the first that the kernel understands counts.
fn data(fstype: &str, options: Options) -> &'static [&'static str] {
    match (fstype, options.read_only) {
        ("ext2" | "ext3" | "ext4", true) => &["noload"],
        // Zeroing unused inodes in the background would change blocks for nothing: the volume was blank.
        ("ext4", false) => &["noinit_itable"],
        // A clone has the same UUID as what it was cloned from, and both may be mounted here.
        ("xfs", true) => &["norecovery,nouuid"],
        ("xfs", false) => &["nouuid"],
        // Known from Linux 5.9 on, and until some Linux 6.
        ("btrfs", true) => &["rescue=nologreplay", "nologreplay"],
        _ => &[""],
    }
}

fn mount_first(node: &Node, at: &Path, fstype: &str, flags: MountFlags, data: &[&str]) -> io::Result<()> {
    let mut outcome = Err(io::ErrorKind::InvalidInput.into());
    for data in data {
        let mount = || sys_mount::Mount::builder().fstype(fstype).flags(flags).data(data).mount(node.path(), at).map(drop);
        outcome = step::around("mounting", mount);
        if !outcome.as_ref().is_err_and(|error: &io::Error| error.raw_os_error() == Some(libc::EINVAL)) {
            break;
        }
    }
    outcome
}

/// A mounted filesystem. Dropped, it is unmounted as well as possible; call [`Mount::unmount`] to know.
#[derive(Debug)]
pub struct Mount {
    at: Option<MountPoint>,
}

impl Mount {
    /// Mounts the device with `nosuid,nodev,noatime`.
    pub fn new(node: &Node, at: MountPoint, fstype: &str, options: Options) -> Result<Self> {
        let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        flags.set(MountFlags::RDONLY, options.read_only);
        match mount_first(node, at.path(), fstype, flags, data(fstype, options)) {
            Ok(()) => Ok(Mount { at: Some(at) }),
            Err(error) => Err(refused(node, &at, fstype, error)),
        }
    }

    /// A mount that another process made and left (see [`Mount::leave`]): the one of this device at this place.
    pub fn adopt(device: &Device, path: &Path) -> Result<Self> {
        let mounted = points_of(device)?.into_iter().any(|point| point == path);
        if mounted {
            return Ok(Mount { at: Some(MountPoint { path: path.to_owned(), created: Vec::new() }) });
        }
        Err(Error::new(Kind::Device, format!("{} is not mounted at {}", device.name, path.display())))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.at.as_ref().map_or(Path::new(""), MountPoint::path)
    }

    /// Leaves the filesystem mounted, for other processes to use; returns where.
    pub fn leave(mut self) -> PathBuf {
        self.at.take().map(MountPoint::keep).unwrap_or_default()
    }

    /// Writes everything to the device and unmounts: never lazily and never by force. An error means that the filesystem is
    /// still mounted (kind `Device`, naming who uses it), or that something could not be written; then the device must not
    /// be snapshotted. The directories that were made for the mount are removed.
    pub fn unmount(mut self) -> Result<()> {
        let path = self.path().to_owned();
        let lost = || format!("cannot write everything to the volume at {}", path.display());
        let synced = step::around("syncing", || sync(&path)).or_fail(Kind::Device, lost);
        let synced = synced.map_err(|error| error.hint("the kernel's log (dmesg) says why"));
        let unmounted = self.at.take().map_or(Ok(()), release);
        synced.and(unmounted)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(at) = self.at.take() {
            let _ = release(at);
        }
    }
}

fn refused(node: &Node, at: &MountPoint, fstype: &str, error: io::Error) -> Error {
    let message = format!("cannot mount {} as {fstype} at {}", node.path().display(), at.path().display());
    let hint = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => MAY_MOUNT,
        Some(libc::ENODEV) => "this kernel does not know that type of filesystem",
        Some(libc::EBUSY) => "the device is mounted or claimed elsewhere",
        _ => "the kernel's log may say why (dmesg)",
    };
    Error::new(Kind::Device, message).hint(hint).because(error)
}

/// The places where the calling thread sees the device mounted.
pub fn points_of(device: &Device) -> Result<Vec<PathBuf>> {
    let mounts = mountinfo::of_this_thread().or_fail(Kind::Device, || "cannot read the table of mounts")?;
    let ours = mounts.into_iter().filter(|mount| processes::is_of(mount, device.number(), &device.name));
    Ok(ours.map(|mount| mount.point).collect())
}

/// `syncfs(2)` reports what could not be written since the filesystem was mounted.
fn sync(path: &Path) -> io::Result<()> {
    Ok(nix::unistd::syncfs(File::open(path)?)?)
}

fn release(at: MountPoint) -> Result<()> {
    let filesystem = fs::metadata(at.path()).map(|it| it.dev()).ok();
    let began = Instant::now();
    let error = loop {
        match step::around("unmounting", || sys_mount::unmount(at.path(), UnmountFlags::empty())) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && began.elapsed() < BUSY_PATIENCE => {
                thread::sleep(BUSY_PAUSE);
            }
            Err(error) => break error,
        }
    };
    let mut message = format!("cannot unmount {}", at.path().display());
    if error.raw_os_error() == Some(libc::EBUSY) {
        let users = users(at.path(), filesystem);
        message = format!("{message}: {}", if users.is_empty() { "it is in use".to_owned() } else { users.join("; ") });
    }
    // The directories are under the mount.
    at.keep();
    Err(Error::new(Kind::Device, message).hint("end what uses it; nothing was snapshotted").because(error))
}

fn users(path: &Path, filesystem: Option<u64>) -> Vec<String> {
    let mut users = filesystem.map(processes::users_of).unwrap_or_default();
    let mounts = mountinfo::of_this_thread().unwrap_or_default();
    let nested = mounts.iter().filter(|mount| mountinfo::is_below(&mount.point, path));
    users.extend(nested.map(|mount| format!("{} is mounted in it", mount.point.display())));
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_directories_are_made_and_removed_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("code/chef");
        let point = MountPoint::prepare(&path).unwrap();
        assert!(path.is_dir());
        assert_eq!(point.path(), path.canonicalize().unwrap());
        drop(point);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn directories_that_were_there_or_are_used_stay() {
        let root = tempfile::tempdir().unwrap();
        let there = root.path().join("there");
        fs::create_dir(&there).unwrap();
        drop(MountPoint::prepare(&there).unwrap());
        assert!(there.is_dir());
        let point = MountPoint::prepare(&root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/precious"), "").unwrap();
        drop(point);
        assert!(root.path().join("a/precious").is_file());
        assert!(!root.path().join("a/b").exists());
    }

    #[test]
    fn unfit_mount_points_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("full")).unwrap();
        fs::write(at("full/file"), "").unwrap();
        fs::create_dir(at("empty")).unwrap();
        std::os::unix::fs::symlink("empty", at("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        for (name, reason) in [
            ("file", "is not a directory"),
            ("full", "is not empty"),
            ("link", "is a symbolic link"),
            ("dangling", "is a symbolic link"),
            ("file/below", "cannot"),
        ] {
            let error = MountPoint::prepare(&at(name)).unwrap_err();
            assert!(error.to_string().contains(reason), "{name}: {error}");
            assert_eq!(error.kind(), Kind::Device);
        }
        assert!(MountPoint::prepare(Path::new("relative/path")).is_err());
        assert!(MountPoint::prepare(Path::new("/")).is_err());
        assert!(MountPoint::prepare(Path::new("/proc")).unwrap_err().to_string().contains("mounted on it"));
        assert!(!at("nowhere").exists(), "nothing was made through a dangling link");
    }

    #[test]
    fn parents_may_be_links_and_are_resolved() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", root.path().join("link")).unwrap();
        let point = MountPoint::prepare(&root.path().join("link/chef")).unwrap();
        assert_eq!(point.path(), root.path().canonicalize().unwrap().join("real/chef"));
    }
}
