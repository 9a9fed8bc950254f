//! Reading packs directly: where an object is, and its compressed bytes when the pack holds it whole.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use git2::{ObjectType, Oid};

use super::pack_index;

/// Indexes beyond this (more than a million objects) are not held in memory: their objects are read through libgit2.
const LARGEST_INDEX: u64 = 32 << 20;
/// The most bytes that an entry's type and size take.
const HEADER: usize = 10;

/// The packs of one repository (not those of its alternates).
#[derive(Default)]
pub(super) struct Packs {
    packs: Vec<(Vec<u8>, File)>,
}

/// An object in a pack.
pub(super) struct Entry<'a> {
    pack: &'a File,
    offset: u64,
    pub kind: ObjectType,
    pub size: usize,
    header: usize,
}

impl Packs {
    /// Opens what is there; a pack that cannot be used is left to libgit2.
    pub fn open(directory: &Path) -> Packs {
        let mut packs = Packs::default();
        for file in directory.read_dir().into_iter().flatten().flatten() {
            let path = file.path();
            let usable = path.extension().is_some_and(|extension| extension == "idx")
                && file.metadata().is_ok_and(|data| data.len() <= LARGEST_INDEX);
            if usable && let (Ok(index), Ok(pack)) = (std::fs::read(&path), File::open(path.with_extension("pack"))) {
                packs.packs.push((index, pack));
            }
        }
        packs
    }

    /// The object, if a pack holds it whole.
    pub fn whole(&self, id: Oid) -> io::Result<Option<Entry<'_>>> {
        for (index, pack) in &self.packs {
            let Some(offset) = pack_index::find(index, id) else { continue };
            let mut bytes = [0; HEADER];
            let count = pack.read_at(&mut bytes, offset)?;
            if let Some((kind, size, header)) = parse_header(&bytes[..count]) {
                return Ok(Some(Entry { pack, offset, kind, size, header }));
            }
        }
        Ok(None)
    }
}

impl Entry<'_> {
    /// Reads the entry as it stands in the pack (type, size and compressed bytes) and appends its content to `content`.
    /// `None` if it does not decompress to its size, or takes more bytes than anybody would write.
    pub fn read(&self, inflate: &mut flate2::Decompress, content: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        // What data takes that does not compress at all: zlib-ng's fastest level has nine bits for a byte.
        let most = self.header + self.size + self.size / 8 + 64;
        let mut bytes = vec![0; most];
        let mut count = 0;
        while count < most {
            match self.pack.read_at(&mut bytes[count..], self.offset + count as u64)? {
                0 => break,
                more => count += more,
            }
        }
        content.clear();
        // One byte more than expected shows that there is too much.
        content.reserve(self.size + 1);
        inflate.reset(true);
        let status = inflate.decompress_vec(&bytes[self.header..count], content, flate2::FlushDecompress::Finish);
        if !matches!(status, Ok(flate2::Status::StreamEnd)) || content.len() != self.size {
            return Ok(None);
        }
        let used = usize::try_from(inflate.total_in()).map_err(io::Error::other)?;
        bytes.truncate(self.header + used);
        bytes.shrink_to_fit();
        Ok(Some(bytes))
    }

    /// The compressed content (and what follows it) as a stream; one at a time, they share their position.
    pub fn stream(&self) -> io::Result<File> {
        let mut file = self.pack.try_clone()?;
        file.seek(SeekFrom::Start(self.offset + self.header as u64))?;
        Ok(file)
    }
}

/// An entry's type, size and length of this header; `None` for a delta.
fn parse_header(bytes: &[u8]) -> Option<(ObjectType, usize, usize)> {
    let first = *bytes.first()?;
    let kind = match (first >> 4) & 7 {
        1 => ObjectType::Commit,
        2 => ObjectType::Tree,
        3 => ObjectType::Blob,
        4 => ObjectType::Tag,
        _ => return None,
    };
    let (mut size, mut shift, mut length) = (usize::from(first & 15), 4, 1);
    let mut more = first & 0x80 != 0;
    while more {
        let byte = *bytes.get(length)?;
        size |= usize::from(byte & 0x7f).checked_shl(shift)?;
        (shift, length, more) = (shift + 7, length + 1, byte & 0x80 != 0);
    }
    Some((kind, size, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_written() {
        for (kind, size) in
            [(ObjectType::Blob, 0), (ObjectType::Tree, 15), (ObjectType::Commit, 16), (ObjectType::Tag, 300_000_000)]
        {
            let mut bytes = Vec::new();
            super::super::pack::push_header(&mut bytes, kind, size);
            assert_eq!(parse_header(&bytes), Some((kind, size, bytes.len())));
            assert_eq!(parse_header(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(parse_header(&[0x60, 0, 0]), None, "a delta");
        assert_eq!(parse_header(&[0xbf; 20]), None, "a size without end");
    }

    #[test]
    fn what_does_not_compress_is_read_at_every_level_that_it_was_written_with() {
        let directory = tempfile::tempdir().unwrap();
        let repository = git2::Repository::init_bare(directory.path().join("git")).unwrap();
        let mut noise = vec![0; 100_000];
        getrandom::fill(&mut noise).unwrap();
        let id = repository.blob(&noise).unwrap();
        for level in [super::super::pack::FAST, 6] {
            let packs = directory.path().join(level.to_string());
            let new = super::super::pack::NewPack { source: repository.path(), directory: &packs, objects: &[id], level };
            new.write(&crate::cancel::Cancel::new(), |_| {}).unwrap();
            let packs = Packs::open(&packs);
            let mut content = Vec::new();
            let read = packs.whole(id).unwrap().unwrap().read(&mut flate2::Decompress::new(true), &mut content).unwrap();
            assert!(read.is_some() && content == noise, "level {level}");
        }
    }
}
