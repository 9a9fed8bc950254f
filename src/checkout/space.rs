//! How much room a checkout needs on the filesystem before it begins.

use std::collections::HashMap;

use super::beneath::split;

/// Bytes for what is written beside the files: references, HEAD, the state, the manifest, and blocks of the filesystem's
/// own that go with them.
const FIXED: u64 = 128 << 10;
/// The largest extent of ext4 with blocks of 4 KiB; a file with more than four needs blocks to list them.
const LARGEST_EXTENT: u64 = 128 << 20;
/// Bytes of a directory's first block that are not for names: `.`, `..` and a checksum.
const OVERHEAD: u64 = 36;
/// The longest target of a symbolic link that ext4 keeps in the inode.
const FAST_SYMLINK: u64 = 59;

/// Adds up what is written and what is freed.
pub struct Space<'a> {
    block: u64,
    needed: u64,
    freed: u64,
    /// New names, by directory.
    names: HashMap<&'a [u8], Names>,
}

/// What a directory gets.
#[derive(Default)]
struct Names {
    /// The bytes of their entries.
    bytes: u64,
    /// The directory is made too.
    in_new: bool,
}

impl<'a> Space<'a> {
    /// For a filesystem with blocks of `block` bytes.
    pub fn new(block: u64) -> Self {
        Space { block, needed: FIXED, freed: 0, names: HashMap::new() }
    }

    /// A new file of `size` bytes.
    pub fn file(&mut self, path: &'a [u8], size: u64) {
        self.needed += self.blocks(size) + self.extents(size);
        self.name(path);
    }

    /// A new symbolic link with a target of `size` bytes.
    pub fn symlink(&mut self, path: &'a [u8], size: u64) {
        self.needed += if size > FAST_SYMLINK { self.blocks(size) } else { 0 };
        self.name(path);
    }

    /// A new directory.
    pub fn directory(&mut self, path: &'a [u8]) {
        self.names.entry(path).or_default().in_new = true;
        self.name(path);
    }

    /// A file of `size` bytes in the place of one that takes `allocated`. What a smaller file gives back is not counted:
    /// a larger one may be written first.
    pub fn rewrite(&mut self, size: u64, allocated: u64) {
        self.needed += (self.blocks(size) + self.extents(size)).saturating_sub(allocated);
    }

    /// What is removed before anything is written.
    pub fn removed(&mut self, bytes: u64) {
        self.freed += bytes;
    }

    /// The bytes that have to be free.
    pub fn needed(&self) -> u64 {
        let directories: u64 = self.names.values().map(|names| self.directory_blocks(names)).sum();
        (self.needed + directories).saturating_sub(self.freed)
    }

    /// An entry of a directory: eight bytes and the name, in steps of four.
    fn name(&mut self, path: &'a [u8]) {
        let (directory, name) = split(path);
        self.names.entry(directory).or_default().bytes += 8 + (name.len() as u64).next_multiple_of(4);
    }

    /// Full blocks of a directory are split in halves, and one of several blocks has an index.
    fn directory_blocks(&self, names: &Names) -> u64 {
        let fits_in_first = names.in_new && names.bytes + OVERHEAD <= self.block;
        if fits_in_first { self.block } else { self.blocks(2 * names.bytes) + self.block }
    }

    fn blocks(&self, bytes: u64) -> u64 {
        bytes.next_multiple_of(self.block)
    }

    /// One file in pieces, for which there is one block per 64 MiB to spare.
    fn extents(&self, size: u64) -> u64 {
        size / (LARGEST_EXTENT / 2) * self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(fill: impl FnOnce(&mut Space<'_>)) -> u64 {
        let mut space = Space::new(4096);
        fill(&mut space);
        space.needed() - FIXED
    }

    #[test]
    fn every_file_takes_whole_blocks() {
        assert_eq!(needed(|space| space.rewrite(1, 0)), 4096);
        assert_eq!(needed(|space| space.rewrite(4097, 4096)), 4096);
        assert_eq!(needed(|space| space.rewrite(0, 4096)), 0);
        // Beside the file's block: one for a split of the root's, and one for an index.
        assert_eq!(needed(|space| space.file(b"a", 1)), 3 * 4096);
        assert_eq!(needed(|space| space.symlink(b"a", 59)), 2 * 4096);
    }

    #[test]
    fn a_new_directory_takes_one_block_while_its_names_fit() {
        let alone = needed(|space| space.directory(b"d"));
        let with_file = needed(|space| {
            space.directory(b"d");
            space.file(b"d/a", 1);
        });
        assert_eq!(with_file, alone + 4096);
    }

    #[test]
    fn what_is_removed_first_counts() {
        let mut space = Space::new(4096);
        space.file(b"a", 1 << 20);
        let before = space.needed();
        space.removed(1 << 20);
        assert_eq!(space.needed(), before - (1 << 20));
        space.removed(1 << 30);
        assert_eq!(space.needed(), 0);
    }
}
