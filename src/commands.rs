//! What each command does, between the command line and the library's parts.

use std::sync::Arc;

use jiff::Timestamp;

use self::rollout::AfterBake;
use crate::bake::{self, Baked};
use crate::cancel::Cancel;
use crate::cli::{listing, pruning};
use crate::config::{self, RestoreAction, Store};
use crate::doctor;
use crate::error::{Error, Kind, Result};
use crate::host::device::SysFs;
use crate::host::scratch;
use crate::publish::{Published, publish};
use crate::report::Report;
use crate::report::outputs::{OutputFiles, Outputs};
use crate::restore::{give_up, restore as restore_snapshot};
use crate::retention::{self, Retained};
use crate::storage::ec2::Ec2Store;
use crate::storage::local::LocalStore;
use crate::storage::{BlockStorage, SnapshotId};

mod rollout;
pub mod signals;

pub use rollout::rollout;

fn open(store: &Store, report: &Report, cancel: &Cancel) -> Result<Arc<dyn Retained>> {
    Ok(match store {
        Store::Local(directory) => Arc::new(LocalStore::open(directory)?),
        Store::Ec2(settings) => Arc::new(ec2(settings, report, cancel)),
    })
}

fn ec2(settings: &config::Ec2, report: &Report, cancel: &Cancel) -> Ec2Store {
    Ec2Store::new(settings.clone(), SysFs::of_host(), report.clone(), cancel.clone())
}

/// What a bake or a rollout came to.
pub struct Outcome {
    /// The result; `None` after a dry run.
    pub outputs: Option<Outputs>,
    /// The snapshot is good, but something could not be cleaned up or written.
    pub cleanup: Option<Error>,
}

/// `bake`: bakes, and writes the output files, or in the summary of a CI's run why there are none.
///
/// # Errors
/// Those of [`bake::bake`], and `Usage` for an output file that cannot be written, before anything is done.
pub async fn bake(config: config::Bake, report: Report, cancel: &Cancel) -> Result<Outcome> {
    config.outputs.check_writable()?;
    let files = config.outputs.clone();
    let outcome = bake_into(&files, config, &report, cancel).await;
    if let Err(error) = &outcome {
        files.write_failure(error, &report.phases());
    }
    outcome
}

async fn bake_into(files: &OutputFiles, config: config::Bake, report: &Report, cancel: &Cancel) -> Result<Outcome> {
    let dry_run = config.dry_run;
    let ec2 = config.store.ec2().map(|settings| ec2(settings, report, cancel));
    let store: Arc<dyn BlockStorage> = match &ec2 {
        Some(ec2) => Arc::new(ec2.clone()),
        None => open(&config.store, report, cancel)?,
    };
    let rollout = match (&ec2, &config.rollout) {
        (Some(ec2), Some(fleet)) => Some(AfterBake::prepare(ec2, fleet, report, cancel).await?),
        _ => None,
    };
    let cx = bake::Context {
        config: Arc::new(config),
        store,
        report: report.clone(),
        cancel: cancel.clone(),
        sysfs: SysFs::of_host(),
    };
    if dry_run {
        let mut steps = bake::plan(&cx).await?;
        steps.extend(rollout.iter().flat_map(AfterBake::steps));
        steps.iter().for_each(|step| report.note(format!("would {step}")));
        return Ok(Outcome { outputs: None, cleanup: None });
    }
    let baked = bake::bake(&cx).await?;
    let published = match &ec2 {
        Some(ec2) => publish(&cx, ec2, &baked).await?,
        None => Published::default(),
    };
    let (rolled_out, left) = match &rollout {
        Some(rollout) => {
            let (rolled_out, left) = rollout.go(&baked).await?;
            (Some(rolled_out), left)
        }
        None => (None, None),
    };
    let outputs = Outputs { rollout: rolled_out, ..outputs(&baked, published, &cx) };
    let written = outputs.write(files);
    Ok(Outcome { outputs: Some(outputs), cleanup: baked.cleanup.or(left).or(written.err()) })
}

fn outputs(baked: &Baked, published: Published, cx: &bake::Context) -> Outputs {
    let Baked { snapshot, reused, resolved, repository, key, .. } = baked;
    Outputs {
        snapshot_id: snapshot.id.clone(),
        volume_id: snapshot.volume.clone(),
        commit: resolved.commit.to_string(),
        reference: resolved.reference.clone(),
        repository: repository.clone(),
        key: key.to_string(),
        reused: *reused,
        store: cx.store.name().to_owned(),
        region: cx.store.region(),
        size_gib: snapshot.size_gib,
        changed_blocks: snapshot.changed_blocks,
        copies: published.copies,
        ssm_parameter: published.parameter,
        rollout: None,
        duration: cx.report.elapsed(),
        phases: cx.report.phases(),
    }
}

/// `doctor`: the text for stdout, and the error that the program ends with when a bake would fail.
///
/// # Errors
/// None that a check could find: those are in the text.
pub async fn doctor(config: config::Doctor) -> Result<(String, Option<Error>)> {
    let json = config.json;
    let checks = doctor::examine(config).await?;
    let text = if json { doctor::json(&checks) } else { doctor::table(&checks) };
    Ok((text, doctor::verdict(&checks)))
}

/// `list`: the text for stdout.
///
/// # Errors
/// Those of the store.
pub async fn list(config: config::List, report: &Report) -> Result<String> {
    let store = open(&config.store, report, &Cancel::new())?;
    let snapshots = retention::snapshots(store.as_ref(), config.volume_name.as_deref()).await?;
    let ids: Vec<SnapshotId> = snapshots.iter().map(|snapshot| snapshot.id.clone()).collect();
    let usage = retention::usage(store.as_ref(), &ids, config.parameter.as_deref()).await;
    retention::warn(usage.failures(), report);
    Ok(match config.json {
        true => listing::json(&snapshots, &usage),
        false => listing::table(&snapshots, &usage, Timestamp::now()),
    })
}

/// `prune`: the text for stdout, and the error that the program ends with when something went wrong.
///
/// # Errors
/// Those of [`retention::prune::prune`].
pub async fn prune(config: config::Prune, report: &Report, cancel: &Cancel) -> Result<(String, Option<Error>)> {
    let store = open(&config.store, report, cancel)?;
    let pruned = retention::prune::prune(store.as_ref(), &config.wish, report, cancel).await?;
    let text = match config.json {
        true => pruning::json(&pruned.rows, &config.wish),
        false => pruning::table(&pruned.rows, Timestamp::now()),
    };
    Ok((text, pruned.failure))
}

/// `restore`, and its undoing.
///
/// # Errors
/// Those of [`crate::restore`].
pub async fn restore(config: config::Restore, report: &Report) -> Result<()> {
    let store = open(&config.store, report, &Cancel::new())?;
    let store = store.as_ref();
    let sysfs = SysFs::of_host();
    match config.action {
        RestoreAction::Mount { snapshot, mount_point } => {
            let restored = restore_snapshot(store, &sysfs, &snapshot, &mount_point).await?;
            report.note(format!("{snapshot} is mounted read-only at {} (volume {})", mount_point.display(), restored.volume));
        }
        RestoreAction::Detach { snapshot, mount_point } => {
            for volume in give_up(store, &sysfs, snapshot.as_ref(), mount_point.as_deref()).await? {
                report.note(format!("volume {volume} was unmounted, detached and deleted"));
            }
        }
    }
    Ok(())
}

/// What was found, in words, and whether it could be removed.
type Swept = Vec<(String, Result<()>)>;

async fn sweep(store: &Store, report: &Report) -> Result<Swept> {
    match store {
        Store::Local(directory) => {
            let swept = LocalStore::open(directory)?.sweep().await?;
            Ok(swept.into_iter().map(|(leftover, outcome)| (leftover.to_string(), outcome)).collect())
        }
        Store::Ec2(settings) => ec2(settings, report, &Cancel::new()).sweep().await,
    }
}

/// `cleanup`: what killed runs left on this host.
///
/// # Errors
/// `Cleanup` when something could not be removed; the rest was tried all the same.
pub async fn cleanup(config: config::Cleanup, report: &Report) -> Result<()> {
    let swept = sweep(&config.store, report).await?;
    for directory in scratch::sweep() {
        report.note(format!("removed {}", directory.display()));
    }
    let mut failure = None;
    for (leftover, outcome) in swept {
        match outcome {
            Ok(()) => report.note(format!("removed {leftover}")),
            Err(error) => {
                report.warn(format!("could not remove {leftover}: {error}"));
                failure = Some(error);
            }
        }
    }
    match failure {
        None => Ok(()),
        Some(error) => Err(Error::new(Kind::Cleanup, "something could not be removed").because(error)),
    }
}
