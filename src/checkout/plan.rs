//! Decides what a checkout has to do: nothing is written here.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use git2::{Odb, Oid, Repository};

use super::attributes::{Attributes, is_attribute_file};
use super::beneath::Root;
use super::examine::Examination;
use super::index::{Entry, Index, Stat, Trees};
use super::observe::{self, Found, Observed, Removal};
use super::probe::{How, Probe, Write};
use super::space::Space;
use super::state::State;
use super::tree::{self, Mode, Target};
use super::{Options, Stamp, manifest};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, OrFail, Result};

/// What has to be done to get a commit's tree into a work tree: decided, nothing done yet.
pub struct Plan {
    /// Bytes that the filesystem must have free before `apply` begins; what `apply` removes first is taken off.
    pub bytes_needed: u64,
    /// Inodes that the filesystem must have free before `apply` begins.
    pub inodes_needed: u64,
    /// Files to write.
    pub write: usize,
    /// Files and directories to remove.
    pub remove: usize,
    /// The tree of the commit.
    pub tree: Oid,
    pub(super) commit: Oid,
    pub(super) options: Options,
    pub(super) examined: usize,
    /// The index as it will be; stat data of what is to be written is still missing.
    pub(super) entries: Vec<Entry>,
    pub(super) trees: Trees,
    pub(super) index_differs: bool,
    pub(super) attributes: Attributes,
    pub(super) removals: Vec<Removal>,
    pub(super) missing_directories: Vec<Box<[u8]>>,
    pub(super) odd_directories: Vec<Box<[u8]>>,
    pub(super) writes: Vec<Write>,
}

impl Plan {
    /// The commit's submodules: where, and which commit. Their directories are made and otherwise left alone.
    pub fn submodules(&self) -> Vec<(PathBuf, Oid)> {
        let submodules = self.entries.iter().filter(|entry| entry.mode == Mode::Submodule);
        let path = |entry: &Entry| PathBuf::from(std::ffi::OsStr::from_bytes(&entry.path));
        submodules.map(|entry| (path(entry), entry.id)).collect()
    }
}

/// What a plan is made of and for.
pub(super) struct Planner<'a> {
    pub root_path: &'a Path,
    pub git_dir: &'a Path,
    pub repository: &'a Repository,
    pub stamp: &'a Stamp,
    pub options: &'a Options,
    pub cancel: &'a Cancel,
}

impl Planner<'_> {
    pub fn plan(&self, commit: Oid) -> Result<Plan> {
        let tree = self.repository.find_commit(commit).map(|commit| commit.tree_id());
        let tree = tree.or_fail(Kind::Git, || format!("commit {commit} is not in the repository"))?;
        let odb = self.repository.odb().or_fail(Kind::Git, || "cannot open the object database")?;
        let index = read_index(self.git_dir);
        let state = State::read(self.git_dir);
        let vouched =
            index.as_ref().filter(|(_, checksum)| state.is_some_and(|state| state.vouches(self.stamp, checksum, self.options)));
        let vouched = vouched.map(|(index, _)| index);
        let index = index.as_ref().map(|(index, _)| index);
        let target = tree::read(&odb, tree, vouched, self.cancel)?;
        refuse_manifest(&target)?;
        let attributes = Attributes::read(&odb, &target.entries)?;
        let before = attributes_before(&odb, index, &target);
        let refiltered = |entry: &Entry| match &before {
            Before::Same => false,
            Before::Other(before) => before.filter(&entry.path) != attributes.filter(&entry.path),
            Before::Unknown => entry.mode.is_file(),
        };
        let root = Root::open(self.root_path)?;
        let mut observed = match vouched {
            Some(index) => observe::from_index(index, &target, refiltered, root.block_size()),
            None => self.examine(&root, &target, index, &attributes, &refiltered)?,
        };
        observed.sort();
        let probe = Probe {
            git_dir: self.git_dir,
            target: &target,
            attributes: &attributes,
            options: self.options,
            trusted: vouched.is_some(),
            cancel: self.cancel,
        };
        let writes = probe.writes(&observed.found)?;
        let (bytes_needed, inodes_needed) = room(&root, self.git_dir, &target, &observed, &writes);
        let Target { mut entries, trees } = target;
        for (entry, found) in entries.iter_mut().zip(&observed.found) {
            entry.stat = if let Found::Right(stat) = found { *stat } else { Stat::default() };
        }
        let index_differs = !writes.is_empty() || index.is_none_or(|index| index.entries != entries || index.trees != trees);
        Ok(Plan {
            bytes_needed,
            inodes_needed,
            write: writes.len(),
            remove: observed.removals.iter().map(|removal| removal.count).sum(),
            tree,
            commit,
            options: self.options.clone(),
            examined: observed.examined,
            entries,
            trees,
            index_differs,
            attributes,
            removals: observed.removals,
            missing_directories: observed.missing_directories,
            odd_directories: observed.odd_directories,
            writes,
        })
    }

    fn examine(
        &self,
        root: &Root,
        target: &Target,
        index: Option<&Index>,
        attributes: &Attributes,
        refiltered: &(dyn Fn(&Entry) -> bool + Sync),
    ) -> Result<Observed> {
        let spared = self.spared(target);
        let (git_dir, clean, cancel) = (self.git_dir, self.options.clean, self.cancel);
        let owner = nix::unistd::geteuid().as_raw();
        Examination { root, git_dir, target, index, attributes, refiltered, spared: &spared, owner, clean, cancel }.run()
    }

    /// The names at the root that are not the commit's and stay.
    fn spared(&self, target: &Target) -> Vec<Vec<u8>> {
        let mut spared = vec![manifest::FILE_NAME.as_bytes().to_vec()];
        if self.git_dir.parent() == Some(self.root_path) {
            spared.extend(self.git_dir.file_name().map(|name| name.as_bytes().to_vec()));
        }
        // Belongs to the filesystem, unless the commit has something of that name.
        let lost_found = b"lost+found";
        let is_tracked = target.entries.iter().any(|entry| entry.path.starts_with(lost_found));
        spared.extend((!is_tracked).then(|| lost_found.to_vec()));
        spared
    }
}

/// The index and its checksum. `None`: there is none that can be used.
fn read_index(git_dir: &Path) -> Option<(Index, String)> {
    let path = git_dir.join("index");
    let metadata = path.symlink_metadata().ok().filter(fs::Metadata::is_file)?;
    let bytes = fs::read(&path).ok()?;
    let mtime = (metadata.mtime() as u32, metadata.mtime_nsec() as u32);
    Some((Index::parse(&bytes, mtime)?, checksum(&bytes)?))
}

/// The index's own checksum, in hexadecimal digits.
pub(super) fn checksum(index: &[u8]) -> Option<String> {
    let trailer = index.get(index.len().checked_sub(20)?..)?;
    Oid::from_bytes(trailer).ok().map(|oid| oid.to_string())
}

fn refuse_manifest(target: &Target) -> Result<()> {
    let name = manifest::FILE_NAME;
    let is_there = |entry: &Entry| *entry.path == *name.as_bytes() || entry.path.starts_with(format!("{name}/").as_bytes());
    if target.entries.iter().any(is_there) {
        let message = format!("the commit has a file {name} of its own, where ebs-bake writes what was baked");
        return Err(Error::new(Kind::Git, message).hint("remove it from the repository"));
    }
    Ok(())
}

/// The attributes with which the files that there are were written.
enum Before {
    /// Those of the target.
    Same,
    Other(Attributes),
    Unknown,
}

fn attributes_before(odb: &Odb<'_>, index: Option<&Index>, target: &Target) -> Before {
    let Some(index) = index else { return Before::Unknown };
    let files = |entries: &'_ [Entry]| -> Vec<(Box<[u8]>, Oid)> {
        entries.iter().filter(|entry| is_attribute_file(entry)).map(|entry| (entry.path.clone(), entry.id)).collect()
    };
    if files(&index.entries) == files(&target.entries) {
        return Before::Same;
    }
    Attributes::read(odb, &index.entries).map_or(Before::Unknown, Before::Other)
}

/// The bytes and inodes that have to be free.
fn room(root: &Root, git_dir: &Path, target: &Target, observed: &Observed, writes: &[Write]) -> (u64, u64) {
    let mut space = Space::new(root.block_size());
    let mut inodes = observed.missing_directories.len();
    for directory in &observed.missing_directories {
        space.directory(directory);
    }
    for write in writes {
        let entry = &target.entries[write.entry];
        inodes += usize::from(write.how == How::Create);
        match (write.how, entry.mode) {
            (How::Create, Mode::Submodule) => space.directory(&entry.path),
            (How::Create, Mode::Symlink) => space.symlink(&entry.path, write.size),
            (How::Create, _) => space.file(&entry.path, write.size),
            (How::Rewrite { allocated }, _) => space.rewrite(write.size, allocated),
            (How::Permissions, _) => {}
        }
    }
    for removal in &observed.removals {
        space.removed(removal.freed);
    }
    // An entry of the index has 62 bytes beside its path, and is padded; its directories are in it once more.
    let index: u64 = target.entries.iter().map(|entry| entry.path.len() as u64 + 90).sum();
    space.rewrite(index, fs::metadata(git_dir.join("index")).map_or(0, |metadata| metadata.blocks() * 512));
    let removed: usize = observed.removals.iter().filter(|removal| !removal.if_empty).map(|removal| removal.count).sum();
    // HEAD, references, index, state and manifest.
    (space.needed(), (inodes + 16).saturating_sub(removed) as u64)
}
