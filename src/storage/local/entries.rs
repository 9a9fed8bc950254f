//! Reading what is in the store. A damaged entry is described, not an error: the others must keep working.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use jiff::Timestamp;

use super::layout::{Layout, open_file};
use super::loopdev::{BACKING_NAME, Identity};
use super::metadata::{GIB, MAX_BYTES, Record, SnapshotRecord, VolumeRecord, parse};
use crate::error::{Error, Kind, Result};
use crate::storage::{Attachment, Snapshot, SnapshotState, Tags, Volume, VolumeState};

/// A volume or snapshot as it was found on disk.
#[derive(Debug)]
pub(super) struct Entry<R: Record> {
    pub id: R::Id,
    /// `None`: cannot be read.
    pub record: Option<R>,
    /// The image's length in bytes and identity, if it is a regular file.
    pub image: Option<(u64, Identity)>,
    /// Why the entry cannot be used.
    damage: Option<String>,
    /// When the directory was last written to, for entries whose record does not tell.
    modified: Timestamp,
}

/// All entries of a kind, oldest first.
pub(super) fn list<R: Record>(layout: &Layout) -> Result<Vec<Entry<R>>> {
    if !layout.exists()? {
        return Ok(Vec::new());
    }
    let names = match fs::read_dir(layout.folder::<R>()) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(layout.failed("read", error)),
    };
    let mut entries = Vec::new();
    for name in names {
        let path = name.map_err(|error| layout.failed("read", error))?.path();
        match path.file_name().and_then(|name| name.to_str()?.parse::<R::Id>().ok()) {
            Some(id) => entries.extend(read::<R>(layout, &id)?),
            None => tracing::warn!(path = %path.display(), "ignored: not a {} of the local store", R::NOUN),
        }
    }
    entries.sort_by_cached_key(|entry| (entry.made(), entry.id.clone()));
    Ok(entries)
}

/// One entry; `None` if there is none with this ID.
pub(super) fn read<R: Record>(layout: &Layout, id: &R::Id) -> Result<Option<Entry<R>>> {
    let path = layout.entry::<R>(id);
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(layout.failed("read", error)),
    };
    let modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut entry = Entry { id: id.clone(), record: None, image: None, damage: None, modified };
    if !metadata.is_dir() {
        entry.damage = Some("it is not a directory".to_owned());
        return Ok(Some(entry));
    }
    match read_record(&path, id) {
        Ok(record) => entry.record = Some(record),
        Err(damage) => entry.damage = Some(damage),
    }
    match read_image(&path) {
        Ok(image) => entry.image = Some(image),
        Err(damage) => entry.damage = entry.damage.or(Some(damage)),
    }
    if let (Some(record), Some((len, _)), None) = (&entry.record, entry.image, &entry.damage) {
        entry.damage = record.check_len(len).err();
    }
    // Deleted while it was read?
    Ok((entry.damage.is_none() || path.symlink_metadata().is_ok()).then_some(entry))
}

fn read_record<R: Record>(path: &Path, id: &R::Id) -> Result<R, String> {
    let unreadable = |error: io::Error| format!("{} cannot be read: {error}", R::FILE);
    let file = open_file(&path.join(R::FILE)).map_err(unreadable)?;
    let mut json = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut json).map_err(unreadable)?;
    parse(&json, id)
}

fn read_image(path: &Path) -> Result<(u64, Identity), String> {
    let metadata = fs::symlink_metadata(path.join(BACKING_NAME)).map_err(|error| format!("its image cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("its image is not a regular file".to_owned());
    }
    Ok((metadata.len(), Identity::of(&metadata)))
}

impl<R: Record> Entry<R> {
    /// The parts of an undamaged entry: its record, and its image's length and identity.
    pub fn usable(&self) -> Result<(&R, u64, Identity)> {
        match (&self.record, self.image, &self.damage) {
            (Some(record), Some((len, identity)), None) => Ok((record, len, identity)),
            (.., damage) => {
                let reason = damage.as_deref().unwrap_or("it is incomplete");
                Err(Error::new(Kind::Storage, format!("{} is damaged: {reason}", self.id)))
            }
        }
    }

    fn made(&self) -> Timestamp {
        self.record.as_ref().map_or(self.modified, R::made)
    }

    fn size_gib(&self) -> u32 {
        self.image.map_or(0, |(len, _)| u32::try_from(len / GIB).unwrap_or(u32::MAX))
    }
}

impl Entry<VolumeRecord> {
    /// The volume as the trait shows it.
    pub fn volume(&self, attachment: Attachment) -> Volume {
        let record = self.record.as_ref();
        Volume {
            id: self.id.clone(),
            state: self.damage.clone().map_or(VolumeState::Ready, VolumeState::Error),
            size_gib: self.size_gib(),
            tags: record.map_or_else(Tags::new, |record| record.tags.clone()),
            source: record.and_then(|record| record.source.clone()),
            attachment,
            created: self.made(),
        }
    }
}

impl Entry<SnapshotRecord> {
    /// The snapshot as the trait shows it.
    pub fn snapshot(&self) -> Snapshot {
        let record = self.record.as_ref();
        Snapshot {
            id: self.id.clone(),
            state: self.damage.clone().map_or(SnapshotState::Completed, SnapshotState::Error),
            volume: record.map(|record| record.volume.clone()),
            size_gib: record.map_or_else(|| self.size_gib(), |record| record.size_gib),
            tags: record.map_or_else(Tags::new, |record| record.tags.clone()),
            description: record.map_or_else(String::new, |record| record.description.clone()),
            started: self.made(),
            parent: record.and_then(|record| record.parent.clone()),
            changed_blocks: record.map(|record| record.changed_blocks),
        }
    }
}
