//! `user-data`: the options.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use git2::Oid;

use crate::config::values::{self, chef};
use crate::fleet::user_data::Format;

/// `user-data`.
#[derive(Debug, Clone, Default, Args)]
pub struct UserData {
    /// What is printed.
    #[command(flatten)]
    pub output: Output,
    /// Which volume.
    #[command(flatten)]
    pub node: Node,
    /// How Chef is run.
    #[command(flatten)]
    pub chef: Chef,
}

/// What is printed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What to print")]
pub struct Output {
    /// The format of the script: script, mime, base64 or gzip [default: script]
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    pub format: Option<Format>,
    /// Print the line for /etc/fstab of an image rather than the script
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub fstab: Option<bool>,
}

/// Which volume a node boots from.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Volume of a node")]
pub struct Node {
    /// Name of the volume, also its label [default: chef]
    #[arg(long, value_name = "NAME", value_parser = values::volume_name)]
    pub volume_name: Option<String>,
    /// The device name in the block device mapping [default: /dev/sdk]
    #[arg(long, value_name = "NAME", value_parser = values::device)]
    pub device: Option<String>,
    /// Where the node mounts it [default: /chef]
    #[arg(long, value_name = "DIR", value_parser = chef::absolute)]
    pub mount_point: Option<String>,
    /// How long the device may take to appear [default: 2m; --fstab: 30s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub device_timeout: Option<Duration>,
    /// Boot from this commit only, as a full SHA [default: any]
    #[arg(long, value_name = "SHA", value_parser = values::commit)]
    pub expect_commit: Option<Oid>,
    /// Boot from this repository only [default: any]
    #[arg(long, value_name = "URL", value_parser = values::text)]
    pub expect_repository: Option<String>,
}

/// How Chef is run.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Chef")]
pub struct Chef {
    /// The role of the node
    #[arg(long, value_name = "NAME", value_parser = chef::name)]
    pub role: Option<String>,
    /// Chef's environment [default: Chef's own, _default]
    #[arg(long, value_name = "NAME", value_parser = chef::name)]
    pub environment: Option<String>,
    /// Where the chef-repo is in the repository [default: its root]
    #[arg(long, value_name = "DIR", value_parser = chef::inside)]
    pub chef_path: Option<String>,
    /// A directory of cookbooks in it; may be repeated [default: those with a usual name]
    #[arg(long, value_name = "DIR", value_parser = chef::directories)]
    pub cookbook_path: Option<Vec<chef::Lines>>,
    /// Name or path of Chef's program [default: the first of chef-solo, chef-client, cinc-solo and cinc-client]
    #[arg(long, value_name = "PROGRAM", value_parser = chef::program)]
    pub chef: Option<String>,
    /// Accept the licence that Chef has from version 15 on: accept, accept-silent or accept-no-persist [default: not]
    #[arg(long, value_name = "HOW", value_parser = chef::license)]
    pub chef_license: Option<String>,
    /// How often Chef is run at most, until it ends well [default: 3]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub attempts: Option<u32>,
    /// The pause between two runs [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub retry_pause: Option<Duration>,
    /// Run this with sh when the node is ready [default: nothing]
    #[arg(long, value_name = "CMD", value_parser = values::command)]
    pub on_success: Option<String>,
    /// Run this with sh when the node failed [default: nothing]
    #[arg(long, value_name = "CMD", value_parser = values::command)]
    pub on_failure: Option<String>,
}
