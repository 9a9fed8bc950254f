//! Snapshots: who uses them, and which may go.
//!
//! What decides takes values and returns values ([`plan`], [`launch`]); the stores find the values out.

use std::collections::BTreeMap;

use async_trait::async_trait;

use self::usage::Usage;
use crate::error::{Error, Result};
use crate::key::tag;
use crate::report::Report;
use crate::storage::{BlockStorage, Snapshot, SnapshotId, SnapshotQuery, Tags};

mod ec2;
pub mod launch;
mod local;
pub mod plan;
pub mod prune;
pub mod usage;

/// What became of a snapshot that was to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retired {
    /// It is gone.
    Deleted,
    /// Somebody uses it after all, as the store says.
    InUse(String),
}

/// Snapshots, and the zones where they are restored fast.
pub type FastRestores = BTreeMap<SnapshotId, Vec<String>>;

/// What listing and pruning need of a store.
#[async_trait]
pub trait Retained: BlockStorage {
    /// Who uses these snapshots; `parameter`, of Systems Manager, may name one of them. What cannot be found out is noted.
    async fn usage(&self, ids: &[SnapshotId], parameter: Option<&str>) -> Usage;

    /// Which other accounts may use these snapshots: where there are accounts, a call for each.
    async fn accounts(&self, _ids: &[SnapshotId]) -> Usage {
        Usage::default()
    }

    /// Where these snapshots are restored fast.
    async fn fast_restores(&self, _ids: &[SnapshotId]) -> Result<FastRestores> {
        Ok(FastRestores::default())
    }

    /// Deletes a snapshot, after fast restore was turned off in these zones. One that is not there is no error.
    async fn retire(&self, id: &SnapshotId, _zones: &[String]) -> Result<Retired> {
        self.delete_snapshot(id).await.map(|()| Retired::Deleted)
    }
}

/// The snapshots of a volume name, or all, oldest first.
///
/// # Errors
/// Those of the store.
pub async fn snapshots(store: &dyn Retained, volume_name: Option<&str>) -> Result<Vec<Snapshot>> {
    let tags = volume_name.map_or_else(Tags::new, |name| Tags::from([(tag::VOLUME.to_owned(), name.to_owned())]));
    store.snapshots(&SnapshotQuery { tags, ..Default::default() }).await
}

/// Who uses these snapshots. If there are none, nobody is asked.
pub async fn usage(store: &dyn Retained, ids: &[SnapshotId], parameter: Option<&str>) -> Usage {
    if ids.is_empty() { Usage::default() } else { store.usage(ids, parameter).await }
}

/// Tells what could not be found out.
pub fn warn<'a>(failures: impl Iterator<Item = &'a Error>, report: &Report) {
    for error in failures {
        let hint = error.hint_text().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        report.warn(format!("not all users of snapshots are known: {error}{hint}"));
    }
}
