//! Looking into a snapshot: a volume made from it, mounted read-only, and given up again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bake::blocking;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::host::capabilities;
use crate::host::device::{Device, SysFs};
use crate::host::filesystem::{self, Probe};
use crate::host::mount::{self, Mount, MountPoint, Options};
use crate::key::tag;
use crate::storage::{
    Attachment, BlockStorage, NewVolume, Snapshot, SnapshotId, SnapshotQuery, SnapshotState, Tags, Volume, VolumeId, VolumeQuery,
};
use crate::wait::{self, Pace};

/// Where a snapshot's content can be seen.
#[derive(Debug)]
pub struct Restored {
    /// The volume that was made from it.
    pub volume: VolumeId,
    /// Where it is mounted.
    pub mount_point: PathBuf,
}

/// Makes a volume from the snapshot and mounts it read-only, for everybody on this host to see.
///
/// # Errors
/// `Storage` for a snapshot that is not there or not completed, `Device` for the mount point and the mount. The volume is
/// deleted again then.
pub async fn restore(store: &dyn BlockStorage, sysfs: &SysFs, id: &SnapshotId, mount_point: &Path) -> Result<Restored> {
    capabilities::require_for_bake()?;
    let snapshot = completed(store, id).await?;
    let tags = Tags::from([(tag::RESTORED.to_owned(), id.to_string()), (tag::ORIGIN.to_owned(), id.to_string())]);
    let new = NewVolume { size_gib: snapshot.size_gib, source: Some(id.clone()), tags, token: None };
    let (_, volume) = store.create_volume(&new).await?;
    let mounted = attach_and_mount(store, sysfs, &volume, mount_point).await;
    if mounted.is_err() {
        let _ = store.detach(&volume.id, None).await;
        let _ = store.delete_volume(&volume.id).await;
    }
    mounted.map(|()| Restored { volume: volume.id, mount_point: mount_point.to_owned() })
}

async fn completed(store: &dyn BlockStorage, id: &SnapshotId) -> Result<Snapshot> {
    let found = store.snapshots(&SnapshotQuery { id: Some(id.clone()), ..Default::default() }).await?.pop();
    match found {
        Some(snapshot) if snapshot.state == SnapshotState::Completed => Ok(snapshot),
        Some(snapshot) => {
            let why = snapshot.state.trouble().unwrap_or(snapshot.state.name());
            Err(Error::new(Kind::Storage, format!("snapshot {id} cannot be restored: {why}")))
        }
        None => {
            let hint = "`ebs-bake list` shows the snapshots that there are";
            Err(Error::new(Kind::Storage, format!("there is no snapshot {id}")).hint(hint))
        }
    }
}

async fn attach_and_mount(store: &dyn BlockStorage, sysfs: &SysFs, volume: &Volume, mount_point: &Path) -> Result<()> {
    let (_, attachment) = store.attach(&volume.id).await?;
    let Attachment::Here { locator, .. } = attachment else {
        return Err(Error::new(Kind::Storage, format!("volume {} is not attached to this host", volume.id)));
    };
    store.keep_attached(&volume.id).await?;
    let (sysfs, at, id) = (sysfs.clone(), mount_point.to_owned(), volume.id.clone());
    blocking(move || {
        let device = sysfs.find(&locator)?.ok_or_else(|| Error::new(Kind::Device, format!("volume {id} has no device")))?;
        let node = device.node()?;
        let kind = match filesystem::probe(&node.open(false)?, device.size_bytes)? {
            Probe::Ext(_) => "ext4",
            Probe::Mountable(kind) => kind,
            _ => return Err(Error::new(Kind::Device, format!("the snapshot of volume {id} holds no filesystem"))),
        };
        Mount::new(&node, MountPoint::prepare(&at)?, kind, Options { read_only: true })?.leave();
        Ok(())
    })
    .await
}

/// Undoes a [`restore`]: unmounts, detaches, and deletes the volume. Which one: that made from the snapshot, that mounted at
/// the place, or both.
///
/// # Errors
/// `Usage` when there is no such volume in this store.
pub async fn give_up(
    store: &dyn BlockStorage,
    sysfs: &SysFs,
    snapshot: Option<&SnapshotId>,
    mount_point: Option<&Path>,
) -> Result<Vec<VolumeId>> {
    let mut given_up = Vec::new();
    for volume in store.volumes(&VolumeQuery::default()).await? {
        let Some(origin) = volume.tags.get(tag::RESTORED) else { continue };
        if snapshot.is_some_and(|wanted| wanted.as_str() != origin) {
            continue;
        }
        let points = mounted_at(sysfs, &volume).await?;
        if mount_point.is_some_and(|wanted| !points.iter().any(|(_, at)| at == wanted)) {
            continue;
        }
        blocking(move || points.into_iter().try_for_each(|(device, at)| Mount::adopt(&device, &at)?.unmount())).await?;
        detach(store, &volume.id).await?;
        store.delete_volume(&volume.id).await?;
        given_up.push(volume.id);
    }
    if given_up.is_empty() {
        let hint = "give the --mount-point or --snapshot-id, and the --local-dir, that it was restored with";
        return Err(Error::new(Kind::Usage, "no such restored snapshot is mounted from this store").hint(hint));
    }
    Ok(given_up)
}

/// How long an unmounted volume may still be in use. Where mounts are not shared between namespaces, as in containers, a bake
/// that started meanwhile has a copy of the mount for as long as it runs.
const DETACH_PATIENCE: Duration = Duration::from_secs(30);

async fn detach(store: &dyn BlockStorage, id: &VolumeId) -> Result<()> {
    let look = || async move {
        match store.detach(id, None).await {
            Err(error) if error.kind() == Kind::Device => Ok(None),
            outcome => outcome.map(Some),
        }
    };
    match wait::until(DETACH_PACE, DETACH_PATIENCE, &Cancel::new(), look).await? {
        Some(()) => Ok(()),
        // Once more, for what stands in the way.
        None => store.detach(id, None).await,
    }
}

const DETACH_PACE: Pace = Pace { first: Duration::from_millis(20), factor: 1.5, longest: Duration::from_secs(1) };

async fn mounted_at(sysfs: &SysFs, volume: &Volume) -> Result<Vec<(Device, PathBuf)>> {
    let Attachment::Here { locator, .. } = &volume.attachment else { return Ok(Vec::new()) };
    let (sysfs, locator) = (sysfs.clone(), locator.clone());
    blocking(move || {
        let Some(device) = sysfs.find(&locator)? else { return Ok(Vec::new()) };
        Ok(mount::points_of(&device)?.into_iter().map(|at| (device.clone(), at)).collect())
    })
    .await
}
