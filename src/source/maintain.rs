//! Keeps the git directory on the volume small: one big pack, few small ones, nothing that no commit needs.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use git2::{Oid, Repository};

use super::baked::{reachable_commits, shallow, tips};
use super::libgit::git_error;
use super::pack::NewPack;
use super::{pack_index, trees};
use crate::cancel::Cancel;
use crate::error::{Kind, OrFail, Result};
use crate::report::Change;
use crate::step;

/// Every fetch leaves a pack; reading slows down with their number.
const MOST_PACKS: usize = 32;
/// How much larger than what is reachable the whole may be.
const SLACK: f64 = 1.6;
/// What an index takes for each object: its name, a checksum, an offset.
const INDEX_ENTRY: u64 = 28;
/// Small files that kill -9 leaves behind: git's, ours and libgit2's prefixes.
const TEMPORARY: [&str; 4] = ["tmp_", ".tmp-", "pack_git2_", "pack_tmp_"];

/// Rewrites the packs when there are many, or when much of what they hold is not reachable any more: not from `commit`,
/// nor from a reference or HEAD. A kill at any point leaves a valid repository. Other handles of this repository must be
/// opened anew afterwards: their packs may be gone.
pub fn maintain(repository: &Repository, commit: Oid, cancel: &Cancel) -> Result<Change> {
    let objects = repository.commondir().join("objects");
    let store = Store::look(&objects)?;
    if !store.may_be_untidy() {
        return Ok(Change::Unchanged);
    }
    let reachable = reachable(repository, commit)?;
    let Some(plan) = store.plan(&reachable)? else { return Ok(Change::Unchanged) };
    let pack = NewPack { source: repository.path(), directory: &objects.join("pack"), objects: &plan.write, level: 6 };
    // Everything is twice in the repository between these two steps, never less than once.
    let written = pack.write(cancel, |_| {})?;
    let keep: BTreeSet<&Path> = written.path.as_deref().into_iter().chain(plan.keep.as_deref()).collect();
    step::around("removing superfluous packs", || store.remove_all_but(&keep))?;
    Ok(Change::Changed)
}

/// All objects that must stay, each once, commits first.
fn reachable(repository: &Repository, commit: Oid) -> Result<Vec<Oid>> {
    let odb = repository.odb().map_err(git_error("cannot open the object database"))?;
    let mut tips = tips(repository)?;
    tips.insert(commit);
    let commits = reachable_commits(repository, &tips, &shallow(repository)?)?;
    let mut all: Vec<Oid> = commits.iter().copied().collect();
    let mut seen: HashSet<Oid> = commits.union(&tips).copied().collect();
    all.extend(tips.iter().filter(|tip| !commits.contains(tip)));
    for id in commits {
        let tree = repository.find_commit(id).map_err(git_error(format!("commit {id} is missing")))?.tree_id();
        if !seen.contains(&tree) {
            all.extend(trees::difference(&odb, tree, None)?.into_iter().filter(|id| seen.insert(*id)));
        }
    }
    Ok(all)
}

/// What is in `objects/` now.
struct Store {
    /// The largest last; without those that somebody marked to be kept.
    packs: Vec<Pack>,
    loose: Vec<PathBuf>,
    loose_bytes: u64,
    litter: Vec<PathBuf>,
}

struct Pack {
    index: PathBuf,
    /// Pack and index.
    bytes: u64,
}

/// What to do: which pack stays, and what goes into a new one.
struct Plan {
    keep: Option<PathBuf>,
    write: Vec<Oid>,
}

impl Store {
    fn look(objects: &Path) -> Result<Store> {
        let mut store = Store { packs: Vec::new(), loose: Vec::new(), loose_bytes: 0, litter: Vec::new() };
        for (path, name) in list(&objects.join("pack"))? {
            let is = |extension: &str| path.extension().is_some_and(|found| found == extension);
            let sibling = |extension: &str| path.with_extension(extension);
            if TEMPORARY.iter().any(|prefix| name.starts_with(prefix)) || (is("pack") && !sibling("idx").exists()) {
                store.litter.push(path);
            } else if is("idx") && !sibling("keep").exists() {
                let bytes = size(&path)? + size(&sibling("pack"))?;
                store.packs.push(Pack { index: path, bytes });
            }
        }
        for (directory, name) in list(objects)? {
            if name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                for (path, _) in list(&directory)? {
                    store.loose_bytes += size(&path)?;
                    store.loose.push(path);
                }
            }
        }
        store.packs.sort_by(|a, b| a.bytes.cmp(&b.bytes).then_with(|| a.index.cmp(&b.index)));
        Ok(store)
    }

    fn total(&self) -> u64 {
        self.packs.iter().map(|pack| pack.bytes).sum::<u64>() + self.loose_bytes
    }

    /// A cheap guess: the largest pack stands for what is reachable. Reading what really is costs far more.
    fn may_be_untidy(&self) -> bool {
        let largest = self.packs.last().map_or(0, |pack| pack.bytes);
        self.packs.len() > MOST_PACKS || !self.litter.is_empty() || is_beyond(self.total(), largest)
    }

    /// `None` when all is well.
    fn plan(&self, reachable: &[Oid]) -> Result<Option<Plan>> {
        let wanted: HashSet<Oid> = reachable.iter().copied().collect();
        let mut needed = 0;
        let mut counted = HashSet::new();
        let mut kept: Option<(PathBuf, HashSet<Oid>)> = None;
        for (place, pack) in self.packs.iter().rev().enumerate() {
            let items = pack_index::read(&pack.index, size(&pack.index.with_extension("pack"))?)
                .or_fail(Kind::Git, || format!("cannot read {}", pack.index.display()))?;
            let used = items.iter().filter(|(id, _)| wanted.contains(id) && counted.insert(*id));
            let used = used.map(|(_, bytes)| bytes + INDEX_ENTRY).sum::<u64>();
            needed += used;
            // The largest one stays if that leaves less than the permitted slack; it is the one that costs most to rewrite.
            if place == 0 && !is_beyond(pack.bytes, used) {
                kept = Some((pack.index.clone(), items.into_iter().map(|(id, _)| id).collect()));
            }
        }
        let tidy = self.packs.len() <= MOST_PACKS && self.litter.is_empty() && !is_beyond(self.total(), needed);
        if tidy {
            return Ok(None);
        }
        let there = |id: &Oid| kept.as_ref().is_some_and(|(_, ids)| ids.contains(id));
        let write = reachable.iter().copied().filter(|id| !there(id)).collect();
        Ok(Some(Plan { keep: kept.map(|(index, _)| index), write }))
    }

    /// Removes what the packs to keep (by their index) have made superfluous.
    fn remove_all_but(&self, keep: &BTreeSet<&Path>) -> Result<()> {
        let gone: Vec<&Pack> = self.packs.iter().filter(|pack| !keep.contains(pack.index.as_path())).collect();
        if let Some(directory) = gone.first().and_then(|pack| pack.index.parent()) {
            remove(&directory.join("multi-pack-index"))?;
        }
        for pack in gone {
            // The index before its pack: a pack alone is only litter.
            for extension in ["idx", "rev", "bitmap", "mtimes", "pack"] {
                remove(&pack.index.with_extension(extension))?;
            }
        }
        // What a killed run left may have been written again, under the same name.
        let litter = self.litter.iter().filter(|path| !keep.contains(path.with_extension("idx").as_path()));
        litter.chain(&self.loose).try_for_each(|path| remove(path))?;
        for directory in self.loose.iter().filter_map(|path| path.parent()).collect::<BTreeSet<_>>() {
            let _ = fs::remove_dir(directory);
        }
        Ok(())
    }
}

/// Whether `total` is too much for what is `needed`. Every pack has a fixed part that must not count in small repositories.
fn is_beyond(total: u64, needed: u64) -> bool {
    const FIXED: u64 = 4096;
    total > ((needed + FIXED) as f64 * SLACK) as u64
}

fn list(directory: &Path) -> Result<Vec<(PathBuf, String)>> {
    let failed = || format!("cannot list {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).or_fail(Kind::Git, failed),
    };
    entries
        .map(|entry| {
            entry.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned())).or_fail(Kind::Git, failed)
        })
        .collect()
}

fn size(path: &Path) -> Result<u64> {
    match fs::metadata(path) {
        Ok(data) => Ok(data.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).or_fail(Kind::Git, || format!("cannot look at {}", path.display())),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).or_fail(Kind::Git, || format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
