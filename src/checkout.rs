//! Puts a commit's tree onto the volume, and nothing else, from the difference to what is there.
//!
//! Everything here blocks; callers put it on a thread of its own.

use std::path::{Path, PathBuf};

use git2::{Oid, Repository};

mod attributes;
mod convert;
mod index;
mod names;
mod tree;
mod wildmatch;
mod workers;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::report::RunningPhase;

/// How to check out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Remove untracked files.
    pub clean: bool,
    /// Check LFS pointer files out as they are, rather than refuse the commit.
    pub allow_lfs_pointers: bool,
}

/// How much the filesystem knows about who wrote to it since our last run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Identifies the last read-write mount before ours; equal to the `current` of our last run, if nobody else mounted it since.
    pub previous: Option<String>,
    /// Identifies our own mount.
    pub current: Option<String>,
    /// The filesystem was found damaged and was repaired: nothing in it can be trusted, every byte must be compared.
    pub repaired: bool,
}

/// A work tree on the volume with its repository.
pub struct WorkTree {
    root: PathBuf,
    repository: Repository,
}

/// What has to be done to get a commit's tree into a work tree: decided, nothing done yet.
pub struct Plan {
    /// Bytes that the filesystem must have free before `apply` begins.
    pub bytes_needed: u64,
    /// Files to write.
    pub write: usize,
    /// Files and directories to remove.
    pub remove: usize,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    pub written: usize,
    pub removed: usize,
    /// Files that were compared with the index, because the stamp did not vouch for them.
    pub examined: usize,
}

impl WorkTree {
    /// Opens or makes the repository at `git_dir` (`<root>/.git`, or elsewhere) for the work tree at `root`, and clears
    /// away what a killed run left (locks, temporary files).
    pub fn open(root: &Path, git_dir: &Path, stamp: Stamp) -> Result<WorkTree> {
        let _ = (root, git_dir, stamp);
        todo!()
    }

    /// The repository: objects are fetched into it.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The root of the work tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What must be written and removed. Refuses a tree that must not be written (unsafe paths, LFS pointers).
    pub fn plan(&self, commit: Oid, options: &Options, cancel: &Cancel) -> Result<Plan> {
        let _ = (commit, options, cancel);
        todo!()
    }

    /// Does it, and leaves HEAD, the index and the state as an ordinary repository has them.
    pub fn apply(&mut self, plan: Plan, phase: &RunningPhase, cancel: &Cancel) -> Result<Summary> {
        let _ = (plan, phase, cancel);
        todo!()
    }
}
