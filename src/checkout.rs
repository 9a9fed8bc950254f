//! Puts a commit's tree onto the volume, and nothing else, from the difference to what is there.
//!
//! The order of a run: [`WorkTree::open`], fetch into its repository, [`WorkTree::plan`], make room, [`WorkTree::apply`],
//! the user's command if there is one, [`WorkTree::finish`]. Everything here blocks; callers put it on a thread of its own.

use std::path::{Path, PathBuf};

use git2::{Oid, Repository};

mod apply;
mod attributes;
pub(crate) mod beneath;
mod content;
mod convert;
mod examine;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gitdir;
mod index;
mod lfs;
pub mod manifest;
mod names;
mod observe;
mod plan;
mod probe;
mod space;
mod state;
mod tree;
mod wildmatch;
mod workers;

pub use manifest::Manifest;
pub use plan::Plan;

use crate::cancel::Cancel;
use crate::error::{Error, Kind, OrFail, Result};
use crate::report::{Change, RunningPhase};

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
    git_dir: PathBuf,
    stamp: Stamp,
    repository: Repository,
    /// What the last `apply` put here, and how.
    applied: Option<(Oid, Options)>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Files, symbolic links and directories of submodules that were written, or got other permissions.
    pub written: usize,
    /// Files and directories that were removed.
    pub removed: usize,
    /// Files that were compared with the index, because the stamp did not vouch for them.
    pub examined: usize,
}

impl WorkTree {
    /// Opens or makes the repository at `git_dir` (`<root>/.git`, or elsewhere) for the work tree at `root`, and clears
    /// away what a killed run left (locks, temporary files). A git directory that cannot be used is made anew; so is one
    /// on a volume that was repaired.
    pub fn open(root: &Path, git_dir: &Path, stamp: Stamp) -> Result<WorkTree> {
        let root = root.canonicalize().or_fail(Kind::Device, || format!("cannot open the work tree {}", root.display()))?;
        if stamp.repaired {
            gitdir::remove(git_dir)?;
        }
        let repository = gitdir::open(git_dir)?;
        // As libgit2 and `canonicalize` spell it, so that it can be compared with the root.
        let git_dir = repository.path().canonicalize().or_fail(Kind::Git, || format!("cannot open {}", git_dir.display()))?;
        Ok(WorkTree { root, git_dir, stamp, repository, applied: None })
    }

    /// Makes the next plan examine everything: for when something else than `apply` writes to the work tree.
    pub fn distrust(&self) -> Result<()> {
        state::State::remove(&self.git_dir)
    }

    /// Throws the repository away and makes it anew, empty: for objects that turn out to be damaged or missing. Everything
    /// must be fetched again, and the next plan compares every file with its blob.
    pub fn start_over(&mut self) -> Result<()> {
        gitdir::remove(&self.git_dir)?;
        self.repository = gitdir::open(&self.git_dir)?;
        Ok(())
    }

    /// The repository: objects are fetched into it. It is opened as a bare one.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The root of the work tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What must be written and removed. Refuses a tree that must not be written (unsafe paths, LFS pointers): kind `Git`.
    pub fn plan(&self, commit: Oid, options: &Options, cancel: &Cancel) -> Result<Plan> {
        let Self { root, git_dir, stamp, repository, .. } = self;
        plan::Planner { root_path: root, git_dir, repository, stamp, options, cancel }.plan(commit)
    }

    /// Does it, and leaves HEAD and the index as an ordinary repository has them. Ended half-way, by an error or by a
    /// kill, it is put right by the next run.
    pub fn apply(&mut self, plan: Plan, phase: &RunningPhase, cancel: &Cancel) -> Result<Summary> {
        self.applied = None;
        let applied = (plan.commit, plan.options.clone());
        let summary = apply::apply(&self.root, &self.repository, plan, phase, cancel)?;
        self.applied = Some(applied);
        Ok(summary)
    }

    /// Tells git which submodules are checked out below this work tree, by name and URL (without credentials); without
    /// this, `git submodule status` takes them for not initialised.
    pub fn register_submodules(&self, submodules: &[(String, String)]) -> Result<()> {
        gitdir::register_submodules(&self.git_dir, submodules)
    }

    /// Ends the run, after `apply` and whatever else changed the work tree: writes the manifest, and down to where the
    /// next run may start from. `trusted`: nothing but `apply` wrote to the work tree; else the next run examines
    /// everything. Tells what became of the manifest.
    pub fn finish(&mut self, manifest: Option<&Manifest>, trusted: bool) -> Result<Change> {
        let Some((commit, options)) = self.applied.take() else {
            return Err(Error::new(Kind::Git, "the checkout has not been carried out"));
        };
        let change = manifest.map_or(Ok(Change::Unchanged), |manifest| manifest.write(&self.root))?;
        let index = std::fs::read(self.git_dir.join("index")).ok().and_then(|index| plan::checksum(&index));
        match index.and_then(|index| state::State::new(commit, &self.stamp, index, &options)) {
            Some(state) if trusted => state.write(&self.git_dir)?,
            _ => state::State::remove(&self.git_dir)?,
        }
        Ok(change)
    }
}
