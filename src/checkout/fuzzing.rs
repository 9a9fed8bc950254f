//! Ways for the fuzz targets (`fuzz/`) to what is private here; compiled with `--cfg fuzzing` alone.

use git2::Oid;
use sha1::{Digest, Sha1};

use super::attributes::Attributes;
use super::index::{Index, is_intact};
use super::{convert, lfs, names, tree};

/// An index without its checksum.
pub fn index(body: &[u8]) {
    let bytes = [body, &Sha1::digest(body)[..]].concat();
    let Some(index) = Index::parse(&bytes, (1, 1)) else { return };
    assert!(is_intact(&bytes));
    let written = Index::serialize(&index.entries, &index.trees);
    let again = Index::parse(&written, (1, 1)).expect("what was written can be read");
    assert_eq!(again.entries, index.entries);
    assert!(index.trees.tree.is_none() || again.trees == index.trees);
    for entry in &index.entries {
        assert_eq!(index.find(&entry.path), Some(entry));
        tree::positions_below(&index.entries, &entry.path);
    }
}

/// Attribute files of the root and of `dir/`, a path that they are asked about, and a blob that is there.
pub fn attributes(root: &[u8], below: &[u8], path: &[u8], blob: &[u8]) {
    let mut attributes = Attributes::default();
    attributes.add(b"", root).and_then(|()| attributes.add(b"dir/", below)).expect("they are small");
    for path in [path, &[b"dir/", path].concat()] {
        let filter = attributes.filter(path);
        assert!(!attributes.are_irrelevant() || filter.is_identity());
        let is_lfs = attributes.is_lfs(path);
        if lfs::is_pointer(blob, is_lfs) && blob.len() < 1024 {
            assert!(lfs::may_be_pointer(blob.len() as u64, is_lfs));
        }
        if let Some(file) = convert::to_file(blob, Oid::ZERO_SHA1, &filter) {
            assert!(file.len() <= 64 + 32 * (blob.len() + 1), "{} bytes of {}", file.len(), blob.len());
            assert!(!filter.is_identity() || *file == *blob);
        }
    }
}

/// A name that somebody put into a tree.
pub fn name(name: &[u8], is_symlink: bool) {
    if names::refusal(name, is_symlink).is_some() {
        return;
    }
    assert!(!name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0));
    let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
    let plain = lower.trim_end_matches([' ', '.']);
    assert!(plain != ".git" && plain != "git~1", "{name:?}");
}
