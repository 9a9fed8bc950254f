//! Who else uses a device or a filesystem: read from `/proc`, to name them in errors.
//!
//! Nothing here decides anything. A process that is not visible (another PID namespace) is not found.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::stat::{major, makedev, minor};

use super::mountinfo::{self, MountInfo};

/// The longest time that a search takes: on a host with very many processes an incomplete answer is better than a late one.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most processes that are named.
const MOST: usize = 4;

/// `pid 123 (ruby)`. Not its arguments: they may hold secrets.
pub(super) fn describe(pid: u32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("pid {pid} ({})", name.trim_end().escape_default()),
        Err(_) => format!("pid {pid}"),
    }
}

/// The processes that can be seen.
fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Collects up to [`MOST`] results for as long as [`PATIENCE`] lasts.
fn search(mut each: impl FnMut(u32) -> Option<String>) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    all().take_while(|_| Instant::now() < deadline).filter_map(&mut each).take(MOST).collect()
}

/// The processes that keep a filesystem (its `st_dev`) busy, each with the file.
pub(super) fn users_of(filesystem: u64) -> Vec<String> {
    search(|pid| {
        let path = open_file(pid, filesystem).or_else(|| mapped_file(pid, filesystem))?;
        Some(format!("{} has {} open", describe(pid), path.display()))
    })
}

/// A working directory, root directory or open file there.
fn open_file(pid: u32, filesystem: u64) -> Option<PathBuf> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    let links = ["cwd", "root"].map(|name| process.join(name)).into_iter().chain(files);
    links.filter(|link| filesystem_of(link) == Some(filesystem)).find_map(|link| fs::read_link(link).ok())
}

/// The `st_dev` of what a path leads to, without asking the server of a network filesystem, which may never answer.
fn filesystem_of(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut status = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path ends with NUL, and the kernel writes one `struct statx` there.
    let result = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), libc::AT_STATX_DONT_SYNC, 0, status.as_mut_ptr()) };
    if result != 0 {
        return None;
    }
    // SAFETY: all fields are integers, so that zeros and whatever the kernel wrote are valid.
    let status = unsafe { status.assume_init() };
    Some(makedev(status.stx_dev_major.into(), status.stx_dev_minor.into()))
}

/// A program or library that it runs, or a file mapped into its memory.
fn mapped_file(pid: u32, filesystem: u64) -> Option<PathBuf> {
    let maps = fs::read(format!("/proc/{pid}/maps")).ok()?;
    find_mapping(&String::from_utf8_lossy(&maps), major(filesystem), minor(filesystem)).map(PathBuf::from)
}

/// In `/proc/<pid>/maps`: `start-end mode offset major:minor inode path`, numbers of the device in hexadecimal.
fn find_mapping(maps: &str, major: u64, minor: u64) -> Option<&str> {
    let device = format!("{major:02x}:{minor:02x}");
    maps.lines().find_map(|line| {
        let mut fields = line.splitn(6, ' ');
        (fields.nth(3)? == device).then(|| fields.nth(1).unwrap_or_default().trim_start())
    })
}

/// The process that holds a flock on a file (`st_dev` and `st_ino`).
pub(super) fn flock_holder(filesystem: u64, inode: u64) -> Option<u32> {
    find_flock(&fs::read_to_string("/proc/locks").ok()?, major(filesystem), minor(filesystem), inode)
}

/// In `/proc/locks`: `1: FLOCK ADVISORY WRITE pid major:minor:inode start end`; waiting ones have `->` after the number.
fn find_flock(locks: &str, major: u64, minor: u64, inode: u64) -> Option<u32> {
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let held = fields.len() >= 6 && fields[1] == "FLOCK" && fields[5] == file;
        held.then(|| fields[4].parse().ok())?
    })
}

/// Where a device is mounted, in any mount namespace that a visible process is in.
pub(super) fn mounts_anywhere(device: u64, name: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    search(|pid| {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?;
        if !seen.insert(namespace) {
            return None;
        }
        let mounts = mountinfo::of_process(&pid.to_string()).ok()?;
        let mount = mounts.iter().find(|mount| is_of(mount, device, name))?;
        Some(format!("mounted at {} (seen by {})", mount.point.display(), describe(pid)))
    })
}

/// Filesystems with a device number of their own (btrfs) are known by their source.
pub(super) fn is_of(mount: &MountInfo, device: u64, name: &str) -> bool {
    let source = Path::new(&mount.source);
    (mount.major, mount.minor) == (major(device), minor(device)) || source == Path::new("/dev").join(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_lock_is_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:06:345 0 EOF\n\
                     2: FLOCK  ADVISORY  READ 12 00:06:3450 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 00:06:345 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 14 00:06:345 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE -1 103:1a:7 0 EOF\n";
        assert_eq!(find_flock(locks, 0, 6, 345), Some(13));
        assert_eq!(find_flock(locks, 0, 6, 34), None);
        assert_eq!(find_flock(locks, 0x103, 0x1a, 7), None, "a process of another namespace has no number");
        assert_eq!(find_flock("FLOCK\n", 0, 6, 345), None);
    }

    #[test]
    fn a_mapping_is_found_by_device() {
        let maps = "7f10-7f20 r-xp 00000000 fe:00 1234                     /usr/lib/libc.so\n\
                    7f30-7f40 rw-p 00000000 00:00 0 \n\
                    7f50-7f60 r--s 00000000 07:03 99                       /code/chef/a b\n";
        assert_eq!(find_mapping(maps, 7, 3), Some("/code/chef/a b"));
        assert_eq!(find_mapping(maps, 7, 4), None);
        assert_eq!(find_mapping("garbage", 7, 4), None);
    }

    #[test]
    fn this_process_is_found_by_its_open_file() {
        let directory = tempfile::tempdir().unwrap();
        let _file = fs::File::create(directory.path().join("file")).unwrap();
        let filesystem = fs::metadata(directory.path()).unwrap().dev();
        assert!(open_file(std::process::id(), filesystem).is_some());
        assert_eq!(open_file(std::process::id(), u64::MAX), None);
    }
}
