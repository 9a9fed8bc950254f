//! A commit's tree, read whole: every path that it puts onto the volume, checked before anything is written.

use std::ops::Range;

use git2::{ObjectType, Odb, Oid};

use super::index::{Entry, Index, Stat, Trees};
use super::names;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, OrFail, Result};

/// How deep directories may be nested. git's own limit is 2048; 256 names of one byte are deep enough for anything real.
pub const DEEPEST: usize = 256;

/// How many files and directories a tree may have: a few small objects can unfold into more than any disk holds.
const MOST_ENTRIES: usize = 2_000_000;
/// How long all its paths may be together: the bytes of a name count once for each file below it.
const MOST_BYTES_OF_PATHS: usize = 128 << 20;

/// What a tracked path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    File,
    Executable,
    Symlink,
    /// A submodule: an empty directory until somebody fills it.
    Submodule,
}

impl Mode {
    /// The mode in the index.
    pub fn bits(self) -> u32 {
        match self {
            Mode::File => 0o100644,
            Mode::Executable => 0o100755,
            Mode::Symlink => 0o120000,
            Mode::Submodule => 0o160000,
        }
    }

    /// Reads a mode of the index or of a tree, which may have more permission bits (old versions of git wrote them).
    pub fn from_bits(bits: u32) -> Option<Mode> {
        match bits & 0o170000 {
            0o100000 if bits & 0o100 != 0 => Some(Mode::Executable),
            0o100000 => Some(Mode::File),
            0o120000 => Some(Mode::Symlink),
            0o160000 => Some(Mode::Submodule),
            _ => None,
        }
    }

    /// Whether it is a regular file.
    pub fn is_file(self) -> bool {
        matches!(self, Mode::File | Mode::Executable)
    }
}

/// What a commit wants the work tree to be.
pub struct Target {
    /// Sorted by path, byte by byte.
    pub entries: Vec<Entry>,
    pub trees: Trees,
}

/// Reads the tree `root`. Directories that `vouched` has with the same tree are taken from it, with the stat data of
/// their files, and are not looked into.
pub fn read(odb: &Odb<'_>, root: Oid, vouched: Option<&Index>, cancel: &Cancel) -> Result<Target> {
    let known = vouched.map(|index| Known { trees: &index.trees, entries: &index.entries });
    let mut unfolding = Unfolding { odb, cancel, entries: Vec::new(), directories: 0, bytes_of_paths: 0, path: Vec::new() };
    let trees = unfolding.directory(root, Box::default(), known, 0)?;
    Ok(Target { entries: unfolding.entries, trees })
}

/// What the index knows of one directory.
#[derive(Clone, Copy)]
struct Known<'a> {
    trees: &'a Trees,
    /// The entries in it, at any depth.
    entries: &'a [Entry],
}

impl<'a> Known<'a> {
    fn child(self, path: &[u8], name: &[u8]) -> Option<Known<'a>> {
        let trees = self.trees.children.iter().find(|child| *child.name == *name)?;
        Some(Known { trees, entries: below(self.entries, path) })
    }

    /// The entries, if the directory is exactly this tree.
    fn as_tree(self, id: Oid) -> Option<Known<'a>> {
        let count = self.entries.len();
        (self.trees.tree == Some((id, count))).then_some(self)
    }
}

/// The entries of a sorted list whose path begins with `directory` and a slash; all for the root (`""`).
pub fn below<'a>(entries: &'a [Entry], directory: &[u8]) -> &'a [Entry] {
    &entries[positions_below(entries, directory)]
}

/// Where those entries are in the list.
pub fn positions_below(entries: &[Entry], directory: &[u8]) -> Range<usize> {
    if directory.is_empty() {
        return 0..entries.len();
    }
    // A slash is followed by `0` in ASCII.
    let start = entries.partition_point(|entry| compare(&entry.path, directory, b'/').is_lt());
    let end = start + entries[start..].partition_point(|entry| compare(&entry.path, directory, b'0').is_lt());
    start..end
}

/// Compares `path` with `directory` followed by `end`.
fn compare(path: &[u8], directory: &[u8], end: u8) -> std::cmp::Ordering {
    path.iter().copied().cmp(directory.iter().copied().chain([end]))
}

struct Unfolding<'a> {
    odb: &'a Odb<'a>,
    cancel: &'a Cancel,
    entries: Vec<Entry>,
    directories: usize,
    bytes_of_paths: usize,
    /// Of the directory that is being read, with a slash at its end.
    path: Vec<u8>,
}

impl Unfolding<'_> {
    fn directory(&mut self, id: Oid, name: Box<[u8]>, known: Option<Known<'_>>, depth: usize) -> Result<Trees> {
        self.cancel.check()?;
        if let Some(known) = known.and_then(|known| known.as_tree(id)) {
            self.entries.extend_from_slice(known.entries);
            return Ok(known.trees.clone());
        }
        self.directories += 1;
        let too_many = self.entries.len() + self.directories > MOST_ENTRIES || self.bytes_of_paths > MOST_BYTES_OF_PATHS;
        if depth > DEEPEST || too_many {
            return Err(self.refused(b"", "holds more files, or deeper directories, than a volume should").hint(format!(
                "a tree may have {MOST_ENTRIES} files and directories, {DEEPEST} levels deep, and paths of {} MiB",
                MOST_BYTES_OF_PATHS >> 20
            )));
        }
        let object = self.odb.read(id).or_fail(Kind::Git, || format!("cannot read tree {id} of {:?}", self.shown(b"")))?;
        if object.kind() != ObjectType::Tree {
            return Err(self.refused(b"", "is not a tree"));
        }
        let first = self.entries.len();
        let mut children = Vec::new();
        for item in self.items(object.data())? {
            if let Some(mode) = Mode::from_bits(item.mode) {
                let path: Box<[u8]> = [&self.path, item.name].concat().into();
                self.bytes_of_paths += path.len();
                self.entries.push(Entry { path, id: item.id, mode, stat: Stat::default() });
                continue;
            }
            let length = self.path.len();
            self.path.extend_from_slice(item.name);
            let known = known.and_then(|known| known.child(&self.path, item.name));
            self.path.push(b'/');
            children.push(self.directory(item.id, item.name.into(), known, depth + 1)?);
            self.path.truncate(length);
        }
        Ok(Trees::of(name, (id, self.entries.len() - first), children))
    }

    /// The items of one tree object, each of which may be written.
    fn items<'d>(&self, data: &'d [u8]) -> Result<Vec<Item<'d>>> {
        let items = parse(data).ok_or_else(|| self.refused(b"", "is a damaged tree"))?;
        for item in &items {
            let is_symlink = item.mode & 0o170000 == 0o120000;
            if let Some(reason) = names::refusal(item.name, is_symlink) {
                return Err(self.refused(item.name, reason));
            }
            if names::is_too_long(&[&self.path, item.name].concat()) {
                return Err(self.refused(item.name, "is longer than 4095 bytes"));
            }
            if !item.is_tree() && Mode::from_bits(item.mode).is_none() {
                return Err(self.refused(item.name, "is of a kind that git does not know"));
            }
        }
        if !items.is_sorted_by(|a, b| a.key().lt(b.key())) {
            return Err(self.refused(b"", "is a tree that is out of order or names a file twice"));
        }
        // As a file and as a directory they sort apart.
        let mut names: Vec<&[u8]> = items.iter().map(|item| item.name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(self.refused(pair[0], "is both a file and a directory")),
            None => Ok(items),
        }
    }

    fn shown(&self, name: &[u8]) -> String {
        String::from_utf8_lossy(&[&self.path, name].concat()).into_owned()
    }

    fn refused(&self, name: &[u8], reason: &str) -> Error {
        Error::new(Kind::Git, format!("the commit cannot be checked out: {:?} {reason}", self.shown(name)))
            .hint("`git fsck` in the repository tells more")
    }
}

/// One item of a tree object.
struct Item<'a> {
    mode: u32,
    name: &'a [u8],
    id: Oid,
}

impl<'a> Item<'a> {
    fn is_tree(&self) -> bool {
        self.mode & 0o170000 == 0o040000
    }

    /// What trees are sorted by: a directory's name ends with a slash.
    fn key(&self) -> impl Iterator<Item = u8> + 'a {
        self.name.iter().copied().chain(self.is_tree().then_some(b'/'))
    }
}

/// Reads a tree object: `<octal mode> <name>\0<20 bytes of hash>`, again and again.
fn parse(mut data: &[u8]) -> Option<Vec<Item<'_>>> {
    let mut items = Vec::new();
    while !data.is_empty() {
        let space = data.iter().take(8).position(|&byte| byte == b' ')?;
        let mode = u32::from_str_radix(std::str::from_utf8(&data[..space]).ok()?, 8).ok()?;
        let rest = &data[space + 1..];
        let end = rest.iter().position(|&byte| byte == 0)?;
        let (id, after) = rest[end + 1..].split_at_checked(20)?;
        items.push(Item { mode, name: &rest[..end], id: Oid::from_bytes(id).ok()? });
        data = after;
    }
    Some(items)
}
