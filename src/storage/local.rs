//! The embedded block store: a directory of sparse images, attached as loop devices. See `docs/local-store.md`.
//!
//! Nothing is ever half made: entries are built aside, put on disk and renamed into place. Nothing leaks: what is attached
//! is released by the kernel when the last process that uses it ends, however it ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use self::attach::Holds;
use self::entries::Entry;
use self::layout::{Layout, open_file};
use self::loopdev::BACKING_NAME;
use self::metadata::{FORMAT, GIB, Record, SnapshotRecord, VolumeRecord};
use self::staging::Staging;
use super::{
    Attachment, BlockStorage, NewSnapshot, NewVolume, Snapshot, SnapshotId, SnapshotQuery, Tags, Volume, VolumeId, VolumeQuery,
};
use crate::error::{Error, Kind, OrFail, Result};
use crate::host::lock::DeviceLock;
use crate::report::Change;

mod attach;
mod entries;
#[cfg(fuzzing)]
pub mod fuzzing;
mod image;
mod layout;
mod leftovers;
mod loopdev;
mod metadata;
pub mod preflight;
mod staging;

pub use self::leftovers::Leftover;

/// A block store in a directory of this host.
///
/// Clones share what they hold. Any number of processes may use one store at once, and one volume too: the first to attach
/// it makes the loop device, the others join. **Detaching** a volume means that this process no longer uses it. Its loop
/// device is gone when `detach` returns unless another process attached the volume as well (a run that waits for the lock,
/// say): then it is gone when the last of them detaches it or ends. `detach` refuses (kind `Device`) what is still mounted,
/// and what something else, such as a descriptor of the caller, keeps open for more than 3 seconds; the kernel releases
/// the device when that is closed.
#[derive(Debug, Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    holds: Holds,
}

impl LocalStore {
    /// The store in `dir`, which is made by the first call that needs it: opening and reading change nothing.
    ///
    /// Errors are of kind `Usage`: the directory holds something else, others may write to it, or a newer version made it.
    pub fn open(dir: impl Into<PathBuf>) -> Result<LocalStore> {
        let layout = Layout::open(&dir.into())?;
        Ok(LocalStore { inner: Arc::new(Inner { layout, holds: Holds::default() }) })
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        self.inner.layout.dir()
    }

    /// What killed runs left in the store; changes nothing. What living processes use is not among it.
    pub async fn leftovers(&self) -> Result<Vec<Leftover>> {
        self.blocking(|inner, _| leftovers::find(&inner.layout)).await
    }

    /// Removes the leftovers; returns each that was there with what became of it.
    pub async fn sweep(&self) -> Result<Vec<(Leftover, Result<()>)>> {
        self.blocking(|inner, _| {
            let outcome = |leftover| match leftovers::remove(&inner.layout, &leftover) {
                Ok(true) => Some((leftover, Ok(()))),
                Ok(false) => None,
                Err(error) => Some((leftover, Err(error))),
            };
            Ok(leftovers::find(&inner.layout)?.into_iter().filter_map(outcome).collect())
        })
        .await
    }

    /// Runs `work` on a thread that may block. If the caller stops waiting, the token tells the work to stop.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &CancellationToken) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let task = tokio::task::spawn_blocking(move || work(&inner, &stop));
        task.await.or_fail(Kind::Storage, || "the local store failed unexpectedly")?
    }
}

#[async_trait]
impl BlockStorage for LocalStore {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn volumes(&self, query: &VolumeQuery) -> Result<Vec<Volume>> {
        let query = query.clone();
        self.blocking(move |inner, _| inner.volumes(&query)).await
    }

    async fn snapshots(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>> {
        let query = query.clone();
        self.blocking(move |inner, _| inner.snapshots(&query)).await
    }

    async fn create_volume(&self, new: &NewVolume) -> Result<(Change, Volume)> {
        let new = new.clone();
        self.blocking(move |inner, stop| inner.create_volume(&new, stop)).await
    }

    async fn grow_volume(&self, id: &VolumeId, size_gib: u32) -> Result<()> {
        let id = id.clone();
        self.blocking(move |inner, _| attach::grow(&inner.layout, &id, size_gib, u64::from(size_gib) * GIB)).await
    }

    async fn require_devices(&self) -> Result<()> {
        preflight::loop_device().map(drop)
    }

    async fn trouble(&self) -> Option<Error> {
        // Volumes are sparse: what is written to a device needs room here, and the kernel only says that it failed.
        let full = self.inner.layout.free() < FULL;
        full.then(|| self.inner.layout.failed("write to", std::io::Error::from_raw_os_error(libc::ENOSPC)))
    }

    async fn delete_volume(&self, id: &VolumeId) -> Result<()> {
        let id = id.clone();
        self.blocking(move |inner, _| inner.delete_volume(&id)).await
    }

    async fn attach(&self, id: &VolumeId) -> Result<(Change, Attachment)> {
        let id = id.clone();
        self.blocking(move |inner, _| attach::attach(&inner.layout, &inner.holds, &id)).await
    }

    async fn keep_attached(&self, id: &VolumeId) -> Result<()> {
        let id = id.clone();
        self.blocking(move |inner, _| attach::persist(&inner.layout, &id)).await
    }

    async fn detach(&self, id: &VolumeId, lock: Option<DeviceLock>) -> Result<()> {
        // The lock is an open descriptor, which would keep the device; whoever waits for it has the volume attached too.
        drop(lock);
        let id = id.clone();
        self.blocking(move |inner, _| attach::detach(&inner.layout, &inner.holds, &id)).await
    }

    async fn create_snapshot(&self, new: &NewSnapshot) -> Result<Snapshot> {
        let new = new.clone();
        self.blocking(move |inner, stop| inner.create_snapshot(&new, stop)).await
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        let id = id.clone();
        self.blocking(move |inner, _| inner.delete_snapshot(&id)).await
    }
}

/// With less than this free, the disk under a store counts as full.
const FULL: u64 = 1 << 20;

impl Inner {
    fn volumes(&self, query: &VolumeQuery) -> Result<Vec<Volume>> {
        let mut entries = self.select::<VolumeRecord>(query.id.as_ref())?;
        entries.retain(|entry| has_tags(entry.record.as_ref().map(|record| &record.tags), &query.tags));
        let mut attachments = attach::attachments(&self.layout, &entries)?;
        let mut attachment = |entry: &Entry<VolumeRecord>| {
            entry.image.and_then(|(_, identity)| attachments.remove(&identity)).unwrap_or(Attachment::None)
        };
        Ok(entries.iter().map(|entry| entry.volume(attachment(entry))).collect())
    }

    fn snapshots(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>> {
        let mut entries = self.select::<SnapshotRecord>(query.id.as_ref())?;
        entries.retain(|entry| has_tags(entry.record.as_ref().map(|record| &record.tags), &query.tags));
        Ok(entries.iter().map(Entry::snapshot).collect())
    }

    fn create_volume(&self, new: &NewVolume, stop: &CancellationToken) -> Result<(Change, Volume)> {
        let NewVolume { size_gib, source, tags, token } = new.clone();
        if size_gib == 0 {
            return Err(Error::new(Kind::Usage, "a volume has at least 1 GiB"));
        }
        self.layout.ensure()?;
        let _one_at_a_time = token.is_some().then(|| self.layout.lock_folder::<VolumeRecord>()).transpose()?;
        if let Some(volume) = self.with_token(token.as_deref())? {
            return Ok((Change::Unchanged, volume));
        }
        let origin = source.as_ref().map(|id| self.origin(id, size_gib)).transpose()?;
        let id: VolumeId = self.new_id(VolumeId::PREFIX)?;
        let record = VolumeRecord { format: FORMAT, id, size_gib, tags, source, token, created: Timestamp::now() };
        let json = metadata::render(&record)?;
        let (needs, free) = (origin.as_ref().map_or(0, allocated), self.layout.free());
        let staging = Staging::new(&self.layout)?;
        let make = || {
            let image = staging.create(BACKING_NAME)?;
            if let Some(origin) = &origin {
                image::copy(origin, &image, stop)?;
            }
            image.set_len(u64::from(size_gib) * GIB)?;
            image.sync_all()?;
            staging.write(VolumeRecord::FILE, &json)?;
            // From the first moment that others see it, it is in use.
            self.holds.claim(&record.id, &staging.path().join(BACKING_NAME))
        };
        let made = make().and_then(|()| staging.publish(&self.layout.entry::<VolumeRecord>(&record.id)));
        if let Err(error) = made {
            self.holds.forget(&record.id);
            return Err(self.layout.failed_to_copy("a new volume", needs, free, error));
        }
        Ok((Change::Created, self.existing::<VolumeRecord>(&record.id)?.volume(Attachment::None)))
    }

    /// The volume that was made with this token.
    fn with_token(&self, token: Option<&str>) -> Result<Option<Volume>> {
        let Some(token) = token else { return Ok(None) };
        let has_token = |record: &VolumeRecord| record.token.as_deref() == Some(token);
        let id = entries::list::<VolumeRecord>(&self.layout)?
            .into_iter()
            .find(|entry| entry.record.as_ref().is_some_and(has_token))
            .map(|entry| entry.id);
        let Some(id) = id else { return Ok(None) };
        Ok(self.volumes(&VolumeQuery { id: Some(id), ..VolumeQuery::default() })?.pop())
    }

    /// The image of a snapshot that a volume of this size shall be made from.
    fn origin(&self, id: &SnapshotId, size_gib: u32) -> Result<std::fs::File> {
        let entry = self.existing::<SnapshotRecord>(id)?;
        let (record, ..) = entry.usable()?;
        if size_gib < record.size_gib {
            let message = format!("a volume of {size_gib} GiB cannot hold {id}, which has {} GiB", record.size_gib);
            return Err(Error::new(Kind::Usage, message));
        }
        self.open_image(&entry)
    }

    fn delete_volume(&self, id: &VolumeId) -> Result<()> {
        if !self.layout.exists()? {
            return Ok(());
        }
        let Some(_lock) = self.layout.lock::<VolumeRecord>(id)? else { return Ok(()) };
        let image = entries::read::<VolumeRecord>(&self.layout, id)?.and_then(|entry| entry.image);
        if let Some((_, identity)) = image
            && let Some(device) = attach::device_of(&self.layout, id, identity)?
        {
            let message = format!("{id} cannot be deleted: it is attached as {}", device.path());
            return Err(Error::new(Kind::Storage, message).hint("detach it first"));
        }
        self.holds.forget(id);
        self.discard::<VolumeRecord>(id)
    }

    fn create_snapshot(&self, new: &NewSnapshot, stop: &CancellationToken) -> Result<Snapshot> {
        let volume = self.existing::<VolumeRecord>(&new.volume)?;
        let (volume_record, len, identity) = volume.usable()?;
        let failed = |error| self.layout.failed(&format!("read {} in", new.volume), error);
        if let Some(device) = attach::device_of(&self.layout, &new.volume, identity)? {
            device.sync().map_err(failed)?;
        }
        let image = self.open_image(&volume)?;
        image.sync_all().map_err(failed)?;
        let parent = self.parent(volume_record)?;
        let base = parent.as_ref().map(|parent| self.open_image(parent)).transpose()?;
        let now = Timestamp::now();
        let mut record = SnapshotRecord {
            format: FORMAT,
            id: self.new_id(SnapshotId::PREFIX)?,
            volume: new.volume.clone(),
            size_gib: u32::try_from(len / GIB).or_fail(Kind::Storage, || format!("{} is too large", new.volume))?,
            tags: new.tags.clone(),
            description: new.description.clone(),
            started: parent.as_ref().map_or(now, |parent| later(parent, now)),
            parent: parent.map(|parent| parent.id),
            changed_blocks: 0,
        };
        metadata::render(&record)?;
        let staging = Staging::new(&self.layout)?;
        let make = |record: &mut SnapshotRecord| {
            let target = staging.create(BACKING_NAME)?;
            record.changed_blocks = image::copy_and_compare(&image, &target, base.as_ref(), stop)?;
            target.sync_all()
        };
        let (what, free) = (format!("a snapshot of {}", new.volume), self.layout.free());
        let failed = |error| self.layout.failed_to_copy(&what, allocated(&image), free, error);
        make(&mut record).map_err(failed)?;
        staging.write(SnapshotRecord::FILE, &metadata::render(&record)?).map_err(failed)?;
        staging.publish(&self.layout.entry::<SnapshotRecord>(&record.id)).map_err(failed)?;
        Ok(self.existing::<SnapshotRecord>(&record.id)?.snapshot())
    }

    /// What the next snapshot of a volume builds on: the volume's last one, else the one that it was made from.
    fn parent(&self, volume: &VolumeRecord) -> Result<Option<Entry<SnapshotRecord>>> {
        let is_usable = |entry: &Entry<SnapshotRecord>| entry.usable().is_ok();
        let of_volume = |entry: &Entry<SnapshotRecord>| entry.record.as_ref().is_some_and(|record| record.volume == volume.id);
        let mut snapshots = entries::list::<SnapshotRecord>(&self.layout)?;
        snapshots.retain(is_usable);
        if let Some(last) = snapshots.iter().rposition(of_volume) {
            return Ok(Some(snapshots.swap_remove(last)));
        }
        Ok(snapshots.into_iter().find(|entry| volume.source.as_ref() == Some(&entry.id)))
    }

    fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        if self.layout.exists()? { self.discard::<SnapshotRecord>(id) } else { Ok(()) }
    }

    fn discard<R: Record>(&self, id: &R::Id) -> Result<()> {
        staging::discard(&self.layout, &self.layout.entry::<R>(id))
            .map_err(|error| self.layout.failed(&format!("delete {id} from"), error))
    }

    fn select<R: Record>(&self, id: Option<&R::Id>) -> Result<Vec<Entry<R>>> {
        match id {
            Some(id) if self.layout.exists()? => Ok(entries::read(&self.layout, id)?.into_iter().collect()),
            Some(_) => Ok(Vec::new()),
            None => entries::list(&self.layout),
        }
    }

    fn existing<R: Record>(&self, id: &R::Id) -> Result<Entry<R>> {
        self.select(Some(id))?.pop().ok_or_else(|| unknown::<R>(&self.layout, id))
    }

    fn open_image<R: Record>(&self, entry: &Entry<R>) -> Result<std::fs::File> {
        open_file(&self.layout.entry::<R>(&entry.id).join(BACKING_NAME))
            .map_err(|error| self.layout.failed(&format!("read {} in", entry.id), error))
    }

    fn new_id<I: std::str::FromStr<Err = Error>>(&self, prefix: &str) -> Result<I> {
        let digits = staging::random_hex().or_fail(Kind::Storage, || "the kernel gives no random numbers")?;
        format!("{prefix}{digits}").parse()
    }
}

/// A moment after the parent's even if the clock was set back: the order of snapshots is that of their making.
fn later(parent: &Entry<SnapshotRecord>, now: Timestamp) -> Timestamp {
    let after = |record: &SnapshotRecord| record.started.checked_add(SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MAX);
    parent.record.as_ref().map_or(now, |record| now.max(after(record)))
}

/// What the filesystem keeps for a file: the bytes that a copy takes at most.
fn allocated(file: &std::fs::File) -> u64 {
    file.metadata().map_or(0, |metadata| std::os::unix::fs::MetadataExt::blocks(&metadata) * 512)
}

fn has_tags(tags: Option<&Tags>, wanted: &Tags) -> bool {
    wanted.iter().all(|(key, value)| tags.and_then(|tags| tags.get(key)) == Some(value))
}

fn unknown<R: Record>(layout: &Layout, id: &R::Id) -> Error {
    Error::new(Kind::Storage, format!("there is no {} {id} in the local store {}", R::NOUN, layout.dir().display()))
}
