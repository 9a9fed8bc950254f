//! Every option, once: the flags, the variables `EBS_BAKE_<NAME>` and the keys of `ebs-bake.yml` are all made from these
//! structs. Nothing is required and nothing has a default here, so that layers can be laid over each other.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use git2::Oid;

use super::{After, checks, values};
use crate::key::{GitDirMode, SubmoduleMode};
use crate::storage::{SnapshotId, VolumeId};

mod retention;
pub mod rollout;
mod user_data;

pub use retention::{List, Prune};
pub use user_data::UserData;

/// Which block storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    /// Amazon EBS
    Ec2,
    /// The embedded one: a directory of sparse images, attached as loop devices
    Local,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One object a line
    Json,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR says no
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Messages and configuration")]
pub struct General {
    /// Read settings from this file [default: ebs-bake.yml, if there is one here]
    #[arg(long, global = true, value_name = "FILE", display_order = 900)]
    pub config: Option<PathBuf>,
    /// How the log on stderr is written: text or json [default: text]
    #[arg(long, global = true, value_enum, value_name = "FORMAT", hide_possible_values = true, display_order = 901)]
    pub log_format: Option<LogFormat>,
    /// Colours: auto, always or never [default: auto]
    #[arg(long, global = true, value_enum, value_name = "WHEN", hide_possible_values = true, display_order = 902)]
    pub color: Option<ColorChoice>,
    /// Say more: what begins, what git says, a table of times
    #[arg(short, long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true, display_order = 903)]
    pub verbose: Option<bool>,
    /// Say only what went wrong
    #[arg(short, long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true, display_order = 904)]
    pub quiet: Option<bool>,
}

/// Where volumes and snapshots live.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Store")]
pub struct Storage {
    /// The block storage: ec2 or local [default: ec2, with --local-dir: local]
    #[arg(long, value_enum, value_name = "STORE", hide_possible_values = true)]
    pub store: Option<StoreKind>,
    /// Where the local store lives [default: /var/lib/ebs-bake]
    #[arg(long, value_name = "DIR")]
    pub local_dir: Option<PathBuf>,
    /// AWS region [default: AWS_REGION, the profile's, the instance's]
    #[arg(long, value_name = "NAME", value_parser = values::word)]
    pub region: Option<String>,
    /// The EC2 instance that this is [default: what its metadata service says]
    #[arg(long, value_name = "ID", value_parser = values::instance_id)]
    pub instance_id: Option<String>,
    /// The zone that the instance is in [default: what its metadata service says]
    #[arg(long, value_name = "ZONE", value_parser = values::word)]
    pub availability_zone: Option<String>,
    /// The device name that EC2 is told on attaching [default: /dev/sdk; restore: /dev/sdl]
    #[arg(long, value_name = "NAME", value_parser = values::device)]
    pub device: Option<String>,
}

/// `bake`.
#[derive(Debug, Clone, Default, Args)]
pub struct Bake {
    /// Which commit.
    #[command(flatten)]
    pub source: Source,
    /// How it is checked out.
    #[command(flatten)]
    pub checkout: Checkout,
    /// What is checked before the snapshot.
    #[command(flatten)]
    pub checks: checks::Settings,
    /// Who we are to the git host.
    #[command(flatten)]
    pub credentials: Credentials,
    /// Where volumes and snapshots live.
    #[command(flatten)]
    pub storage: Storage,
    /// The volume.
    #[command(flatten)]
    pub volume: Volume,
    /// Patience.
    #[command(flatten)]
    pub waiting: Waiting,
    /// Where else the snapshot shall be.
    #[command(flatten)]
    pub publishing: Publishing,
    /// The machines that shall boot from it.
    #[command(flatten)]
    pub rollout: AfterBake,
    /// What is handed on.
    #[command(flatten)]
    pub results: Results,
}

/// Which commit.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What to bake")]
pub struct Source {
    /// URL or path of the repository [default: the CI job's]
    #[arg(long, value_name = "URL|PATH", value_parser = values::text)]
    pub repository: Option<String>,
    /// Branch, tag, full ref or full SHA [default: the CI job's, else the default branch]
    #[arg(long = "ref", value_name = "REF", value_parser = values::text)]
    pub reference: Option<String>,
    /// The exact commit, as a full SHA [default: the CI job's, else what the ref points to]
    #[arg(long, value_name = "SHA", value_parser = values::commit)]
    pub commit: Option<Oid>,
}

/// How it is checked out.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Checkout")]
pub struct Checkout {
    /// Have .git on the volume (include) or kept on this host (exclude) [default: include]
    #[arg(long, value_enum, value_name = "MODE", hide_possible_values = true)]
    pub git_dir: Option<GitDirMode>,
    /// Check out submodules: no, yes or recursive [default: no]
    #[arg(long, value_name = "WHICH", value_parser = values::submodules)]
    pub submodules: Option<SubmoduleMode>,
    /// Keep untracked files [default: they are removed]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub no_clean: Option<bool>,
    /// Bake LFS pointer files as they are [default: refuse them]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub allow_lfs_pointers: Option<bool>,
    /// Run this with sh in the work tree before the snapshot [default: nothing]
    #[arg(long, value_name = "CMD", value_parser = values::command)]
    pub after_checkout: Option<String>,
}

/// How the git host is convinced, and how it convinces. The token itself comes as `EBS_BAKE_GIT_TOKEN` only.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Credentials (the token itself: EBS_BAKE_GIT_TOKEN)")]
pub struct Credentials {
    /// File with the token for HTTPS [default: none]
    #[arg(long, value_name = "FILE")]
    pub git_token_file: Option<PathBuf>,
    /// User name sent with the token [default: what the git host expects]
    #[arg(long, value_name = "NAME", value_parser = values::text)]
    pub git_user: Option<String>,
    /// Private key for SSH [default: the agent's]
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Option<PathBuf>,
    /// More known host keys [default: the user's and the system's]
    #[arg(long, value_name = "FILE")]
    pub known_hosts: Option<PathBuf>,
}

/// The volume.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Volume")]
pub struct Volume {
    /// Name of the volume, also its label [default: chef]
    #[arg(long, value_name = "NAME", value_parser = values::volume_name)]
    pub volume_name: Option<String>,
    /// The volume to bake on [default: the one with the name, else a new one]
    #[arg(long, value_name = "ID", value_parser = |value: &str| value.parse::<VolumeId>())]
    pub volume_id: Option<VolumeId>,
    /// Size in GiB; a smaller volume grows to it [default: 8 for a new volume]
    #[arg(long, value_name = "GIB", value_parser = values::size_gib)]
    pub volume_size: Option<u32>,
    /// Type of a new EBS volume [default: gp3]
    #[arg(long, value_name = "TYPE", value_parser = values::word)]
    pub volume_type: Option<String>,
    /// I/O operations per second of a new EBS volume [default: the type's]
    #[arg(long, value_name = "NUMBER")]
    pub iops: Option<u32>,
    /// Throughput of a new EBS volume, in MiB/s [default: the type's]
    #[arg(long, value_name = "NUMBER")]
    pub throughput: Option<u32>,
    /// Encrypt a new EBS volume [default: as the account does]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub encrypted: Option<bool>,
    /// KMS key that encrypts a new EBS volume [default: the account's]
    #[arg(long, value_name = "KEY", value_parser = values::word)]
    pub kms_key_id: Option<String>,
    /// Rate at which a volume made from a snapshot is loaded, in MiB/s [default: as it is read]
    #[arg(long, value_name = "NUMBER")]
    pub volume_initialization_rate: Option<u32>,
    /// Where it is mounted meanwhile [default: /code/<volume name>]
    #[arg(long, value_name = "DIR")]
    pub mount_point: Option<PathBuf>,
    /// Afterwards: restore what was found, keep it attached, detach or delete it [default: restore]
    #[arg(long, value_enum, value_name = "ACTION", hide_possible_values = true)]
    pub after: Option<After>,
    /// Where git directories are kept with --git-dir exclude [default: /var/cache/ebs-bake]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Patience.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Waiting")]
pub struct Waiting {
    /// How long an EBS volume may take to be attached, and then to appear as a device [default: 90s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub attach_timeout: Option<Duration>,
    /// How long to wait for another run to let go of the volume [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub lock_timeout: Option<Duration>,
    /// How long to wait for the snapshot to complete, and how long to follow an instance refresh [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub wait_timeout: Option<Duration>,
    /// Do not wait for the snapshot to complete [default: wait]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub no_wait: Option<bool>,
}

/// Where else the snapshot shall be.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Publishing (EC2)")]
pub struct Publishing {
    /// Copy the snapshot to this region, encrypted with a key there; may be repeated [default: nowhere]
    #[arg(long, value_name = "REGION[,KMS-KEY]", value_parser = values::copies)]
    pub copy_to: Option<Vec<values::Copies>>,
    /// Let this AWS account use the snapshot and its copies; may be repeated [default: none]
    #[arg(long, value_name = "ACCOUNT", value_parser = values::accounts)]
    pub share_with: Option<Vec<values::Accounts>>,
    /// Write the ID to this parameter of Systems Manager, when all else is done [default: none]
    #[arg(long, value_name = "NAME", value_parser = values::parameter)]
    pub ssm_parameter: Option<String>,
}

/// `rollout` in the same run.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Rollout (EC2)")]
pub struct AfterBake {
    /// Roll the snapshot out when it is completed [default: leave that to ebs-bake rollout]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub rollout: Option<bool>,
    /// Where it shall arrive.
    #[command(flatten)]
    pub fleet: rollout::Fleet,
    /// How machines are replaced.
    #[command(flatten)]
    pub refresh: rollout::Refresh,
}

/// What is handed on, and how the snapshot is marked.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Results (stdout has the snapshot's ID)")]
pub struct Results {
    /// A tag for the snapshot, as KEY=VALUE; may be repeated, or have several lines [default: none]
    #[arg(long, value_name = "TAG", value_parser = values::tags)]
    pub snapshot_tag: Option<Vec<values::TagLines>>,
    /// What is handed on.
    #[command(flatten)]
    pub outputs: Outputs,
}

/// What is handed on.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Results (stdout has the snapshot's ID)")]
pub struct Outputs {
    /// Write the result to this file as JSON [default: nowhere]
    #[arg(long, value_name = "FILE")]
    pub output_json: Option<PathBuf>,
    /// Write the result to this file as KEY=value [default: nowhere]
    #[arg(long, value_name = "FILE")]
    pub output_env: Option<PathBuf>,
    /// Say what would be done and change nothing [default: do it]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub dry_run: Option<bool>,
}

/// The command that `doctor` is asked about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    /// `bake`
    #[default]
    Bake,
    /// `rollout`
    Rollout,
    /// `prune`
    Prune,
}

/// `doctor`: looks at what a command would use, so that the options that decide on it are the same.
#[derive(Debug, Clone, Default, Args)]
pub struct Doctor {
    /// What shall work: bake, rollout or prune [default: bake]
    #[arg(long, value_name = "COMMAND", hide_possible_values = true)]
    pub r#for: Option<Purpose>,
    /// Print JSON [default: a table]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub json: Option<bool>,
    /// What pruning keeps.
    #[command(flatten)]
    pub kept: retention::Kept,
    /// Where volumes and snapshots live.
    #[command(flatten)]
    pub storage: Storage,
    /// The volume.
    #[command(flatten)]
    pub volume: Volume,
    /// Where a rollout shall arrive.
    #[command(flatten)]
    pub fleet: rollout::Fleet,
    /// How it replaces machines.
    #[command(flatten)]
    pub refresh: rollout::Refresh,
}

/// `restore`.
#[derive(Debug, Clone, Default, Args)]
pub struct Restore {
    /// The snapshot
    #[arg(long, value_name = "ID", value_parser = |value: &str| value.parse::<SnapshotId>())]
    pub snapshot_id: Option<SnapshotId>,
    /// Where to mount it
    #[arg(long, value_name = "DIR")]
    pub mount_point: Option<PathBuf>,
    /// Unmount it and delete the volume that was made for it
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub detach: Option<bool>,
    /// Where volumes and snapshots live.
    #[command(flatten)]
    pub storage: Storage,
}

/// `cleanup`.
#[derive(Debug, Clone, Default, Args)]
pub struct Cleanup {
    /// Where volumes and snapshots live.
    #[command(flatten)]
    pub storage: Storage,
}
