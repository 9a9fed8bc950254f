//! What the files of a commit contain: blobs, filtered as their attributes say.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use git2::{ObjectType, Odb, Repository};
use sha1::{Digest, Sha1};

use super::attributes::Attributes;
use super::convert;
use super::index::Entry;
use crate::error::{Error, Kind, OrFail, Result};

/// Reads blobs; each thread has one of its own.
pub struct Contents<'a> {
    repository: Repository,
    attributes: &'a Attributes,
}

impl<'a> Contents<'a> {
    /// Opens the repository once more.
    pub fn open(git_dir: &Path, attributes: &'a Attributes) -> Result<Self> {
        let repository = Repository::open_bare(git_dir);
        let repository = repository.or_fail(Kind::Git, || format!("cannot open the git directory {}", git_dir.display()))?;
        Ok(Contents { repository, attributes })
    }

    fn odb(&self) -> Result<Odb<'_>> {
        self.repository.odb().or_fail(Kind::Git, || "cannot open the object database")
    }

    /// Hands the file's bytes (for a symbolic link: its target) to `take`.
    pub fn with<R>(&self, entry: &Entry, take: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        let odb = self.odb()?;
        let object = odb.read(entry.id).or_fail(Kind::Git, || unreadable(entry))?;
        if object.kind() != ObjectType::Blob {
            return Err(Error::new(Kind::Git, unreadable(entry)).because("the object is not a blob"));
        }
        if !entry.mode.is_file() || self.attributes.are_irrelevant() {
            return take(object.data());
        }
        let filter = self.attributes.filter(&entry.path);
        let Some(bytes) = convert::to_file(object.data(), entry.id, &filter) else {
            let encoding = filter.encoding.unwrap_or_default();
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            return Err(Error::new(Kind::Git, format!("cannot write {path:?} in the encoding {encoding:?}: it is not known"))
                .hint("change the file's working-tree-encoding in .gitattributes"));
        };
        take(&bytes)
    }

    /// The size of the blob in bytes.
    pub fn blob_size(&self, entry: &Entry) -> Result<u64> {
        let (size, kind) = self.odb()?.read_header(entry.id).or_fail(Kind::Git, || unreadable(entry))?;
        if kind != ObjectType::Blob {
            return Err(Error::new(Kind::Git, unreadable(entry)).because("the object is not a blob"));
        }
        Ok(size as u64)
    }

    /// The size of the file in bytes, given that of the blob.
    pub fn file_size(&self, entry: &Entry, blob_size: u64) -> Result<u64> {
        if self.is_blob(entry) { Ok(blob_size) } else { self.with(entry, |bytes| Ok(bytes.len() as u64)) }
    }

    /// Whether a file holds exactly what this entry's file shall hold.
    pub fn is_in(&self, file: &mut File, size: u64, entry: &Entry) -> Result<bool> {
        let read_error = |cause: std::io::Error| super::beneath::failed("read", &entry.path, cause);
        if self.is_blob(entry) {
            return Ok(blob_hash(file, size).map_err(read_error)? == entry.id.as_bytes());
        }
        self.with(entry, |bytes| Ok(bytes.len() as u64 == size && has_content(file, bytes).map_err(read_error)?))
    }

    fn is_blob(&self, entry: &Entry) -> bool {
        !entry.mode.is_file() || self.attributes.filter(&entry.path).is_identity()
    }
}

fn unreadable(entry: &Entry) -> String {
    format!("cannot read the content of {:?} ({})", String::from_utf8_lossy(&entry.path), entry.id)
}

/// The name that a blob with the file's content has; of another one if the file is not `size` bytes long.
fn blob_hash(file: &mut File, size: u64) -> std::io::Result<[u8; 20]> {
    let mut hash = Sha1::new();
    hash.update(format!("blob {size}\0"));
    let mut buffer = [0; 32 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            length => hash.update(&buffer[..length]),
        }
    }
}

fn has_content(file: &mut File, mut expected: &[u8]) -> std::io::Result<bool> {
    let mut buffer = [0; 32 << 10];
    loop {
        let length = file.read(&mut buffer)?;
        match expected.split_at_checked(length) {
            Some((head, rest)) if *head == buffer[..length] => expected = rest,
            _ => return Ok(false),
        }
        if length == 0 {
            return Ok(expected.is_empty());
        }
    }
}
