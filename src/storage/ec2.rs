//! Amazon EBS: volumes and snapshots of EC2, attached to the instance that this program runs on.
//!
//! The API is asked as little as can be, and never believed blindly: its answers may be older than what was done last, and a
//! call without an answer may have been carried out. What is settled by looking, is; nothing is taken from anybody by force.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ec2::{Client, types};

use super::{
    Attachment, BlockStorage, NewSnapshot, NewVolume, Snapshot, SnapshotId, SnapshotQuery, Volume, VolumeId, VolumeQuery,
};
use crate::aws::api::{Action, Api, direct_http_client};
use crate::aws::failure::{Class, Failure};
use crate::aws::pages;
use crate::cancel::Cancel;
use crate::config::Ec2;
use crate::error::{Error, Kind, OrFail, Result};
use crate::host::device::SysFs;
use crate::host::identity::{Identity, Stated};
use crate::host::lock::DeviceLock;
use crate::key::tag;
use crate::report::{Change, Report};
use crate::wait::{Pace, Pauses};

use convert::Standing;

mod attach;
mod convert;
mod copy;
mod create;
mod detach;
mod grow;
mod parameter;
pub mod preflight;
mod presign;
mod snapshot;
mod sweep;

/// How long EC2 may take a volume for one that is attached after it said itself that it was detached.
const DELETE_PATIENCE: Duration = Duration::from_secs(30);
/// Results on one page: the most that DescribeVolumes takes.
const PAGE: i32 = 500;

/// EC2 answers within a second or two, and a cancelled run has less than seven.
const OUTCOME: Duration = Duration::from_secs(4);

/// Volumes of this availability zone and snapshots of this account and region.
///
/// A query without an ID and without tags is about what ebs-bake made.
#[derive(Clone)]
pub struct Ec2Store {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Ec2,
    api: Arc<Api>,
    identity: Identity,
    sysfs: SysFs,
    report: Report,
    cancel: Cancel,
    /// A volume was deleted by us.
    deleted: AtomicBool,
}

impl Ec2Store {
    /// Calls nothing yet. Waits for volumes end when `cancel` is called, but for those that give something back.
    pub fn new(settings: Ec2, sysfs: SysFs, report: Report, cancel: Cancel) -> Self {
        let stated = Stated { instance_id: settings.instance_id.clone(), availability_zone: settings.availability_zone.clone() };
        let identity = Identity::new(stated, direct_http_client());
        let api = Arc::new(Api::new(settings.region.clone()));
        Ec2Store { inner: Arc::new(Inner { settings, api, identity, sysfs, report, cancel, deleted: AtomicBool::new(false) }) }
    }

    /// The APIs of the store's region, with its credentials, for what else is done with snapshots.
    pub fn api(&self) -> Arc<Api> {
        self.inner.api.clone()
    }

    /// The volumes of all zones that match and are not being deleted, as EC2 has them.
    ///
    /// # Errors
    /// `Storage`, and `Permission` for what is not permitted.
    pub async fn volumes_of_all_zones(&self, filters: Vec<types::Filter>) -> Result<Vec<types::Volume>> {
        self.inner.matching_volumes(None, filters).await
    }
}

#[async_trait]
impl BlockStorage for Ec2Store {
    fn name(&self) -> &'static str {
        "ec2"
    }

    fn region(&self) -> Option<String> {
        self.inner.api.region()
    }

    async fn volumes(&self, query: &VolumeQuery) -> Result<Vec<Volume>> {
        let volumes = self.inner.describe_volumes(query).await?;
        let mut volumes = self.inner.converted(&volumes).await?;
        volumes.sort_by_key(|volume| volume.created);
        Ok(volumes)
    }

    async fn snapshots(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>> {
        let mut snapshots = self.inner.describe_snapshots(query).await?;
        snapshots.sort_by_key(|snapshot| snapshot.started);
        Ok(snapshots)
    }

    async fn create_volume(&self, new: &NewVolume) -> Result<(Change, Volume)> {
        self.inner.create_volume(new).await
    }

    async fn grow_volume(&self, id: &VolumeId, size_gib: u32) -> Result<()> {
        self.inner.grow_volume(id, size_gib).await
    }

    async fn require_devices(&self) -> Result<()> {
        // Nearly every instance has one: its root volume.
        match self.inner.sysfs.any_ebs() {
            Some(device) => device.node().map(drop),
            None => Ok(()),
        }
    }

    async fn delete_volume(&self, id: &VolumeId) -> Result<()> {
        self.inner.delete_volume(id).await
    }

    async fn attach(&self, id: &VolumeId) -> Result<(Change, Attachment)> {
        self.inner.attach(id).await
    }

    async fn keep_attached(&self, _id: &VolumeId) -> Result<()> {
        // It is EC2 that keeps the attachment.
        Ok(())
    }

    async fn detach(&self, id: &VolumeId, lock: Option<DeviceLock>) -> Result<()> {
        self.inner.detach(id, lock).await
    }

    async fn create_snapshot(&self, new: &NewSnapshot) -> Result<Snapshot> {
        self.inner.create_snapshot(new).await
    }

    fn outcome_patience(&self) -> Duration {
        OUTCOME
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        let send = |ec2: &Client| ec2.delete_snapshot().snapshot_id(id.as_str()).send();
        gone(self.inner.api.call(Action::DeleteSnapshot, send).await.map(drop), format!("delete snapshot {id}"))
    }
}

/// What is not there needs no deleting.
fn gone(answer: Result<(), Failure>, doing: String) -> Result<()> {
    match answer {
        Err(failure) if failure.class() != Class::NotFound => Err(failure.into_error(doing)),
        _ => Ok(()),
    }
}

impl Inner {
    /// The volumes that match and are not being deleted, as EC2 has them.
    async fn describe_volumes(&self, query: &VolumeQuery) -> Result<Vec<types::Volume>> {
        let mut filters = convert::tag_filters(&query.tags);
        // A volume that is named is looked for in all zones, so that the wrong zone can be told.
        if query.id.is_none() {
            filters.push(convert::filter("availability-zone", self.identity.availability_zone().await?));
            if query.tags.is_empty() {
                filters.push(convert::filter("tag-key", tag::ORIGIN));
            }
        }
        self.matching_volumes(query.id.as_ref(), filters).await
    }

    async fn matching_volumes(&self, id: Option<&VolumeId>, filters: Vec<types::Filter>) -> Result<Vec<types::Volume>> {
        let filters = &filters;
        let page = |token: Option<String>| async move {
            let send = |ec2: &Client| {
                let request = ec2.describe_volumes().set_filters(some(filters)).set_next_token(token.clone());
                match id {
                    Some(id) => request.volume_ids(id.as_str()),
                    None => request.max_results(PAGE),
                }
                .send()
            };
            match self.api.call(Action::DescribeVolumes, send).await {
                Err(failure) if id.is_some() && failure.class() == Class::NotFound => Ok((Vec::new(), None)),
                answer => {
                    let answer = answer.map_err(|failure| failure.into_error("look for volumes"))?;
                    Ok((answer.volumes.unwrap_or_default(), answer.next_token))
                }
            }
        };
        Ok(pages(page).await?.into_iter().filter(convert::is_there).collect())
    }

    async fn describe_volume(&self, id: &VolumeId) -> Result<Option<types::Volume>> {
        Ok(self.describe_volumes(&VolumeQuery { id: Some(id.clone()), ..VolumeQuery::default() }).await?.pop())
    }

    /// Is not cancelled: it gives back what was taken.
    async fn delete_volume(&self, id: &VolumeId) -> Result<()> {
        let send = |ec2: &Client| ec2.delete_volume().volume_id(id.as_str()).send();
        let mut pauses = Pauses::new(Pace::VOLUME, DELETE_PATIENCE);
        loop {
            let answer = self.api.call(Action::DeleteVolume, send).await.map(drop);
            // EC2 may not know yet that it was detached.
            let is_in_use = matches!(&answer, Err(failure) if failure.class() == Class::Conflict);
            if !is_in_use || !self.is_free(id).await? || !pauses.pause(&Cancel::new(), std::future::pending()).await? {
                gone(answer, format!("delete volume {id}"))?;
                self.deleted.store(true, Ordering::Relaxed);
                return Ok(());
            }
        }
    }

    async fn is_free(&self, id: &VolumeId) -> Result<bool> {
        Ok(self.describe_volume(id).await?.is_some_and(|volume| convert::standing(&volume, "") == Standing::Free))
    }

    /// In our words; who we are is asked only if one of them is attached.
    async fn converted(&self, volumes: &[types::Volume]) -> Result<Vec<Volume>> {
        let attached = volumes.iter().any(|volume| !volume.attachments().is_empty());
        let me = if attached { self.identity.instance_id().await? } else { "" };
        volumes.iter().map(|volume| convert::volume(volume, me)).collect()
    }

    async fn describe_snapshots(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>> {
        let mut filters = convert::tag_filters(&query.tags);
        if query.id.is_none() && query.tags.is_empty() {
            filters.push(convert::filter("tag-key", tag::KEY));
        }
        let filters = &filters;
        let page = |token: Option<String>| async move {
            let send = |ec2: &Client| {
                let request = ec2.describe_snapshots().owner_ids("self");
                let request = request.set_filters(some(filters)).set_next_token(token.clone());
                match &query.id {
                    Some(id) => request.snapshot_ids(id.as_str()),
                    None => request.max_results(PAGE),
                }
                .send()
            };
            match self.api.call(Action::DescribeSnapshots, send).await {
                Err(failure) if query.id.is_some() && failure.class() == Class::NotFound => Ok((Vec::new(), None)),
                answer => {
                    let answer = answer.map_err(|failure| failure.into_error("look for snapshots"))?;
                    Ok((answer.snapshots.unwrap_or_default(), answer.next_token))
                }
            }
        };
        pages(page).await?.iter().map(convert::snapshot).collect()
    }
}

/// An empty list of filters is none.
fn some(filters: &[types::Filter]) -> Option<Vec<types::Filter>> {
    (!filters.is_empty()).then(|| filters.to_vec())
}

/// A number that no other call has.
fn random_run() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).or_fail(Kind::Storage, || "the kernel gives no random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn unknown_volume(id: &VolumeId) -> Error {
    Error::new(Kind::Storage, format!("there is no volume {id} in this region")).hint("see --volume-id and --region")
}
