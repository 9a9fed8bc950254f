//! Looks at everything in the work tree, directory by directory, several at once.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode as Permissions, SFlag};

use super::attributes::Attributes;
use super::beneath::{self, Root, failed};
use super::content::Contents;
use super::index::{Entry, Index, Stat};
use super::observe::{Found, Observed, Removal, parents};
use super::tree::{Mode, Target, below, positions_below};
use super::workers::{threads_for, work_off};
use crate::cancel::Cancel;
use crate::error::Result;

/// Everything that the look at a work tree goes by.
pub struct Examination<'a> {
    pub root: &'a Root,
    pub git_dir: &'a Path,
    pub target: &'a Target,
    /// What the files were like when they were last right. `None`: every file's content is compared.
    pub index: Option<&'a Index>,
    pub attributes: &'a Attributes,
    /// Whether a file's filter is another than when the index was written.
    pub refiltered: &'a (dyn Fn(&Entry) -> bool + Sync),
    /// Names at the root that are neither tracked nor touched.
    pub spared: &'a [Vec<u8>],
    /// The user that files shall belong to: who runs this.
    pub owner: u32,
    /// Remove what is not tracked.
    pub clean: bool,
    pub cancel: &'a Cancel,
}

/// What one thread has found.
struct Findings<'a> {
    contents: Contents<'a>,
    found: Vec<(usize, Found)>,
    observed: Observed,
    directories: Vec<Box<[u8]>>,
}

impl Examination<'_> {
    /// Looks at it all.
    pub fn run(&self) -> Result<Observed> {
        let start = || {
            let contents = Contents::open(self.git_dir, self.attributes)?;
            Ok(Findings { contents, found: Vec::new(), observed: Observed::default(), directories: Vec::new() })
        };
        let threads = threads_for(self.target.entries.len() / 64);
        let all = work_off(threads, vec![Box::default()], self.cancel, start, |findings, directory: Box<[u8]>, more| {
            self.directory(findings, directory, more)
        })?;
        let mut observed = Observed { found: vec![Found::Nothing; self.target.entries.len()], ..Observed::default() };
        let mut there = HashSet::new();
        for findings in all {
            for (position, found) in findings.found {
                observed.found[position] = found;
            }
            observed.examined += findings.observed.examined;
            observed.removals.extend(findings.observed.removals);
            observed.odd_directories.extend(findings.observed.odd_directories);
            there.extend(findings.directories);
        }
        for entry in &self.target.entries {
            let missing = parents(&entry.path).take_while(|directory| !there.contains(*directory));
            let missing: Vec<Box<[u8]>> = missing.map(Box::from).collect();
            there.extend(missing.iter().cloned());
            observed.missing_directories.extend(missing);
        }
        Ok(observed)
    }

    fn directory(&self, findings: &mut Findings<'_>, path: Box<[u8]>, more: &mut Vec<Box<[u8]>>) -> Result<()> {
        let opened = self.root.directory(&path).map_err(|cause| failed("open", &path, cause))?;
        let names = opened.try_clone().map_err(|cause| failed("read", &path, cause))?;
        let names = beneath::list(names).map_err(|cause| failed("read", &path, cause))?;
        let positions = positions_below(&self.target.entries, &path);
        let (first, inside) = (positions.start, &self.target.entries[positions]);
        for name in names {
            if path.is_empty() && self.spared.iter().any(|spared| **spared == *name) {
                continue;
            }
            let whole: Box<[u8]> = if path.is_empty() { name.clone() } else { [&path, &b"/"[..], &name].concat().into() };
            let place = Place { directory: opened.as_fd(), name: &name, path: &whole };
            match inside.binary_search_by(|entry| entry.path.cmp(&whole)) {
                Ok(position) => {
                    let found = self.tracked(findings, &place, &inside[position])?;
                    findings.found.push((first + position, found));
                }
                Err(_) if !below(inside, &whole).is_empty() => {
                    if self.tracked_directory(findings, &place)? {
                        more.push(whole);
                    }
                }
                Err(_) => self.untracked(findings, &place, more)?,
            }
        }
        Ok(())
    }

    /// What is where an entry belongs. Whatever cannot become its file is put down for removal.
    fn tracked(&self, findings: &mut Findings<'_>, place: &Place<'_>, entry: &Entry) -> Result<Found> {
        let stat = place.status()?;
        findings.observed.examined += 1;
        let found = match (entry.mode, beneath::kind(&stat)) {
            (Mode::Submodule, SFlag::S_IFDIR) if self.is_of_submodule(entry) => {
                self.note_permissions(findings, place, &stat);
                Some(Found::Right(Stat::of(&stat)))
            }
            (Mode::Symlink, SFlag::S_IFLNK) => self.symlink(place, entry, &stat)?,
            (Mode::File | Mode::Executable, SFlag::S_IFREG) => self.file(&findings.contents, place, entry, &stat)?,
            _ => None,
        };
        if found.is_none() {
            self.remove(findings, place)?;
        }
        Ok(found.unwrap_or(Found::Nothing))
    }

    fn symlink(&self, place: &Place<'_>, entry: &Entry, stat: &FileStat) -> Result<Option<Found>> {
        let known = self.known(entry);
        let is_right = known.is_some_and(|old| old.is_same_file(entry) && old.vouches(stat)) || {
            let target = beneath::read_symlink(place.directory, place.name).map_err(|cause| failed("read", place.path, cause))?;
            git2::Oid::hash_object(git2::ObjectType::Blob, &target).is_ok_and(|id| id == entry.id)
        };
        Ok(is_right.then(|| Found::Right(Stat::of(stat))))
    }

    /// `None`: the file cannot be used at all: it has another name elsewhere, or another owner, or cannot be read.
    fn file(&self, contents: &Contents<'_>, place: &Place<'_>, entry: &Entry, stat: &FileStat) -> Result<Option<Found>> {
        let known = self.known(entry);
        let same_group = known.is_none_or(|old| old.entry.stat == Stat::default() || old.entry.stat.gid == stat.st_gid);
        if stat.st_nlink != 1 || stat.st_uid != self.owner || !same_group {
            return Ok(None);
        }
        let unchanged = known.filter(|old| old.vouches(stat));
        let same_content = match unchanged {
            Some(old) if !(self.refiltered)(entry) => old.entry.id == entry.id,
            _ => {
                let mut file = match beneath::read(place.directory, place.name) {
                    Ok(file) => file,
                    Err(Errno::EACCES) => return Ok(None),
                    Err(cause) => return Err(failed("read", place.path, cause)),
                };
                contents.is_in(&mut file, stat.st_size as u64, entry)?
            }
        };
        Ok(Some(match same_content {
            true if beneath::permissions(stat) == permissions(entry.mode) => Found::Right(Stat::of(stat)),
            true => Found::OtherMode,
            false => Found::OtherContent { allocated: beneath::allocated(stat) },
        }))
    }

    /// Whether a directory is where one shall be. Whatever else is there is put down for removal.
    fn tracked_directory(&self, findings: &mut Findings<'_>, place: &Place<'_>) -> Result<bool> {
        let stat = place.status()?;
        if beneath::kind(&stat) != SFlag::S_IFDIR {
            self.remove(findings, place)?;
            return Ok(false);
        }
        self.note_permissions(findings, place, &stat);
        findings.directories.push(place.path.into());
        Ok(true)
    }

    fn note_permissions(&self, findings: &mut Findings<'_>, place: &Place<'_>, stat: &FileStat) {
        if !beneath::is_fine_directory(stat) {
            findings.observed.odd_directories.push(place.path.into());
        }
    }

    /// Whether what is in a submodule's directory is the submodule's, rather than left by a commit that had files there.
    fn is_of_submodule(&self, entry: &Entry) -> bool {
        let was = self.index.and_then(|index| index.find(&entry.path));
        let were_below = self.index.is_some_and(|index| !below(&index.entries, &entry.path).is_empty());
        was.is_some_and(|was| was.mode == Mode::Submodule) || (!self.clean && !were_below)
    }

    /// Something that the commit does not have. If such things stay, only what the index has goes.
    fn untracked(&self, findings: &mut Findings<'_>, place: &Place<'_>, more: &mut Vec<Box<[u8]>>) -> Result<()> {
        if self.clean {
            return self.remove(findings, place);
        }
        let Some(index) = self.index else { return Ok(()) };
        let is_directory = beneath::kind(&place.status()?) == SFlag::S_IFDIR;
        if is_directory && !below(&index.entries, place.path).is_empty() {
            more.push(place.path.into());
            let path = place.path.into();
            findings.observed.removals.push(Removal { path, if_empty: true, count: 1, freed: 0 });
        } else if !is_directory && index.find(place.path).is_some() {
            self.remove(findings, place)?;
        }
        Ok(())
    }

    fn remove(&self, findings: &mut Findings<'_>, place: &Place<'_>) -> Result<()> {
        let extent = beneath::measure(place.directory, place.name, self.cancel)?;
        let removal = Removal { path: place.path.into(), if_empty: false, count: extent.count, freed: extent.bytes };
        findings.observed.removals.push(removal);
        Ok(())
    }

    fn known(&self, entry: &Entry) -> Option<Known<'_>> {
        let index = self.index?;
        Some(Known { entry: index.find(&entry.path)?, written: index.mtime })
    }
}

/// A name in an open directory, and its path from the root.
struct Place<'a> {
    directory: BorrowedFd<'a>,
    name: &'a [u8],
    path: &'a [u8],
}

impl Place<'_> {
    fn status(&self) -> Result<FileStat> {
        beneath::status(self.directory, self.name).map_err(|cause| failed("look at", self.path, cause))
    }
}

/// What the index has at a path.
#[derive(Clone, Copy)]
struct Known<'a> {
    entry: &'a Entry,
    /// When the index was written.
    written: (u32, u32),
}

impl Known<'_> {
    /// Whether the file is as it was when the index was written.
    fn vouches(&self, stat: &FileStat) -> bool {
        self.entry.stat.matches(&Stat::of(stat)) && !self.entry.stat.is_racy(self.written)
    }

    fn is_same_file(&self, entry: &Entry) -> bool {
        self.entry.id == entry.id && self.entry.mode == entry.mode
    }
}

/// The permissions of a regular file.
pub fn permissions(mode: Mode) -> Permissions {
    Permissions::from_bits_truncate(mode.bits() & 0o777)
}
