//! The volume of a run: finding or making it, attaching and locking it, and giving back what was taken.

use std::time::Duration;

use crate::bake::decide::VolumeChoice;
use crate::bake::{Context, blocking, decide};
use crate::config::{After, DEFAULT_VOLUME_SIZE_GIB};
use crate::error::{Error, Kind, Result};
use crate::host::device::{Device, Locator};
use crate::host::lock::DeviceLock;
use crate::key::tag::{self, BLANK};
use crate::report::{Change, Phase};
use crate::storage::{Attachment, NewVolume, SnapshotId, SnapshotQuery, Tags, Volume, VolumeId, VolumeQuery};

/// How often another run may detach the volume under our feet before we give up.
const ATTACH_TRIES: usize = 10;

/// Chooses the volume to bake on; changes nothing.
pub async fn choose(cx: &Context) -> Result<VolumeChoice> {
    let choice = look(cx).await?;
    if cx.config.after == After::Delete {
        decide::require_deletable(&choice)?;
    }
    Ok(choice)
}

async fn look(cx: &Context) -> Result<VolumeChoice> {
    let name = &cx.config.volume_name;
    if let Some(id) = &cx.config.volume_id {
        let volumes = cx.store.volumes(&VolumeQuery { id: Some(id.clone()), ..Default::default() }).await?;
        return decide::choose_given_volume(id, volumes);
    }
    let volumes = cx.store.volumes(&VolumeQuery { tags: named(name), ..Default::default() }).await?;
    let snapshots = match volumes.is_empty() {
        true => cx.store.snapshots(&SnapshotQuery { tags: named(name), ..Default::default() }).await?,
        false => Vec::new(),
    };
    decide::choose_volume(name, &volumes, &snapshots)
}

/// The tag of everything with a volume's name.
pub(crate) fn named(name: &str) -> Tags {
    Tags::from([(tag::VOLUME.to_owned(), name.to_owned())])
}

/// The volume that is made for a name, of at least so many GiB if it is made from a snapshot.
pub(crate) fn wanted(name: &str, size_gib: Option<u32>, source: Option<SnapshotId>, at_least: u32) -> NewVolume {
    let mut tags = named(name);
    tags.insert(tag::NAME.to_owned(), name.to_owned());
    tags.insert(tag::ORIGIN.to_owned(), source.as_ref().map_or(BLANK.to_owned(), ToString::to_string));
    let default = if source.is_some() { at_least } else { DEFAULT_VOLUME_SIZE_GIB };
    let size_gib = size_gib.unwrap_or(default);
    // Runs that start at the same time shall end up with one volume.
    let token = Some(format!("{name} {}", tags[tag::ORIGIN]));
    NewVolume { size_gib, source, tags, token }
}

/// The steps that a run would take to get its volume.
pub async fn plan(cx: &Context) -> Result<Vec<String>> {
    let name = &cx.config.volume_name;
    let size = cx.config.volume_size_gib.unwrap_or(DEFAULT_VOLUME_SIZE_GIB);
    let attach = "attach it".to_owned();
    Ok(match choose(cx).await? {
        VolumeChoice::Use(volume) => match &volume.attachment {
            Attachment::Here { device, .. } => vec![format!("use volume {}, attached as {device}", volume.id)],
            _ => vec![format!("use volume {}", volume.id), attach],
        },
        VolumeChoice::FromSnapshot(snapshot) => vec![format!("create volume {name:?} from {snapshot}"), attach],
        VolumeChoice::Blank => {
            vec![format!("create a blank volume {name:?} of {size} GiB"), attach, "make an ext4 filesystem on it".into()]
        }
    })
}

/// Where the content goes: the volume as a device of this host.
#[derive(Debug, Clone)]
pub struct Site {
    /// The volume.
    pub volume: Volume,
    /// Its device.
    pub device: Device,
    /// What the device is found by.
    pub locator: Locator,
}

/// What a run has taken and must give back.
#[derive(Default)]
pub struct Rented {
    volume: Option<Volume>,
    created: bool,
    attached: bool,
    device: Option<(Locator, Device)>,
    lock: Option<DeviceLock>,
    spoiled: bool,
}

impl Rented {
    /// Gets the chosen volume and attaches it.
    pub async fn converge(&mut self, cx: &Context, choice: VolumeChoice) -> Result<()> {
        let phase = cx.report.phase(Phase::Volume);
        match choice {
            VolumeChoice::Use(volume) => {
                let volume = grown(cx, *volume).await?;
                phase.done(Change::Unchanged, format!("{}, {} GiB", volume.id, volume.size_gib));
                self.volume = Some(volume);
            }
            VolumeChoice::FromSnapshot(snapshot) => {
                let query = SnapshotQuery { id: Some(snapshot.clone()), ..Default::default() };
                let at_least = cx.store.snapshots(&query).await?.first().map_or(1, |found| found.size_gib);
                let volume = self.create(cx, Some(snapshot.clone()), at_least).await?;
                phase.done(Change::Created, format!("{}, {} GiB, from {snapshot}", volume.id, volume.size_gib));
            }
            VolumeChoice::Blank => {
                let volume = self.create(cx, None, 1).await?;
                phase.done(Change::Created, format!("{}, {} GiB, blank", volume.id, volume.size_gib));
            }
        }
        self.attach(cx).await
    }

    async fn create(&mut self, cx: &Context, source: Option<SnapshotId>, at_least: u32) -> Result<&Volume> {
        let new = wanted(&cx.config.volume_name, cx.config.volume_size_gib, source, at_least);
        let (change, volume) = cx.store.create_volume(&new).await?;
        self.created = change == Change::Created;
        Ok(self.volume.insert(volume))
    }

    async fn attach(&mut self, cx: &Context) -> Result<()> {
        let phase = cx.report.phase(Phase::Attach);
        let volume = self.volume.as_ref().ok_or_else(no_volume)?;
        // Noted before it is done: a call that fails may have attached all the same.
        let attached_before = self.attached;
        self.attached |= !matches!(volume.attachment, Attachment::Here { .. });
        let (change, attachment) = cx.store.attach(&volume.id).await?;
        self.attached = attached_before || change == Change::Created;
        match attachment {
            Attachment::Here { device, locator } => {
                let (sysfs, wanted) = (cx.sysfs.clone(), locator.clone());
                let found = blocking(move || sysfs.find(&wanted)).await?.ok_or_else(|| vanished(&device))?;
                phase.done(change, format!("{} as {device}", volume.id));
                self.device = Some((locator, found));
                Ok(())
            }
            Attachment::None | Attachment::Elsewhere { .. } => Err(vanished(volume.id.as_str())),
        }
    }

    /// Has the device to ourselves: the lock, and under it the certainty that the device still is our volume.
    pub async fn lock(&mut self, cx: &Context) -> Result<()> {
        let phase = cx.report.phase(Phase::Lock);
        for _ in 0..ATTACH_TRIES {
            let (_, device) = self.device.clone().ok_or_else(no_volume)?;
            let (timeout, cancel, report) = (cx.config.lock_timeout, cx.cancel.clone(), cx.report.clone());
            let (lock, waited) = blocking(move || {
                let mut waited = false;
                let on_wait = |so_far: Duration, holder: Option<String>| {
                    if !waited {
                        let holder = holder.map_or(String::new(), |holder| format!(" by {holder}"));
                        report.note(format!("the volume is in use{holder}; waiting up to {} s", timeout.as_secs()));
                    }
                    waited = true;
                    let _ = so_far;
                };
                let lock = DeviceLock::acquire(&device, timeout, &cancel, on_wait)?;
                Ok((lock, waited))
            })
            .await?;
            self.lock = Some(lock);
            if self.verify(cx).is_ok() && self.is_still_attached(cx).await? {
                phase.done(Change::Created, if waited { "had it after waiting" } else { "had it at once" });
                return Ok(());
            }
            // The run before us detached the volume, while we waited for the lock on its device or just before we had it.
            self.lock = None;
            self.refresh(cx).await?;
        }
        let message = "the volume was detached again and again by other runs";
        Err(Error::new(Kind::Contended, message)
            .hint("let the runs for one volume follow each other, or use several volume names"))
    }

    /// Whether the store says so too: a device whose detachment has begun may still be there.
    async fn is_still_attached(&self, cx: &Context) -> Result<bool> {
        let (locator, _) = self.device.as_ref().ok_or_else(no_volume)?;
        let query = VolumeQuery { id: Some(self.volume()?.id.clone()), ..Default::default() };
        let found = cx.store.volumes(&query).await?;
        Ok(found.iter().any(|volume| matches!(&volume.attachment, Attachment::Here { locator: now, .. } if now == locator)))
    }

    async fn refresh(&mut self, cx: &Context) -> Result<()> {
        match choose(cx).await? {
            VolumeChoice::Use(volume) => {
                self.volume = Some(*volume);
                self.attach(cx).await
            }
            choice => self.converge(cx, choice).await,
        }
    }

    /// Whether this run made the volume from a snapshot.
    pub fn made_from_snapshot(&self) -> bool {
        self.created && self.volume.as_ref().is_some_and(|volume| volume.source.is_some())
    }

    /// The volume.
    pub fn volume(&self) -> Result<&Volume> {
        self.volume.as_ref().ok_or_else(no_volume)
    }

    /// The volume as a device of this host.
    pub fn site(&self) -> Result<Site> {
        let volume = self.volume()?.clone();
        let (locator, device) = self.device.clone().ok_or_else(no_volume)?;
        Ok(Site { volume, device, locator })
    }

    /// Whether the device still is the volume.
    pub fn verify(&self, cx: &Context) -> Result<()> {
        let (locator, device) = self.device.as_ref().ok_or_else(no_volume)?;
        cx.sysfs.verify(device, locator)
    }

    /// Notes that what was written to the volume did not reach it.
    pub fn spoil(&mut self) {
        self.spoiled = true;
    }

    /// Gives up a volume that is unusable and made by ebs-bake: detaches and deletes it. `false`: another run uses it too, so
    /// that it stays.
    pub async fn discard(&mut self, cx: &Context) -> Result<bool> {
        let id = self.volume()?.id.clone();
        cx.store.detach(&id, self.lock.take()).await?;
        let deleted = delete(cx, &id).await?;
        *self = Rented::default();
        Ok(deleted)
    }

    /// Gives back what was taken. After a failure that is all that this run did; after success, what `--after` says.
    pub async fn release(mut self, cx: &Context, success: bool) -> Result<()> {
        let Some(volume) = self.volume.take() else { return Ok(()) };
        let phase = cx.report.phase(Phase::Release);
        let (detach, delete) = match (success, cx.config.after) {
            (true, After::Keep) => (false, false),
            (true, After::Restore) => (self.attached, false),
            (true, After::Detach) => (true, false),
            (true, After::Delete) => (true, true),
            (false, _) if self.spoiled && decide::made_by_us(&volume) => (true, true),
            (false, _) => (self.attached, self.created),
        };
        if !detach {
            if success && cx.config.after == After::Keep {
                cx.store.keep_attached(&volume.id).await?;
            }
            phase.done(Change::Unchanged, format!("{} stays attached", volume.id));
            return Ok(());
        }
        let failed = |error: Error| {
            let message = format!("volume {} could not be given back", volume.id);
            Error::new(Kind::Cleanup, message).hint("run `ebs-bake cleanup` on this host").because(error)
        };
        let detached = cx.store.detach(&volume.id, self.lock.take()).await;
        let deleted = match delete {
            true => self::delete(cx, &volume.id).await.map_err(failed)?,
            false => false,
        };
        // What became of a volume that is gone does not matter any more: whether all of it reached the store, say.
        if !deleted {
            detached.map_err(failed)?;
        }
        phase.done(Change::Changed, format!("{} {}", volume.id, if deleted { "deleted" } else { "detached" }));
        Ok(())
    }
}

/// Deletes a volume, unless another run uses it: then it is that one's (`false`).
async fn delete(cx: &Context, id: &VolumeId) -> Result<bool> {
    let Err(error) = cx.store.delete_volume(id).await else { return Ok(true) };
    let found = cx.store.volumes(&VolumeQuery { id: Some(id.clone()), ..Default::default() }).await?;
    match found.first().map(|volume| &volume.attachment) {
        Some(Attachment::None) => Err(error),
        None => Ok(true),
        Some(Attachment::Here { .. } | Attachment::Elsewhere { .. }) => Ok(false),
    }
}

/// A volume as large as was asked for.
async fn grown(cx: &Context, mut volume: Volume) -> Result<Volume> {
    let Some(wanted) = cx.config.volume_size_gib else { return Ok(volume) };
    if wanted < volume.size_gib {
        let message = format!("volume {} has {} GiB; --volume-size {wanted} would shrink it", volume.id, volume.size_gib);
        return Err(
            Error::new(Kind::Usage, message).hint("volumes only grow: leave --volume-size out, or use another --volume-name")
        );
    }
    if wanted > volume.size_gib {
        cx.store.grow_volume(&volume.id, wanted).await?;
        cx.report.note(format!("volume {} grew from {} to {wanted} GiB", volume.id, volume.size_gib));
        volume.size_gib = wanted;
    }
    Ok(volume)
}

fn no_volume() -> Error {
    Error::new(Kind::Storage, "the run has no volume at this point")
}

fn vanished(what: &str) -> Error {
    Error::new(Kind::Contended, format!("{what} was detached by somebody else just after it was attached")).hint("run again")
}
