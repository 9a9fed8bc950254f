//! The options of `list` and `prune`.

use clap::Args;
use clap::builder::BoolishValueParser;

use super::{Storage, values};

/// `list`.
#[derive(Debug, Clone, Default, Args)]
pub struct List {
    /// Print JSON [default: a table]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub json: Option<bool>,
    /// Only snapshots of the volume with this name [default: all]
    #[arg(long, value_name = "NAME", value_parser = values::volume_name)]
    pub volume_name: Option<String>,
    /// Show which snapshot this parameter of Systems Manager names [default: none]
    #[arg(long, value_name = "NAME", value_parser = values::parameter)]
    pub ssm_parameter: Option<String>,
    /// Where volumes and snapshots live.
    #[command(flatten)]
    pub storage: Storage,
}

/// `prune`.
#[derive(Debug, Clone, Default, Args)]
pub struct Prune {
    /// Keep so many completed snapshots of each volume name, the newest [default: 10]
    #[arg(long, value_name = "NUMBER")]
    pub keep: Option<u32>,
    /// Keep what is younger than so many days [default: 30]
    #[arg(long, value_name = "DAYS")]
    pub keep_days: Option<u32>,
    /// What is asked about them.
    #[command(flatten)]
    pub kept: Kept,
    /// Only snapshots of the volume with this name [default: all, each name for itself]
    #[arg(long, value_name = "NAME", value_parser = values::volume_name)]
    pub volume_name: Option<String>,
    /// Say what would be done and change nothing [default: do it]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub dry_run: Option<bool>,
    /// Print JSON [default: a table]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub json: Option<bool>,
    /// Where volumes and snapshots live.
    #[command(flatten)]
    pub storage: Storage,
}

/// What keeps snapshots beside their age.
#[derive(Debug, Clone, Default, Args)]
pub struct Kept {
    /// Delete what other accounts may use, too, which cannot be seen [default: keep it]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub include_shared: Option<bool>,
    /// Keep the snapshot that this parameter of Systems Manager names [default: none]
    #[arg(long, value_name = "NAME", value_parser = values::parameter)]
    pub ssm_parameter: Option<String>,
}
