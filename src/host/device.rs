//! The kernel's block devices, found by what they are and never by name.

use std::path::PathBuf;

use crate::error::Result;

/// What identifies a block device beyond doubt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Locator {
    /// The loop device whose backing file is this inode of this filesystem (`st_dev`, `st_ino`).
    LoopBacking { device: u64, inode: u64 },
}

/// A block device of the running kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The kernel's name for it: `loop3`, `nvme2n1`.
    pub name: String,
    pub major: u32,
    pub minor: u32,
    pub size_bytes: u64,
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

    /// The one device that `locator` names; `None` while there is none. Two are an error.
    pub fn find(&self, locator: &Locator) -> Result<Option<Device>> {
        let _ = (locator, &self.root);
        todo!()
    }
}
