//! Deleting what may go. That is for ever, so everything is looked at once more right before it, and where a look fails nothing
//! is deleted.

use jiff::Timestamp;

use super::plan::{self, Policy, Verdict};
use super::usage::Usage;
use super::{Retained, Retired, snapshots, usage, warn};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::report::Report;
use crate::storage::{Snapshot, SnapshotId};

/// So many snapshots are looked at once more, and then deleted: what a look has seen is seconds old then, not minutes.
const BATCH: usize = 50;
/// So many snapshots are named in a message.
const NAMED: usize = 5;

/// What is to be pruned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// What is kept.
    pub policy: Policy,
    /// Only snapshots of this volume name.
    pub volume_name: Option<String>,
    /// The parameter of Systems Manager whose snapshot is in use.
    pub parameter: Option<String>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What becomes, or became, of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It would be kept.
    Keep,
    /// It would be deleted.
    Delete,
    /// It was kept.
    Kept,
    /// It was deleted.
    Deleted,
    /// It could not be deleted.
    Failed,
}

impl Action {
    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Action::Keep => "keep",
            Action::Delete => "delete",
            Action::Kept => "kept",
            Action::Deleted => "deleted",
            Action::Failed => "failed",
        }
    }
}

/// A snapshot, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// What became of it.
    pub action: Action,
    /// Why, in words.
    pub why: Vec<String>,
}

/// What pruning came to.
#[derive(Debug)]
pub struct Pruned {
    /// All snapshots that ebs-bake made: by volume name, the newest of each first.
    pub rows: Vec<Row>,
    /// What went wrong.
    pub failure: Option<Error>,
}

/// Deletes the snapshots that may go.
///
/// # Errors
/// Those of looking for snapshots, and `Interrupted` before anything was decided. What goes wrong later is in the result: the kind
/// of what failed if nothing could be decided, else `Cleanup`.
pub async fn prune(store: &dyn Retained, wish: &Wish, report: &Report, cancel: &Cancel) -> Result<Pruned> {
    let mut run = Run { store, wish, report, now: Timestamp::now(), rows: Vec::new(), errors: Vec::new() };
    let decided = stoppable(cancel, run.decide()).await?;
    let failure = match decided {
        Err(unknown) => Some(unknown),
        Ok(_) if wish.dry_run => None,
        Ok(going) => match stoppable(cancel, run.delete(&going)).await {
            Err(stopped) => Some(stopped),
            Ok(()) => run.failure(going.len()),
        },
    };
    Ok(Pruned { rows: run.rows, failure })
}

/// Does the work unless it is to stop.
async fn stoppable<T>(cancel: &Cancel, work: impl Future<Output = T>) -> Result<T> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(cancel.error()),
        done = work => Ok(done),
    }
}

struct Run<'a> {
    store: &'a dyn Retained,
    wish: &'a Wish,
    report: &'a Report,
    now: Timestamp,
    rows: Vec<Row>,
    /// What went wrong with deletions.
    errors: Vec<Error>,
}

impl Run<'_> {
    /// Takes the first look; the IDs of those that may go.
    async fn decide(&mut self) -> Result<Vec<SnapshotId>> {
        let (snapshots, mut usage) = self.look().await?;
        if self.wish.dry_run {
            // A run that deletes asks for that when it looks again.
            usage.merge(self.accounts(&plan::may_go(&self.plan(&snapshots, &usage))).await);
        }
        let verdicts = self.plan(&snapshots, &usage);
        let mut going = plan::may_go(&verdicts);
        // The oldest first.
        going.reverse();
        self.rows = verdicts.iter().map(|verdict| self.row(verdict)).collect();
        warn(usage.failures().skip(1), self.report);
        match usage.into_failure() {
            None => Ok(going),
            Some(error) => Err(unknown(error)),
        }
    }

    /// The snapshots, and who uses them.
    async fn look(&self) -> Result<(Vec<Snapshot>, Usage)> {
        let snapshots = snapshots(self.store, self.wish.volume_name.as_deref()).await?;
        let ids: Vec<SnapshotId> = snapshots.iter().map(|snapshot| snapshot.id.clone()).collect();
        let usage = usage(self.store, &ids, self.wish.parameter.as_deref()).await;
        Ok((snapshots, usage))
    }

    async fn accounts(&self, ids: &[SnapshotId]) -> Usage {
        if self.wish.policy.include_shared { Usage::default() } else { self.store.accounts(ids).await }
    }

    fn plan<'s>(&self, snapshots: &'s [Snapshot], usage: &Usage) -> Vec<Verdict<'s>> {
        plan::plan(snapshots, usage, &self.wish.policy, self.now)
    }

    fn row(&self, verdict: &Verdict<'_>) -> Row {
        let words = || plan::words(verdict, &self.wish.policy);
        let (action, why) = match (self.wish.dry_run, verdict.may_go()) {
            (true, true) => (Action::Delete, words()),
            (true, false) => (Action::Keep, words()),
            (false, false) => (Action::Kept, words()),
            // Until its turn comes.
            (false, true) => (Action::Kept, vec!["interrupted before its turn".to_owned()]),
        };
        Row { snapshot: verdict.snapshot.clone(), action, why }
    }

    async fn delete(&mut self, going: &[SnapshotId]) {
        for batch in going.chunks(BATCH) {
            match self.look().await {
                Ok((snapshots, usage)) => self.delete_batch(batch, &snapshots, usage).await,
                Err(error) => self.fail(batch, error),
            }
        }
    }

    /// Deletes those of the batch that may still go, as a new look has it.
    async fn delete_batch(&mut self, batch: &[SnapshotId], snapshots: &[Snapshot], mut usage: Usage) {
        usage.merge(self.accounts(batch).await);
        let verdicts = self.plan(snapshots, &usage);
        let mut going = Vec::new();
        for id in batch {
            match verdicts.iter().find(|verdict| verdict.snapshot.id == *id) {
                None => self.became(id, Action::Deleted, vec!["somebody else did it".to_owned()]),
                Some(verdict) if verdict.may_go() => going.push((id.clone(), plan::words(verdict, &self.wish.policy))),
                Some(verdict) => self.became(id, Action::Kept, plan::words(verdict, &self.wish.policy)),
            }
        }
        self.errors.extend(usage.into_failure());
        let ids: Vec<SnapshotId> = going.iter().map(|(id, _)| id.clone()).collect();
        if ids.is_empty() {
            return;
        }
        match self.store.fast_restores(&ids).await {
            Err(error) => self.fail(&ids, error),
            Ok(fast) => {
                for (id, why) in going {
                    self.retire(&id, fast.get(&id).map(Vec::as_slice).unwrap_or_default(), why).await;
                }
            }
        }
    }

    async fn retire(&mut self, id: &SnapshotId, zones: &[String], why: Vec<String>) {
        self.became(id, Action::Kept, vec!["interrupted while it was being deleted".to_owned()]);
        match self.store.retire(id, zones).await {
            Ok(Retired::Deleted) => {
                self.report.note(format!("deleted {id}"));
                self.became(id, Action::Deleted, why);
            }
            Ok(Retired::InUse(by)) => self.became(id, Action::Kept, vec![by]),
            Err(error) => {
                self.report.warn(error.to_string());
                self.fail(std::slice::from_ref(id), error);
            }
        }
    }

    fn fail(&mut self, ids: &[SnapshotId], error: Error) {
        for id in ids {
            self.became(id, Action::Failed, told(&error));
        }
        self.errors.push(error);
    }

    fn became(&mut self, id: &SnapshotId, action: Action, why: Vec<String>) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.snapshot.id == *id) {
            (row.action, row.why) = (action, why);
        }
    }

    /// The error that the run ends with, after `going` snapshots had their turn.
    fn failure(&mut self, going: usize) -> Option<Error> {
        let failed: Vec<&str> =
            self.rows.iter().filter(|row| row.action == Action::Failed).map(|row| row.snapshot.id.as_str()).collect();
        let first = self.errors.drain(..).next()?;
        let (named, more) =
            (failed.iter().take(NAMED).copied().collect::<Vec<_>>().join(", "), failed.len().saturating_sub(NAMED));
        Some(match (failed.len(), more) {
            (0, _) if self.rows.iter().all(|row| row.action == Action::Kept) => unknown(first),
            (0, _) => {
                caused(Kind::Cleanup, "not everything was deleted that may go: not all users of the snapshots are known", first)
            }
            (count, 0) => caused(Kind::Cleanup, format!("{count} of {going} snapshots could not be deleted: {named}"), first),
            (count, _) => {
                let message = format!("{count} of {going} snapshots could not be deleted: {named} and {more} more");
                caused(Kind::Cleanup, message, first)
            }
        })
    }
}

/// That a look failed before anything was deleted.
fn unknown(error: Error) -> Error {
    caused(error.kind(), "nothing was deleted, for not all users of the snapshots are known", error)
}

/// An error in words.
fn told(error: &Error) -> Vec<String> {
    std::iter::once(error.to_string()).chain(error.causes()).collect()
}

/// An error that comes of another one, whose hint it has.
fn caused(kind: Kind, message: impl Into<String>, cause: Error) -> Error {
    let hint = cause.hint_text().map(str::to_owned);
    let error = Error::new(kind, message).because(cause);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
