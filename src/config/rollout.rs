//! What `rollout` shall do, and what `bake --rollout` does after the bake.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Ec2;
use crate::report::outputs::OutputFiles;
use crate::storage::SnapshotId;

/// `rollout`, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Where the snapshots and the machines are.
    pub ec2: Ec2,
    /// Which snapshot.
    pub choice: Choice,
    /// The name of the volume that it must be of.
    pub volume_name: String,
    /// Where it shall arrive.
    pub fleet: Fleet,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Where the result is written.
    pub outputs: OutputFiles,
}

/// Which snapshot is rolled out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Id(SnapshotId),
    /// The newest completed one of the volume's name.
    Latest,
    /// The newest completed one that is older than the one that machines are launched with now.
    Previous,
}

/// What launches machines, and what becomes of those that run. At least one of `template` and `configurations` is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// A launch template that gets a version.
    pub template: Option<Template>,
    /// Groups that are launched from configurations get new ones.
    pub configurations: Option<Configurations>,
    /// The Auto Scaling groups that are moved to it.
    pub groups: Vec<String>,
    /// What the volume of a new machine is like.
    pub mapping: Mapping,
    /// Whether and how the groups' machines are replaced.
    pub refresh: Option<Refresh>,
    /// Whether an instance refresh is followed to its end.
    pub wait: bool,
    /// How long.
    pub wait_timeout: Duration,
}

/// A launch template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its ID or its name.
    pub name: String,
    /// The version that all but the mapping is taken from, if the user says which.
    pub source: Option<VersionChoice>,
    /// Whether the version becomes the default one.
    pub set_default: bool,
    /// How many of the versions that ebs-bake made stay; `None`: all.
    pub keep: Option<usize>,
}

/// A version of a launch template, as EC2 and Auto Scaling name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionChoice {
    /// `$Default`
    Default,
    /// `$Latest`
    Latest,
    /// A number.
    Number(i64),
}

impl fmt::Display for VersionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionChoice::Default => f.write_str("$Default"),
            VersionChoice::Latest => f.write_str("$Latest"),
            VersionChoice::Number(number) => write!(f, "{number}"),
        }
    }
}

impl FromStr for VersionChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("$Default", _) => Ok(VersionChoice::Default),
            ("$Latest", _) => Ok(VersionChoice::Latest),
            (_, Ok(number)) if number > 0 => Ok(VersionChoice::Number(number)),
            _ => Err(format!("{text:?} is not $Default, $Latest or the number of a version")),
        }
    }
}

/// Launch configurations, which cannot be changed: each change makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configurations {
    /// What the names of new ones begin with.
    pub prefix: String,
    /// Whether those that were made so and that no group uses are deleted.
    pub delete_unused: bool,
}

/// The volume of a new machine; what is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The device name that the mapping has: `/dev/sdk`.
    pub device: String,
    /// `gp3`.
    pub kind: Option<String>,
    /// At least the snapshot's size.
    pub size_gib: Option<u32>,
    /// I/O operations each second.
    pub iops: Option<u32>,
    /// MiB each second.
    pub throughput: Option<u32>,
    /// MiB each second that it is loaded from the snapshot at.
    pub initialization_rate: Option<u32>,
    /// Whether it goes with its machine.
    pub delete_on_termination: bool,
}

/// How machines are replaced; Auto Scaling decides what is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refresh {
    /// In percent of the desired capacity.
    pub min_healthy: Option<u8>,
    /// In percent of the desired capacity; only together with `min_healthy`.
    pub max_healthy: Option<u8>,
    /// How long a new machine gets until it counts.
    pub warmup: Option<Duration>,
    /// Whether machines that have it already are replaced too.
    pub all: bool,
    /// Whether a refresh that fails is undone.
    pub auto_rollback: bool,
    /// In percent, rising up to 100.
    pub checkpoints: Vec<u8>,
    /// The pause after each checkpoint.
    pub checkpoint_delay: Option<Duration>,
}
