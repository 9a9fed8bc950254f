//! What is on a device, and making, checking and growing ext4 on it.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;

use crate::cancel::Cancel;
use crate::error::{Error, Kind, OrFail, Result};
use crate::step;

use super::command::Program;
use super::device::Device;
use super::lock::Exclusive;

mod probe;
mod superblock;

#[cfg(fuzzing)]
pub(super) use probe::identify;
pub use probe::{Probe, probe};
pub use superblock::Superblock;

/// The programs that this module runs, for [`super::command::require`].
pub const PROGRAMS: [&str; 3] = ["mkfs.ext4", "e2fsck", "resize2fs"];

/// The longest label that ext4 has room for, in bytes.
const LABEL_BYTES: usize = 16;

/// Every feature by name, since the defaults of `mkfs.ext4` change; any kernel from 4.14 on mounts them. No journal: see
/// `docs/design.md`. `resize_inode` keeps room to grow to the device's size while mounted; room for more would cost a block
/// of the volume with every commit.
const FEATURES: &str = "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,huge_file,large_file,\
                        metadata_csum,resize_inode,sparse_super";

/// A file takes whole blocks, and half of a chef-repo's files are shorter than 1 KiB: with such blocks a node reads about
/// half as many blocks of the volume as with 4 KiB (`docs/performance.md`).
const BLOCK_BYTES: u64 = 1024;

/// One inode for so many bytes: what small files need. The kernel makes no new inodes but by growing.
const BYTES_PER_INODE: u64 = 4096;

/// The size of a filesystem for this many bytes of content: a fourth more for metadata and growth, in steps of
/// [`GROWTH_STEP`], and no less than [`INITIAL_BYTES`].
pub fn size_for(content: u64) -> u64 {
    let wanted = content.saturating_add(content / 4).saturating_add(GROWTH_STEP / 2);
    wanted.max(INITIAL_BYTES).next_multiple_of(GROWTH_STEP)
}

/// The smallest filesystem. A chef-repo fits, and a small filesystem keeps what later
/// commits write near the rest: after 20 commits a node reads 1.4 times as many blocks of one of 128 MiB.
const INITIAL_BYTES: u64 = 64 << 20;

/// Filesystems grow by multiples of this: one of a few MiB would grow with every other commit.
const GROWTH_STEP: u64 = 32 << 20;

/// Makes an ext4 filesystem of `size_bytes` (rounded down to whole blocks; smaller than the device, to be grown when it
/// fills) on the device, which must be blank. A label of more than 16 bytes is cut.
pub fn make(device: &Device, label: &str, size_bytes: u64, cancel: &Cancel) -> Result<()> {
    if size_bytes > device.size_bytes {
        return Err(too_small(device, size_bytes));
    }
    let node = device.node()?;
    // More than the size, or mkfs refuses; block numbers have 32 bits.
    let growable_to = (device.size_bytes.max(size_bytes.saturating_mul(2)) / BLOCK_BYTES).min(u32::MAX.into());
    Program::new("mkfs.ext4")
        // The host's own mke2fs.conf shall not change what we make. Without one mkfs knows no type "ext4"; the features make it.
        .env("MKE2FS_CONFIG", "/dev/null")
        .args(["-q", "-t", "ext2", "-O", FEATURES, "-I", "256", "-m", "0", "-e", "remount-ro"])
        .args(["-b".to_owned(), BLOCK_BYTES.to_string(), "-i".to_owned(), BYTES_PER_INODE.to_string()])
        .args(["-E".to_owned(), format!("lazy_itable_init=1,nodiscard,resize={growable_to}")])
        .args(["-L", label_of(label)])
        .arg(node.path())
        .arg(format!("{}k", size_bytes / 1024))
        .run_ok(cancel)
        .map(drop)
}

fn too_small(device: &Device, size_bytes: u64) -> Error {
    let message = format!("{} holds {} bytes, {size_bytes} are needed", device.name, device.size_bytes);
    Error::new(Kind::Device, message).hint("make the volume larger with --volume-size")
}

/// As much of the name as a label can hold, whole characters.
fn label_of(name: &str) -> &str {
    &name[..name.floor_char_boundary(LABEL_BYTES)]
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// Nothing to do.
    Clean,
    /// Errors, all of which were repaired.
    Repaired,
    /// Errors that cannot be repaired without deciding what to lose; the last lines of what `e2fsck` said.
    Broken(String),
}

/// Checks an ext4 filesystem that is not mounted, and repairs what can be repaired without asking (`e2fsck -p`).
pub fn check(device: &Device, cancel: &Cancel) -> Result<Checked> {
    let node = device.node()?;
    let output = Program::new("e2fsck").arg("-p").arg(node.path()).run(cancel)?;
    let checked = judge(output.code, &output.tail)?;
    if matches!(checked, Checked::Broken(_)) {
        // e2fsck does not say apart "no usable superblock" and "in use by another".
        drop(Exclusive::open(device)?);
    }
    Ok(checked)
}

/// The exit code of `e2fsck(8)` is a sum: 1 errors corrected, 2 reboot needed, 4 errors left, 8 operational error (also: no
/// usable superblock), 16 usage, 32 cancelled, 128 library error.
fn judge(code: i32, tail: &str) -> Result<Checked> {
    match code {
        0 => Ok(Checked::Clean),
        1..=3 => Ok(Checked::Repaired),
        4..=15 => Ok(Checked::Broken(tail.to_owned())),
        _ => Err(Error::new(Kind::Device, format!("e2fsck failed with exit code {code}")).because(tail)),
    }
}

/// Whether the filesystem to grow is mounted.
#[derive(Debug, Clone, Copy)]
pub enum State<'a> {
    /// At this place, read-write.
    Mounted(&'a Path),
    /// Nowhere, and unmounted cleanly.
    Unmounted,
}

/// What became of an attempt to grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// It has the size now.
    Grown,
    /// It had that size or a larger one.
    Unchanged,
    /// Growing a mounted filesystem needs CAP_SYS_RESOURCE, which is missing: unmount it and try again.
    NeedsUnmount,
}

/// Grows an ext4 filesystem to `to_bytes` (rounded down to whole blocks). The device must be that large already.
///
/// Unmounted, it must be clean, which takes the place of the full check that `resize2fs` asks for otherwise.
pub fn grow(device: &Device, state: State<'_>, to_bytes: u64, cancel: &Cancel) -> Result<Growth> {
    if to_bytes > device.size_bytes {
        return Err(too_small(device, to_bytes));
    }
    let node = device.node()?;
    let superblock = Superblock::read(&node.open(false)?)?;
    let block = u64::from(superblock.block_size);
    if to_bytes / block <= superblock.blocks {
        return Ok(Growth::Unchanged);
    }
    match state {
        State::Mounted(path) => grow_mounted(path, to_bytes / block),
        State::Unmounted if !superblock.clean => {
            Err(Error::new(Kind::Device, format!("the filesystem on {} must be checked before it can grow", device.name)))
        }
        State::Unmounted => {
            // -f: without it any filesystem that was mounted since its last full check is refused.
            let size: OsString = format!("{}k", to_bytes / block * block / 1024).into();
            Program::new("resize2fs").arg("-f").arg(node.path()).arg(size).run_ok(cancel)?;
            Ok(Growth::Grown)
        }
    }
}

nix::ioctl_write_ptr!(
    /// `EXT4_IOC_RESIZE_FS` of `include/uapi/linux/ext4.h`; takes the new number of blocks.
    ext4_resize_fs,
    b'f',
    16,
    u64
);

fn grow_mounted(path: &Path, blocks: u64) -> Result<Growth> {
    let failed = || format!("cannot grow the filesystem at {}", path.display());
    let root = File::open(path).or_fail(Kind::Device, failed)?;
    // SAFETY: the kernel reads one u64 there.
    let grow = || unsafe { ext4_resize_fs(root.as_raw_fd(), &raw const blocks) };
    match step::around("growing the mounted filesystem", grow) {
        Ok(_) => Ok(Growth::Grown),
        Err(Errno::EPERM) => Ok(Growth::NeedsUnmount),
        // Outside of what this kernel grows while mounted.
        Err(Errno::EOPNOTSUPP | Errno::ENOTTY) => Ok(Growth::NeedsUnmount),
        Err(errno) => Err(Error::new(Kind::Device, failed()).because(errno)),
    }
}

/// What a mounted filesystem holds and has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All bytes for files and directories.
    pub bytes: u64,
    /// Those that are not taken.
    pub free_bytes: u64,
    /// How many files and directories there can be.
    pub inodes: u64,
    /// How many more there can be.
    pub free_inodes: u64,
}

impl Space {
    /// By how many bytes the filesystem must grow to take so many more bytes and inodes; zero: it has room. Something is
    /// added for the filesystem's own needs and so that the next commit does not make it grow again.
    pub fn shortfall(&self, bytes: u64, inodes: u64) -> u64 {
        // New space brings inodes in the proportion that the filesystem was made with.
        let bytes_per_inode = self.bytes / self.inodes.max(1);
        let for_inodes = inodes.saturating_sub(self.free_inodes).saturating_mul(bytes_per_inode);
        let missing = bytes.saturating_sub(self.free_bytes).max(for_inodes);
        if missing == 0 {
            return 0;
        }
        (missing / 4).saturating_mul(5).saturating_add(GROWTH_STEP).next_multiple_of(GROWTH_STEP)
    }
}

/// The space of the filesystem mounted at a path (`statvfs(3)`).
pub fn space(path: &Path) -> Result<Space> {
    let it = nix::sys::statvfs::statvfs(path).or_fail(Kind::Device, || format!("cannot examine {}", path.display()))?;
    let unit = it.fragment_size();
    Ok(Space {
        bytes: it.blocks() * unit,
        free_bytes: it.blocks_available() * unit,
        inodes: it.files(),
        free_inodes: it.files_available(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_cut_at_a_character() {
        assert_eq!(label_of("chef"), "chef");
        assert_eq!(label_of("a-very-long-volume-name"), "a-very-long-volu");
        assert_eq!(label_of("fünfzehn-bytes-é"), "fünfzehn-bytes-");
    }

    #[test]
    fn growing_makes_room_for_bytes_and_for_inodes() {
        let mib = 1 << 20;
        let space = Space { bytes: 64 * mib, free_bytes: 10 * mib, inodes: 16384, free_inodes: 100 };
        assert_eq!(space.shortfall(10 * mib, 100), 0);
        assert_eq!(space.shortfall(10 * mib + 1, 0), 32 * mib);
        assert_eq!(space.shortfall(110 * mib, 0), 160 * mib);
        assert_eq!(space.shortfall(0, 101), 64 * mib);
        assert_eq!(space.shortfall(0, 25_700), 160 * mib, "25,600 inodes at 4 KiB are 100 MiB");
    }

    #[test]
    fn every_exit_code_of_e2fsck_is_understood() {
        assert_eq!(judge(0, "").unwrap(), Checked::Clean);
        for repaired in [1, 2, 3] {
            assert_eq!(judge(repaired, "").unwrap(), Checked::Repaired);
        }
        for broken in [4, 5, 8, 12] {
            assert_eq!(judge(broken, "why").unwrap(), Checked::Broken("why".into()));
        }
        for failed in [16, 32, 128] {
            assert_eq!(judge(failed, "why").unwrap_err().causes(), ["why"]);
        }
    }
}
