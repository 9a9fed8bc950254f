//! Ways for the fuzz targets (`fuzz/`) to what is private here; compiled with `--cfg fuzzing` alone.

use super::filesystem::Superblock;
use super::{filesystem, mountinfo};

/// What `/proc/self/mountinfo` says.
pub fn mountinfo(text: &[u8]) {
    for mount in mountinfo::parse(text) {
        assert!(mount.point.as_os_str().len() <= text.len());
    }
}

/// The first bytes of a device.
pub fn superblock(head: &[u8]) {
    if let Some(found) = Superblock::parse(head) {
        assert!(found.size_bytes() > 0 && found.free_blocks <= found.blocks);
        assert_eq!(found.uuid.len(), 36);
    }
    filesystem::identify(head, &head[head.len() / 2..], 4 * head.len() as u64);
}
