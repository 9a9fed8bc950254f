//! The index: git's list of what is tracked, with the stat data of each file as it was when it was last seen to be right.
//!
//! Read and written whole, in version 2 of the format (`gitformat-index(5)`), with the `TREE` extension: which directory
//! is which tree, so that a directory that has not changed need not be looked into.

use std::cmp::Ordering;

use git2::Oid;
use nix::sys::stat::FileStat;
use sha1::{Digest, Sha1};

use super::tree::Mode;

/// Bytes of an entry before its path.
const FIXED: usize = 62;
const HASH: usize = 20;
const ASSUME_VALID: u16 = 0x8000;
const EXTENDED: u16 = 0x4000;
const STAGE: u16 = 0x3000;
const NAME_LENGTH: u16 = 0x0fff;

/// What the index keeps of a file's `stat`: times in seconds and nanoseconds, all cut to 32 bits as git cuts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    pub ctime: (u32, u32),
    pub mtime: (u32, u32),
    pub dev: u32,
    pub ino: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u32,
}

impl Stat {
    /// Cuts a file's `stat` down.
    pub fn of(stat: &FileStat) -> Stat {
        Stat {
            ctime: (stat.st_ctime as u32, stat.st_ctime_nsec as u32),
            mtime: (stat.st_mtime as u32, stat.st_mtime_nsec as u32),
            dev: stat.st_dev as u32,
            ino: stat.st_ino as u32,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u32,
        }
    }

    /// Whether a file that had `self` is untouched if it now has `other`. The device's number is left out, as git does:
    /// it changes with every attachment.
    pub fn matches(&self, other: &Stat) -> bool {
        Stat { dev: other.dev, ..*self } == *other
    }

    /// Whether the file may have changed after its stat data were taken without that being seen: it was written in the
    /// same instant as the index, or later ("racily clean" in git's words).
    pub fn is_racy(&self, index_mtime: (u32, u32)) -> bool {
        self.mtime >= index_mtime
    }
}

/// A tracked file, symbolic link or submodule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, components separated by `/`.
    pub path: Box<[u8]>,
    pub id: Oid,
    pub mode: Mode,
    /// All zeros when it is not known what the file looked like: that matches no file.
    pub stat: Stat,
}

/// The trees of a directory and those below it, as `TREE` keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trees {
    pub name: Box<[u8]>,
    /// The tree, and how many entries of the index are in it, at any depth; `None`: not known.
    pub tree: Option<(Oid, usize)>,
    /// In git's order: shorter names first.
    pub children: Vec<Trees>,
}

impl Trees {
    /// A directory that is this tree, with so many entries.
    pub fn of(name: Box<[u8]>, tree: (Oid, usize), mut children: Vec<Trees>) -> Trees {
        children.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
        Trees { name, tree: Some(tree), children }
    }

    /// A directory of which nothing is known.
    pub fn unknown() -> Trees {
        Trees { name: Box::default(), tree: None, children: Vec::new() }
    }
}

/// The whole index. Entries are sorted by path, byte by byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub entries: Vec<Entry>,
    pub trees: Trees,
    /// Of the file it was read from.
    pub mtime: (u32, u32),
}

impl Index {
    /// Reads a file's bytes. `None`: damaged, or in a form that nothing of ours wrote; then it says nothing about the
    /// work tree. Entries that git was told not to examine, or that are in conflict, come without stat data.
    pub fn parse(bytes: &[u8], mtime: (u32, u32)) -> Option<Index> {
        let body = body(bytes)?;
        let mut reader = Reader(body);
        let version = (reader.take(4)? == b"DIRC").then(|| reader.u32())??;
        if !(2..=3).contains(&version) {
            return None;
        }
        let count = reader.u32()? as usize;
        let mut entries = Vec::with_capacity(count.min(body.len() / FIXED));
        let mut ordinary = true;
        for _ in 0..count {
            let (entry, flagged) = reader.entry()?;
            ordinary &= !flagged;
            match entries.last().map(|last: &Entry| last.path.cmp(&entry.path)) {
                None | Some(Ordering::Less) => entries.push(entry),
                Some(Ordering::Equal) => {} // Another stage of a conflict.
                Some(Ordering::Greater) => return None,
            }
        }
        let trees = reader.trees()?.filter(|_| ordinary).unwrap_or_else(Trees::unknown);
        Some(Index { entries, trees, mtime })
    }

    /// The entry at a path.
    pub fn find(&self, path: &[u8]) -> Option<&Entry> {
        self.entries.binary_search_by(|entry| (*entry.path).cmp(path)).ok().map(|position| &self.entries[position])
    }

    /// The file's bytes. The last 20 are the checksum of the others.
    pub fn serialize(entries: &[Entry], trees: &Trees) -> Vec<u8> {
        let size: usize = entries.iter().map(|entry| padded(entry.path.len())).sum();
        let mut bytes = Vec::with_capacity(size + size / 16 + 64);
        bytes.extend_from_slice(b"DIRC");
        bytes.extend_from_slice(&2_u32.to_be_bytes());
        bytes.extend_from_slice(&(entries.len() as u32).to_be_bytes());
        for entry in entries {
            write_entry(&mut bytes, entry);
        }
        if trees.tree.is_some() {
            let mut extension = Vec::new();
            write_trees(&mut extension, trees);
            bytes.extend_from_slice(b"TREE");
            bytes.extend_from_slice(&(extension.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&extension);
        }
        let checksum = Sha1::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }
}

/// The bytes without the checksum, if that is right.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(HASH)?)?;
    (Sha1::digest(body)[..] == *checksum).then_some(body)
}

/// Whether a file's bytes are an index, and all of it.
pub fn is_intact(bytes: &[u8]) -> bool {
    body(bytes).is_some_and(|body| body.starts_with(b"DIRC"))
}

/// The size of an entry with a path of this length: up to the next multiple of eight, with at least one NUL.
fn padded(path: usize) -> usize {
    (FIXED + path + 8) & !7
}

fn write_entry(bytes: &mut Vec<u8>, entry: &Entry) {
    let Stat { ctime, mtime, dev, ino, uid, gid, size } = entry.stat;
    let start = bytes.len();
    for word in [ctime.0, ctime.1, mtime.0, mtime.1, dev, ino, entry.mode.bits(), uid, gid, size] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.extend_from_slice(entry.id.as_bytes());
    let length = entry.path.len().min(usize::from(NAME_LENGTH)) as u16;
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&entry.path);
    bytes.resize(start + padded(entry.path.len()), 0);
}

fn write_trees(bytes: &mut Vec<u8>, trees: &Trees) {
    bytes.extend_from_slice(&trees.name);
    let count = trees.tree.map_or(-1, |(_, count)| count as i64);
    bytes.extend_from_slice(format!("\0{count} {}\n", trees.children.len()).as_bytes());
    if let Some((id, _)) = trees.tree {
        bytes.extend_from_slice(id.as_bytes());
    }
    for child in &trees.children {
        write_trees(bytes, child);
    }
}

/// What is still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// Up to the delimiter, which is taken too.
    fn until(&mut self, delimiter: u8) -> Option<&'a [u8]> {
        let length = self.0.iter().position(|&byte| byte == delimiter)?;
        let head = self.take(length);
        self.take(1).and(head)
    }

    /// An entry, and whether it has flags that no entry of ours has.
    fn entry(&mut self) -> Option<(Entry, bool)> {
        let before = self.0.len();
        let mut words = [0; 10];
        for word in &mut words {
            *word = self.u32()?;
        }
        let [ctime, ctime_nsec, mtime, mtime_nsec, dev, ino, mode, uid, gid, size] = words;
        let id = Oid::from_bytes(self.take(HASH)?).ok()?;
        let flags = self.u16()?;
        if flags & EXTENDED != 0 {
            self.u16()?;
        }
        let fixed = before - self.0.len();
        let path = match flags & NAME_LENGTH {
            NAME_LENGTH => self.0.get(..self.0.iter().position(|&byte| byte == 0)?)?,
            length => self.0.get(..usize::from(length))?,
        };
        self.take(((fixed + path.len() + 8) & !7) - fixed)?;
        let flagged = flags & (ASSUME_VALID | EXTENDED | STAGE) != 0;
        let stat = Stat { ctime: (ctime, ctime_nsec), mtime: (mtime, mtime_nsec), dev, ino, uid, gid, size };
        let stat = if flagged { Stat::default() } else { stat };
        Some((Entry { path: path.into(), id, mode: Mode::from_bits(mode)?, stat }, flagged))
    }

    /// The `TREE` extension, if there is one. Extensions in capitals may be passed over; others change the meaning of
    /// the entries.
    fn trees(&mut self) -> Option<Option<Trees>> {
        let mut trees = None;
        while !self.0.is_empty() {
            let name = self.take(4)?;
            let size = self.u32()? as usize;
            let content = self.take(size)?;
            if name == b"TREE" {
                trees = Reader(content).tree(0);
            } else if !name[0].is_ascii_uppercase() {
                return None;
            }
        }
        Some(trees)
    }

    fn tree(&mut self, depth: usize) -> Option<Trees> {
        if depth > super::tree::DEEPEST {
            return None;
        }
        let name = self.until(0)?.into();
        let count: i64 = std::str::from_utf8(self.until(b' ')?).ok()?.parse().ok()?;
        let children: usize = std::str::from_utf8(self.until(b'\n')?).ok()?.parse().ok()?;
        let tree = match usize::try_from(count) {
            Ok(count) => Some((Oid::from_bytes(self.take(HASH)?).ok()?, count)),
            Err(_) => None,
        };
        let children = (0..children).map(|_| self.tree(depth + 1)).collect::<Option<_>>()?;
        Some(Trees { name, tree, children })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &[u8]) -> Entry {
        let stat = Stat { ctime: (1, 2), mtime: (3, 4), dev: 5, ino: 6, uid: 7, gid: 8, size: 9 };
        Entry { path: path.into(), id: Oid::hash_object(git2::ObjectType::Blob, path).unwrap(), mode: Mode::Executable, stat }
    }

    fn index() -> (Vec<Entry>, Trees) {
        let entries = vec![entry(b"a"), entry(b"b/c"), entry(&[b'x'; 5000])];
        let child = |name: &[u8]| Trees::of(name.into(), (Oid::ZERO_SHA1, 1), Vec::new());
        (entries, Trees::of(Box::default(), (Oid::ZERO_SHA1, 3), vec![child(b"long"), child(b"b")]))
    }

    #[test]
    fn what_is_written_is_read() {
        let (entries, trees) = index();
        let bytes = Index::serialize(&entries, &trees);
        assert_eq!(Index::parse(&bytes, (1, 1)), Some(Index { entries, trees, mtime: (1, 1) }));
    }

    #[test]
    fn a_damaged_index_is_none() {
        let (entries, trees) = index();
        let bytes = Index::serialize(&entries, &trees);
        for length in [0, 10, 19, 20, 40, bytes.len() - 1] {
            assert_eq!(Index::parse(&bytes[..length], (0, 0)), None, "cut to {length}");
        }
        for position in [0, 5, 11, 70, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            assert_eq!(Index::parse(&damaged, (0, 0)), None, "changed at {position}");
        }
    }

    /// Puts a right checksum under changed bytes.
    fn resealed(mut bytes: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        bytes.truncate(bytes.len() - HASH);
        change(&mut bytes);
        let checksum = Sha1::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    #[test]
    fn nothing_is_known_of_a_file_that_git_was_told_not_to_examine() {
        let (entries, trees) = index();
        let first_flags = 12 + FIXED - 2;
        let bytes = resealed(Index::serialize(&entries, &trees), |bytes| bytes[first_flags] |= 0x80);
        let index = Index::parse(&bytes, (0, 0)).unwrap();
        assert_eq!(index.entries[0].stat, Stat::default());
        assert_eq!(index.trees, Trees::unknown());
    }

    #[test]
    fn extensions_that_change_the_meaning_are_not_passed_over() {
        let (entries, trees) = index();
        for (name, known) in [(b"UNTR", true), (b"link", false)] {
            let extension = [&name[..], &[0, 0, 0, 1, 0]].concat();
            let bytes = resealed(Index::serialize(&entries, &trees), |bytes| bytes.extend(extension));
            assert_eq!(Index::parse(&bytes, (0, 0)).is_some(), known);
        }
    }

    #[test]
    fn numbers_that_lie_do_no_harm() {
        let (entries, trees) = index();
        let bytes = resealed(Index::serialize(&entries, &trees), |bytes| bytes[8..12].fill(0xff));
        assert_eq!(Index::parse(&bytes, (0, 0)), None);
    }

    #[test]
    fn files_written_with_the_index_or_later_are_racy() {
        let stat = entry(b"a").stat;
        assert!(stat.is_racy((3, 4)) && stat.is_racy((3, 3)) && stat.is_racy((2, 9)));
        assert!(!stat.is_racy((3, 5)) && !stat.is_racy((4, 0)));
    }
}
