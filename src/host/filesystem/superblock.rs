//! The superblock of ext2, ext3 and ext4 (`fs/ext4/ext4.h`, `struct ext4_super_block`), as far as it matters here.

use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Error, Kind, OrFail, Result};

/// Where the superblock begins.
pub(super) const OFFSET: usize = 1024;

/// How long it is.
pub(super) const LENGTH: usize = 1024;

const MAGIC: u16 = 0xEF53;

/// `s_state`: the filesystem was unmounted cleanly (without a journal: it is not mounted read-write).
const STATE_VALID: u16 = 1;
/// `s_state`: the kernel found an error.
const STATE_ERROR: u16 = 2;

const COMPAT_HAS_JOURNAL: u32 = 0x4;
/// The journal must be replayed.
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_64BIT: u32 = 0x80;

/// What a superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// The label, invalid UTF-8 replaced.
    pub label: String,
    /// The UUID in its usual form.
    pub uuid: String,
    /// Unmounted cleanly and no error known: may be mounted without a check.
    pub clean: bool,
    /// The kernel found an error at some time since the last check.
    pub has_errors: bool,
    /// Whether there is a journal.
    pub has_journal: bool,
    /// Whether it must be replayed.
    pub needs_recovery: bool,
    /// Read-write mounts since the last check.
    pub mount_count: u16,
    /// The last read-write mount, in seconds since 1970 (the lower 32 bits).
    pub mount_time: u32,
    /// In bytes.
    pub block_size: u32,
    /// The size of the filesystem in blocks.
    pub blocks: u64,
    /// As of the last unmount.
    pub free_blocks: u64,
    /// How many files and directories there can be.
    pub inodes: u32,
    /// As of the last unmount.
    pub free_inodes: u32,
}

impl Superblock {
    /// Reads the superblock of a device, mounted or not. An error of kind `Device` if it cannot be read or is none.
    pub fn read(device: &File) -> Result<Self> {
        let mut bytes = [0; LENGTH];
        device.read_exact_at(&mut bytes, OFFSET as u64).or_fail(Kind::Device, || "cannot read the superblock")?;
        Self::parse(&bytes).ok_or_else(|| Error::new(Kind::Device, "the device has no ext4 filesystem"))
    }

    /// Reads the bytes from [`OFFSET`] on; `None` if they are no superblock or contradict themselves.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes.get(..LENGTH)?);
        if fields.u16(0x38) != MAGIC {
            return None;
        }
        let (log_block_size, state) = (fields.u32(0x18), fields.u16(0x3a));
        let (compat, incompat) = (fields.u32(0x5c), fields.u32(0x60));
        let high = |offset| if incompat & INCOMPAT_64BIT != 0 { u64::from(fields.u32(offset)) << 32 } else { 0 };
        let needs_recovery = incompat & INCOMPAT_RECOVER != 0;
        let has_errors = state & STATE_ERROR != 0;
        let parsed = Superblock {
            label: text(&fields.0[0x78..0x88]),
            uuid: uuid(&fields.0[0x68..0x78]),
            clean: state & STATE_VALID != 0 && !has_errors && !needs_recovery,
            has_errors,
            has_journal: compat & COMPAT_HAS_JOURNAL != 0,
            needs_recovery,
            mount_count: fields.u16(0x34),
            mount_time: fields.u32(0x2c),
            // The kernel knows blocks of up to 64 KiB.
            block_size: if log_block_size <= 6 { 1024 << log_block_size } else { return None },
            blocks: u64::from(fields.u32(0x4)) | high(0x150),
            free_blocks: u64::from(fields.u32(0xc)) | high(0x158),
            inodes: fields.u32(0x0),
            free_inodes: fields.u32(0x10),
        };
        let sound = parsed.blocks > 0 && parsed.free_blocks <= parsed.blocks && parsed.free_inodes <= parsed.inodes;
        (sound && parsed.blocks.checked_mul(parsed.block_size.into()).is_some()).then_some(parsed)
    }

    /// The size of the filesystem.
    pub fn size_bytes(&self) -> u64 {
        self.blocks * u64::from(self.block_size)
    }

    /// Identifies the last read-write mount: another one changes it, a read-only one does not, and neither does an unmount.
    /// A check that repairs something changes it too (it sets the mount count back).
    pub fn stamp(&self) -> String {
        format!("{}:{}:{}", self.uuid, self.mount_count, self.mount_time)
    }
}

/// Little-endian integers at fixed places of a slice of [`LENGTH`] bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.0[offset], self.0[offset + 1]])
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from(self.u16(offset)) | u32::from(self.u16(offset + 2)) << 16
    }
}

/// Text up to the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn uuid(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    /// A superblock of 65,536 blocks of 1 KiB, clean, labelled `chef`.
    pub(in super::super) fn sample() -> Vec<u8> {
        let mut bytes = vec![0; LENGTH];
        let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
        put(0x0, &16384u32.to_le_bytes());
        put(0x4, &65536u32.to_le_bytes());
        put(0xc, &60000u32.to_le_bytes());
        put(0x10, &16000u32.to_le_bytes());
        put(0x2c, &1_700_000_000u32.to_le_bytes());
        put(0x34, &7u16.to_le_bytes());
        put(0x38, &MAGIC.to_le_bytes());
        put(0x3a, &1u16.to_le_bytes());
        put(0x68, &(1..=16).collect::<Vec<u8>>());
        put(0x78, b"chef");
        bytes
    }

    fn with(offset: usize, value: u16) -> Option<Superblock> {
        let mut bytes = sample();
        bytes[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
        Superblock::parse(&bytes)
    }

    #[test]
    fn fields_are_read() {
        let it = Superblock::parse(&sample()).unwrap();
        assert_eq!((it.label.as_str(), it.block_size, it.blocks, it.free_blocks), ("chef", 1024, 65536, 60000));
        assert_eq!(it.size_bytes(), 64 << 20);
        assert_eq!(it.stamp(), "01020304-0506-0708-090a-0b0c0d0e0f10:7:1700000000");
        assert!(it.clean && !it.has_journal && !it.has_errors && !it.needs_recovery);
    }

    #[test]
    fn only_a_clean_filesystem_without_errors_is_clean() {
        assert!(!with(0x3a, 0).unwrap().clean, "mounted, or not unmounted");
        let it = with(0x3a, 3).unwrap();
        assert!(!it.clean && it.has_errors);
        let it = with(0x60, 0x4).unwrap();
        assert!(!it.clean && it.needs_recovery);
        let it = with(0x5c, 0x4).unwrap();
        assert!(it.clean && it.has_journal);
    }

    #[test]
    fn contradictions_are_no_superblock() {
        assert_eq!(with(0x38, 0), None, "magic");
        assert_eq!(with(0x18, 7), None, "block size");
        assert_eq!(with(0x6, 0), None, "no blocks at all");
        assert_eq!(with(0xe, 2), None, "more free blocks than blocks");
        assert_eq!(Superblock::parse(&sample()[..1000]), None, "too short");
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..1100)) {
            let _ = Superblock::parse(&bytes);
            if bytes.len() > 0x40 {
                bytes[0x38..0x3a].copy_from_slice(&MAGIC.to_le_bytes());
                if let Some(parsed) = Superblock::parse(&bytes) {
                    prop_assert!(parsed.size_bytes() > 0 && parsed.stamp().len() > 36);
                }
            }
        }
    }
}
