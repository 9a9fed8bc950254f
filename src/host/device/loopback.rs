//! Loop devices: which file is behind one.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::stat::makedev;

use crate::error::{Error, Kind, Result};

use super::Device;

/// `LOOP_GET_STATUS64` of `include/uapi/linux/loop.h`: an ioctl older than the scheme of numbering them.
const LOOP_GET_STATUS64: u16 = 0x4C05;

/// `struct loop_info64` of `include/uapi/linux/loop.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Info {
    /// The filesystem that the backing file is on, in the kernel's coding.
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    /// `LO_FLAGS_…`.
    pub flags: u32,
    /// `lo_file_name`, `lo_crypt_name` and `lo_encrypt_key`: 64 + 64 + 32 bytes.
    names: [u64; 20],
    init: [u64; 2],
}

const _: () = assert!(size_of::<Info>() == 232);

impl Info {
    /// What backs the device: `st_dev` and `st_ino` of the file.
    pub fn backing(&self) -> (u64, u64) {
        let (major, minor) = decode(self.device);
        (makedev(major, minor), self.inode)
    }
}

nix::ioctl_read_bad!(loop_get_status64, LOOP_GET_STATUS64, Info);

/// What an open loop device is. `ENXIO`: nothing backs it (any more).
pub(crate) fn status(device: &File) -> nix::Result<Info> {
    let mut info = Info::default();
    // SAFETY: the kernel writes one `struct loop_info64` there, which is what `Info` is laid out as.
    unsafe { loop_get_status64(device.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

/// Whether the loop device's backing file is this inode (`st_ino`) of this filesystem (`st_dev`).
pub(super) fn is_backed_by(device: &Device, filesystem: u64, inode: u64) -> Result<bool> {
    let node = device.node()?;
    let file = match node.open_as(std::fs::OpenOptions::new().read(true)) {
        Ok(file) => file,
        // It was detached just now.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(false),
        Err(error) => return Err(unreadable(device).because(error)),
    };
    match status(&file) {
        Ok(info) => Ok(info.backing() == (filesystem, inode)),
        Err(Errno::ENXIO) => Ok(false),
        Err(errno) => Err(unreadable(device).because(errno)),
    }
}

fn unreadable(device: &Device) -> Error {
    Error::new(Kind::Device, format!("cannot tell which file is behind {}", device.name))
}

/// Major and minor number from the kernel's own coding (`new_encode_dev` in `include/linux/kdev_t.h`), which is not bound to
/// be the C library's: eight low bits of minor, twelve bits of major, the rest of minor.
fn decode(device: u64) -> (u64, u64) {
    ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_device_numbers_are_decoded() {
        // As new_encode_dev computes them: (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12).
        for (major, minor) in [(0, 0), (0, 45), (254, 0), (259, 7), (8, 255), (8, 256), (4095, 0xfffff), (259, 70_000)] {
            let encoded = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
            assert_eq!(decode(encoded), (major, minor));
        }
        assert_eq!(decode(0x0010_0800), (8, 256));
    }
}
