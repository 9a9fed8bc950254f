//! A work tree as far as a chef-repo needs it: directories and files, read without ever leaving it.
//!
//! Symbolic links are followed as Chef follows them, but not out of the work tree. What lies there may well be there on a node
//! (`/chef/…`): nothing is said about it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

use crate::cancel::Cancel;
use crate::checkout::beneath::{self, Root};
use crate::error::Result;

/// How deep directories of roles and recipes are looked into.
const DEEPEST: usize = 8;

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file that can be read.
    File,
    /// A directory.
    Directory,
    /// Something that we cannot look at, and that may be there on a node.
    Elsewhere,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// What it leads to.
    pub kind: Kind,
    /// Whether it is a symbolic link.
    pub is_link: bool,
}

/// What is in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// There is no such directory.
    Missing,
    /// It is somewhere that we cannot look at.
    Elsewhere,
    /// Its names, sorted, without those that begin with a dot or are not UTF-8.
    Entries(Vec<Entry>),
}

/// What came of reading a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Its bytes.
    Bytes(Vec<u8>),
    /// It has more bytes than were allowed.
    TooLarge,
    /// It cannot be read here.
    Elsewhere,
}

/// A work tree.
pub struct Tree<'c> {
    root: Root,
    cancel: &'c Cancel,
}

impl<'c> Tree<'c> {
    /// Opens it.
    ///
    /// # Errors
    /// `Device`
    pub fn open(root: &Path, cancel: &'c Cancel) -> Result<Self> {
        Ok(Tree { root: Root::open(root)?, cancel })
    }

    /// What is in a directory; an empty path is the root.
    ///
    /// # Errors
    /// `Device` when it cannot be read, `Interrupted`.
    pub fn list(&self, path: &str) -> Result<Listing> {
        self.cancel.check()?;
        let mut entries = Vec::new();
        match self.follow(path)? {
            Opened::Directory(directory) => {
                let failed = |cause: Errno| beneath::failed("read", path.as_bytes(), cause);
                for item in Dir::from_fd(directory).map_err(failed)?.iter() {
                    let item = item.map_err(failed)?;
                    let Ok(name) = item.file_name().to_str() else { continue };
                    if !name.starts_with('.') {
                        entries.extend(self.entry(path, name, item.file_type())?);
                    }
                }
            }
            Opened::Elsewhere => return Ok(Listing::Elsewhere),
            Opened::File(..) | Opened::Missing => return Ok(Listing::Missing),
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Listing::Entries(entries))
    }

    /// What a name is; `None` for a link that leads to nothing, and for pipes and devices.
    fn entry(&self, directory: &str, name: &str, kind: Option<Type>) -> Result<Option<Entry>> {
        let is_link = matches!(kind, Some(Type::Symlink));
        let kind = match kind {
            Some(Type::File) => Kind::File,
            Some(Type::Directory) => Kind::Directory,
            Some(Type::Symlink) | None => match self.follow(&join(directory, name))? {
                Opened::File(..) => Kind::File,
                Opened::Directory(_) => Kind::Directory,
                Opened::Elsewhere => Kind::Elsewhere,
                Opened::Missing => return Ok(None),
            },
            Some(_) => return Ok(None),
        };
        Ok(Some(Entry { name: name.to_owned(), kind, is_link }))
    }

    /// The files in a directory and below it, with their paths from there; directories behind links are left out, as Chef
    /// does it. `None`: they are somewhere that we cannot look at.
    ///
    /// # Errors
    /// As for [`Tree::list`].
    pub fn files_below(&self, path: &str) -> Result<Option<Vec<(String, Kind)>>> {
        let (mut files, mut directories) = (Vec::new(), vec![(String::new(), 0)]);
        while let Some((directory, depth)) = directories.pop() {
            let entries = match self.list(&join(path, &directory))? {
                Listing::Entries(entries) => entries,
                Listing::Missing => continue,
                Listing::Elsewhere => return Ok(None),
            };
            for entry in entries {
                let place = join(&directory, &entry.name);
                match entry.kind {
                    Kind::Directory if !entry.is_link && depth < DEEPEST => directories.push((place, depth + 1)),
                    Kind::Directory => {}
                    kind => files.push((place, kind)),
                }
            }
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Some(files))
    }

    /// Reads a file of at most `largest` bytes.
    ///
    /// # Errors
    /// As for [`Tree::list`].
    pub fn read(&self, path: &str, largest: u64) -> Result<Content> {
        self.cancel.check()?;
        let (mut file, size) = match self.follow(path)? {
            Opened::File(file, size) => (file, size),
            _ => return Ok(Content::Elsewhere),
        };
        if size > largest {
            return Ok(Content::TooLarge);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        let read = file.by_ref().take(largest).read_to_end(&mut bytes);
        read.map_err(|cause| beneath::failed("read", path.as_bytes(), cause))?;
        Ok(Content::Bytes(bytes))
    }

    fn follow(&self, path: &str) -> Result<Opened> {
        let opened = match self.root.follow(path.as_bytes()) {
            Ok(opened) => opened,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Opened::Missing),
            // Out of the tree, in a circle, too long, or not for us.
            Err(
                Errno::EXDEV | Errno::ELOOP | Errno::ENAMETOOLONG | Errno::EACCES | Errno::EPERM | Errno::ENXIO | Errno::ENODEV,
            ) => {
                return Ok(Opened::Elsewhere);
            }
            Err(cause) => return Err(beneath::failed("open", path.as_bytes(), cause)),
        };
        let stat = fstat(opened.as_fd()).map_err(|cause| beneath::failed("look at", path.as_bytes(), cause))?;
        Ok(match beneath::kind(&stat) {
            SFlag::S_IFDIR => Opened::Directory(opened),
            SFlag::S_IFREG => Opened::File(opened.into(), u64::try_from(stat.st_size).unwrap_or(0)),
            _ => Opened::Elsewhere,
        })
    }
}

enum Opened {
    Missing,
    Elsewhere,
    Directory(OwnedFd),
    File(File, u64),
}

/// A path from two, either of which may be empty.
pub fn join(directory: &str, name: &str) -> String {
    match (directory, name) {
        ("", path) | (path, "") => path.to_owned(),
        _ => format!("{directory}/{name}"),
    }
}
