//! `rollout`, and the rollout after a bake.

use std::sync::Arc;

use super::{Outcome, ec2};
use crate::bake::Baked;
use crate::cancel::Cancel;
use crate::config::rollout::{Fleet, Rollout};
use crate::error::{Error, Result};
use crate::fleet::{self, Context, RolledOut, choose::choose};
use crate::key::tag;
use crate::report::Report;
use crate::report::outputs::Outputs;
use crate::storage::ec2::Ec2Store;
use crate::storage::{BlockStorage, Snapshot};

/// `rollout`: lets new machines boot from a snapshot, and writes the output files.
///
/// # Errors
/// Those of [`choose`], [`fleet::survey`], [`fleet::plan`] and [`fleet::apply`]; `Usage` for an output file that cannot be written,
/// before anything is done.
pub async fn rollout(config: Rollout, report: Report, cancel: &Cancel) -> Result<Outcome> {
    config.outputs.check_writable()?;
    let store = ec2(&config.ec2, &report, cancel);
    let cx = context(&store, config.fleet, &report, cancel);
    let survey = fleet::survey(&cx).await?;
    let snapshot = choose(&store, &survey, &config.choice, &config.volume_name, &cx.config).await?;
    report.note(format!("rolling out {}", title(&snapshot)));
    let plan = fleet::plan(&survey, &cx.config, snapshot)?;
    if config.dry_run {
        plan.warnings.iter().for_each(|warning| report.warn(warning));
        plan.steps(&cx.config).iter().for_each(|step| report.note(format!("would {step}")));
        return Ok(Outcome { outputs: None, cleanup: None });
    }
    let (rolled_out, cleanup) = fleet::apply(&cx, &plan).await?;
    let outputs = outputs(plan.snapshot, rolled_out, &store, &report);
    let written = outputs.write(&config.outputs);
    Ok(Outcome { outputs: Some(outputs), cleanup: cleanup.or(written.err()) })
}

fn context(store: &Ec2Store, fleet: Fleet, report: &Report, cancel: &Cancel) -> Context {
    Context { api: store.api(), config: Arc::new(fleet), report: report.clone(), cancel: cancel.clone() }
}

/// `snap-… of commit 0123456789ab`
fn title(snapshot: &Snapshot) -> String {
    match snapshot.tags.get(tag::COMMIT) {
        Some(commit) => format!("{} of commit {commit:.12}", snapshot.id),
        None => snapshot.id.to_string(),
    }
}

/// What a bake told of the snapshot stands in its tags.
fn outputs(snapshot: Snapshot, rolled_out: RolledOut, store: &Ec2Store, report: &Report) -> Outputs {
    let tag = |name| snapshot.tags.get(name).cloned();
    Outputs {
        commit: tag(tag::COMMIT).unwrap_or_default(),
        reference: tag(tag::REF),
        repository: tag(tag::REPOSITORY).unwrap_or_default(),
        key: tag(tag::KEY).unwrap_or_default(),
        snapshot_id: snapshot.id,
        volume_id: snapshot.volume,
        reused: true,
        store: store.name().to_owned(),
        region: store.region(),
        size_gib: snapshot.size_gib,
        changed_blocks: snapshot.changed_blocks,
        copies: Vec::new(),
        ssm_parameter: None,
        rollout: Some(rolled_out),
        duration: report.elapsed(),
        phases: report.phases(),
    }
}

/// The rollout that follows a bake.
pub(super) struct AfterBake {
    cx: Context,
}

impl AfterBake {
    /// Looks whether it will be possible, before the bake takes its time.
    pub(super) async fn prepare(store: &Ec2Store, fleet: &Fleet, report: &Report, cancel: &Cancel) -> Result<AfterBake> {
        let cx = context(store, fleet.clone(), report, cancel);
        fleet::survey(&cx).await?;
        Ok(AfterBake { cx })
    }

    /// What it would do.
    pub(super) fn steps(&self) -> Vec<String> {
        let config = &self.cx.config;
        let template = config.template.iter().map(|wanted| format!("launch template {}", wanted.name));
        let targets: Vec<String> = template.chain(config.groups.iter().map(|name| format!("group {name}"))).collect();
        let replace = if config.refresh.is_some() { ", and replace the groups' machines" } else { "" };
        vec![format!("roll it out to {}{replace}", targets.join(", "))]
    }

    /// Rolls the baked snapshot out. Everything is looked at anew: other runs may have made versions meanwhile.
    pub(super) async fn go(&self, baked: &Baked) -> Result<(RolledOut, Option<Error>)> {
        let (cx, snapshot) = (&self.cx, &baked.snapshot);
        let rolled_out = async {
            let survey = fleet::survey(cx).await?;
            fleet::apply(cx, &fleet::plan(&survey, &cx.config, snapshot.clone())?).await
        };
        let rolled_out = rolled_out.await;
        if rolled_out.is_err() {
            cx.report
                .warn(format!("snapshot {} is good, but not rolled out; run again: only what is missing is done", snapshot.id));
            if let Some(left) = &baked.cleanup {
                cx.report.warn(format!("cleaning up failed too: {left}; run `ebs-bake cleanup`"));
            }
        }
        rolled_out
    }
}
