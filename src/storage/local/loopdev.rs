//! Loop devices, as far as the store needs them: a thin layer over the ioctls of `include/uapi/linux/loop.h`.
//!
//! Two facts of the kernel (`drivers/block/loop.c`) carry the store's crash safety:
//! * a device configured with `LO_FLAGS_AUTOCLEAR` lets go of its backing file when its last opener closes it, so
//!   whatever kills a process also releases its devices;
//! * `LOOP_GET_STATUS64` tells device and inode number of the backing file, so what is attached is never guessed by path.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::host::device::loopback::{self, Info};
use crate::storage::VolumeId;

/// The name of every backing file of ours. It is in a directory named by its volume's ID.
pub(super) const BACKING_NAME: &str = "image";

/// What a process needs that cannot attach a loop device: a hint.
pub(super) const MAY_ATTACH: &str = "run as root; a container needs --cap-add SYS_ADMIN --cap-add MKNOD \
     --device-cgroup-rule 'b 7:* rwm' --device-cgroup-rule 'c 10:237 rwm'; a host needs the module loop";

/// `LO_FLAGS_AUTOCLEAR` of loop.h.
const AUTOCLEAR: u32 = 4;
/// How often another process may take the free device before us. Each loss means that somebody else went ahead.
const ATTEMPTS: u32 = 100;

/// `struct loop_config` of loop.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Config>() == 304);

mod ioctl {
    //! The numbers are those of loop.h; they predate the `_IO` macros, hence the `_bad` variants.
    nix::ioctl_write_int_bad!(clear, 0x4C01); // LOOP_CLR_FD
    nix::ioctl_write_ptr_bad!(set_status, 0x4C04, super::Info); // LOOP_SET_STATUS64
    nix::ioctl_write_int_bad!(set_capacity, 0x4C07); // LOOP_SET_CAPACITY
    nix::ioctl_write_ptr_bad!(configure, 0x4C0A, super::Config); // LOOP_CONFIGURE, since Linux 5.8
    nix::ioctl_none_bad!(get_free, 0x4C82); // LOOP_CTL_GET_FREE
}

/// Which file a device is backed by: `st_dev` and `st_ino`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub device: u64,
    pub inode: u64,
}

impl Identity {
    /// The identity of the file that this metadata is of.
    pub fn of(metadata: &fs::Metadata) -> Self {
        Identity { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// An open loop device. While it is open, autoclear does not strike.
#[derive(Debug)]
pub(super) struct LoopDevice {
    number: u32,
    file: File,
}

impl LoopDevice {
    /// Its number: 3 for `/dev/loop3`.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The path under which the host's `/dev` has it, whether or not this process sees that `/dev`.
    pub fn path(&self) -> String {
        format!("/dev/loop{}", self.number)
    }

    /// What backs it; `None` when nothing does (any more).
    pub fn backing(&self) -> io::Result<Option<Identity>> {
        match self.info() {
            Ok(info) => {
                let (device, inode) = info.backing();
                Ok(Some(Identity { device, inode }))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the device outlive its openers, until [`clear`](Self::clear).
    pub fn persist(&self) -> io::Result<()> {
        let mut info = self.info()?;
        info.flags &= !AUTOCLEAR;
        // SAFETY: `info` is a valid `loop_info64` that the kernel only reads.
        unsafe { ioctl::set_status(self.fd(), &info) }?;
        Ok(())
    }

    /// Lets go of the backing file: at the last close, when others have the device open too.
    pub fn clear(&self) -> io::Result<()> {
        // SAFETY: this ioctl takes no argument.
        match unsafe { ioctl::clear(self.fd(), 0) } {
            Ok(_) | Err(Errno::ENXIO) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes the device as large as its backing file has become: `len` bytes.
    pub fn resize(&self, len: u64) -> io::Result<()> {
        if (&self.file).seek(SeekFrom::End(0))? == len {
            return Ok(());
        }
        // SAFETY: this ioctl takes no argument.
        unsafe { ioctl::set_capacity(self.fd(), 0) }?;
        Ok(())
    }

    /// Writes what the kernel caches for the device to the backing file, and that to its disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// The same device opened once more, exclusively: `EBUSY` while it is mounted or otherwise claimed.
    pub fn open_exclusively(&self, scratch: &Path) -> io::Result<LoopDevice> {
        open(self.number, libc::O_EXCL, false, scratch)
    }

    fn info(&self) -> io::Result<Info> {
        Ok(loopback::status(&self.file)?)
    }

    fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// The loop devices on images of the volumes that are `wanted`, with those images' identities.
///
/// Whoever has a device open, be it for a moment, delays its release. So the path of the backing file is used to leave
/// other stores' devices alone; whether one is ours is for its identity to decide.
pub(super) fn attached(wanted: impl Fn(&VolumeId) -> bool, scratch: &Path) -> io::Result<Vec<(LoopDevice, Identity)>> {
    let mut found = Vec::new();
    for number in numbers()? {
        if !backing_file(number).and_then(|path| volume_of(&path)).is_some_and(|id| wanted(&id)) {
            continue;
        }
        let device = match open(number, 0, false, scratch) {
            Ok(device) => device,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(named(number, error)),
        };
        if let Some(identity) = device.backing()? {
            found.push((device, identity));
        }
    }
    Ok(found)
}

/// The loop device on the image of a volume.
pub(super) fn find(id: &VolumeId, image: Identity, scratch: &Path) -> io::Result<Option<LoopDevice>> {
    Ok(attached(|other| other == id, scratch)?.into_iter().find(|(_, identity)| *identity == image).map(|(device, _)| device))
}

/// Whether the kernel has let go of `backing` on the loop device with this number.
pub(super) fn is_released(number: u32, backing: Identity, scratch: &Path) -> io::Result<bool> {
    if backing_file(number).is_none() {
        return Ok(true);
    }
    match open(number, 0, false, scratch) {
        Ok(device) => Ok(device.backing()?.is_some_and(|now| now != backing)),
        // Being torn down: sysfs tells when that is done.
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Backs a free loop device by `image`: buffered, 512-byte sectors, released by the kernel when the result is closed.
///
/// `scratch` is a directory for a private device node, where `/dev` has none.
pub(super) fn attach(image: &File, scratch: &Path) -> io::Result<LoopDevice> {
    let control = open_control(scratch)?;
    let fd = u32::try_from(image.as_raw_fd()).map_err(io::Error::other)?;
    let mut info = Info::default();
    info.flags = AUTOCLEAR;
    let config = Config { fd, block_size: 512, info, ..Config::default() };
    for attempt in 0..ATTEMPTS {
        // SAFETY: this ioctl takes no argument.
        let number = unsafe { ioctl::get_free(control.as_raw_fd()) }?.cast_unsigned();
        let configured = open(number, 0, true, scratch).and_then(|device| {
            // SAFETY: `config` is a valid `loop_config` that the kernel only reads; its file is open during the call.
            unsafe { ioctl::configure(device.fd(), &config) }?;
            Ok(device)
        });
        match configured {
            // A reader is all it takes to hold a device; a writer would keep kernels built without
            // BLK_DEV_WRITE_MOUNTED from mounting it.
            Ok(_writer) => return open(number, 0, false, scratch),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) || is_gone(&error) => {
                std::thread::sleep(Duration::from_millis(u64::from(attempt.min(10))));
            }
            Err(error) => return Err(named(number, error)),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "other processes take every free loop device first"))
}

/// A free loop device, which the kernel makes if there is none. Nothing is attached to it; whether it can be opened is tried.
pub(super) fn free(scratch: &Path) -> io::Result<u32> {
    let control = open_control(scratch)?;
    // SAFETY: this ioctl takes no argument.
    let number = unsafe { ioctl::get_free(control.as_raw_fd()) }?.cast_unsigned();
    match open(number, 0, false, scratch) {
        Err(error) if !is_gone(&error) => Err(named(number, error)),
        _ => Ok(number),
    }
}

/// The numbers of all loop devices, in order.
fn numbers() -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_prefix("loop")?.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The path of what backs a device, as the kernel shows it; `None` when nothing does.
fn backing_file(number: u32) -> Option<PathBuf> {
    let shown = fs::read(format!("/sys/block/loop{number}/loop/backing_file")).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(shown.trim_ascii_end())))
}

/// The volume whose image this path seems to be.
fn volume_of(path: &Path) -> Option<VolumeId> {
    let name = path.file_name()?.as_bytes();
    let is_image = name.strip_suffix(b" (deleted)").unwrap_or(name) == BACKING_NAME.as_bytes();
    path.parent()?.file_name()?.to_str().filter(|_| is_image)?.parse().ok()
}

/// Whether an error of opening a device says that it went away under our hands.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV | libc::ENOENT))
}

fn named(number: u32, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("/dev/loop{number}: {error}"))
}

fn open(number: u32, flags: i32, write: bool, scratch: &Path) -> io::Result<LoopDevice> {
    let rdev = device_number(&format!("/sys/block/loop{number}/dev"))?;
    let file = open_node(&format!("/dev/loop{number}"), SFlag::S_IFBLK, rdev, flags, write, scratch)?;
    Ok(LoopDevice { number, file })
}

fn open_control(scratch: &Path) -> io::Result<File> {
    // Fixed numbers (LOOP_CTRL_MINOR of include/linux/miscdevice.h): opening the node is what loads the module.
    open_node("/dev/loop-control", SFlag::S_IFCHR, makedev(10, 237), 0, true, scratch)
}

/// `major:minor` of a sysfs file.
fn device_number(path: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let numbers = text.trim().split_once(':').and_then(|(a, b)| Some(makedev(a.parse().ok()?, b.parse().ok()?)));
    numbers.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path} holds {text:?}")))
}

/// Opens the device `rdev`: by its name in `/dev` if that is this device, else (in a container, whose `/dev` does not
/// follow the kernel's devices) by a private node that exists for a moment.
fn open_node(path: &str, kind: SFlag, rdev: u64, flags: i32, write: bool, scratch: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(flags | libc::O_NONBLOCK);
    let known = fs::metadata(path).is_ok_and(|node| {
        let same_kind =
            if kind == SFlag::S_IFBLK { node.file_type().is_block_device() } else { node.file_type().is_char_device() };
        same_kind && node.rdev() == rdev
    });
    if known {
        return options.open(path);
    }
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    // A filesystem mounted `nodev` refuses nodes; a container's /dev never is.
    for place in [scratch, Path::new("/dev")] {
        let opened = tempfile::Builder::new().prefix(".ebs-bake-node-").tempdir_in(place).and_then(|dir| {
            let node = dir.path().join("node");
            mknod(&node, kind, Mode::S_IRUSR | Mode::S_IWUSR, rdev)?;
            options.open(&node)
        });
        match opened {
            Ok(file) => return Ok(file),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENXIO)) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backing_file_of_ours_is_known_by_its_last_names() {
        for (path, volume) in [
            ("/s/volumes/vol-0123456789abcdef0/image", Some("vol-0123456789abcdef0")),
            ("/vol-0123456789abcdef0/image (deleted)", Some("vol-0123456789abcdef0")),
            ("/s/volumes/vol-0123456789abcdef0/volume.json", None),
            ("/s/snapshots/snap-0123456789abcdef0/image", None),
            ("/var/lib/snapd/snaps/core.snap", None),
            ("/image", None),
            ("/", None),
        ] {
            assert_eq!(volume_of(Path::new(path)), volume.map(|id| id.parse().unwrap()), "{path}");
        }
    }
}
