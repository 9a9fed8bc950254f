//! The trees of a bake: the repository's, and its submodules' inside it. Fetched and planned before anything is written.

use std::path::{Path, PathBuf};

use crate::bake::content::{Staged, amount, git_dir};
use crate::bake::volume::Site;
use crate::bake::{Context, Target};
use crate::checkout::{Manifest, Options, Plan, Stamp, Summary, WorkTree};
use crate::error::{Error, Kind, Result};
use crate::host::command;
use crate::host::mount::Mount;
use crate::key::SubmoduleMode;
use crate::report::{Change, Phase, RunningPhase};
use crate::source::{self, Fetched, Resolved, Source, Wanted, submodules};

/// How deep submodules may nest: enough for any real repository, an end for one that contains itself.
const DEEPEST: usize = 8;

/// What the content is put on.
pub struct Ground<'a> {
    /// The mounted volume.
    pub mount: &'a Mount,
    /// The volume as a device.
    pub site: &'a Site,
    /// What the filesystem knows of its mounts.
    pub stamp: &'a Stamp,
}

/// What came of filling the volume.
pub enum Filled {
    /// Everything is there.
    Done,
    /// Nothing was written yet; the filesystem needs this many bytes more.
    NeedsRoom(u64),
}

/// A work tree that is to be brought to a commit.
struct Job {
    worktree: WorkTree,
    plan: Plan,
    resolved: Resolved,
}

/// Bytes that the files of the commit take on an empty filesystem. Refuses a commit that must not be written.
pub fn measure(cx: &Context, target: &Target, empty: &Path, staged: &Staged) -> Result<u64> {
    let worktree = WorkTree::open(empty, staged.repository().path(), Stamp::default())?;
    Ok(worktree.plan(target.resolved.commit, &options(cx), &cx.cancel)?.bytes_needed)
}

fn options(cx: &Context) -> Options {
    Options { clean: cx.config.clean, allow_lfs_pointers: cx.config.allow_lfs_pointers }
}

/// Fetches, plans, and if there is room writes.
pub fn fill(cx: &Context, target: &Target, ground: &Ground<'_>, staged: Option<&Staged>) -> Result<Filled> {
    let root = ground.mount.path();
    let worktree = WorkTree::open(root, &git_dir(cx, ground.site, root), ground.stamp.clone())?;
    if let Some(staged) = staged {
        source::adopt(staged.repository(), worktree.repository())?;
    }
    let mut jobs = Vec::new();
    match gather(cx, &target.source, target.resolved.clone(), worktree, ground.stamp, &mut jobs) {
        Ok(()) => {}
        // The pack itself did not fit: nothing says how large it is, so make generous room and fetch again.
        Err(_) if ground.mount.free_bytes()? < 1 << 20 => return Ok(Filled::NeedsRoom(ground.mount.size_bytes()?)),
        Err(error) => return Err(error),
    }
    let needed: u64 = jobs.iter().map(|job| job.plan.bytes_needed).sum();
    let free = ground.mount.free_bytes()?;
    if needed > free {
        return Ok(Filled::NeedsRoom(needed - free));
    }
    write(cx, target, root, jobs)?;
    Ok(Filled::Done)
}

/// Fetches a repository's commit and plans its checkout, then does the same for its submodules.
fn gather(
    cx: &Context, source: &Source, resolved: Resolved, worktree: WorkTree, stamp: &Stamp, jobs: &mut Vec<Job>,
) -> Result<()> {
    let phase = cx.report.phase(Phase::Fetch);
    let fetched = source.fetch(&resolved, worktree.repository(), &phase)?;
    phase.done(if fetched == Fetched::default() { Change::Unchanged } else { Change::Changed }, amount(&fetched));
    let plan = worktree.plan(resolved.commit, &options(cx), &cx.cancel)?;
    let modules = match (cx.config.submodules, jobs.len()) {
        (SubmoduleMode::No, _) => Vec::new(),
        (SubmoduleMode::Yes, done) if done > 0 => Vec::new(),
        _ => submodules::read(worktree.repository(), resolved.commit, source)?,
    };
    Ok(())
}
