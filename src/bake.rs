//! The cycle: from a commit to a snapshot. Reads like the diagram in `docs/design.md`.
//!
//! Every step first looks, then does only what is missing. What a run did it undoes, also when it fails; what it found it leaves.

use std::sync::Arc;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::config;
use crate::error::{Error, Kind, OrFail, Result};
use crate::host::device::SysFs;
use crate::host::filesystem;
use crate::host::{capabilities, command, scratch};
use crate::key::{Content, Key, tag};
use crate::publish;
use crate::report::{Change, Phase, Report, RunningPhase, Unit};
use crate::source::{Resolved, Source};
use crate::storage::{BlockStorage, NewSnapshot, Snapshot, SnapshotQuery, SnapshotState, Tags};
use crate::wait::{self, Pace};

mod check;
pub mod content;
pub mod decide;
mod tree;
pub mod volume;

use content::{Placed, Staged};
use decide::VolumeChoice;
use volume::Rented;

/// What a run works with.
#[derive(Clone)]
pub struct Context {
    /// What it shall do.
    pub config: Arc<config::Bake>,
    /// Where volumes and snapshots live.
    pub store: Arc<dyn BlockStorage>,
    /// Where it tells what it does.
    pub report: Report,
    /// Whether it shall stop.
    pub cancel: Cancel,
    /// Where the kernel shows its devices.
    pub sysfs: SysFs,
}

/// The commit that is baked, and what follows from it.
pub struct Target {
    /// The open repository.
    pub source: Source,
    /// The commit and its name.
    pub resolved: Resolved,
    /// The identity of the snapshot.
    pub key: Key,
}

impl Target {
    fn repository(&self) -> &str {
        self.source.canonical_url()
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Baked {
    /// The snapshot for the commit.
    pub snapshot: Snapshot,
    /// It was there before this run.
    pub reused: bool,
    /// The commit and its name.
    pub resolved: Resolved,
    /// The canonical URL of the repository.
    pub repository: String,
    /// The identity of the snapshot.
    pub key: Key,
    /// The snapshot is good, but something that the run made could not be undone.
    pub cleanup: Option<Error>,
}

/// Bakes the commit, or finds the snapshot that holds it already.
///
/// # Errors
/// Of the kind of the step that failed. What the run made is undone by then; if that failed too, the error says so.
pub async fn bake(cx: &Context) -> Result<Baked> {
    let target = Arc::new(resolve(cx).await?);
    let (snapshot, reused, cleanup) = match look_up(cx, &target, Phase::LookUp).await? {
        Some(snapshot) => (wait_until_completed(cx, snapshot).await?, true, None),
        None => bake_anew(cx, &target).await?,
    };
    if reused {
        check::tell_if_unchecked(cx, &snapshot);
    }
    let Target { resolved, key, .. } = &*target;
    let repository = target.repository().to_owned();
    Ok(Baked { snapshot, reused, resolved: resolved.clone(), repository, key: key.clone(), cleanup })
}

/// What [`bake`] would do, in the order it would do it. Makes the same decisions and changes nothing.
///
/// # Errors
/// Those that `bake` would meet on its way as far as that can be seen without touching a volume.
pub async fn plan(cx: &Context) -> Result<Vec<String>> {
    let target = resolve(cx).await?;
    if let Some(snapshot) = look_up(cx, &target, Phase::LookUp).await? {
        let reuse = format!("reuse {} ({})", snapshot.id, snapshot.state.name());
        return Ok([vec![reuse], publish::plan(cx)].concat());
    }
    require_host(cx).await?;
    let mut steps = volume::plan(cx).await?;
    let mount_point = cx.config.mount_point.display();
    steps.push(format!("check {} out at {mount_point}", short(&target.resolved)));
    if let Some(command) = &cx.config.after_checkout {
        steps.push(format!("run {command:?} in it"));
    }
    if let marks @ [_, ..] = cx.config.checks.marks().as_slice() {
        steps.push(format!("check it: {}", marks.join(", ")));
    }
    steps.push(format!("unmount it and take a snapshot with key {}", target.key));
    steps.extend(publish::plan(cx));
    Ok(steps)
}

async fn resolve(cx: &Context) -> Result<Target> {
    let phase = cx.report.phase(Phase::Resolve);
    let (config, cancel) = (cx.config.clone(), cx.cancel.clone());
    let (source, resolved) = blocking(move || {
        let source = Source::open(&config.location, &config.access, &cancel)?;
        let resolved = source.resolve(&config.wanted)?;
        Ok((source, resolved))
    })
    .await?;
    let config = &cx.config;
    let key = Key::of(&Content {
        repository: source.canonical_url().to_owned(),
        commit: resolved.commit,
        volume_name: config.volume_name.clone(),
        git_dir: config.git_dir,
        submodules: config.submodules,
        clean: config.clean,
        after_checkout: config.after_checkout.clone(),
        filesystem: "ext4".to_owned(),
    });
    phase.done(Change::Unchanged, format!("{} of {}", short(&resolved), source.canonical_url()));
    Ok(Target { source, resolved, key })
}

/// `main at 0123456789ab`, or the commit alone.
fn short(resolved: &Resolved) -> String {
    let commit = &resolved.commit.to_string()[..12];
    match &resolved.reference {
        Some(reference) => {
            let name = reference.strip_prefix("refs/heads/").or(reference.strip_prefix("refs/tags/")).unwrap_or(reference);
            format!("{name} at {commit}")
        }
        None => commit.to_owned(),
    }
}

async fn look_up(cx: &Context, target: &Target, phase: Phase) -> Result<Option<Snapshot>> {
    let phase = cx.report.phase(phase);
    let found = cx.store.snapshots(&SnapshotQuery { tags: target.key.query(), ..Default::default() }).await?;
    for failed in &found {
        if let Some(why) = failed.state.trouble() {
            cx.report.warn(format!("snapshot {} of this commit is unusable: {why}", failed.id));
        }
    }
    let answer = decide::answer(&found).cloned();
    let detail = answer.as_ref().map_or("not baked yet".to_owned(), |s| format!("{} is {}", s.id, s.state.name()));
    phase.done(Change::Unchanged, detail);
    Ok(answer)
}

/// Everything that is checked before anything is made.
async fn require_host(cx: &Context) -> Result<()> {
    capabilities::require_for_bake()?;
    command::require(&filesystem::PROGRAMS)?;
    cx.store.require_devices().await
}

type Made = (Snapshot, bool, Option<Error>);

async fn bake_anew(cx: &Context, target: &Arc<Target>) -> Result<Made> {
    require_host(cx).await?;
    // What killed runs left in $TMPDIR, such as the objects that they had fetched.
    scratch::sweep();
    let mut rented = Rented::default();
    let made = bake_on_volume(cx, target, &mut rented).await;
    let (made, released) = match made {
        // The snapshot needs the volume no more, so that both are waited for at the same time.
        Ok((snapshot, reused)) => {
            let (released, completed) = tokio::join!(rented.release(cx, true), wait_until_completed(cx, snapshot));
            (completed.map(|snapshot| (snapshot, reused)), released)
        }
        Err(error) => (Err(error), rented.release(cx, false).await),
    };
    match (made, released) {
        (Ok((snapshot, reused)), released) => Ok((snapshot, reused, released.err())),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(left)) => {
            cx.report.warn(format!("cleaning up failed too: {left}; run `ebs-bake cleanup`"));
            Err(error)
        }
    }
}

async fn bake_on_volume(cx: &Context, target: &Arc<Target>, rented: &mut Rented) -> Result<(Snapshot, bool)> {
    let mut staged = None;
    let mut distrusted = false;
    let (quiescent, passed) = loop {
        let choice = match volume::choose(cx).await? {
            // A snapshot that made an unusable volume would make another one.
            VolumeChoice::FromSnapshot(_) if distrusted => VolumeChoice::Blank,
            choice => choice,
        };
        // A blank volume has nothing that a fetch could build on, so the objects can come while the volume is being made.
        if choice.is_blank() && staged.is_none() {
            let (fetched, volume) = tokio::join!(stage(cx, target), rented.converge(cx, choice));
            volume?;
            staged = Some(fetched?);
        } else {
            rented.converge(cx, choice).await?;
        }
        rented.lock(cx).await?;
        // Whoever had the lock since the first look may have baked this very commit, even if we did not have to wait for it.
        if let Some(snapshot) = look_up(cx, target, Phase::LookUp).await? {
            return Ok((snapshot, true));
        }
        match place(cx, target, rented, staged.take()).await? {
            Placed::Done { quiescent, passed } => break (quiescent, passed),
            Placed::Spoiled(error) => {
                rented.spoil();
                return Err(why_lost(cx, rented, error).await);
            }
            Placed::Unusable { why, staged: unused } => {
                let (id, from_snapshot) = (rented.volume()?.id.clone(), rented.made_from_snapshot());
                if !rented.discard(cx).await? {
                    // Another run has it too, perhaps the one that made it and is about to format it: after you.
                    wait::pause(YIELD, &cx.cancel).await?;
                } else {
                    cx.report.warn(format!("volume {id} is made anew: {why}"));
                    distrusted = from_snapshot;
                }
                staged = unused;
            }
        }
    };
    let snapshot = take_snapshot(cx, target, rented, &passed).await?;
    drop(quiescent);
    Ok((snapshot, false))
}

/// What did not reach the volume may have been lost for a reason that says more: the store's disk is full, or the device is the
/// volume no more.
async fn why_lost(cx: &Context, rented: &Rented, error: Error) -> Error {
    let reason = match cx.store.trouble().await {
        Some(trouble) => Some(trouble),
        None => rented.verify(cx).err(),
    };
    match reason {
        Some(reason) => reason.because(error),
        None => error,
    }
}

/// How long a run stands back for another that waits for the same volume: longer than the pause between two tries for the lock.
const YIELD: Duration = Duration::from_millis(500);

async fn stage(cx: &Context, target: &Arc<Target>) -> Result<Staged> {
    let (cx, target) = (cx.clone(), target.clone());
    blocking(move || Staged::fetch(&cx, &target)).await
}

async fn place(cx: &Context, target: &Arc<Target>, rented: &Rented, staged: Option<Staged>) -> Result<Placed> {
    let site = rented.site()?;
    let (cx, target) = (cx.clone(), target.clone());
    blocking(move || content::place(&cx, &target, &site, staged)).await
}

async fn take_snapshot(cx: &Context, target: &Target, rented: &Rented, passed: &[String]) -> Result<Snapshot> {
    let phase = cx.report.phase(Phase::Snapshot);
    let volume = rented.volume()?;
    let new = NewSnapshot {
        volume: volume.id.clone(),
        tags: tags(cx, target, passed),
        description: format!("{} of {}", short(&target.resolved), target.repository()),
    };
    // Given up half-way, the store leaves no half of a snapshot; a whole one is found by its key in the next run.
    let mut making = cx.store.create_snapshot(&new);
    let made = tokio::select! {
        biased;
        made = &mut making => made,
        // Until the outcome is known the device is held: what another run writes must not be in the snapshot.
        () = cx.cancel.cancelled() => {
            tokio::time::timeout(cx.store.outcome_patience(), making).await.unwrap_or_else(|_| Err(cx.cancel.error()))
        }
    };
    let snapshot = made?;
    // A device that was another one meanwhile means that something else than our checkout may have been captured.
    if let Err(error) = rented.verify(cx) {
        reject(cx, &snapshot).await;
        return Err(error);
    }
    let blocks = snapshot.changed_blocks.map_or(String::new(), |blocks| format!(", {blocks} blocks of 512 KiB changed"));
    phase.done(Change::Created, format!("{}{blocks}", snapshot.id));
    Ok(snapshot)
}

/// A snapshot of who knows what must not be the next run's answer.
async fn reject(cx: &Context, snapshot: &Snapshot) {
    match cx.store.delete_snapshot(&snapshot.id).await {
        Ok(()) => cx.report.warn(format!("snapshot {} was deleted: it may hold something else", snapshot.id)),
        Err(error) => cx.report.warn(format!("delete snapshot {} before the next run, it may be wrong: {error}", snapshot.id)),
    }
}

fn tags(cx: &Context, target: &Target, passed: &[String]) -> Tags {
    let mut tags = cx.config.snapshot_tags.clone();
    tags.extend(target.key.query());
    let mut add = |key: &str, value: &str| tags.insert(key.to_owned(), value.chars().take(MAX_TAG_VALUE).collect());
    add(tag::VOLUME, &cx.config.volume_name);
    add(tag::COMMIT, &target.resolved.commit.to_string());
    add(tag::REPOSITORY, target.repository());
    add(tag::VERSION, env!("CARGO_PKG_VERSION"));
    if let Some(reference) = &target.resolved.reference {
        add(tag::REF, reference);
    }
    if let Some(url) = &cx.config.run_url {
        add(tag::RUN_URL, url);
    }
    if let Some(marks) = check::tag_value(passed, MAX_TAG_VALUE) {
        add(tag::CHECKS, &marks);
    }
    if !cx.config.snapshot_tags.contains_key(tag::NAME) {
        add(tag::NAME, &cx.config.volume_name);
    }
    tags
}

/// The longest tag value that EC2 takes, in characters (Amazon EC2 User Guide, "Tag restrictions").
const MAX_TAG_VALUE: usize = 256;

async fn wait_until_completed(cx: &Context, snapshot: Snapshot) -> Result<Snapshot> {
    if snapshot.state == SnapshotState::Completed || !cx.config.wait {
        return Ok(snapshot);
    }
    let phase = cx.report.phase(Phase::Wait);
    let snapshot = completed(cx, cx.store.as_ref(), &phase, snapshot).await?;
    phase.done(Change::Changed, format!("{} is completed", snapshot.id));
    Ok(snapshot)
}

/// The snapshot of that store once it is completed.
pub(crate) async fn completed(
    cx: &Context,
    store: &dyn BlockStorage,
    phase: &RunningPhase,
    snapshot: Snapshot,
) -> Result<Snapshot> {
    if snapshot.state == SnapshotState::Completed {
        return Ok(snapshot);
    }
    let id = &snapshot.id;
    let query = &SnapshotQuery { id: Some(id.clone()), ..Default::default() };
    let look = || async move {
        let found = store.snapshots(query).await?.pop();
        match found {
            Some(found) if found.state == SnapshotState::Completed => Ok(Some(found)),
            Some(Snapshot { state: SnapshotState::Error(why) | SnapshotState::PutAway(why), .. }) => {
                Err(Error::new(Kind::Snapshot, format!("snapshot {id} failed: {why}")).hint("run again: a new one is made"))
            }
            Some(Snapshot { state: SnapshotState::Pending(percent), .. }) => {
                phase.progress(percent.unwrap_or(0).into(), Some(100), Unit::Percent);
                Ok(None)
            }
            _ => Ok(None),
        }
    };
    let patience = cx.config.wait_timeout;
    match wait::until(Pace::SNAPSHOT, patience, &cx.cancel, look).await? {
        Some(completed) => Ok(completed),
        None => Err(Error::new(Kind::Snapshot, format!("snapshot {id} did not complete within {} s", patience.as_secs()))
            .hint("it goes on by itself: run again later and it is found, or raise --wait-timeout")),
    }
}

/// Runs what blocks on a thread where it may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.or_fail(Kind::Device, || "an internal thread panicked")?
}
