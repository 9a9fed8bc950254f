//! Block storage: volumes, their attachments and their snapshots. One trait, one implementation for each store.
//!
//! Words are EC2's: a *volume* can be *attached* to a host, a *snapshot* is its content at one moment.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::host::device::Locator;
use crate::host::lock::DeviceLock;
use crate::report::Change;

pub mod ec2;
pub mod local;

/// Key → value, as both stores keep them on volumes and snapshots.
pub type Tags = BTreeMap<String, String>;

/// Defines an identifier of the form `prefix` + 8 to 17 lower-case hexadecimal digits.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// What every such identifier begins with.
            pub const PREFIX: &'static str = $prefix;

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let digits = text.strip_prefix($prefix).unwrap_or_default();
                let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                if (8..=17).contains(&digits.len()) && digits.bytes().all(hex) {
                    return Ok($name(text.to_owned()));
                }
                let shape = concat!($prefix, " and 8 to 17 hexadecimal digits");
                Err(Error::new(Kind::Usage, format!("{text:?} is not an ID of the form {shape}")))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

identifier!(
    /// The ID of a volume: `vol-0123456789abcdef0`.
    VolumeId,
    "vol-"
);
identifier!(
    /// The ID of a snapshot: `snap-0123456789abcdef0`.
    SnapshotId,
    "snap-"
);

/// Where a volume is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum Attachment {
    /// Nowhere.
    None,
    /// On this host, under the store's name for the device (`/dev/sdk`, `/dev/loop3`); `locator` finds it in sysfs.
    Here { device: String, locator: Locator },
    /// On another host (its ID).
    Elsewhere { host: String },
}

/// The state of a volume, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeState {
    /// Being made.
    Creating,
    /// There, whether attached or not.
    Ready,
    /// Unusable, and why.
    Error(String),
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its ID.
    pub id: VolumeId,
    /// What can be done with it.
    pub state: VolumeState,
    /// In GiB.
    pub size_gib: u32,
    /// Its tags.
    pub tags: Tags,
    /// The snapshot that it was made from; `None`: made blank.
    pub source: Option<SnapshotId>,
    /// Where it is attached.
    pub attachment: Attachment,
    /// When it was made.
    pub created: Timestamp,
}

/// The state of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotState {
    /// Being copied; nothing can be made from it yet. Percent, if the store says.
    Pending(Option<u8>),
    /// Complete.
    Completed,
    /// Failed or damaged, and why.
    Error(String),
    /// Whole, but nothing can be made from it until somebody brings it back, and why: archived, in the recycle bin.
    PutAway(String),
}

impl SnapshotState {
    /// The state's stable name.
    pub fn name(&self) -> &'static str {
        match self {
            SnapshotState::Pending(_) => "pending",
            SnapshotState::Completed => "completed",
            SnapshotState::Error(_) | SnapshotState::PutAway(_) => "error",
        }
    }

    /// Why nothing can be made from it, nor by waiting.
    pub fn trouble(&self) -> Option<&str> {
        match self {
            SnapshotState::Error(why) | SnapshotState::PutAway(why) => Some(why),
            SnapshotState::Pending(_) | SnapshotState::Completed => None,
        }
    }
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its ID.
    pub id: SnapshotId,
    /// Whether it can be used.
    pub state: SnapshotState,
    /// The volume that it was taken of.
    pub volume: Option<VolumeId>,
    /// Of the volume, in GiB.
    pub size_gib: u32,
    /// Its tags.
    pub tags: Tags,
    /// A line for people.
    pub description: String,
    /// The moment whose content it holds.
    pub started: Timestamp,
    /// The snapshot it builds on, where the store tells.
    pub parent: Option<SnapshotId>,
    /// How many blocks of 512 KiB differ from the parent's (without one: from zeros), where the store tells.
    pub changed_blocks: Option<u64>,
}

/// Which volumes: those that match every field that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeQuery {
    /// The one with this ID.
    pub id: Option<VolumeId>,
    /// Tags that must have these values.
    pub tags: Tags,
}

/// Which snapshots: those that match every field that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotQuery {
    /// The one with this ID.
    pub id: Option<SnapshotId>,
    /// Tags that must have these values.
    pub tags: Tags,
}

/// What a new volume shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// At least the snapshot's size.
    pub size_gib: u32,
    /// `None`: blank.
    pub source: Option<SnapshotId>,
    /// Set in the call that makes it.
    pub tags: Tags,
    /// Calls with the same token make one volume, as long as that exists: for runs that start at the same time.
    pub token: Option<String>,
}

/// What a new snapshot shall carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    /// The volume.
    pub volume: VolumeId,
    /// Set in the call that makes it.
    pub tags: Tags,
    /// A line for people.
    pub description: String,
}

/// A place where volumes and snapshots live. All methods may be repeated after a crash: nothing is half made.
///
/// Errors are of kind `Storage` unless a method says otherwise.
#[async_trait]
pub trait BlockStorage: Send + Sync {
    /// The store's name in outputs (`local`, `ec2`).
    fn name(&self) -> &'static str;

    /// The region that it is in, where there are regions and once it is known.
    fn region(&self) -> Option<String> {
        None
    }

    /// The volumes that match, oldest first.
    async fn volumes(&self, query: &VolumeQuery) -> Result<Vec<Volume>>;

    /// The snapshots that match, oldest first. A damaged one is listed in state `Error` rather than failing the others.
    async fn snapshots(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>>;

    /// Makes a volume; returns when it can be attached. `Unchanged`: there is one with that token already, and this is it.
    async fn create_volume(&self, new: &NewVolume) -> Result<(Change, Volume)>;

    /// Makes a volume larger. A smaller size is an error of kind `Usage`.
    async fn grow_volume(&self, id: &VolumeId, size_gib: u32) -> Result<()>;

    /// Whether this process could use the devices that its volumes become, as far as that can be tried before there is one.
    /// A container may lack the permission; a volume that is attached and cannot be opened cannot be given back either.
    async fn require_devices(&self) -> Result<()> {
        Ok(())
    }

    /// Why reading or writing the volumes' devices may have failed, if the store knows: its disk is full, say.
    async fn trouble(&self) -> Option<Error> {
        None
    }

    /// Deletes a volume that is not attached. One that is not there is no error.
    async fn delete_volume(&self, id: &VolumeId) -> Result<()>;

    /// Attaches a volume to this host and returns where it is. `Unchanged`: it was here already.
    /// Attached elsewhere is an error of kind `Contended` that names the other host.
    async fn attach(&self, id: &VolumeId) -> Result<(Change, Attachment)>;

    /// Makes an attachment outlive this process, where the store would not do so by itself.
    async fn keep_attached(&self, id: &VolumeId) -> Result<()>;

    /// Detaches a volume from this host; must not be mounted. One that is not attached is no error. The caller's lock on the
    /// device is given up at the moment when no other run can be harmed by it.
    async fn detach(&self, id: &VolumeId, lock: Option<DeviceLock>) -> Result<()>;

    /// Takes a snapshot of a volume that nobody writes to. Returns as soon as the content is fixed; the state may be pending.
    async fn create_snapshot(&self, new: &NewSnapshot) -> Result<Snapshot>;

    /// How long a run that is told to stop waits for `create_snapshot` all the same. Zero where dropping it ends it at once.
    fn outcome_patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Deletes a snapshot. One that is not there is no error.
    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_checked_when_parsed() {
        assert_eq!("vol-0123456789abcdef0".parse::<VolumeId>().unwrap().as_str(), "vol-0123456789abcdef0");
        for wrong in [
            "",
            "vol-",
            "snap-0123456789abcdef0",
            "vol-0123",
            "vol-0123456789ABCDEF0",
            "vol-../../etc/passwd",
            "vol-0123456789abcdef01",
        ] {
            assert!(wrong.parse::<VolumeId>().is_err(), "{wrong}");
        }
    }
}
