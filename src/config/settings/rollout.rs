//! The options of `rollout`, most of which `bake` has too.
//!
//! The volume of a new machine is another one than the volume that is baked on, and one file serves all commands: so the
//! options of the former begin with `fleet-`.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::super::rollout::VersionChoice;
use super::super::values;
use super::Outputs;
use crate::storage::SnapshotId;

/// `rollout`.
#[derive(Debug, Clone, Default, Args)]
pub struct Rollout {
    /// Which snapshot.
    #[command(flatten)]
    pub snapshot: Snapshot,
    /// Where it shall arrive.
    #[command(flatten)]
    pub fleet: Fleet,
    /// How machines are replaced.
    #[command(flatten)]
    pub refresh: Refresh,
    /// Patience.
    #[command(flatten)]
    pub waiting: Waiting,
    /// Where all of it is.
    #[command(flatten)]
    pub place: Place,
    /// What is handed on.
    #[command(flatten)]
    pub outputs: Outputs,
}

/// Which snapshot.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which snapshot (one of the first three)")]
pub struct Snapshot {
    /// This snapshot
    #[arg(long, value_name = "ID", value_parser = |value: &str| value.parse::<SnapshotId>())]
    pub snapshot_id: Option<SnapshotId>,
    /// The newest completed snapshot of the volume's name
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub latest: Option<bool>,
    /// The newest completed one that is older than what machines are launched with now: to roll back
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub previous: Option<bool>,
    /// Name of the volume that the snapshot must be of [default: chef]
    #[arg(long, value_name = "NAME", value_parser = values::volume_name)]
    pub volume_name: Option<String>,
}

/// Where all of it is. Nothing is attached, so that the other options of the store mean nothing here.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Store")]
pub struct Place {
    /// AWS region [default: AWS_REGION, the profile's, the instance's]
    #[arg(long, value_name = "NAME", value_parser = values::word)]
    pub region: Option<String>,
}

/// What launches machines.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What launches machines (EC2; bake: with --rollout, doctor: with --for rollout)")]
pub struct Fleet {
    /// Launch template that gets a version with the snapshot [default: none]
    #[arg(long, value_name = "ID|NAME", value_parser = values::launch_template)]
    pub launch_template: Option<String>,
    /// Version that all but the volume is taken from: $Default, $Latest or a number [default: $Default]
    #[arg(long, value_name = "VERSION")]
    pub source_version: Option<VersionChoice>,
    /// Make the version the template's default one [default: leave it]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub set_default: Option<bool>,
    /// How many versions made by ebs-bake stay; those in use always do [default: all]
    #[arg(long, value_name = "NUMBER", value_parser = values::at_least_one)]
    pub keep_versions: Option<usize>,
    /// Auto Scaling group that is moved to it; may be repeated [default: none]
    #[arg(long, value_name = "NAME", value_parser = values::names)]
    pub auto_scaling_group: Option<Vec<values::Names>>,
    /// For groups with launch configurations: copy them under names with this prefix [default: refuse such groups]
    #[arg(long, value_name = "PREFIX", value_parser = values::configuration_prefix)]
    pub launch_configuration_prefix: Option<String>,
    /// Delete the copies with the prefix that no group uses [default: keep them]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub delete_unused_configurations: Option<bool>,
    /// Device name of the volume on new machines [default: /dev/sdk]
    #[arg(long, value_name = "NAME", value_parser = values::device)]
    pub fleet_device: Option<String>,
    /// Its type [default: as it is]
    #[arg(long, value_name = "TYPE", value_parser = values::word)]
    pub fleet_volume_type: Option<String>,
    /// Its size in GiB, not below the snapshot's [default: as it is]
    #[arg(long, value_name = "GIB", value_parser = values::size_gib)]
    pub fleet_volume_size: Option<u32>,
    /// Its I/O operations per second [default: as it is]
    #[arg(long, value_name = "NUMBER")]
    pub fleet_volume_iops: Option<u32>,
    /// Its throughput, in MiB/s [default: as it is]
    #[arg(long, value_name = "NUMBER")]
    pub fleet_volume_throughput: Option<u32>,
    /// Rate at which it is loaded from the snapshot, in MiB/s [default: as it is]
    #[arg(long, value_name = "NUMBER")]
    pub fleet_volume_initialization_rate: Option<u32>,
    /// Keep it when its machine is terminated [default: it is deleted]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub fleet_keep_volumes: Option<bool>,
}

/// How machines are replaced.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Instance refresh (of the groups)")]
pub struct Refresh {
    /// Replace the groups' machines by an instance refresh and follow it [default: leave them]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub refresh: Option<bool>,
    /// Percent of the group that must stay healthy [default: the group's, else 90]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub refresh_min_healthy: Option<u8>,
    /// Percent of the group that may run meanwhile, from 100 to 200 [default: the group's, else 100]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(100..=200))]
    pub refresh_max_healthy: Option<u8>,
    /// How long a new machine warms up before it counts [default: the group's]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub refresh_warmup: Option<Duration>,
    /// Replace machines too that have the snapshot already [default: skip them]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub refresh_all: Option<bool>,
    /// Roll back if it fails; the groups must be pinned to a version [default: leave it where it is]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub refresh_auto_rollback: Option<bool>,
    /// Percentages at which it pauses, such as 10,50,100 [default: none]
    #[arg(long, value_name = "PERCENTS", value_parser = values::checkpoints)]
    pub refresh_checkpoints: Option<values::Checkpoints>,
    /// How long it pauses there [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub refresh_checkpoint_delay: Option<Duration>,
}

/// Patience.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Waiting")]
pub struct Waiting {
    /// How long to follow the instance refresh [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub wait_timeout: Option<Duration>,
    /// Do not follow the instance refresh [default: follow it]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub no_wait: Option<bool>,
}
