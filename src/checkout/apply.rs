//! Does what a plan says.

use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use git2::{Oid, Repository};
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::beneath::{self, Root, failed};
use super::content::Contents;
use super::examine::permissions;
use super::index::{Entry, Index, Stat};
use super::plan::Plan;
use super::probe::{BATCH, How, Write};
use super::state::State;
use super::tree::Mode;
use super::workers::{threads_for, work_off};
use super::{Summary, gitdir};
use crate::cancel::Cancel;
use crate::error::{Kind, OrFail, Result};
use crate::report::{RunningPhase, Unit};
use crate::source;
use crate::step;

/// Blobs in memory at once, in bytes, over all threads; a larger one is alone.
const MOST_IN_MEMORY: u64 = 16 << 20;

/// Carries a plan out, up to the index and HEAD. From the first change until the end of the run there is no state, so
/// that a killed run is noticed by the next.
pub fn apply(
    root_path: &Path,
    repository: &Repository,
    mut plan: Plan,
    phase: &RunningPhase,
    cancel: &Cancel,
) -> Result<Summary> {
    let git_dir = repository.path();
    State::remove(git_dir)?;
    let root = Root::open(root_path)?;
    let removed = step::around("removing files", || remove(&root, &plan, cancel))?;
    for path in &plan.missing_directories {
        cancel.check()?;
        step::around("making a directory", || make_directory(&root, path, cancel))?;
    }
    for path in &plan.odd_directories {
        let directory = root.directory(path).and_then(|directory| beneath::fix_directory(directory.as_fd()));
        directory.map_err(|cause| failed("set the permissions of", path, cause))?;
    }
    let job = Job { root: &root, plan: &plan, memory: Memory::default(), done: AtomicU64::new(0), phase, cancel };
    let stats = job.run(git_dir)?;
    for (entry, stat) in stats {
        plan.entries[entry].stat = stat;
    }
    if plan.index_differs {
        write_index(git_dir, &plan)?;
    }
    set_head(repository, plan.commit)?;
    Ok(Summary { written: plan.writes.len(), removed, examined: plan.examined })
}

fn remove(root: &Root, plan: &Plan, cancel: &Cancel) -> Result<usize> {
    let mut removed = 0;
    for removal in &plan.removals {
        let (parent, name) = beneath::split(&removal.path);
        let parent = match root.directory(parent) {
            Ok(parent) => parent,
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue, // It went with a directory above.
            Err(cause) => return Err(failed("remove", &removal.path, cause)),
        };
        removed += match removal.if_empty {
            true => usize::from(
                beneath::remove_if_empty(parent.as_fd(), name).map_err(|cause| failed("remove", &removal.path, cause))?,
            ),
            false => beneath::remove_all(parent.as_fd(), name, cancel)?,
        };
    }
    Ok(removed)
}

/// Makes a directory. What is in its place although nothing should be is removed, unless it is a directory.
fn make_directory(root: &Root, path: &[u8], cancel: &Cancel) -> Result<()> {
    let error = |cause| failed("make the directory", path, cause);
    let (parent, name) = beneath::split(path);
    let parent = root.directory(parent).map_err(error)?;
    let made = match beneath::make_directory(parent.as_fd(), name) {
        Err(Errno::EEXIST) => match root.directory(path) {
            Ok(directory) => beneath::fix_directory(directory.as_fd()),
            Err(_) => {
                beneath::remove_all(parent.as_fd(), name, cancel)?;
                beneath::make_directory(parent.as_fd(), name)
            }
        },
        made => made,
    };
    made.map_err(error)
}

/// Writing the files.
struct Job<'a> {
    root: &'a Root,
    plan: &'a Plan,
    memory: Memory,
    done: AtomicU64,
    phase: &'a RunningPhase,
    cancel: &'a Cancel,
}

/// What one thread has.
struct Writer<'a> {
    contents: Contents<'a>,
    /// The directory that was written to last: neighbours share it.
    directory: Option<(&'a [u8], OwnedFd)>,
    stats: Vec<(usize, Stat)>,
}

impl<'a> Job<'a> {
    /// Writes them all; returns the stat data of each.
    fn run(&self, git_dir: &Path) -> Result<Vec<(usize, Stat)>> {
        // The last one is taken first.
        let batches: Vec<&'a [Write]> = self.plan.writes.chunks(BATCH).rev().collect();
        let start = || {
            let contents = Contents::open(git_dir, &self.plan.attributes)?;
            Ok(Writer { contents, directory: None, stats: Vec::new() })
        };
        let writers = work_off(threads_for(batches.len()), batches, self.cancel, start, |writer, batch, _| {
            for write in batch {
                self.cancel.check()?;
                let stat = self.write(writer, write)?;
                writer.stats.push((write.entry, Stat::of(&stat)));
            }
            let done = self.done.fetch_add(batch.len() as u64, Ordering::Relaxed) + batch.len() as u64;
            self.phase.progress(done, Some(self.plan.writes.len() as u64), Unit::Files);
            Ok(())
        })?;
        Ok(writers.into_iter().flat_map(|writer| writer.stats).collect())
    }

    fn write(&self, writer: &mut Writer<'a>, write: &Write) -> Result<FileStat> {
        let entry = &self.plan.entries[write.entry];
        let (parent, name) = beneath::split(&entry.path);
        if writer.directory.as_ref().is_none_or(|(path, _)| *path != parent) {
            let opened = self.root.directory(parent).map_err(|cause| failed("open", parent, cause))?;
            writer.directory = Some((parent, opened));
        }
        let Writer { contents, directory: Some((_, directory)), .. } = writer else { unreachable!("it was opened above") };
        let place = Place { directory: directory.as_fd(), name, entry, cancel: self.cancel };
        if entry.mode == Mode::Submodule {
            place.make(|| {
                beneath::make_directory(place.directory, name)?;
                beneath::status(place.directory, name)
            })
        } else if write.how == How::Permissions {
            place.set_permissions()
        } else {
            let _share = self.memory.take(write.size);
            contents.with(entry, |bytes| place.write(bytes, write.how))
        }
    }
}

/// Where one entry goes.
struct Place<'a> {
    directory: BorrowedFd<'a>,
    name: &'a [u8],
    entry: &'a Entry,
    cancel: &'a Cancel,
}

impl Place<'_> {
    fn write(&self, bytes: &[u8], how: How) -> Result<FileStat> {
        if self.entry.mode == Mode::Symlink {
            return self.make(|| beneath::make_symlink(self.directory, self.name, bytes));
        }
        let rewritten = match how {
            How::Rewrite { .. } => self.rewrite(bytes).map_err(|cause| failed("write", &self.entry.path, cause))?,
            _ => None,
        };
        match rewritten {
            Some(stat) => Ok(stat),
            None => self.make(|| self.create(bytes)),
        }
    }

    /// Replaces the content in place, from the start: the file keeps its blocks, so the volume changes least. `None`: what
    /// is there is no file of ours alone.
    fn rewrite(&self, bytes: &[u8]) -> std::io::Result<Option<FileStat>> {
        let Ok(mut file) = beneath::rewrite(self.directory, self.name) else { return Ok(None) };
        let stat = fstat(&file)?;
        if beneath::kind(&stat) != SFlag::S_IFREG || stat.st_nlink != 1 {
            return Ok(None);
        }
        step::around("rewriting a file", || file.write_all(bytes))?;
        if stat.st_size as u64 > bytes.len() as u64 {
            file.set_len(bytes.len() as u64)?;
        }
        Ok(Some(beneath::seal(&file, permissions(self.entry.mode))?))
    }

    fn create(&self, bytes: &[u8]) -> nix::Result<FileStat> {
        let mode = permissions(self.entry.mode);
        let mut file = beneath::create(self.directory, self.name, mode)?;
        let written = step::around("writing a file", || file.write_all(bytes));
        written.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        beneath::seal(&file, mode)
    }

    fn set_permissions(&self) -> Result<FileStat> {
        let sealed = beneath::read(self.directory, self.name).and_then(|file| beneath::seal(&file, permissions(self.entry.mode)));
        sealed.map_err(|cause| failed("set the permissions of", &self.entry.path, cause))
    }

    /// Makes something new. What is there although nothing should be is removed.
    fn make(&self, make: impl Fn() -> nix::Result<FileStat>) -> Result<FileStat> {
        let made = match make() {
            Err(Errno::EEXIST) => {
                beneath::remove_all(self.directory, self.name, self.cancel)?;
                make()
            }
            made => made,
        };
        made.map_err(|cause| failed("write", &self.entry.path, cause))
    }
}

/// Bytes of blobs that are in memory, over all threads.
#[derive(Default)]
struct Memory {
    used: Mutex<u64>,
    freed: Condvar,
}

impl Memory {
    /// Waits until there is room.
    fn take(&self, size: u64) -> Share<'_> {
        let used = self.used.lock().expect("no holder panics");
        let mut used = self.freed.wait_while(used, |used| *used != 0 && *used + size > MOST_IN_MEMORY).expect("no holder panics");
        *used += size;
        Share { memory: self, size }
    }
}

struct Share<'a> {
    memory: &'a Memory,
    size: u64,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        if let Ok(mut used) = self.memory.used.lock() {
            *used -= self.size;
        }
        self.memory.freed.notify_all();
    }
}

/// Writes the index in place. Torn, it has a wrong checksum, and is not used.
fn write_index(git_dir: &Path, plan: &Plan) -> Result<()> {
    let bytes = Index::serialize(&plan.entries, &plan.trees);
    gitdir::write_if_other(&git_dir.join("index"), &bytes).or_fail(Kind::Device, || "cannot write the index").map(|_| ())
}

/// Leaves HEAD at the commit, and the note that the repository has all of it.
fn set_head(repository: &Repository, commit: Oid) -> Result<()> {
    let head = repository.find_reference("HEAD").ok().and_then(|head| head.target());
    if head != Some(commit) {
        let set = || repository.set_head_detached(commit);
        step::around("setting HEAD", set).or_fail(Kind::Git, || format!("cannot set HEAD to {commit}"))?;
    }
    source::keep(repository, commit)
}
