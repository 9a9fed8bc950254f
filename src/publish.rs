//! After the bake: the snapshot in other regions, for other accounts, and under a name where others look for the newest.
//!
//! Every step first looks: what is as it should be stays as it is, so that a run that was interrupted is completed by the next.

use tokio::task::JoinSet;

use crate::bake::{Baked, Context, completed, decide};
use crate::config::CopyTo;
use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::report::{Change, Phase};
use crate::storage::ec2::Ec2Store;
use crate::storage::{BlockStorage, Snapshot, SnapshotId, SnapshotQuery};

/// Where a snapshot is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// Region and ID of each copy, in the order that was asked for.
    pub copies: Vec<(String, SnapshotId)>,
    /// The parameter that has the ID in each of the regions.
    pub parameter: Option<String>,
}

/// What [`publish`] would do.
pub fn plan(cx: &Context) -> Vec<String> {
    let wanted = &cx.config.publish;
    let mut steps: Vec<String> = wanted.copies.iter().map(|copy| format!("copy it to {}", copy.region)).collect();
    if !wanted.accounts.is_empty() {
        steps.push(format!("share it with {}", wanted.accounts.join(", ")));
    }
    steps.extend(wanted.parameter.iter().map(|name| format!("write its ID to the parameter {name}")));
    steps
}

/// Copies the completed snapshot, shares it and its copies, and writes the parameter: last, when all of that is good.
///
/// # Errors
/// Of the kind of the step that failed. The snapshot itself is good, which a warning says.
pub async fn publish(cx: &Context, store: &Ec2Store, baked: &Baked) -> Result<Published> {
    let published = publish_all(cx, store, baked).await;
    if published.is_err() {
        let id = &baked.snapshot.id;
        cx.report.warn(format!("snapshot {id} is good, but not published; run again: only what is missing is done"));
        if let Some(left) = &baked.cleanup {
            cx.report.warn(format!("cleaning up failed too: {left}; run `ebs-bake cleanup`"));
        }
    }
    published
}

async fn publish_all(cx: &Context, store: &Ec2Store, baked: &Baked) -> Result<Published> {
    let wanted = &cx.config.publish;
    let copies = copy_all(cx, store, baked).await?;
    let home = [(store.clone(), baked.snapshot.id.clone())];
    let places: Vec<(Ec2Store, SnapshotId)> = home.into_iter().chain(copies).collect();
    share(cx, &places).await?;
    write_parameter(cx, &places).await?;
    let name = |(store, id): &(Ec2Store, SnapshotId)| (store.region().unwrap_or_default(), id.clone());
    Ok(Published { copies: places[1..].iter().map(name).collect(), parameter: wanted.parameter.clone() })
}

/// All regions at the same time: a copy takes minutes.
async fn copy_all(cx: &Context, home: &Ec2Store, baked: &Baked) -> Result<Vec<(Ec2Store, SnapshotId)>> {
    let wanted = &cx.config.publish.copies;
    if let Some(own) = wanted.iter().find(|copy| Some(&copy.region) == home.region().as_ref()) {
        let message = format!("--copy-to {}: that is where the snapshot is", own.region);
        return Err(Error::new(Kind::Usage, message).hint("name other regions only"));
    }
    let mut running = JoinSet::new();
    for (index, wish) in wanted.iter().enumerate() {
        let (cx, home, wish) = (cx.clone(), home.clone(), wish.clone());
        let (snapshot, key) = (baked.snapshot.clone(), baked.key.clone());
        running.spawn(async move { (index, copy(&cx, &home, &snapshot, &key, &wish).await) });
    }
    let mut copies = running.join_all().await;
    copies.sort_by_key(|(index, _)| *index);
    copies.into_iter().map(|(_, copy)| copy).collect()
}

async fn copy(cx: &Context, home: &Ec2Store, snapshot: &Snapshot, key: &Key, wish: &CopyTo) -> Result<(Ec2Store, SnapshotId)> {
    let region = &wish.region;
    let phase = cx.report.phase(Phase::Copy);
    let there = home.in_region(region);
    let found = there.snapshots(&SnapshotQuery { tags: key.query(), ..Default::default() }).await?;
    for failed in &found {
        if let Some(why) = failed.state.trouble() {
            cx.report.warn(format!("the copy {} in {region} is unusable: {why}", failed.id));
        }
    }
    let (change, copy) = match decide::answer(&found) {
        Some(copy) => (Change::Unchanged, copy.clone()),
        None => {
            let made = tokio::select! {
                biased;
                made = there.copy_from(home, snapshot, wish.kms_key.as_deref()) => made?,
                () = cx.cancel.cancelled() => return Err(cx.cancel.error()),
            };
            (Change::Created, made)
        }
    };
    let copy = completed(cx, &there, &phase, copy).await?;
    phase.done(change, format!("{} in {region}", copy.id));
    Ok((there, copy.id))
}

async fn share(cx: &Context, places: &[(Ec2Store, SnapshotId)]) -> Result<()> {
    let accounts = &cx.config.publish.accounts;
    if accounts.is_empty() {
        return Ok(());
    }
    let phase = cx.report.phase(Phase::Share);
    let mut change = Change::Unchanged;
    for (store, id) in places {
        cx.cancel.check()?;
        if store.share(id, accounts).await? != Change::Unchanged {
            change = Change::Changed;
        }
    }
    phase.done(change, format!("with {}", accounts.join(", ")));
    Ok(())
}

/// The home region last: who looks there finds the others as they should be.
async fn write_parameter(cx: &Context, places: &[(Ec2Store, SnapshotId)]) -> Result<()> {
    let Some(name) = &cx.config.publish.parameter else { return Ok(()) };
    let phase = cx.report.phase(Phase::Parameter);
    let mut change = Change::Unchanged;
    for (store, id) in places.iter().rev() {
        cx.cancel.check()?;
        if store.write_parameter(name, id).await? != Change::Unchanged {
            change = Change::Changed;
        }
    }
    phase.done(change, format!("{name} is {}", places[0].1));
    Ok(())
}
