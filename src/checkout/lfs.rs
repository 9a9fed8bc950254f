//! git LFS pointers: small text files in the place of large ones. Without LFS a node would get the pointer for the file.

use super::index::Entry;
use crate::error::{Error, Kind};

const VERSION: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
/// A pointer is smaller (the specification's limit).
const LARGEST: u64 = 1024;
/// A pointer without extensions: three lines, with a size of one to twenty digits.
const PLAIN: std::ops::RangeInclusive<u64> = 126..=145;

/// Whether a blob of this size can be a pointer at all; `is_lfs`: the path's attributes say `filter=lfs`.
pub fn may_be_pointer(size: u64, is_lfs: bool) -> bool {
    if is_lfs { (VERSION.len() as u64..LARGEST).contains(&size) } else { PLAIN.contains(&size) }
}

/// Whether a blob is a pointer. Where the attributes do not say so it must look exactly like one.
pub fn is_pointer(blob: &[u8], is_lfs: bool) -> bool {
    let Some(rest) = blob.strip_prefix(VERSION) else { return false };
    is_lfs || is_oid_and_size(rest).unwrap_or(false)
}

fn is_oid_and_size(rest: &[u8]) -> Option<bool> {
    let mut lines = std::str::from_utf8(rest).ok()?.strip_suffix('\n')?.split('\n');
    let oid = lines.next()?.strip_prefix("oid sha256:")?;
    let size = lines.next()?.strip_prefix("size ")?;
    let is_hash = oid.len() == 64 && oid.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some(is_hash && !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit()) && lines.next().is_none())
}

/// The refusal of a commit that has pointers (at least one).
pub fn refusal(pointers: &[&Entry]) -> Error {
    let shown = pointers.iter().take(3).map(|entry| format!("{:?}", String::from_utf8_lossy(&entry.path)));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = if pointers.len() > 3 { ", …" } else { "" };
    let (count, noun) = (pointers.len(), if pointers.len() == 1 { "pointer" } else { "pointers" });
    Error::new(Kind::Git, format!("the commit has {count} git LFS {noun} in place of the files: {shown}{more}"))
        .hint("git LFS is not supported; --allow-lfs-pointers bakes the pointers as they are")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(size: &str) -> String {
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {size}\n", "a1".repeat(32))
    }

    #[test]
    fn pointers_are_known_by_their_form() {
        for size in ["1", "12345678901234567890"] {
            let text = pointer(size);
            assert!(may_be_pointer(text.len() as u64, false) && is_pointer(text.as_bytes(), false));
        }
        for text in [pointer("x"), pointer(""), pointer("1") + "more\n", pointer("1").replace("sha256", "md5"), "version".into()]
        {
            assert!(!is_pointer(text.as_bytes(), false), "{text}");
        }
        assert!(is_pointer((pointer("1") + "x-extension y\n").as_bytes(), true));
        assert!(!may_be_pointer(2000, true));
    }
}
