//! What a bake would meet on EC2: asks and decides; `instance` and `permissions` decide their part.

use super::caller::{self, CALLER, NEEDS_CREDENTIALS, NEEDS_REGION, clock, credentials};
use super::host::{UNPRIVILEGED, is_privileged};
use super::permissions::{self, TRIED};
use super::{Check, instance, skipped};
use crate::aws::api::Action;
use crate::bake::decide::{self, VolumeChoice};
use crate::bake::volume::{named, wanted};
use crate::cancel::Cancel;
use crate::config::{Doctor, Ec2};
use crate::error::{Kind, Result};
use crate::host::device::SysFs;
use crate::key::tag;
use crate::report::Report;
use crate::storage::ec2::Ec2Store;
use crate::storage::ec2::preflight::{Caller, Found, Permission, Preflight, Subject};
use crate::storage::{Attachment, NewSnapshot, Snapshot, SnapshotQuery, Tags, Volume, VolumeQuery};

/// "Pending snapshots per account" of the Amazon EBS User Guide, "Quotas for Amazon EBS": for each region.
const PENDING_QUOTA: usize = 100;
/// In percent of the quota.
const PENDING_MANY: usize = 80;

/// The checks that need a region, in the order of the table; those of the actions that are tried come after the looks.
const LOOKS: [&str; 2] = ["ec2:DescribeVolumes", "ec2:DescribeSnapshots"];
const FOUND: [&str; 3] = ["volume", "device-name", "pending-snapshots"];

pub(super) async fn checks(config: &Doctor, settings: Ec2) -> Vec<Check> {
    let (stated_region, sysfs) = (settings.region.clone(), SysFs::of_host());
    let store = Ec2Store::new(settings, sysfs.clone(), Report::silent(), Cancel::new());
    let flight = store.preflight();
    let (document, region) = tokio::join!(flight.document(), flight.region());
    let stated = flight.stated();
    let token_lost = document.is_err() && instance::answers_without_token().await;
    let mut checks = vec![
        instance::metadata(&document, stated, token_lost),
        instance::id(&document, stated),
        instance::zone(&document, stated, region.as_deref().ok()),
        caller::region(region.as_deref(), stated_region.is_some()),
        block_device(&sysfs),
    ];
    let knows_place = flight.stated().is_complete() || document.is_ok();
    checks.extend(match region {
        Ok(_) => with_region(config, &flight, knows_place).await,
        Err(_) => skipped(&[&CALLER[..], &LOOKS, &actions(), &FOUND].concat(), NEEDS_REGION),
    });
    checks
}

/// Whether a disk of the kind that a volume becomes can be opened: a container needs a rule for that.
fn block_device(sysfs: &SysFs) -> Check {
    let name = "block-device";
    if !is_privileged() {
        return Check::skipped(name, UNPRIVILEGED);
    }
    match sysfs.any_ebs() {
        Some(device) => {
            let opened = device.probe_private_node();
            Check::of(name, opened.map(|()| format!("{} can be opened through a node of our own", device.name)))
        }
        None => Check::skipped(name, "no EBS volume is attached to try it on"),
    }
}

async fn with_region(config: &Doctor, flight: &Preflight<'_>, knows_place: bool) -> Vec<Check> {
    let caller = flight.caller().await;
    let refused = matches!(caller, Caller::Refused(_));
    let credentials = credentials(caller, flight.clock_ahead());
    if refused {
        let mut checks = vec![credentials, clock(flight.clock_ahead())];
        checks.extend(skipped(&[&LOOKS[..], &actions(), &FOUND].concat(), NEEDS_CREDENTIALS));
        return checks;
    }
    let (place, pending) = tokio::join!(with_place(config, flight, knows_place), flight.pending_snapshots());
    let Place { look, tried, volume, device_name } = place;
    let look_for_snapshots = match &pending {
        Ok(_) => Check::ok(LOOKS[1], "permitted"),
        Err(error) => Check::of_error(LOOKS[1], error),
    };
    let pending = pending.map_or_else(|_| Check::skipped(FOUND[2], format!("needs {}", LOOKS[1])), pending_snapshots);
    let mut checks = vec![credentials, clock(flight.clock_ahead()), look, look_for_snapshots];
    checks.extend(tried);
    checks.extend([volume, device_name, pending]);
    checks
}

fn actions() -> [&'static str; TRIED.len()] {
    TRIED.map(Action::permission)
}

/// The checks that need the instance and its zone.
struct Place {
    /// Whether volumes may be looked for.
    look: Check,
    /// One for each action.
    tried: Vec<Check>,
    volume: Check,
    device_name: Check,
}

impl Place {
    fn skipped(look: Check, why: &str) -> Place {
        let [volume, device_name] = [FOUND[0], FOUND[1]].map(|name| Check::skipped(name, why));
        Place { look, tried: skipped(&actions(), why), volume, device_name }
    }
}

async fn with_place(config: &Doctor, flight: &Preflight<'_>, knows_place: bool) -> Place {
    if !knows_place {
        let why = "needs the instance and its zone";
        return Place::skipped(Check::skipped(LOOKS[0], why), why);
    }
    let query = match &config.volume_id {
        Some(id) => VolumeQuery { id: Some(id.clone()), ..Default::default() },
        None => VolumeQuery { tags: named(&config.volume_name), ..Default::default() },
    };
    let named = SnapshotQuery { tags: named(&config.volume_name), ..Default::default() };
    let (found, snapshots, device) = tokio::join!(flight.volumes(&query), flight.snapshots(&named), flight.device());
    let found = match found {
        Ok(found) => found,
        Err(error) => return Place::skipped(Check::of_error(LOOKS[0], &error), &format!("needs {}", LOOKS[0])),
    };
    let volume = found.volumes.first().cloned();
    let tried = actions_tried(config, flight, volume.as_ref(), snapshots.as_deref().unwrap_or_default()).await;
    // A bake that has its volume does not look for one to make it from.
    let snapshots = if volume.is_some() || config.volume_id.is_some() { Ok(Vec::new()) } else { snapshots };
    Place {
        look: Check::ok(LOOKS[0], "permitted"),
        tried,
        volume: the_volume(config, found, snapshots),
        device_name: device_name(device, volume.as_ref()),
    }
}

/// What a bake would do for its volume: the decision is the bake's own.
fn the_volume(config: &Doctor, found: Found, snapshots: Result<Vec<Snapshot>>) -> Check {
    let name = &config.volume_name;
    let choice = snapshots.and_then(|snapshots| match &config.volume_id {
        Some(id) => decide::choose_given_volume(id, found.volumes),
        None => decide::choose_volume(name, &found.volumes, &snapshots),
    });
    let choice = found.unfit.map_or(choice, Err);
    Check::of(
        FOUND[0],
        choice.map(|choice| match choice {
            VolumeChoice::Use(volume) => described(&volume),
            VolumeChoice::FromSnapshot(snapshot) => {
                format!("none is named {name:?} in this zone: one would be made from {snapshot}")
            }
            VolumeChoice::Blank => format!("none is named {name:?} in this zone: a blank one would be made"),
        }),
    )
}

fn described(volume: &Volume) -> String {
    let place = match &volume.attachment {
        Attachment::Here { device, .. } => format!("attached here as {device}"),
        _ => "free".to_owned(),
    };
    format!("{}, {} GiB, {place}", volume.id, volume.size_gib)
}

/// Whether the name that the volume would be attached under is free.
fn device_name(device: Result<(&str, Option<String>)>, volume: Option<&Volume>) -> Check {
    let name = FOUND[1];
    let (device, taken) = match device {
        Ok(device) => device,
        Err(error) => return Check::of_error(name, &error),
    };
    let here = volume.filter(|volume| matches!(volume.attachment, Attachment::Here { .. }));
    match (here, taken) {
        (Some(volume), _) => Check::ok(name, format!("{} is attached already", volume.id)),
        (None, None) => Check::ok(name, format!("{device} is free")),
        (None, Some(other)) => {
            let hint = "detach that volume, or give another name with --device";
            Check::failure(name, Kind::Storage, format!("{device} is taken on this instance by volume {other}"), hint)
        }
    }
}

fn pending_snapshots(count: usize) -> Check {
    let detail = format!("{count} of {PENDING_QUOTA} that an account has by default in a region");
    if count * 100 < PENDING_QUOTA * PENDING_MANY {
        return Check::ok(FOUND[2], detail);
    }
    let hint = "when the quota is reached, bakes wait for other snapshots to complete; it may have been raised for this account \
                (Service Quotas, Amazon EBS, \"Pending snapshots per account\")";
    Check::warning(FOUND[2], detail, hint)
}

async fn actions_tried(config: &Doctor, flight: &Preflight<'_>, volume: Option<&Volume>, snapshots: &[Snapshot]) -> Vec<Check> {
    let subject = subject(config, volume, snapshots);
    let ask = |at: usize| flight.permission(TRIED[at], &subject);
    let (a, b, c, d, e, f) = tokio::join!(ask(0), ask(1), ask(2), ask(3), ask(4), ask(5));
    let (g, h, i, j, k) = tokio::join!(ask(6), ask(7), ask(8), ask(9), ask(10));
    let judged = |(action, told): (Action, Option<Permission>)| {
        permissions::permission(action, told, permissions::spare(action, config, volume))
    };
    TRIED.into_iter().zip([a, b, c, d, e, f, g, h, i, j, k]).map(judged).collect()
}

/// What a bake would send, as far as it is known without a commit: the tags are those that policies have conditions on.
fn subject(config: &Doctor, volume: Option<&Volume>, snapshots: &[Snapshot]) -> Subject {
    let name = &config.volume_name;
    let base = decide::lineage(snapshots);
    let new = wanted(name, config.volume_size_gib, base.map(|it| it.id.clone()), base.map_or(1, |it| it.size_gib));
    let mut tags = named(name);
    for (key, value) in [
        (tag::KEY, "0".repeat(64)),
        (tag::COMMIT, "0".repeat(40)),
        (tag::REPOSITORY, "https://example.com/repository".to_owned()),
        (tag::VERSION, env!("CARGO_PKG_VERSION").to_owned()),
        (tag::NAME, name.clone()),
    ] {
        tags.insert(key.to_owned(), value);
    }
    let snapshot = |volume: &Volume| snapshot_of(volume, tags.clone());
    let size = volume.map_or(0, |volume| volume.size_gib);
    Subject {
        new,
        latest: snapshots.last().map(|snapshot| snapshot.id.clone()),
        present: volume.map(|volume| (volume.clone(), snapshot(volume))),
        grow_to: config.volume_size_gib.filter(|wanted| *wanted > size).unwrap_or(size + 1),
    }
}

fn snapshot_of(volume: &Volume, tags: Tags) -> NewSnapshot {
    NewSnapshot { volume: volume.id.clone(), tags, description: "tried by ebs-bake doctor".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn pending_snapshots_are_worth_a_warning_from_four_fifths_of_the_quota() {
        assert_eq!([0, 79].map(|count| pending_snapshots(count).outcome), [Outcome::Ok; 2]);
        assert_eq!([80, 100, 250].map(|count| pending_snapshots(count).outcome), [Outcome::Warning; 3]);
    }

    #[test]
    fn a_device_name_matters_until_the_volume_is_attached() {
        assert_eq!(device_name(Ok(("/dev/sdk", None)), None).outcome, Outcome::Ok);
        let taken = device_name(Ok(("/dev/sdk", Some("vol-00000001".into()))), None);
        assert_eq!(taken.outcome, Outcome::Failure(Kind::Storage));
        assert!(taken.detail.contains("vol-00000001") && taken.hint.unwrap().contains("--device"));
    }
}
