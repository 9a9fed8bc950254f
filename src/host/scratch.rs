//! Temporary directories that do not outlive a killed run for long: each is locked by its process, and a directory
//! whose lock is free belongs to nobody and is swept.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::error::{Kind, OrFail, Result};

const PREFIX: &str = "ebs-bake-";
const LOCK: &str = ".lock";

/// A private directory (0700) that is removed on drop.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    _lock: Flock<File>,
}

impl Scratch {
    /// Makes one below `$TMPDIR`.
    ///
    /// # Errors
    /// `Device` when the directory cannot be made.
    pub fn new() -> Result<Scratch> {
        let parent = std::env::temp_dir();
        let failed = || format!("cannot make a temporary directory in {}", parent.display());
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&parent).or_fail(Kind::Device, failed)?;
        let lock = hold(directory.path()).or_fail(Kind::Device, failed)?;
        Ok(Scratch { directory, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Marks a directory whose name begins with `ebs-bake-` as this process's, as long as the value or the process lives.
pub fn hold(directory: &Path) -> io::Result<Flock<File>> {
    let file = File::create(directory.join(LOCK))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

/// Removes the temporary directories of processes that no longer exist; returns what was removed.
pub fn sweep() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return Vec::new() };
    let candidates = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    candidates.map(|entry| entry.path()).filter(|path| remove_if_abandoned(path).unwrap_or(false)).collect()
}

fn remove_if_abandoned(path: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(false);
    }
    // Without a lock file its maker is between the two calls of `new`, or it is not one of ours.
    let Ok(_lock) = Flock::lock(File::open(path.join(LOCK))?, FlockArg::LockExclusiveNonblock) else {
        return Ok(false);
    };
    fs::remove_dir_all(path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeping_takes_what_nobody_holds_and_leaves_the_rest() {
        let held = Scratch::new().unwrap();
        let abandoned = Scratch::new().unwrap();
        let Scratch { directory, _lock } = abandoned;
        let abandoned = directory.keep();
        drop(_lock);
        let swept = sweep();
        assert!(swept.contains(&abandoned) || !abandoned.exists(), "another test may have swept it first");
        assert!(held.path().exists());
    }
}
