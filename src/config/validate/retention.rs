//! `list` and `prune`.

use super::store;
use crate::config::{List, Prune, settings};
use crate::error::Result;
use crate::retention::plan::Policy;
use crate::retention::prune::Wish;

/// Two weeks of a bake each working day.
const DEFAULT_KEEP: u32 = 10;
const DEFAULT_KEEP_DAYS: u32 = 30;

/// `list`.
pub fn list(settings: settings::List) -> Result<List> {
    let settings::List { json, volume_name, ssm_parameter, storage } = settings;
    Ok(List { store: store(storage)?, volume_name, parameter: ssm_parameter, json: json.unwrap_or(false) })
}

/// `prune`.
pub fn prune(settings: settings::Prune) -> Result<Prune> {
    let settings::Prune { keep, keep_days, kept, volume_name, dry_run, json, storage } = settings;
    let policy = Policy {
        keep: keep.unwrap_or(DEFAULT_KEEP),
        keep_days: keep_days.unwrap_or(DEFAULT_KEEP_DAYS),
        include_shared: kept.include_shared.unwrap_or(false),
    };
    let wish = Wish { policy, volume_name, parameter: kept.ssm_parameter, dry_run: dry_run.unwrap_or(false) };
    Ok(Prune { store: store(storage)?, wish, json: json.unwrap_or(false) })
}
