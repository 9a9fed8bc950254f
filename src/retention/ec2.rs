//! Who uses a snapshot of EC2, as its API and those of Auto Scaling and Systems Manager tell. No call is made for each snapshot, but
//! for those that are about to be deleted.

mod launch;

use std::collections::BTreeSet;

use async_trait::async_trait;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{self, Filter, VolumeAttachmentState, VolumeState};

use super::usage::{Holder, Lookup, Usage, VolumeUser};
use super::{FastRestores, Retained, Retired};
use crate::aws::api::{Action, Api};
use crate::aws::failure::{Class, Failure};
use crate::aws::pages;
use crate::error::{Error, Kind, Result};
use crate::storage::ec2::Ec2Store;
use crate::storage::{SnapshotId, VolumeId};

/// Values of one filter (EC2 API developer guide, "Use filters").
const FILTER_VALUES: usize = 200;
/// On one page: the most that DescribeFastSnapshotRestores takes.
const FAST_RESTORES: i32 = 200;
/// On one page of DescribeImages, which takes 1000.
const IMAGES: i32 = 500;

#[async_trait]
impl Retained for Ec2Store {
    async fn usage(&self, ids: &[SnapshotId], parameter: Option<&str>) -> Usage {
        let ours: BTreeSet<SnapshotId> = ids.iter().cloned().collect();
        let api = self.api();
        let mut usage = Usage::default();
        let (volumes, images, launchers, named) =
            tokio::join!(volumes(self, ids), images(&api, ids), launch::launchers(&api, &ours), named(self, parameter));
        usage.add(Lookup::Volumes, volumes, |usage, volumes| volumes.iter().for_each(|volume| note_volume(usage, volume)));
        usage.add(Lookup::Images, images, |usage, images| images.iter().for_each(|image| note_image(usage, image, &ours)));
        usage.add(Lookup::Parameter, named, |usage, value| {
            if let Some(id) = value.as_ref().filter(|id| ours.contains(id)) {
                usage.entry(id).parameter = parameter.map(str::to_owned);
            }
        });
        launchers.note(&mut usage, &ours);
        usage
    }

    async fn accounts(&self, ids: &[SnapshotId]) -> Usage {
        let mut usage = Usage::default();
        for id in ids {
            usage.add(Lookup::Accounts, self.shared_with(id).await, |usage, accounts| {
                usage.entry(id).accounts.extend(accounts);
            });
            // Without the permission for one there is none for the others.
            if !usage.is_complete() {
                break;
            }
        }
        usage
    }

    async fn fast_restores(&self, ids: &[SnapshotId]) -> Result<FastRestores> {
        let mut found = FastRestores::new();
        let api = &self.api();
        for ids in ids.chunks(FILTER_VALUES) {
            let on = ["enabling", "optimizing", "enabled"].map(str::to_owned).to_vec();
            let filters = &[one_of("snapshot-id", ids), Filter::builder().name("state").set_values(Some(on)).build()];
            let page = |token: Option<String>| async move {
                let send = |ec2: &Client| {
                    let request = ec2.describe_fast_snapshot_restores().set_filters(Some(filters.to_vec()));
                    request.max_results(FAST_RESTORES).set_next_token(token.clone()).send()
                };
                let answer = api.call(Action::DescribeFastSnapshotRestores, send).await;
                let answer = answer.map_err(|failure| failure.into_error("see which snapshots are restored fast"))?;
                Ok((answer.fast_snapshot_restores.unwrap_or_default(), answer.next_token))
            };
            for item in pages(page).await? {
                let (Some(id), Some(zone)) = (item.snapshot_id, item.availability_zone) else { continue };
                found.entry(id.parse()?).or_default().push(zone);
            }
        }
        Ok(found)
    }

    async fn retire(&self, id: &SnapshotId, zones: &[String]) -> Result<Retired> {
        let api = self.api();
        if !zones.is_empty() {
            end_fast_restores(&api, id, zones).await?;
        }
        let send = |ec2: &Client| ec2.delete_snapshot().snapshot_id(id.as_str()).send();
        match api.call(Action::DeleteSnapshot, send).await {
            Ok(_) => Ok(Retired::Deleted),
            Err(failure) if failure.class() == Class::NotFound => Ok(Retired::Deleted),
            Err(failure) if failure.class() == Class::Conflict => Ok(Retired::InUse(in_use(failure))),
            Err(failure) => Err(failure.into_error(format!("delete snapshot {id}"))),
        }
    }
}

fn in_use(failure: Failure) -> String {
    if failure.message.is_empty() { failure.code.unwrap_or_default() } else { failure.message }
}

/// The snapshot that the parameter names, if it names one.
async fn named(store: &Ec2Store, parameter: Option<&str>) -> Result<Option<SnapshotId>> {
    let Some(name) = parameter else { return Ok(None) };
    Ok(store.read_parameter(name).await?.and_then(|value| value.trim().parse().ok()))
}

async fn volumes(store: &Ec2Store, ids: &[SnapshotId]) -> Result<Vec<types::Volume>> {
    let mut found = Vec::new();
    for ids in ids.chunks(FILTER_VALUES) {
        found.extend(store.volumes_of_all_zones(vec![one_of("snapshot-id", ids)]).await?);
    }
    Ok(found)
}

fn note_volume(usage: &mut Usage, volume: &types::Volume) {
    let id: Option<VolumeId> = volume.volume_id().and_then(|id| id.parse().ok());
    let snapshot: Option<SnapshotId> = volume.snapshot_id().and_then(|id| id.parse().ok());
    let (Some(id), Some(snapshot)) = (id, snapshot) else { return };
    let attached = volume.attachments().iter().filter(|it| it.state() != Some(&VolumeAttachmentState::Detached));
    // What a service of AWS holds for the account has no instance of the account.
    let holder = |it: &types::VolumeAttachment| it.instance_id().or(it.associated_resource()).unwrap_or("of AWS").to_owned();
    let mut holders: Vec<Holder> = attached.map(|it| Holder::Instance(holder(it))).collect();
    if holders.is_empty() {
        let is_free = matches!(volume.state(), Some(VolumeState::Available | VolumeState::Error));
        holders.push(if is_free { Holder::Nobody } else { Holder::Store });
    }
    usage.entry(&snapshot).volumes.extend(holders.into_iter().map(|holder| VolumeUser { id: id.clone(), holder }));
}

async fn images(api: &Api, ids: &[SnapshotId]) -> Result<Vec<types::Image>> {
    let mut found = Vec::new();
    for ids in ids.chunks(FILTER_VALUES) {
        let filter = &one_of("block-device-mapping.snapshot-id", ids);
        let page = |token: Option<String>| async move {
            let send = |ec2: &Client| {
                // Those that are disabled keep their snapshots.
                let request = ec2.describe_images().owners("self").include_disabled(true).filters(filter.clone());
                request.max_results(IMAGES).set_next_token(token.clone()).send()
            };
            let answer = api.call(Action::DescribeImages, send).await;
            let answer = answer.map_err(|failure| failure.into_error("look for AMIs"))?;
            Ok((answer.images.unwrap_or_default(), answer.next_token))
        };
        found.extend(pages(page).await?);
    }
    Ok(found)
}

fn note_image(usage: &mut Usage, image: &types::Image, ours: &BTreeSet<SnapshotId>) {
    let Some(image_id) = image.image_id() else { return };
    for id in snapshots(image.block_device_mappings().iter().filter_map(|mapping| mapping.ebs()?.snapshot_id())) {
        if ours.contains(&id) {
            usage.entry(&id).images.insert(image_id.to_owned());
        }
    }
}

async fn end_fast_restores(api: &Api, id: &SnapshotId, zones: &[String]) -> Result<()> {
    let doing = format!("end the fast restore of snapshot {id}");
    let send = |ec2: &Client| {
        let request = ec2.disable_fast_snapshot_restores().source_snapshot_ids(id.as_str());
        request.set_availability_zones(Some(zones.to_vec())).send()
    };
    let answer = api.call(Action::DisableFastSnapshotRestores, send).await;
    let answer = answer.map_err(|failure| failure.into_error(&doing))?;
    let refused = answer.unsuccessful().iter().flat_map(|item| item.fast_snapshot_restore_state_errors()).next();
    let Some(refused) = refused else { return Ok(()) };
    let zone = refused.availability_zone().unwrap_or("a zone");
    let error = refused.error();
    let code = error.and_then(|error| error.code()).unwrap_or("no reason is told");
    let message = format!("cannot {doing} in {zone}: {code}");
    let why = error.and_then(|error| error.message()).unwrap_or_default();
    Err(if why.is_empty() { Error::new(Kind::Storage, message) } else { Error::new(Kind::Storage, message).because(why) })
}

/// The IDs that are such.
fn snapshots<'a>(ids: impl Iterator<Item = &'a str>) -> Vec<SnapshotId> {
    ids.filter_map(|id| id.parse().ok()).collect()
}

/// A filter with these snapshots as its values.
fn one_of(name: &str, ids: &[SnapshotId]) -> Filter {
    Filter::builder().name(name).set_values(Some(ids.iter().map(ToString::to_string).collect())).build()
}
