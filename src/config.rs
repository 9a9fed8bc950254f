//! What a run shall do: configuration file, environment and flags, validated into one value.

use std::path::PathBuf;
use std::time::Duration;

use crate::key::{GitDirMode, SubmoduleMode};
use crate::source::{Access, Location, Wanted};

/// Which block storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// The embedded one, in this directory.
    Local(PathBuf),
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
    pub store: Store,
    pub location: Location,
    pub wanted: Wanted,
    pub access: Access,
    /// A link to the CI run, for tags and outputs.
    pub run_url: Option<String>,
    pub volume_name: String,
    /// For a new volume; a larger size than the volume has grows it.
    pub volume_size_gib: Option<u32>,
    pub mount_point: PathBuf,
    pub git_dir: GitDirMode,
    pub submodules: SubmoduleMode,
    pub clean: bool,
    pub allow_lfs_pointers: bool,
    pub after_checkout: Option<String>,
    pub after: After,
    /// How long to wait for another run to let go of the volume.
    pub lock_timeout: Duration,
    /// How long to wait for the snapshot to complete.
    pub wait_timeout: Duration,
    /// Whether to wait for the snapshot to complete at all.
    pub wait: bool,
    /// Where git directories are kept with `git_dir: exclude`.
    pub state_dir: PathBuf,
}
