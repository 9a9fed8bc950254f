//! Which snapshots may go. Values in, values out: a dry run makes the very same decisions.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::usage::Usage;
use crate::key::tag;
use crate::storage::{Snapshot, SnapshotId, SnapshotState};

/// What is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// So many completed snapshots of each volume name: the newest ones.
    pub keep: u32,
    /// Everything that is younger than so many days.
    pub keep_days: u32,
    /// Whether what is shared with other accounts may go, whose use cannot be seen.
    pub include_shared: bool,
}

/// A failed snapshot stays this long: somebody may want to see why.
const FAILED_HOURS: i64 = 24;
const HOURS_OF_A_DAY: i64 = 24;

/// Why a snapshot stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// It is not whole yet.
    Pending,
    /// It is archived or in the recycle bin, as this says: somebody wanted that.
    PutAway(String),
    /// It is the newest completed one of its volume name: the next bake builds on it.
    Lineage,
    /// It is one of the newest.
    Newest,
    /// It is younger than the policy's days.
    Young,
    /// It failed within the last day.
    JustFailed,
    /// Somebody needs it: who, in words.
    Used(Vec<String>),
    /// It is shared with these accounts.
    Shared(Vec<String>),
    /// Who uses it could not be found out.
    UsageUnknown,
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The snapshot, one of ours.
    pub snapshot: &'a Snapshot,
    /// Why it stays; nothing: it may go.
    pub keep: Vec<Keep>,
    /// What refers to it and would not miss it, in words.
    pub refers: Vec<String>,
}

impl Verdict<'_> {
    /// Whether it may be deleted.
    pub fn may_go(&self) -> bool {
        self.keep.is_empty()
    }

    /// The volume's name.
    pub fn volume_name(&self) -> &str {
        volume_name(self.snapshot).unwrap_or_default()
    }
}

/// The name of the volume, if ebs-bake made the snapshot.
fn volume_name(snapshot: &Snapshot) -> Option<&str> {
    let tag = |name: &str| snapshot.tags.get(name).filter(|value| !value.is_empty());
    tag(tag::KEY)?;
    tag(tag::VOLUME).map(String::as_str)
}

/// What becomes of each snapshot that is ours, which is one with a key and a volume's name; others are left out. In order of the
/// names, the newest of each first.
///
/// `snapshots` are oldest first. All of a name must be among them, whatever `usage` is about.
pub fn plan<'a>(snapshots: &'a [Snapshot], usage: &Usage, policy: &Policy, now: Timestamp) -> Vec<Verdict<'a>> {
    let mut names: BTreeMap<&str, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        if let Some(name) = volume_name(snapshot) {
            names.entry(name).or_default().push(snapshot);
        }
    }
    let verdict = |snapshot: &'a Snapshot, newer: u32| {
        let users = usage.of(&snapshot.id);
        let mut keep = of_itself(snapshot, newer, policy, now);
        let needs = users.needs();
        if !needs.is_empty() {
            keep.push(Keep::Used(needs));
        }
        if !users.accounts.is_empty() && !policy.include_shared {
            keep.push(Keep::Shared(users.accounts.iter().cloned().collect()));
        }
        // Only then does it matter.
        if keep.is_empty() && !usage.is_complete() {
            keep.push(Keep::UsageUnknown);
        }
        Verdict { snapshot, keep, refers: users.refers() }
    };
    let mut verdicts = Vec::new();
    for of_name in names.into_values() {
        let mut newer = 0;
        for snapshot in of_name.into_iter().rev() {
            verdicts.push(verdict(snapshot, newer));
            newer += u32::from(snapshot.state == SnapshotState::Completed);
        }
    }
    verdicts
}

/// Why a snapshot stays, whoever uses it. `newer`: so many completed ones of its name are.
fn of_itself(snapshot: &Snapshot, newer: u32, policy: &Policy, now: Timestamp) -> Vec<Keep> {
    let age = now.duration_since(snapshot.started);
    match &snapshot.state {
        SnapshotState::Pending(_) => vec![Keep::Pending],
        SnapshotState::PutAway(why) => vec![Keep::PutAway(why.clone())],
        SnapshotState::Error(_) if age < SignedDuration::from_hours(FAILED_HOURS) => vec![Keep::JustFailed],
        SnapshotState::Error(_) => Vec::new(),
        SnapshotState::Completed => {
            let young = age < SignedDuration::from_hours(i64::from(policy.keep_days) * HOURS_OF_A_DAY);
            let reasons = [(newer == 0, Keep::Lineage), (0 < newer && newer < policy.keep, Keep::Newest), (young, Keep::Young)];
            reasons.into_iter().filter_map(|(holds, keep)| holds.then_some(keep)).collect()
        }
    }
}

/// The IDs of those that may go.
pub fn may_go(plan: &[Verdict<'_>]) -> Vec<SnapshotId> {
    plan.iter().filter(|verdict| verdict.may_go()).map(|verdict| verdict.snapshot.id.clone()).collect()
}

/// Why a snapshot stays or may go, in words.
pub fn words(verdict: &Verdict<'_>, policy: &Policy) -> Vec<String> {
    let name = verdict.volume_name();
    if !verdict.may_go() {
        return verdict.keep.iter().map(|keep| keep.words(name, policy)).collect();
    }
    let mut words = match verdict.snapshot.state {
        SnapshotState::Error(_) => vec!["failed, more than a day ago".to_owned()],
        _ => vec![format!("older than {}", days(policy.keep_days)), format!("not one of the newest {} of {name}", policy.keep)],
    };
    words.push(match verdict.refers.is_empty() {
        true => "unused".to_owned(),
        false => format!("not needed by {}", verdict.refers.join(", ")),
    });
    words
}

impl Keep {
    fn words(&self, name: &str, policy: &Policy) -> String {
        match self {
            Keep::Pending => "pending".to_owned(),
            Keep::PutAway(why) => why.clone(),
            Keep::Lineage => format!("the newest of {name}: the next bake builds on it"),
            Keep::Newest => format!("one of the newest {} of {name}", policy.keep),
            Keep::Young => format!("younger than {}", days(policy.keep_days)),
            Keep::JustFailed => "failed within the last day".to_owned(),
            Keep::Used(users) => format!("used by {}", users.join(", ")),
            Keep::Shared(accounts) => format!("shared with {}, whose use cannot be seen", accounts.join(", ")),
            Keep::UsageUnknown => "who uses it is not known".to_owned(),
        }
    }
}

fn days(days: u32) -> String {
    if days == 1 { "1 day".to_owned() } else { format!("{days} days") }
}

#[cfg(test)]
mod tests;
