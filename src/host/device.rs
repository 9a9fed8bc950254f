//! The kernel's block devices, found by what they are and never by name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};

use crate::error::{Error, Kind, OrFail, Result};
use crate::step;

mod ebs;
pub(crate) mod loopback;

/// The variable that puts another tree in the place of `/sys`: for tests with stand-ins of hardware.
pub const SYSFS_VARIABLE: &str = "EBS_BAKE_SYSFS_ROOT";

/// What identifies a block device beyond doubt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Locator {
    /// The loop device with this backing file.
    LoopBacking {
        /// The filesystem that the file is on (`st_dev`).
        device: u64,
        /// The file (`st_ino`).
        inode: u64,
    },
    /// The EBS volume that the hypervisor shows as an NVMe device with this serial number, or as a Xen disk of this name.
    Ebs {
        /// The volume's ID without its dash: `vol0123456789abcdef0`.
        serial: String,
        /// What EC2 was told on attaching: `/dev/sdk`. Xen knows nothing else of a volume.
        name: String,
    },
}

/// A block device of the running kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The kernel's name for it: `loop3`, `nvme2n1`.
    pub name: String,
    /// The major number: the driver.
    pub major: u32,
    /// The minor number: which of the driver's devices.
    pub minor: u32,
    /// Its size; never zero.
    pub size_bytes: u64,
    /// The kernel's number of this very attachment, which no other ever has (`diskseq` in Linux' `ABI/stable/sysfs-block`);
    /// `None` before Linux 5.15.
    pub sequence: Option<u64>,
}

/// Finds devices in a sysfs tree.
#[derive(Debug, Clone)]
pub struct SysFs {
    root: PathBuf,
}

impl SysFs {
    /// `root` is `/sys` but for tests.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        SysFs { root: root.into() }
    }

    /// The tree of this host.
    pub fn of_host() -> Self {
        Self::new(std::env::var_os(SYSFS_VARIABLE).unwrap_or_else(|| "/sys".into()))
    }

    /// The one device that `locator` names; `None` while there is none, or while its size is zero. Two are an error, and so
    /// is none if some device that might be it could not be examined.
    pub fn find(&self, locator: &Locator) -> Result<Option<Device>> {
        let directory = self.root.join("block");
        let entries = fs::read_dir(&directory).or_fail(Kind::Device, || format!("cannot read {}", directory.display()))?;
        let mut found: Option<Device> = None;
        let mut unknown: Option<Error> = None;
        for entry in entries {
            let entry = entry.or_fail(Kind::Device, || format!("cannot read {}", directory.display()))?;
            match examine(&entry.path(), locator) {
                Ok(None) => {}
                Ok(Some(device)) => match found {
                    None => found = Some(device),
                    Some(other) => return Err(two_matches(&other, &device)),
                },
                Err(error) => unknown = Some(error),
            }
        }
        match (found, unknown) {
            (None, Some(error)) => Err(error),
            (found, _) => Ok(found.filter(|device| device.size_bytes > 0)),
        }
    }

    /// An EBS volume of this host, whichever: for trying what may be done with one.
    pub fn any_ebs(&self) -> Option<Device> {
        let entries = fs::read_dir(self.root.join("block")).ok()?.flatten();
        let found = entries.map(|entry| entry.path()).filter(|path| ebs::is_ebs(path));
        found.filter_map(|path| read_device(&path).ok().flatten()).find(|device| device.size_bytes > 0)
    }

    /// Whether `device` still is what `locator` names; an error if another device is, or none. Its size may have changed.
    pub fn verify(&self, device: &Device, locator: &Locator) -> Result<()> {
        let now = self.find(locator)?;
        if now.as_ref().is_some_and(|now| now.is(device)) {
            return Ok(());
        }
        let now = match now {
            None => "is attached no more".to_owned(),
            Some(now) if now.name == device.name => "was attached anew".to_owned(),
            Some(now) => format!("now is {}", now.name),
        };
        Err(Error::new(Kind::Device, format!("the volume that was device {} {now}", device.name))
            .hint("something else attached or detached it during the run; run again"))
    }
}

fn two_matches(one: &Device, other: &Device) -> Error {
    Error::new(Kind::Device, format!("{} and {} both are the volume", one.name, other.name))
        .hint("detach one of them; writing through both would destroy the filesystem")
}

/// The device in this sysfs directory, if it is the one; its size may be zero.
fn examine(directory: &Path, locator: &Locator) -> Result<Option<Device>> {
    let matches = match locator {
        // The group of attributes is there while the device has a backing file.
        Locator::LoopBacking { .. } => directory.join("loop").is_dir(),
        Locator::Ebs { serial, name } => ebs::is_volume(directory, serial, name)?,
    };
    if !matches {
        return Ok(None);
    }
    let Some(device) = read_device(directory).or_fail(Kind::Device, || format!("cannot read {}", directory.display()))? else {
        return Ok(None);
    };
    let same = match *locator {
        Locator::LoopBacking { device: filesystem, inode } => loopback::is_backed_by(&device, filesystem, inode)?,
        Locator::Ebs { .. } => true,
    };
    Ok(same.then_some(device))
}

/// Name, numbers and size from a directory of `/sys/block`; `None` if the device is just going away.
fn read_device(directory: &Path) -> io::Result<Option<Device>> {
    let read = |attribute: &str| match fs::read_to_string(directory.join(attribute)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) || error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    };
    let (Some(numbers), Some(size)) = (read("dev")?, read("size")?) else { return Ok(None) };
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut device = parse_device(name, &numbers, &size).ok_or(ErrorKind::InvalidData)?;
    device.sequence = read("diskseq")?.and_then(|number| number.trim().parse().ok());
    Ok(Some(device))
}

/// `dev` is `major:minor`, `size` counts sectors of 512 bytes whatever the device's own sector size is.
fn parse_device(name: String, dev: &str, size: &str) -> Option<Device> {
    let (major, minor) = dev.trim().split_once(':')?;
    let size_bytes = size.trim().parse::<u64>().ok()?.checked_mul(512)?;
    Some(Device { name, major: major.parse().ok()?, minor: minor.parse().ok()?, size_bytes, sequence: None })
}

impl Device {
    /// Whether it is the same device, and has been all the time. Its size may have changed.
    fn is(&self, other: &Device) -> bool {
        let identity = |device: &Device| (device.name.clone(), device.number(), device.sequence);
        identity(self) == identity(other)
    }

    /// The device number as `st_rdev` has it.
    pub fn number(&self) -> u64 {
        makedev(self.major.into(), self.minor.into())
    }

    /// Where `/dev` has its node, if it has: the kernel writes `!` for a `/` in the name.
    fn usual_path(&self) -> PathBuf {
        Path::new("/dev").join(self.name.replace('!', "/"))
    }

    /// A node to open and to mount: the one in `/dev` if it is this device, else a private one (a container's `/dev` lacks
    /// devices that were attached after its start, moby#16160).
    pub fn node(&self) -> Result<Node> {
        let node = Node::at(self.usual_path(), self);
        if node.is_right() {
            return Ok(node);
        }
        self.private_node()
    }

    /// What a process needs that may not open the device: a hint.
    pub(super) fn may_open(&self) -> String {
        format!("run as root; a container needs --cap-add MKNOD --device-cgroup-rule 'b {}:* rwm'", self.major)
    }

    /// Whether a node of this device can be made and opened, as a container needs it whose `/dev` lacks the device.
    ///
    /// # Errors
    /// `Device`, with a hint.
    pub fn probe_private_node(&self) -> Result<()> {
        self.private_node().map(drop)
    }

    /// A node in a directory that only this process uses and that goes with the value.
    fn private_node(&self) -> Result<Node> {
        let mut failure = None;
        // A filesystem mounted with `nodev` serves no devices: /tmp often is, a container's /dev never.
        for parent in [Path::new("/dev"), &std::env::temp_dir(), Path::new("/var/tmp")] {
            match self.private_node_in(parent) {
                Ok(node) => return Ok(node),
                Err(error) => failure = Some(error),
            }
        }
        let message = format!("no node for the block device {} ({}:{})", self.name, self.major, self.minor);
        let error = Error::new(Kind::Device, message).hint(self.may_open());
        Err(failure.into_iter().fold(error, Error::because))
    }

    fn private_node_in(&self, parent: &Path) -> io::Result<Node> {
        let directory = tempfile::Builder::new().prefix("ebs-bake-").tempdir_in(parent)?;
        let path = directory.path().join(self.name.replace('!', "_"));
        let make = || mknod(&path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, self.number());
        step::around("making a device node", make)?;
        let node = Node { path, number: self.number(), _private: Some(directory) };
        node.open_as(OpenOptions::new().read(true))?;
        Ok(node)
    }
}

/// A device node; a private one is removed with the value.
#[derive(Debug)]
pub struct Node {
    path: PathBuf,
    number: u64,
    _private: Option<tempfile::TempDir>,
}

impl Node {
    /// A node that somebody else keeps at this path; whether it is the right one shows when it is opened.
    pub(super) fn at(path: PathBuf, device: &Device) -> Self {
        Node { path, number: device.number(), _private: None }
    }

    /// For programs and for `mount(2)`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the device for reading and, if `write`, for writing.
    pub fn open(&self, write: bool) -> Result<File> {
        self.open_as(OpenOptions::new().read(true).write(write))
            .or_fail(Kind::Device, || format!("cannot open {}", self.path.display()))
    }

    /// Opens the device with these options, and makes sure that what was opened is the device.
    pub(super) fn open_as(&self, options: &mut OpenOptions) -> io::Result<File> {
        let file = options.open(&self.path)?;
        let metadata = file.metadata()?;
        if metadata.file_type().is_block_device() && metadata.rdev() == self.number {
            return Ok(file);
        }
        let wanted = format!("{}:{}", major(self.number), minor(self.number));
        Err(io::Error::other(format!("{} is not the block device {wanted}", self.path.display())))
    }

    /// Opens the device so that nothing else in the kernel may have claimed it, or fails with `EBUSY`; it stays claimed while
    /// the file is open.
    pub(super) fn open_exclusively(&self) -> io::Result<File> {
        self.open_as(OpenOptions::new().read(true).custom_flags(libc::O_EXCL))
    }

    fn is_right(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|it| it.file_type().is_block_device() && it.rdev() == self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_size_are_parsed_or_refused() {
        let device = parse_device("loop3".into(), "7:259\n", "131072\n").unwrap();
        assert_eq!(device, Device { name: "loop3".into(), major: 7, minor: 259, size_bytes: 64 << 20, sequence: None });
        assert_eq!((major(device.number()), minor(device.number())), (7, 259));
        for (dev, size) in [("7", "1"), ("7:x", "1"), ("-7:1", "1"), ("7:1", ""), ("7:1", "99999999999999999999")] {
            assert_eq!(parse_device("loop3".into(), dev, size), None, "{dev} {size}");
        }
        assert_eq!(parse_device("loop3".into(), "7:1", "36028797018963968"), None, "bytes do not fit");
    }

    #[test]
    fn devices_without_a_backing_file_are_not_examined() {
        let sys = tempfile::tempdir().unwrap();
        fs::create_dir_all(sys.path().join("block/loop0")).unwrap();
        fs::create_dir_all(sys.path().join("block/sda")).unwrap();
        let locator = Locator::LoopBacking { device: 1, inode: 2 };
        assert_eq!(SysFs::new(sys.path()).find(&locator).unwrap(), None);
        assert_eq!(SysFs::new(sys.path().join("no")).find(&locator).unwrap_err().kind(), Kind::Device);
    }

    #[test]
    fn a_device_that_cannot_be_examined_is_not_taken_for_absent() {
        let sys = tempfile::tempdir().unwrap();
        let directory = sys.path().join("block/loop0");
        fs::create_dir_all(directory.join("loop")).unwrap();
        fs::write(directory.join("dev"), "garbage").unwrap();
        fs::write(directory.join("size"), "8").unwrap();
        let error = SysFs::new(sys.path()).find(&Locator::LoopBacking { device: 1, inode: 2 }).unwrap_err();
        assert!(error.to_string().contains("block/loop0"), "{error}");
    }
}
