//! What is on a device. Formatting destroys, so the answer "nothing" is given only for zeros that were really read.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Error, Kind, OrFail, Result};

use super::superblock::{self, Superblock};

/// Every signature that is looked for lies in the first 256 KiB …
const HEAD: usize = 256 << 10;
/// … or in the last 128 KiB.
const TAIL: usize = 128 << 10;

/// A device counts as blank if so much at its beginning …
const BLANK_HEAD: u64 = 4 << 20;
/// … and at its end is zero.
const BLANK_TAIL: u64 = 1 << 20;

/// What a device holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Every read succeeded, and the first 4 MiB and the last 1 MiB are zero.
    Blank,
    /// ext2, ext3 or ext4.
    Ext(Superblock),
    /// Another filesystem, by the name that `mount(2)` knows.
    Mountable(&'static str),
    /// Something that is no filesystem: a partition table, a part of an array, an encrypted volume.
    Foreign(&'static str),
    /// Not blank, and nothing that is known.
    Unknown,
}

/// Looks what is on a device of this size. A read that fails is an error of kind `Device`, never "blank".
pub fn probe(device: &File, size: u64) -> Result<Probe> {
    if size == 0 {
        return Err(Error::new(Kind::Device, "the device has no size yet"));
    }
    let head = read(device, 0, size.min(HEAD as u64))?;
    let tail_length = size.min(TAIL as u64);
    let tail = read(device, size - tail_length, tail_length)?;
    if let Some(found) = identify(&head, &tail, size) {
        return Ok(found);
    }
    let is_zero = |bytes: Vec<u8>| bytes.iter().all(|&byte| byte == 0);
    let (first, last) = (size.min(BLANK_HEAD), size.min(BLANK_TAIL));
    let blank = is_zero(read(device, 0, first)?) && is_zero(read(device, size - last, last)?);
    Ok(if blank { Probe::Blank } else { Probe::Unknown })
}

fn read(device: &File, offset: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).or_fail(Kind::Device, || "too much to read")?];
    device.read_exact_at(&mut bytes, offset).or_fail(Kind::Device, || format!("cannot read the device at {offset}"))?;
    Ok(bytes)
}

/// Bytes that tell what a device holds: which bytes, at which offset, of what.
type Signature = (usize, &'static [u8], &'static str);

/// What claims the whole device from its beginning. None of them survives the making of a filesystem, so they count more.
const CONTAINERS: [Signature; 16] = [
    (0, b"LUKS\xba\xbe", "LUKS encryption"),
    (512, b"EFI PART", "a partition table (GPT)"),
    (4096, b"EFI PART", "a partition table (GPT)"),
    (0, b"LABELONE", "an LVM physical volume"),
    (512, b"LABELONE", "an LVM physical volume"),
    (1024, b"LABELONE", "an LVM physical volume"),
    (1536, b"LABELONE", "an LVM physical volume"),
    (0, &MD_MAGIC, "a member of a RAID array (md)"),
    (4096, &MD_MAGIC, "a member of a RAID array (md)"),
    (4086, b"SWAPSPACE2", "swap space"),
    (4086, b"SWAP-SPACE", "swap space"),
    (8182, b"SWAPSPACE2", "swap space"),
    (16374, b"SWAPSPACE2", "swap space"),
    (32758, b"SWAPSPACE2", "swap space"),
    (65526, b"SWAPSPACE2", "swap space"),
    (4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "bcache"),
];

/// `MD_SB_MAGIC` of `include/uapi/linux/raid/md_p.h`.
const MD_MAGIC: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();

/// Filesystems beside ext4, by the name that `mount(2)` knows.
const FILESYSTEMS: [Signature; 13] = [
    (0, b"XFSB", "xfs"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (0, b"hsqs", "squashfs"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (0x8001, b"CD001", "iso9660"),
    (3, b"EXFAT   ", "exfat"),
    (3, b"NTFS    ", "ntfs3"),
    (82, b"FAT32   ", "vfat"),
    (54, b"FAT16   ", "vfat"),
    (54, b"FAT12   ", "vfat"),
    (0x10034, b"ReIsEr", "reiserfs"),
    (0x8000, b"JFS1", "jfs"),
];

fn first_of(signatures: &[Signature], head: &[u8]) -> Option<&'static str> {
    let matches = |(offset, bytes, _): &&Signature| head.get(*offset..offset + bytes.len()) == Some(bytes);
    signatures.iter().find(matches).map(|(_, _, name)| *name)
}

/// What the first [`HEAD`] and the last [`TAIL`] bytes of a device show; `None`: nothing known.
///
/// Of two claims the one that forbids to write wins: a member of a RAID array looks like the filesystem in it.
pub(in crate::host) fn identify(head: &[u8], tail: &[u8], size: u64) -> Option<Probe> {
    let md_at_end = ends_as_md_member(tail, size).then_some("a member of a RAID array (md)");
    if let Some(what) = first_of(&CONTAINERS, head).or(md_at_end).or_else(|| is_zfs(head).then_some("a ZFS pool")) {
        return Some(Probe::Foreign(what));
    }
    let partitions = has_partitions(head);
    if let Some(superblock) = head.get(superblock::OFFSET..).and_then(Superblock::parse) {
        // A boot loader's sector before the filesystem is harmless, a table with partitions in it is not.
        return Some(if partitions { Probe::Foreign("a partition table (MBR)") } else { Probe::Ext(superblock) });
    }
    if let Some(name) = first_of(&FILESYSTEMS, head) {
        return Some(Probe::Mountable(name));
    }
    if partitions {
        return Some(Probe::Foreign("a partition table (MBR)"));
    }
    // Only the copy at the end is left: a table that was damaged, or overwritten by somebody's filesystem (found above).
    let copy_of_gpt = [512, 4096].into_iter().any(|sector| {
        let start = tail.len().checked_sub(sector);
        start.is_some_and(|start| tail[start..].starts_with(b"EFI PART"))
    });
    copy_of_gpt.then_some(Probe::Foreign("a partition table (GPT)"))
}

/// A master boot record with at least one partition whose entry makes sense.
fn has_partitions(head: &[u8]) -> bool {
    let Some(sector) = head.get(..512) else { return false };
    let sane = |entry: &[u8]| {
        let starts = entry[8..12] != [0; 4] || entry[4] == 0xee;
        matches!(entry[0], 0 | 0x80) && entry[4] != 0 && starts && entry[12..16] != [0; 4]
    };
    sector[510..] == [0x55, 0xaa] && sector[446..510].chunks_exact(16).any(sane)
}

/// The formats 0.90 and 1.0 of md keep their superblock near the end (`md(4)`).
fn ends_as_md_member(tail: &[u8], size: u64) -> bool {
    let version_0_90 = (size & !0xffff).checked_sub(0x1_0000);
    let version_1_0 = (size & !0xfff).checked_sub(0x2000);
    let start_of_tail = size - tail.len() as u64;
    [version_0_90, version_1_0].into_iter().flatten().any(|offset| {
        let start = offset.checked_sub(start_of_tail).and_then(|start| usize::try_from(start).ok());
        start.and_then(|start| tail.get(start..)).is_some_and(|bytes| bytes.starts_with(&MD_MAGIC))
    })
}

/// ZFS keeps a ring of uberblocks, at multiples of 1 KiB from 128 KiB on, of either byte order.
fn is_zfs(head: &[u8]) -> bool {
    const UBERBLOCK: u64 = 0x00ba_b10c;
    let ring = head.get(128 << 10..).unwrap_or_default();
    ring.chunks_exact(1024)
        .any(|block| block.starts_with(&UBERBLOCK.to_le_bytes()) || block.starts_with(&UBERBLOCK.to_be_bytes()))
}

#[cfg(test)]
mod tests;
