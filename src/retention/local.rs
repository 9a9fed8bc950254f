//! Who uses a snapshot of the embedded store: volumes.

use async_trait::async_trait;

use super::Retained;
use super::usage::{Holder, Lookup, Usage, VolumeUser};
use crate::storage::local::LocalStore;
use crate::storage::{Attachment, BlockStorage, SnapshotId, Volume, VolumeQuery, VolumeState};

#[async_trait]
impl Retained for LocalStore {
    async fn usage(&self, ids: &[SnapshotId], _parameter: Option<&str>) -> Usage {
        let mut usage = Usage::default();
        let volumes = self.volumes(&VolumeQuery::default()).await;
        usage.add(Lookup::Volumes, volumes, |usage, volumes| {
            for volume in volumes {
                if let Some(source) = volume.source.as_ref().filter(|source| ids.contains(source)) {
                    usage.entry(source).volumes.insert(VolumeUser { holder: holder(&volume), id: volume.id });
                }
            }
        });
        usage
    }
}

fn holder(volume: &Volume) -> Holder {
    match (&volume.state, &volume.attachment) {
        (VolumeState::Creating, _) => Holder::Store,
        (_, Attachment::Here { .. }) => Holder::Here,
        (_, Attachment::Elsewhere { host }) => Holder::Instance(host.clone()),
        (_, Attachment::None) => Holder::Nobody,
    }
}
