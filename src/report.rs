//! What a run tells while it works, and how long each phase took. The library emits events; the command line renders them.

use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use finding::Finding;

use crate::step;

pub mod console;
pub mod escape;
pub mod finding;
pub mod outputs;
pub mod summary;
pub mod table;
pub mod trace;

/// The phases of a run, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Reference to commit.
    Resolve,
    /// Is there a snapshot with this key?
    LookUp,
    /// Find or create the volume.
    Volume,
    /// Attach it to this host.
    Attach,
    /// Get the volume for ourselves.
    Lock,
    /// Make, check or grow the filesystem.
    Filesystem,
    /// Mount it.
    Mount,
    /// Fetch the commit's objects.
    Fetch,
    /// Write the work tree.
    Checkout,
    /// Run the user's command in it.
    AfterCheckout,
    /// Check what is in it.
    Check,
    /// Unmount and prove that nobody holds the device.
    Unmount,
    /// Take the snapshot.
    Snapshot,
    /// Detach what was attached.
    Release,
    /// Wait until the snapshot is completed.
    Wait,
    /// Copy it to another region.
    Copy,
    /// Let other accounts use it.
    Share,
    /// Write its ID where others look for the newest.
    Parameter,
    /// Look at what launches machines.
    Fleet,
    /// Make a version of the launch template.
    Template,
    /// Make launch configurations.
    Configuration,
    /// Move Auto Scaling groups to it.
    Group,
    /// Replace their machines.
    Refresh,
    /// Delete versions and configurations that nothing uses.
    Retire,
}

impl Phase {
    /// The phase's stable name (`look-up`, `after-checkout`, …).
    pub fn name(self) -> &'static str {
        match self {
            Phase::Resolve => "resolve",
            Phase::LookUp => "look-up",
            Phase::Volume => "volume",
            Phase::Attach => "attach",
            Phase::Lock => "lock",
            Phase::Filesystem => "filesystem",
            Phase::Mount => "mount",
            Phase::Fetch => "fetch",
            Phase::Checkout => "checkout",
            Phase::AfterCheckout => "after-checkout",
            Phase::Check => "check",
            Phase::Unmount => "unmount",
            Phase::Snapshot => "snapshot",
            Phase::Release => "release",
            Phase::Wait => "wait",
            Phase::Copy => "copy",
            Phase::Share => "share",
            Phase::Parameter => "parameter",
            Phase::Fleet => "fleet",
            Phase::Template => "template",
            Phase::Configuration => "configuration",
            Phase::Group => "group",
            Phase::Refresh => "refresh",
            Phase::Retire => "retire",
        }
    }
}

/// What a step did: a second run with nothing to do is `Unchanged` throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It was already so.
    Unchanged,
    /// It was made.
    Created,
    /// It was there and was changed.
    Changed,
}

impl Change {
    /// The change's stable name.
    pub fn name(self) -> &'static str {
        match self {
            Change::Unchanged => "unchanged",
            Change::Created => "created",
            Change::Changed => "changed",
        }
    }
}

/// What a progress figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Files.
    Files,
    /// git objects.
    Objects,
    /// Percent of the snapshot or of the instance refreshes.
    Percent,
    /// Seconds of waiting.
    Seconds,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum Event<'a> {
    /// A phase began.
    Started(Phase),
    /// A phase goes on: `done` of `total` (if that is known).
    Progress { phase: Phase, done: u64, total: Option<u64>, unit: Unit },
    /// A phase ended well; `detail` says in a few words what the result is.
    Finished { phase: Phase, change: Change, detail: &'a str, elapsed: Duration },
    /// A phase ended without a result (an error follows elsewhere).
    Failed { phase: Phase, elapsed: Duration },
    /// A line that another program or the git host wrote: never trusted, always to be prefixed.
    Output { phase: Phase, line: &'a str },
    /// Something the user should know.
    Note(&'a str),
    /// Something the user should look at.
    Warning(&'a str),
    /// Something that a check found in a file of the repository.
    Finding(&'a Finding),
    /// What this program or a library of it did, in detail.
    Trace { level: &'static str, target: &'a str, text: &'a str },
}

/// Receives the events of a run. Called from any thread.
pub trait Observer: Send + Sync {
    /// Must not block for long.
    fn event(&self, event: &Event<'_>);
}

/// An observer that looks away.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: &Event<'_>) {}
}

/// One finished phase, for tables and outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseRecord {
    /// Which.
    pub phase: Phase,
    /// When it began, counted from the start of the run.
    pub started: Duration,
    /// How long it took.
    pub elapsed: Duration,
    /// What it did; `None` when it failed.
    pub change: Option<Change>,
    /// The result in a few words.
    pub detail: String,
}

/// Hands events to an observer and keeps the times. Clones share both.
#[derive(Clone)]
pub struct Report {
    observer: Arc<dyn Observer>,
    start: Instant,
    records: Arc<Mutex<Vec<PhaseRecord>>>,
}

impl Report {
    /// The run starts now.
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        Report { observer, start: Instant::now(), records: Arc::default() }
    }

    /// A report that nobody reads.
    pub fn silent() -> Self {
        Self::new(Arc::new(Silent))
    }

    /// Begins a phase; end it with [`RunningPhase::done`]. Dropped without that, it counts as failed.
    pub fn phase(&self, phase: Phase) -> RunningPhase {
        self.observer.event(&Event::Started(phase));
        step::before(format_args!("phase {}", phase.name()));
        RunningPhase { report: self.clone(), phase, began: Instant::now(), ended: false }
    }

    /// Something the user should know.
    pub fn note(&self, text: impl AsRef<str>) {
        self.observer.event(&Event::Note(text.as_ref()));
    }

    /// Something the user should look at.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.observer.event(&Event::Warning(text.as_ref()));
    }

    /// Something that a check found.
    pub fn finding(&self, finding: &Finding) {
        self.observer.event(&Event::Finding(finding));
    }

    /// The phases that have ended, in the order of their beginning.
    pub fn phases(&self) -> Vec<PhaseRecord> {
        let mut records = self.records.lock().expect("no holder panics").clone();
        records.sort_by_key(|record| record.started);
        records
    }

    /// Time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A phase that has begun and not ended.
pub struct RunningPhase {
    report: Report,
    phase: Phase,
    began: Instant,
    ended: bool,
}

impl RunningPhase {
    /// How far it is.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: Unit) {
        self.report.observer.event(&Event::Progress { phase: self.phase, done, total, unit });
    }

    /// A line written by another program or by the git host.
    pub fn output(&self, line: &str) {
        self.report.observer.event(&Event::Output { phase: self.phase, line });
    }

    /// Ends the phase well.
    pub fn done(mut self, change: Change, detail: impl Display) {
        let detail = detail.to_string();
        let elapsed = self.record(Some(change), detail.clone());
        self.report.observer.event(&Event::Finished { phase: self.phase, change, detail: &detail, elapsed });
    }

    fn record(&mut self, change: Option<Change>, detail: String) -> Duration {
        self.ended = true;
        step::after(format_args!("phase {}", self.phase.name()));
        let elapsed = self.began.elapsed();
        let started = self.began.duration_since(self.report.start);
        let record = PhaseRecord { phase: self.phase, started, elapsed, change, detail };
        self.report.records.lock().expect("no holder panics").push(record);
        elapsed
    }
}

impl Drop for RunningPhase {
    fn drop(&mut self) {
        if !self.ended {
            let elapsed = self.record(None, String::new());
            self.report.observer.event(&Event::Failed { phase: self.phase, elapsed });
        }
    }
}
