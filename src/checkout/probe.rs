//! Which entries have to be written, how large they are, and whether they may be.

use std::path::Path;

use super::attributes::Attributes;
use super::content::Contents;
use super::index::Entry;
use super::observe::Found;
use super::tree::{Mode, Target};
use super::workers::{threads_for, work_off};
use super::{Options, lfs};
use crate::cancel::Cancel;
use crate::error::Result;

/// Entries that a thread takes at once.
pub const BATCH: usize = 64;

/// One entry to be written.
#[derive(Debug, Clone, Copy)]
pub struct Write {
    /// Its position in the index.
    pub entry: usize,
    pub how: How,
    /// The size of the blob or of the file in bytes, whichever is larger.
    pub size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Nothing is there.
    Create,
    /// A file is there whose content is replaced, in place.
    Rewrite { allocated: u64 },
    /// A file is there that lacks nothing but the permissions.
    Permissions,
}

/// Asks the repository about entries; only headers are read, and small blobs that may be LFS pointers.
pub struct Probe<'a> {
    pub git_dir: &'a Path,
    pub target: &'a Target,
    pub attributes: &'a Attributes,
    pub options: &'a Options,
    /// Whether what stays as it is was written by us and looked at then.
    pub trusted: bool,
    pub cancel: &'a Cancel,
}

impl Probe<'_> {
    /// What must be written, of the entries that were `found` so. Refuses LFS pointers.
    pub fn writes(&self, found: &[Found]) -> Result<Vec<Write>> {
        let probes: Vec<(usize, Found)> = found.iter().copied().enumerate().filter(|(_, found)| self.is_probed(found)).collect();
        let batches: Vec<&[(usize, Found)]> = probes.chunks(BATCH).collect();
        let start = || Ok((Contents::open(self.git_dir, self.attributes)?, Vec::new(), Vec::new()));
        let probed =
            work_off(threads_for(batches.len()), batches, self.cancel, start, |(contents, writes, pointers), batch, _| {
                for &(position, found) in batch {
                    let entry = &self.target.entries[position];
                    let size = self.size(contents, entry, found)?;
                    if self.is_pointer(contents, entry, size)? {
                        pointers.push(position);
                    }
                    writes.extend(self.write(contents, position, entry, found, size)?);
                }
                Ok(())
            })?;
        let mut writes: Vec<Write> = Vec::new();
        let mut pointers: Vec<usize> = Vec::new();
        for (_, some, others) in probed {
            writes.extend(some);
            pointers.extend(others);
        }
        writes.sort_unstable_by_key(|write| write.entry);
        pointers.sort_unstable();
        match pointers.is_empty() {
            true => Ok(writes),
            false => Err(lfs::refusal(&pointers.iter().map(|&position| &self.target.entries[position]).collect::<Vec<_>>())),
        }
    }

    /// What stays as it is needs a look only for pointers.
    fn is_probed(&self, found: &Found) -> bool {
        match found {
            Found::Right(stat) => {
                !self.trusted && !self.options.allow_lfs_pointers && lfs::may_be_pointer(u64::from(stat.size), true)
            }
            _ => true,
        }
    }

    fn size(&self, contents: &Contents<'_>, entry: &Entry, found: Found) -> Result<u64> {
        match found {
            _ if entry.mode == Mode::Submodule => Ok(0),
            Found::Right(stat) => Ok(u64::from(stat.size)),
            _ => contents.blob_size(entry),
        }
    }

    fn is_pointer(&self, contents: &Contents<'_>, entry: &Entry, size: u64) -> Result<bool> {
        if self.options.allow_lfs_pointers || !entry.mode.is_file() || !lfs::may_be_pointer(size, true) {
            return Ok(false);
        }
        let is_lfs = self.attributes.is_lfs(&entry.path);
        Ok(lfs::may_be_pointer(size, is_lfs) && contents.with(entry, |bytes| Ok(lfs::is_pointer(bytes, is_lfs)))?)
    }

    fn write(&self, contents: &Contents<'_>, entry: usize, of: &Entry, found: Found, blob: u64) -> Result<Option<Write>> {
        let how = match found {
            Found::Right(_) => return Ok(None),
            Found::Nothing => How::Create,
            Found::OtherContent { allocated } => How::Rewrite { allocated },
            Found::OtherMode => How::Permissions,
        };
        let size = if of.mode == Mode::Submodule { 0 } else { contents.file_size(of, blob)?.max(blob) };
        Ok(Some(Write { entry, how, size }))
    }
}
