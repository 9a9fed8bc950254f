//! Giving back what killed runs left on this instance.

use super::detach::Use;
use super::{Ec2Store, Inner, convert};
use crate::error::Result;
use crate::key::tag;
use crate::storage::{Attachment, Tags, Volume};

impl Ec2Store {
    /// Detaches ebs-bake's volumes that are attached to this instance and that nothing here uses, and deletes those that
    /// `restore` made. Says of each what it was, and whether that worked.
    ///
    /// # Errors
    /// Those of looking for them.
    pub async fn sweep(&self) -> Result<Vec<(String, Result<()>)>> {
        let inner = &self.inner;
        let me = inner.identity.instance_id().await?;
        let filters = [convert::filter("attachment.instance-id", me), convert::filter("tag-key", tag::ORIGIN)];
        let found = inner.matching_volumes(None, filters.to_vec()).await?;
        let mut swept = Vec::new();
        for volume in inner.converted(&found).await? {
            if matches!(volume.attachment, Attachment::Here { .. }) {
                swept.extend(inner.give_back(&volume).await);
            }
        }
        Ok(swept)
    }
}

impl Inner {
    /// `None`: something uses it.
    async fn give_back(&self, volume: &Volume) -> Option<(String, Result<()>)> {
        // Mounted, or locked by a run: not left over.
        let Ok(Use::Unused(lock)) = self.lock_unused(&volume.id).await else { return None };
        let outcome = self.detach(&volume.id, lock).await;
        if !is_restored(&volume.tags) {
            return Some((format!("the attachment of volume {}", volume.id), outcome));
        }
        let outcome = match outcome {
            Ok(()) => self.delete_volume(&volume.id).await,
            failed => failed,
        };
        Some((format!("volume {}, which restore made", volume.id), outcome))
    }
}

fn is_restored(tags: &Tags) -> bool {
    tags.contains_key(tag::RESTORED)
}
