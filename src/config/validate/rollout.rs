//! `rollout`: what it needs, and what contradicts itself.

use super::{DEFAULT_DEVICE, DEFAULT_VOLUME_NAME, DEFAULT_WAIT_TIMEOUT, ec2, output_files, refuse};
use crate::ci::Ci;
use crate::config::rollout::{Choice, Configurations, Fleet, Mapping, Refresh, Rollout, Template};
use crate::config::{Store, settings};
use crate::error::Result;
use settings::rollout as options;

/// In percent: more is not between the least and the most that may run (Auto Scaling API reference, RefreshPreferences).
const HEALTHY_SPAN: u8 = 100;

/// `rollout`.
pub fn rollout(settings: options::Rollout, ci: &Ci) -> Result<Rollout> {
    let options::Rollout { snapshot, fleet, refresh, waiting, place, outputs } = settings;
    let choice = match (snapshot.snapshot_id, snapshot.latest.unwrap_or(false), snapshot.previous.unwrap_or(false)) {
        (Some(id), false, false) => Choice::Id(id),
        (None, true, false) => Choice::Latest,
        (None, false, true) => Choice::Previous,
        (None, false, false) => {
            return refuse("rollout: which snapshot is not said", "give --snapshot-id, --latest or --previous");
        }
        _ => return refuse("rollout: --snapshot-id, --latest and --previous exclude each other", "give one of them"),
    };
    Ok(Rollout {
        ec2: ec2(settings::Storage { region: place.region, ..settings::Storage::default() }),
        choice,
        volume_name: snapshot.volume_name.unwrap_or_else(|| DEFAULT_VOLUME_NAME.into()),
        fleet: self::fleet(fleet, refresh, &waiting)?,
        dry_run: outputs.dry_run.unwrap_or(false),
        outputs: output_files(outputs, ci),
    })
}

/// The rollout of what a bake made.
pub fn after_bake(settings: settings::AfterBake, store: &Store, waiting: &settings::Waiting) -> Result<Fleet> {
    if store.ec2().is_none() {
        return refuse("--rollout is for EC2: the local store has no machines", "leave one or the other out");
    }
    if waiting.no_wait.unwrap_or(false) {
        return refuse("--no-wait: only a completed snapshot is rolled out", "leave --no-wait or --rollout out");
    }
    let waiting = options::Waiting { wait_timeout: waiting.wait_timeout, no_wait: None };
    fleet(settings.fleet, settings.refresh, &waiting)
}

/// What both have in common, and `doctor` asks about.
pub fn fleet(settings: options::Fleet, refresh: options::Refresh, waiting: &options::Waiting) -> Result<Fleet> {
    let mapping = mapping(&settings);
    let groups: Vec<String> = settings.auto_scaling_group.unwrap_or_default().into_iter().flatten().collect();
    let template = settings.launch_template.map(|name| Template {
        name,
        source: settings.source_version,
        set_default: settings.set_default.unwrap_or(false),
        keep: settings.keep_versions,
    });
    let configurations = settings
        .launch_configuration_prefix
        .map(|prefix| Configurations { prefix, delete_unused: settings.delete_unused_configurations.unwrap_or(false) });
    if template.is_none() && configurations.is_none() {
        return refuse(
            "where to roll out is not said",
            "give --launch-template, or --launch-configuration-prefix and --auto-scaling-group",
        );
    }
    if template.is_none() && groups.is_empty() {
        return refuse(
            "--launch-configuration-prefix: a group is needed whose configuration is copied",
            "give --auto-scaling-group",
        );
    }
    if let Some(twice) = groups.iter().enumerate().find_map(|(index, name)| groups[..index].contains(name).then_some(name)) {
        return refuse(format!("--auto-scaling-group {twice}: it is named twice"), "once is enough");
    }
    let refresh = refresh.refresh.unwrap_or(false).then(|| self::refresh(refresh)).transpose()?;
    if refresh.is_some() && groups.is_empty() {
        return refuse("--refresh: there is no group whose machines could be replaced", "give --auto-scaling-group");
    }
    let wait = !waiting.no_wait.unwrap_or(false);
    Ok(Fleet {
        template,
        configurations,
        groups,
        mapping,
        refresh,
        wait,
        wait_timeout: waiting.wait_timeout.unwrap_or(DEFAULT_WAIT_TIMEOUT),
    })
}

fn mapping(settings: &options::Fleet) -> Mapping {
    Mapping {
        device: settings.fleet_device.clone().unwrap_or_else(|| DEFAULT_DEVICE.into()),
        kind: settings.fleet_volume_type.clone(),
        size_gib: settings.fleet_volume_size,
        iops: settings.fleet_volume_iops,
        throughput: settings.fleet_volume_throughput,
        initialization_rate: settings.fleet_volume_initialization_rate,
        delete_on_termination: !settings.fleet_keep_volumes.unwrap_or(false),
    }
}

fn refresh(settings: options::Refresh) -> Result<Refresh> {
    let refresh = Refresh {
        min_healthy: settings.refresh_min_healthy,
        max_healthy: settings.refresh_max_healthy,
        warmup: settings.refresh_warmup,
        all: settings.refresh_all.unwrap_or(false),
        auto_rollback: settings.refresh_auto_rollback.unwrap_or(false),
        checkpoints: settings.refresh_checkpoints.unwrap_or_default(),
        checkpoint_delay: settings.refresh_checkpoint_delay,
    };
    match (refresh.min_healthy, refresh.max_healthy) {
        (None, Some(_)) => return refuse("--refresh-max-healthy needs --refresh-min-healthy", "give both, or neither"),
        (Some(least), Some(most)) if most - least > HEALTHY_SPAN => {
            let hint = "bring them closer together";
            return refuse("--refresh-min-healthy and --refresh-max-healthy are more than 100 apart", hint);
        }
        _ => {}
    }
    if refresh.checkpoint_delay.is_some() && refresh.checkpoints.is_empty() {
        return refuse("--refresh-checkpoint-delay needs --refresh-checkpoints", "give both, or neither");
    }
    Ok(refresh)
}
