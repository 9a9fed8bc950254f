//! Temporary directories that do not outlive a killed run for long: each is locked by its process, and a directory
//! whose lock is free belongs to nobody and is swept.
//!
//! The lock is on the directory itself: a file in it would be gone first when a process is killed while it removes the
//! directory, and what is left would look like somebody else's.

use std::fs::{self, DirBuilder, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Kind, OrFail, Result};
use crate::step;

/// What the names begin with; 16 hexadecimal digits follow. Nobody else's directory has such a name.
const PREFIX: &str = "ebs-bake-scratch-";

/// A private directory (0700) that is removed on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Scratch {
    /// Makes one below `$TMPDIR`.
    ///
    /// # Errors
    /// `Device` when the directory cannot be made.
    pub fn new() -> Result<Scratch> {
        let path = unused_path();
        let lock = create(&path)
            .or_fail(Kind::Device, || format!("cannot make a temporary directory {}", path.display()))
            .map_err(|error| error.hint("name another place with TMPDIR; a read-only container needs --tmpfs /tmp"))?;
        Ok(Scratch { path, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = step::around("removing a scratch directory", || fs::remove_dir_all(&self.path));
    }
}

/// A path below `$TMPDIR` where [`create`] can make a directory, and that [`sweep`] looks at.
pub fn unused_path() -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{:016x}", RandomState::new().hash_one(0)))
}

/// Makes a private directory at an [`unused_path`], which is this process's as long as the lock or the process lives.
///
/// # Errors
/// Those of mkdir(2), open(2) and flock(2).
pub fn create(path: &Path) -> io::Result<Flock<File>> {
    loop {
        step::around("making a scratch directory", || DirBuilder::new().mode(0o700).create(path))?;
        // Between the two calls somebody may sweep it.
        match hold(path) {
            Ok(lock) if lock.metadata()?.nlink() > 0 => return Ok(lock),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
}

fn hold(path: &Path) -> io::Result<Flock<File>> {
    Flock::lock(File::open(path)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// Removes the temporary directories of processes that no longer exist; returns what was removed.
pub fn sweep() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return Vec::new() };
    let candidates = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_ours));
    candidates.map(|entry| entry.path()).filter(|path| remove_if_abandoned(path).unwrap_or(false)).collect()
}

fn is_ours(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX).unwrap_or_default();
    digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

fn remove_if_abandoned(path: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(false);
    }
    let Ok(_lock) = Flock::lock(File::open(path)?, FlockArg::LockExclusiveNonblock) else { return Ok(false) };
    fs::remove_dir_all(path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeping_takes_what_nobody_holds_and_leaves_the_rest() {
        let (held, abandoned) = (Scratch::new().unwrap(), unused_path());
        // As of a process that was killed while it removed the directory, or just after it had made it.
        fs::create_dir(&abandoned).unwrap();
        let foreign = tempfile::Builder::new().prefix("ebs-bake-").tempdir().unwrap();
        let swept = sweep();
        assert!(swept.contains(&abandoned) || !abandoned.exists(), "another test may have swept it first");
        assert!(held.path().exists());
        assert!(foreign.path().exists(), "whoever made it, it was not us");
    }

    #[test]
    fn a_directory_that_is_swept_before_it_is_locked_is_made_again() {
        let sweeper = std::thread::spawn(|| (0..2000).for_each(|_| drop(sweep())));
        while !sweeper.is_finished() {
            let made = Scratch::new().unwrap();
            fs::write(made.path().join("mine"), "").unwrap();
        }
        sweeper.join().unwrap();
    }
}
