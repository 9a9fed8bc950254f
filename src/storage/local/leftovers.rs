//! What killed runs left in a store, and removing it.
//!
//! Loop devices are never among it: the kernel releases those of a dead process, and the ones that were kept on purpose
//! ([`super::LocalStore::persist`]) are in use.

use std::fmt;
use std::path::PathBuf;

use super::entries::Entry;
use super::layout::Layout;
use super::loopdev::BACKING_NAME;
use super::metadata::VolumeRecord;
use super::{attach, entries, staging};
use crate::error::{Error, Kind, Result};
use crate::key::tag;
use crate::storage::VolumeId;

/// Something in a store that nobody uses any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A directory in which a killed process was making or removing something.
    HalfMade(PathBuf),
    /// A volume that `restore` made and that is not attached any more.
    Restored {
        /// The volume.
        volume: VolumeId,
        /// The snapshot that it was made from, as its tag says.
        snapshot: String,
    },
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leftover::HalfMade(path) => write!(f, "half made: {}", path.display()),
            Leftover::Restored { volume, snapshot } => write!(f, "{volume}, restored from {snapshot} and not attached"),
        }
    }
}

/// What there is; changes nothing.
pub(super) fn find(layout: &Layout) -> Result<Vec<Leftover>> {
    if !layout.exists()? {
        return Ok(Vec::new());
    }
    let mut leftovers: Vec<Leftover> = staging::stale(layout)?.into_iter().map(Leftover::HalfMade).collect();
    let mut restored = entries::list::<VolumeRecord>(layout)?;
    restored.retain(|entry| source(entry).is_some());
    let attachments = attach::attachments(layout, &restored)?;
    for entry in &restored {
        let attached = entry.image.is_some_and(|(_, identity)| attachments.contains_key(&identity));
        if !attached && !is_used(layout, &entry.id)? {
            let snapshot = source(entry).unwrap_or_default().to_owned();
            leftovers.push(Leftover::Restored { volume: entry.id.clone(), snapshot });
        }
    }
    Ok(leftovers)
}

/// Removes one leftover, if it still is one; returns whether it was.
pub(super) fn remove(layout: &Layout, leftover: &Leftover) -> Result<bool> {
    match leftover {
        Leftover::HalfMade(path) => staging::remove_stale(path)
            .map_err(|error| Error::new(Kind::Cleanup, format!("cannot remove {}", path.display())).because(error)),
        Leftover::Restored { volume, .. } => {
            let Some(_lock) = layout.lock::<VolumeRecord>(volume)? else { return Ok(false) };
            // With the lock, nobody attaches it between the look and the deletion.
            if !find(layout)?.contains(leftover) {
                return Ok(false);
            }
            staging::discard(layout, &layout.entry::<VolumeRecord>(volume))
                .map_err(|error| layout.failed("delete from", error))?;
            Ok(true)
        }
    }
}

/// The snapshot that `restore` made a volume from.
fn source(entry: &Entry<VolumeRecord>) -> Option<&str> {
    entry.record.as_ref()?.tags.get(tag::RESTORED).map(String::as_str)
}

fn is_used(layout: &Layout, volume: &VolumeId) -> Result<bool> {
    let image = layout.entry::<VolumeRecord>(volume).join(BACKING_NAME);
    attach::used_by_others(&image).map_err(|error| layout.failed("look at", error))
}
