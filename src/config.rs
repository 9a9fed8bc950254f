//! What a run shall do: configuration file, environment and flags, validated into one value.

use std::path::PathBuf;
use std::time::Duration;

use crate::key::{GitDirMode, SubmoduleMode};
use crate::report::outputs::OutputFiles;
use crate::retention::prune::Wish;
use crate::source::{Access, Location, Wanted};
use crate::storage::{SnapshotId, Tags, VolumeId};

pub mod checks;
pub mod file;
pub mod layers;
pub mod rollout;
pub mod settings;
pub mod validate;
pub mod values;

/// Which block storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// The embedded one, in this directory.
    Local(PathBuf),
    /// Amazon EBS.
    Ec2(Box<Ec2>),
}

impl Store {
    /// How EC2 is used, if it is.
    pub fn ec2(&self) -> Option<&Ec2> {
        match self {
            Store::Ec2(settings) => Some(settings),
            Store::Local(_) => None,
        }
    }
}

/// How EC2 is used. What is `None` is found out: from the SDK's usual places, or from the instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ec2 {
    /// `eu-central-1`.
    pub region: Option<String>,
    /// The instance that volumes are attached to: the one that this program runs on.
    pub instance_id: Option<String>,
    /// The zone that volumes are in: the instance's.
    pub availability_zone: Option<String>,
    /// What EC2 is told to call an attached volume: `/dev/sdk`.
    pub device: String,
    /// How long an attachment may take, and then the device.
    pub attach_timeout: Duration,
    /// What new volumes are like.
    pub volume: Ec2Volume,
}

/// What a new EBS volume is like; EC2 decides what is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ec2Volume {
    /// `gp3`.
    pub kind: String,
    /// I/O operations each second.
    pub iops: Option<u32>,
    /// MiB each second.
    pub throughput: Option<u32>,
    /// Encrypted, also if the account's default is not.
    pub encrypted: bool,
    /// With this KMS key.
    pub kms_key_id: Option<String>,
    /// MiB each second that a volume made from a snapshot is loaded at.
    pub initialization_rate: Option<u32>,
}

/// Where else a snapshot shall be; only in EC2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Publish {
    /// In these regions.
    pub copies: Vec<CopyTo>,
    /// Usable by these accounts: twelve digits each.
    pub accounts: Vec<String>,
    /// In this parameter of Systems Manager.
    pub parameter: Option<String>,
}

/// A copy of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyTo {
    /// `eu-central-1`.
    pub region: String,
    /// The KMS key there that encrypts it: an ID, an alias or an ARN.
    pub kms_key: Option<String>,
}

/// What becomes of the volume at the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// What the run found: a volume that it attached is detached, one that was attached stays.
    #[default]
    Restore,
    /// It stays attached.
    Keep,
    /// It is detached.
    Detach,
    /// It is detached and deleted.
    Delete,
}

/// Everything about one bake, validated.
#[derive(Debug, Clone)]
pub struct Bake {
    /// Where volumes and snapshots live.
    pub store: Store,
    /// Where the repository is.
    pub location: Location,
    /// Which commit.
    pub wanted: Wanted,
    /// Credentials for it, and trust.
    pub access: Access,
    /// More tags for the snapshot.
    pub snapshot_tags: Tags,
    /// Where else the snapshot shall be.
    pub publish: Publish,
    /// The machines that shall boot from it.
    pub rollout: Option<rollout::Fleet>,
    /// A link to the CI run, for tags and outputs.
    pub run_url: Option<String>,
    /// 1 to 16 bytes that fit a label and a path.
    pub volume_name: String,
    /// The volume to bake on, rather than the one with the name.
    pub volume_id: Option<VolumeId>,
    /// For a new volume; a larger size than the volume has grows it.
    pub volume_size_gib: Option<u32>,
    /// An absolute path.
    pub mount_point: PathBuf,
    /// Whether `.git` is on the volume.
    pub git_dir: GitDirMode,
    /// Which submodules.
    pub submodules: SubmoduleMode,
    /// Whether untracked files go.
    pub clean: bool,
    /// Whether LFS pointer files are baked as they are.
    pub allow_lfs_pointers: bool,
    /// A command for `sh`, run in the work tree.
    pub after_checkout: Option<String>,
    /// What is checked after that.
    pub checks: checks::Checks,
    /// What becomes of the volume.
    pub after: After,
    /// How long to wait for another run to let go of the volume.
    pub lock_timeout: Duration,
    /// How long to wait for the snapshot to complete.
    pub wait_timeout: Duration,
    /// Whether to wait for the snapshot to complete at all.
    pub wait: bool,
    /// Where git directories are kept with `git_dir: exclude`.
    pub state_dir: PathBuf,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Where the result is written.
    pub outputs: OutputFiles,
}

/// The size of a new volume, in GiB, if nobody says otherwise.
pub const DEFAULT_VOLUME_SIZE_GIB: u32 = 8;

/// What `doctor` is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Examined {
    /// A bake.
    Bake,
    /// A rollout to these machines; in EC2.
    Rollout(Box<rollout::Fleet>),
    /// Pruning, in EC2.
    Prune {
        /// The parameter of Systems Manager that names a snapshot to keep.
        parameter: Option<String>,
        /// Whether it is not asked who else may use a snapshot.
        include_shared: bool,
    },
}

/// `doctor`, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doctor {
    /// Which command.
    pub examined: Examined,
    /// Where volumes and snapshots would live.
    pub store: Store,
    /// 1 to 16 bytes that fit a label and a path.
    pub volume_name: String,
    /// The volume to bake on, rather than the one with the name.
    pub volume_id: Option<VolumeId>,
    /// For a new volume; a larger size than the volume has would grow it.
    pub volume_size_gib: Option<u32>,
    /// An absolute path.
    pub mount_point: PathBuf,
    /// What would become of the volume.
    pub after: After,
    /// Where git directories would be kept with `git_dir: exclude`.
    pub state_dir: PathBuf,
    /// JSON rather than a table.
    pub json: bool,
}

/// `list`, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Where the snapshots live.
    pub store: Store,
    /// Only snapshots of the volume with this name.
    pub volume_name: Option<String>,
    /// The parameter of Systems Manager that may name one.
    pub parameter: Option<String>,
    /// JSON rather than a table.
    pub json: bool,
}

/// `prune`, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prune {
    /// Where the snapshots live.
    pub store: Store,
    /// What is to be pruned.
    pub wish: Wish,
    /// JSON rather than a table.
    pub json: bool,
}

/// `restore`, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// Where the snapshots live.
    pub store: Store,
    /// Mount, or undo that.
    pub action: RestoreAction,
}

/// What `restore` does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum RestoreAction {
    /// Make a volume from the snapshot and mount it read-only.
    Mount { snapshot: SnapshotId, mount_point: PathBuf },
    /// Unmount and delete such a volume: the one mounted there, or those made from the snapshot. At least one is given.
    Detach { snapshot: Option<SnapshotId>, mount_point: Option<PathBuf> },
}

/// `cleanup`, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleanup {
    /// Whose volumes are looked for.
    pub store: Store,
}
