//! The trees of a bake: the repository's, and its submodules' inside it. All are fetched and planned before anything is written.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::bake::check::check;
use crate::bake::content::{Staged, amount, git_dir};
use crate::bake::volume::Site;
use crate::bake::{Context, Target};
use crate::checkout::{Manifest, Options, Plan, Stamp, Summary, WorkTree, manifest};
use crate::config::layers::SECRETS;
use crate::error::{Error, Kind, OrFail, Result};
use crate::host::command::{self, Shell};
use crate::host::filesystem;
use crate::key::{GitDirMode, SubmoduleMode};
use crate::report::{Change, Phase};
use crate::source::maintain::maintain;
use crate::source::submodules::{Submodule, access_for, submodules};
use crate::source::{self, Access, Fetched, Resolved, Source};

/// How deep submodules may nest: enough for any real repository, and an end for one that contains itself.
const DEEPEST: usize = 8;

/// What the content is put on.
pub struct Ground<'a> {
    /// Where the volume is mounted.
    pub root: &'a Path,
    /// The volume as a device.
    pub site: &'a Site,
    /// What the filesystem knows of its mounts.
    pub stamp: &'a Stamp,
}

/// What came of filling the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filled {
    /// Everything is there, and this is what it passed.
    Done(Vec<String>),
    /// The work tree is as it was; the filesystem needs this many bytes more.
    NeedsRoom(u64),
}

/// A work tree that is to be brought to a commit.
struct Job {
    worktree: WorkTree,
    plan: Plan,
    resolved: Resolved,
    /// Submodules whose content is left out.
    left_out: Vec<PathBuf>,
    /// The others: name and URL.
    submodules: Vec<(String, String)>,
}

/// Bytes that the commit's files take on an empty filesystem. Refuses a commit that must not be written.
///
/// # Errors
/// Those of the plan.
pub fn measure(cx: &Context, target: &Target, empty: &Path, staged: &Staged) -> Result<u64> {
    let worktree = WorkTree::open(empty, staged.repository().path(), Stamp::default())?;
    Ok(worktree.plan(target.resolved.commit, &options(cx), &cx.cancel)?.bytes_needed)
}

fn options(cx: &Context) -> Options {
    Options { clean: cx.config.clean, allow_lfs_pointers: cx.config.allow_lfs_pointers }
}

/// Fetches, plans, and if there is room writes.
///
/// # Errors
/// Of the step that failed. Up to the first write the work tree is as it was.
pub fn fill(cx: &Context, target: &Target, ground: &Ground<'_>, staged: Option<&Staged>) -> Result<Filled> {
    let worktree = WorkTree::open(ground.root, &git_dir(cx, ground.site, ground.root), ground.stamp.clone())?;
    if let Some(staged) = staged {
        source::adopt(staged.repository(), worktree.repository())?;
    }
    let mut jobs = Vec::new();
    let gather = Gather { cx, ground, access: &cx.config.access, depth: 0 };
    let gathered = gather.gather(&target.source, target.resolved.clone(), worktree, &mut jobs);
    let space = filesystem::space(ground.root)?;
    match gathered {
        // The pack itself did not fit. Nothing says how large it is: make as much room again, and fetch again.
        Err(error) if is_full(&error) => return Ok(Filled::NeedsRoom(as_much_again(space.bytes, ground.site.device.size_bytes))),
        gathered => gathered?,
    }
    let bytes: u64 = jobs.iter().map(|job| job.plan.bytes_needed).sum();
    let inodes: u64 = jobs.iter().map(|job| job.plan.inodes_needed).sum();
    match space.shortfall(bytes, inodes) {
        0 => {}
        short => return Ok(Filled::NeedsRoom(short)),
    }
    write(cx, target, ground, jobs)?;
    check(cx, ground.root).map(Filled::Done)
}

/// Whether there was no room. The filesystem does not tell afterwards: what did not fit was removed again.
fn is_full(error: &Error) -> bool {
    let mut causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.any(|cause| {
        let full = cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::StorageFull);
        // libgit2 has the text alone.
        full || cause.to_string().contains("No space left on device")
    })
}

/// Twice the room, or as much of it as the device has; twice all the same when that is next to nothing, which is refused with
/// the size that the volume must have.
fn as_much_again(bytes: u64, device: u64) -> u64 {
    // An eighth is more than the filesystem needs for itself.
    let left = device.saturating_sub(bytes + device / 8);
    if left < LEAST_GROWTH { bytes } else { bytes.min(left) }
}

/// Less is not worth fetching again for.
const LEAST_GROWTH: u64 = 32 << 20;

/// Fetching and planning one repository and those inside it.
struct Gather<'a> {
    cx: &'a Context,
    ground: &'a Ground<'a>,
    /// What this repository's host may see.
    access: &'a Access,
    depth: usize,
}

impl Gather<'_> {
    fn gather(&self, source: &Source, resolved: Resolved, mut worktree: WorkTree, jobs: &mut Vec<Job>) -> Result<()> {
        let cx = self.cx;
        self.fetch(source, &resolved, &worktree)?;
        let plan = match worktree.plan(resolved.commit, &options(cx), &cx.cancel) {
            Err(error) if error.kind() == Kind::Git && !source::is_whole(worktree.repository(), resolved.commit) => {
                cx.report.warn(format!("the repository in {} is damaged and is fetched anew", self.ground.root.display()));
                worktree.start_over()?;
                self.fetch(source, &resolved, &worktree)?;
                worktree.plan(resolved.commit, &options(cx), &cx.cancel)?
            }
            planned => planned?,
        };
        let wanted = match cx.config.submodules {
            SubmoduleMode::No => false,
            SubmoduleMode::Yes => self.depth == 0,
            SubmoduleMode::Recursive => true,
        };
        let children = match wanted {
            true => submodules(worktree.repository(), resolved.commit, source.base())?,
            false => Vec::new(),
        };
        let is_child = |path: &PathBuf| children.iter().any(|child| child.path == *path);
        let left_out = plan.submodules().into_iter().map(|(path, _)| path).filter(|path| !is_child(path)).collect();
        let (root, repository) = (worktree.root().to_owned(), worktree.repository().path().to_owned());
        if children.iter().any(|child| !root.join(&child.path).is_dir()) {
            // Their directories are made before the parent's checkout, which from now on must look for itself.
            worktree.distrust()?;
        }
        let named = |child: &Submodule| Ok((child.name.clone(), child.location.canonical()?));
        let submodules = children.iter().map(named).collect::<Result<_>>()?;
        jobs.push(Job { worktree, plan, resolved, left_out, submodules });
        children.into_iter().try_for_each(|child| self.descend(source, &root, &repository, child, jobs))
    }

    fn fetch(&self, source: &Source, resolved: &Resolved, worktree: &WorkTree) -> Result<()> {
        let phase = self.cx.report.phase(Phase::Fetch);
        let fetched = source.fetch(resolved, worktree.repository(), &phase)?;
        let change = if fetched == Fetched::default() { Change::Unchanged } else { Change::Changed };
        phase.done(change, amount(&fetched));
        Ok(())
    }

    fn descend(&self, parent: &Source, root: &Path, git_dir: &Path, child: Submodule, jobs: &mut Vec<Job>) -> Result<()> {
        if self.depth == DEEPEST {
            let message = format!("submodules nest deeper than {DEEPEST} levels at {}", child.path.display());
            return Err(Error::new(Kind::Git, message).hint("bake with --submodules yes, which takes the first level only"));
        }
        let failed = || format!("cannot open the submodule {:?}", child.name);
        let directory = directory_for(root, &child.path).or_fail(Kind::Git, failed)?;
        let git_dir = git_dir.join("modules").join(&child.name);
        let worktree = WorkTree::open(&directory, &git_dir, self.ground.stamp.clone())?;
        let access = access_for(self.access, parent.base(), &child.location);
        let source = Source::open(&child.location, &access, &self.cx.cancel)
            .map_err(|error| Error::new(error.kind(), failed()).because(error))?;
        let resolved = Resolved { commit: child.commit, reference: None };
        let gather = Gather { access: &access, depth: self.depth + 1, ..*self };
        gather.gather(&source, resolved, worktree, jobs)
    }
}

/// Makes the directory of a submodule, if what is there is no directory yet the parent's checkout will put one in its place.
fn directory_for(root: &Path, path: &Path) -> std::io::Result<PathBuf> {
    let mut directory = root.to_owned();
    for name in path.components() {
        directory.push(name);
        match fs::symlink_metadata(&directory) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                fs::remove_file(&directory)?;
                fs::create_dir(&directory)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir(&directory)?,
            Err(error) => return Err(error),
        }
    }
    Ok(directory)
}

/// Brings every work tree to its commit, the outer ones first; then the user's command, then what the next run needs to know.
fn write(cx: &Context, target: &Target, ground: &Ground<'_>, mut jobs: Vec<Job>) -> Result<()> {
    let phase = cx.report.phase(Phase::Checkout);
    let mut sum = Summary::default();
    let mut done = Vec::with_capacity(jobs.len());
    let tree = jobs.first().map(|job| job.plan.tree.to_string()).unwrap_or_default();
    for Job { mut worktree, plan, resolved, left_out, submodules } in jobs.drain(..) {
        let summary = worktree.apply(plan, &phase, &cx.cancel)?;
        if !submodules.is_empty() {
            worktree.register_submodules(&submodules)?;
        }
        sum.written += summary.written;
        sum.removed += summary.removed;
        sum.examined += summary.examined;
        for path in left_out {
            let path = worktree.root().join(path);
            empty(&path).or_fail(Kind::Device, || format!("cannot empty {}", path.display()))?;
        }
        if cx.config.git_dir == GitDirMode::Include && !done.is_empty() {
            link_git_dir(&worktree)?;
        }
        done.push((worktree, resolved));
    }
    let change = if sum.written + sum.removed == 0 { Change::Unchanged } else { Change::Changed };
    phase.done(change, told(&sum));
    let trusted = run_command(cx, ground.root)?;
    let manifest = Manifest {
        format: manifest::FORMAT,
        repository: target.source.canonical_url().to_owned(),
        commit: target.resolved.commit.to_string(),
        reference: target.resolved.reference.clone(),
        tree,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    for (depth, (mut worktree, resolved)) in done.into_iter().enumerate() {
        maintain(worktree.repository(), resolved.commit, &cx.cancel)?;
        worktree.finish((depth == 0).then_some(&manifest), trusted)?;
    }
    Ok(())
}

fn told(sum: &Summary) -> String {
    let examined = match sum.examined {
        0 => String::new(),
        examined => format!(", {examined} examined"),
    };
    format!("{} written, {} removed{examined}", sum.written, sum.removed)
}

/// Runs the user's command; returns whether the work tree is as the checkout left it.
fn run_command(cx: &Context, root: &Path) -> Result<bool> {
    let Some(script) = &cx.config.after_checkout else { return Ok(true) };
    let phase = cx.report.phase(Phase::AfterCheckout);
    let shell = Shell { script: script.clone(), directory: root.to_owned(), withheld: SECRETS.map(Into::into).into() };
    let status = shell.run(&cx.cancel, |line| phase.output(line))?;
    if !status.success() {
        let message = format!("--after-checkout failed: {}", command::describe(status));
        return Err(Error::new(Kind::Git, message).hint("its output is above; no snapshot was taken"));
    }
    phase.done(Change::Changed, script.as_str());
    Ok(false)
}

/// A submodule that is left out is an empty directory, whatever was baked on this volume before.
fn empty(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// The `.git` file of a submodule, relative as git writes it: the volume may be mounted anywhere.
fn link_git_dir(worktree: &WorkTree) -> Result<()> {
    let (root, git_dir) = (worktree.root(), worktree.repository().path());
    let file = root.join(".git");
    let failed = || format!("cannot write {}", file.display());
    let git_dir = git_dir.canonicalize().or_fail(Kind::Git, failed)?;
    let common = root.components().zip(git_dir.components()).take_while(|(one, other)| one == other).count();
    let mut link = PathBuf::new();
    root.components().skip(common).for_each(|_| link.push(".."));
    link.extend(git_dir.components().skip(common));
    let text = format!("gitdir: {}\n", link.display());
    if fs::read_to_string(&file).is_ok_and(|there| there == text) {
        return Ok(());
    }
    fs::write(&file, text).or_fail(Kind::Git, failed)
}
