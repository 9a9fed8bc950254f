//! Attaching volumes as loop devices. The kernel alone knows what is attached; this process only holds on to it.
//!
//! Each process that attached a volume has its loop device open, and a shared `flock` on its image. The open device keeps
//! the kernel from releasing it (autoclear); the lock tells other processes that somebody alive uses the volume.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::entries::{self, Entry};
use super::layout::{Layout, open_file, open_file_writable};
use super::loopdev::{self, BACKING_NAME, Identity, LoopDevice};
use super::metadata::VolumeRecord;
use crate::error::{Error, Kind, Result};
use crate::host::device::Locator;
use crate::report::Change;
use crate::step;
use crate::storage::{Attachment, VolumeId};

/// How long `detach` waits for others that have the device open for a moment (udev, blkid). Less than the 7 s that a
/// CI system leaves a run that it cancels.
const RELEASE_DEADLINE: Duration = Duration::from_secs(3);
const RELEASE_POLL: Duration = Duration::from_millis(1);

/// What this process uses. Dropped, the kernel releases what nobody else uses.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<HashMap<VolumeId, Hold>>);

/// That this process uses a volume.
#[derive(Debug)]
struct Hold {
    image: Flock<File>,
    /// `None`: the volume was made by this process, and not attached yet.
    _device: Option<LoopDevice>,
}

impl Holds {
    /// Notes that this process made the volume whose image is at `path`: nobody may sweep it away.
    pub fn claim(&self, id: &VolumeId, path: &Path) -> io::Result<()> {
        let image = share(open_file(path)?)?;
        self.map().insert(id.clone(), Hold { image, _device: None });
        Ok(())
    }

    /// Forgets a volume.
    pub fn forget(&self, id: &VolumeId) {
        self.map().remove(id);
    }

    fn map(&self) -> MutexGuard<'_, HashMap<VolumeId, Hold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Attaches a volume, or joins whoever attached it.
pub(super) fn attach(layout: &Layout, holds: &Holds, id: &VolumeId) -> Result<(Change, Attachment)> {
    let _lock = lock(layout, id)?;
    let entry = existing(layout, id)?;
    let (_, len, identity) = entry.usable()?;
    let (change, device) = hold(layout, holds, id, len, identity).map_err(|error| attach_failed(id, error))?;
    Ok((change, here(&device, identity)))
}

/// Returns the device's path.
fn hold(layout: &Layout, holds: &Holds, id: &VolumeId, len: u64, identity: Identity) -> io::Result<(Change, String)> {
    let path = layout.entry::<VolumeRecord>(id).join(BACKING_NAME);
    let image = open_file_writable(&path)?;
    if Identity::of(&image.metadata()?) != identity {
        return Err(io::Error::other(format!("{} was replaced", path.display())));
    }
    // Opened once more: the kernel keeps the descriptor that it is given, and would keep the lock with it.
    let shared = share(open_file(&path)?)?;
    let (change, device) = match loopdev::find(id, identity, &layout.staging())? {
        Some(device) => (Change::Unchanged, device),
        None => {
            let attach = || loopdev::attach(&image, &layout.staging());
            (Change::Created, step::around("attaching a loop device", attach)?)
        }
    };
    // A process that grew the image may have died before it told the device.
    device.resize(len)?;
    let shown = device.path();
    holds.map().insert(id.clone(), Hold { image: shared, _device: Some(device) });
    Ok((change, shown))
}

/// Detaches a volume; see [`super::LocalStore`] for what that means when others use it too.
pub(super) fn detach(layout: &Layout, holds: &Holds, id: &VolumeId) -> Result<()> {
    let failed = |error| Error::new(Kind::Device, format!("cannot detach {id}")).because(error);
    let lock = lock(layout, id)?;
    let Some((_, identity)) = existing(layout, id)?.image else {
        return Ok(());
    };
    let Some(device) = loopdev::find(id, identity, &layout.staging()).map_err(failed)? else {
        holds.forget(id);
        return Ok(());
    };
    let path = layout.entry::<VolumeRecord>(id).join(BACKING_NAME);
    let released = release(layout, holds, id, &path, &device);
    let (number, shown) = (device.number(), device.path());
    drop((device, lock));
    let released = released.map_err(|error| if is_busy(&error) { in_use(id, &shown).because(error) } else { failed(error) })?;
    let Some(synced) = released else { return Ok(()) };
    let deadline = Instant::now() + RELEASE_DEADLINE;
    loop {
        // Whoever attached it meanwhile keeps it.
        let done = || Ok(loopdev::is_released(number, identity, &layout.staging())? || used_by_others(&path)?);
        if done().map_err(failed)? {
            return synced.map_err(failed);
        }
        if Instant::now() > deadline {
            return Err(in_use(id, &shown));
        }
        std::thread::sleep(RELEASE_POLL);
    }
}

/// Lets go of the device and asks the kernel to do so; `None` if another process goes on using it, else whether everything
/// that was written to it has reached the image.
fn release(
    layout: &Layout,
    holds: &Holds,
    id: &VolumeId,
    path: &Path,
    device: &LoopDevice,
) -> io::Result<Option<io::Result<()>>> {
    let held = holds.map().remove(id);
    let image = match held {
        Some(hold) => hold.image,
        None => share(open_file(path)?)?,
    };
    if is_locked(image.relock(FlockArg::LockExclusiveNonblock))? {
        // Without its lock, this process no longer counts; the device goes with the last one that does.
        device.clear()?;
        return Ok(None);
    }
    let exclusive = match device.open_exclusively(&layout.staging()) {
        Ok(exclusive) => exclusive,
        Err(error) => {
            // Still mounted: everything stays as it was.
            image.relock(FlockArg::LockShared)?;
            let device = loopdev::find(id, Identity::of(&image.metadata()?), &layout.staging())?;
            holds.map().insert(id.clone(), Hold { image, _device: device });
            return Err(error);
        }
    };
    // What the kernel caches for the device reaches the image before anybody can attach it anew.
    let synced = step::around("syncing a loop device", || exclusive.sync());
    step::around("clearing a loop device", || exclusive.clear())?;
    Ok(Some(synced))
}

/// Makes an attachment of this process outlive it.
pub(super) fn persist(layout: &Layout, id: &VolumeId) -> Result<()> {
    let _lock = lock(layout, id)?;
    let (_, _, identity) = existing(layout, id)?.usable()?;
    let failed = |error| attach_failed(id, error);
    match loopdev::find(id, identity, &layout.staging()).map_err(failed)? {
        Some(device) => step::around("keeping a loop device", || device.persist()).map_err(failed),
        None => Err(Error::new(Kind::Storage, format!("{id} is not attached"))),
    }
}

/// Makes a volume larger, and its device if it has one.
pub(super) fn grow(layout: &Layout, id: &VolumeId, size_gib: u32, bytes: u64) -> Result<()> {
    let _lock = lock(layout, id)?;
    let entry = existing(layout, id)?;
    let (_, len, identity) = entry.usable()?;
    if bytes < len {
        let message = format!("{id} cannot become smaller: {size_gib} GiB are less than its {} GiB", len / super::metadata::GIB);
        return Err(Error::new(Kind::Usage, message));
    }
    let grow = || {
        let image = open_file_writable(&layout.entry::<VolumeRecord>(id).join(BACKING_NAME))?;
        step::around("growing an image", || image.set_len(bytes))?;
        image.sync_all()?;
        loopdev::find(id, identity, &layout.staging())?.map_or(Ok(()), |device| device.resize(bytes))
    };
    grow().map_err(|error| layout.failed(&format!("make {id} {size_gib} GiB large in"), error))
}

/// Where these volumes are attached, by the identity of their images.
pub(super) fn attachments(layout: &Layout, volumes: &[Entry<VolumeRecord>]) -> Result<HashMap<Identity, Attachment>> {
    if volumes.is_empty() {
        return Ok(HashMap::new());
    }
    let wanted = |id: &VolumeId| volumes.iter().any(|volume| volume.id == *id);
    let attached = loopdev::attached(wanted, &layout.staging()).map_err(look_failed)?;
    Ok(attached.into_iter().map(|(device, identity)| (identity, here(&device.path(), identity))).collect())
}

/// The loop device on the image of a volume.
pub(super) fn device_of(layout: &Layout, id: &VolumeId, image: Identity) -> Result<Option<LoopDevice>> {
    loopdev::find(id, image, &layout.staging()).map_err(look_failed)
}

/// Whether a living process attached the volume with this image, or made it.
pub(super) fn used_by_others(image: &Path) -> io::Result<bool> {
    match open_file(image) {
        Ok(file) => is_locked(Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno).map(drop)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_locked(result: nix::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(false),
        Err(Errno::EWOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Exclusive locks on images are tried and let go: this waits for moments only.
fn share(image: File) -> io::Result<Flock<File>> {
    Flock::lock(image, FlockArg::LockShared).map_err(|(_, errno)| errno.into())
}

fn lock(layout: &Layout, id: &VolumeId) -> Result<super::layout::DirLock> {
    layout.exists()?;
    layout.lock::<VolumeRecord>(id)?.ok_or_else(|| super::unknown::<VolumeRecord>(layout, id))
}

fn existing(layout: &Layout, id: &VolumeId) -> Result<Entry<VolumeRecord>> {
    entries::read(layout, id)?.ok_or_else(|| super::unknown::<VolumeRecord>(layout, id))
}

fn here(device: &str, identity: Identity) -> Attachment {
    let Identity { device: st_dev, inode } = identity;
    Attachment::Here { device: device.to_owned(), locator: Locator::LoopBacking { device: st_dev, inode } }
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBUSY)
}

fn in_use(id: &VolumeId, device: &str) -> Error {
    Error::new(Kind::Device, format!("{id} cannot be detached: {device} is mounted or open"))
        .hint("unmount it, and close what has it open: the kernel releases it then")
}

fn look_failed(error: io::Error) -> Error {
    let kind = if is_denied(&error) { Kind::Permission } else { Kind::Device };
    Error::new(kind, "cannot look at the loop devices of this host").because(error)
}

fn attach_failed(id: &VolumeId, error: io::Error) -> Error {
    if is_denied(&error) {
        return Error::new(Kind::Permission, format!("not permitted to attach {id}")).hint(loopdev::MAY_ATTACH).because(error);
    }
    Error::new(Kind::Storage, format!("cannot attach {id} as a loop device")).because(error)
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
