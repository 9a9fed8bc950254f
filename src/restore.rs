//! Looking into a snapshot: a volume made from it, mounted read-only, and given up again.

use std::path::{Path, PathBuf};

use crate::bake::blocking;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::host::device::SysFs;
use crate::host::filesystem::{self, Probe};
use crate::host::lock::Exclusive;
use crate::host::mount::{self, Mount, MountPoint, Options};
use crate::host::capabilities;
use crate::key::tag;
use crate::report::Report;
use crate::storage::{Attachment, BlockStorage, NewVolume, SnapshotId, SnapshotQuery, SnapshotState, Tags, Volume, VolumeQuery};

/// Where a snapshot's content can be seen.
#[derive(Debug)]
pub struct Restored {
    /// The volume that was made from it.
    pub volume: Volume,
    /// Where it is mounted.
    pub mount_point: PathBuf,
}
