//! What happens to one bake on EC2, drawn at random: a seed always draws the same.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::bake::PHASES;
use super::seeded::random;

/// How often a call may fail in ways that pass before the program gives up (six times are made good), all rules together.
const PATIENCE: u32 = 6;

/// A bake, what there was before it, and what happens to it.
#[derive(Debug, Clone)]
pub struct Storm {
    pub before: Before,
    /// Of the commit that was baked before, rather than of a new one.
    pub same_commit: bool,
    pub after: &'static str,
    pub no_wait: bool,
    /// How often the states of volumes and snapshots are seen.
    pub polls: u32,
    /// Until the kernel shows an attached device, in seconds.
    pub device_late: f64,
    pub rules: Vec<Rule>,
    /// The signal that is sent, and the event and the phase that it is sent at.
    pub end: Option<(i32, &'static str, &'static str)>,
}

/// What there was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Nothing,
    /// A volume and a snapshot.
    Baked,
    /// The same, and the volume is attached.
    Attached,
    /// A snapshot alone.
    Snapshot,
    /// A volume in another zone, and a snapshot.
    OtherZone,
}

/// A fault of the bridge.
#[derive(Debug, Clone)]
pub struct Rule {
    pub action: &'static str,
    pub nth: u32,
    pub times: u32,
    pub effect: Value,
    pub mercy: Mercy,
}

/// Whether a bake must end well in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mercy {
    /// It must.
    Mild,
    /// It must, if the call does not fail too often.
    Passing,
    /// It may fail.
    Harsh,
}

impl Storm {
    pub fn of(seed: u64) -> Storm {
        let mut runner = TestRunner::new_with_rng(Config::default(), random(seed));
        storm().new_tree(&mut runner).unwrap().current()
    }

    /// Whether the bake must end well.
    pub fn is_weathered(&self) -> bool {
        let passing = self.rules.iter().filter(|rule| rule.mercy == Mercy::Passing).map(|rule| rule.times).sum::<u32>();
        self.end.is_none() && self.rules.iter().all(|rule| rule.mercy != Mercy::Harsh) && passing <= PATIENCE
    }

    /// Whether the snapshot that the bake made may come to nothing after its ID was told.
    pub fn may_lose_its_snapshot(&self) -> bool {
        self.no_wait && self.rules.iter().any(|rule| !rule.effect["becomes"].is_null())
    }
}

impl Rule {
    pub fn spec(&self) -> Value {
        json!({ "action": self.action, "nth": self.nth, "times": self.times, "effect": self.effect })
    }

    /// What it is called in the figures: `Throttling`, `drop-after`, `hide`.
    pub fn names(&self) -> Vec<String> {
        match &self.effect {
            Value::Object(effect) => {
                effect.keys().map(|key| self.effect[key]["code"].as_str().unwrap_or(key).to_owned()).collect()
            }
            effect => vec![effect.as_str().unwrap().to_owned()],
        }
    }
}

fn storm() -> impl Strategy<Value = Storm> {
    let before = prop_oneof![
        3 => Just(Before::Nothing),
        2 => Just(Before::Baked),
        2 => Just(Before::Attached),
        2 => Just(Before::Snapshot),
        1 => Just(Before::OtherZone),
    ];
    let after = prop_oneof![4 => Just("restore"), 1 => Just("keep"), 1 => Just("detach"), 1 => Just("delete")];
    let polls = prop_oneof![3 => Just(1_u32), 1 => Just(0), 1 => Just(2)];
    let late = prop_oneof![4 => Just(0.0), 1 => Just(0.4), 1 => Just(1.5)];
    let rules = prop::collection::vec(rule(), 1..=6);
    let parts = (before, prop::bool::weighted(0.1), after, prop::bool::weighted(0.15), polls, late, rules, end());
    parts.prop_map(|(before, same_commit, after, no_wait, polls, device_late, rules, end)| Storm {
        before,
        same_commit: same_commit && before != Before::Nothing,
        after,
        no_wait,
        polls,
        device_late,
        rules,
        end,
    })
}

/// One in six is stopped or killed.
fn end() -> impl Strategy<Value = Option<(i32, &'static str, &'static str)>> {
    let phases = PHASES.into_iter().chain(["release", "wait"]).filter(|phase| *phase != "after-checkout").collect::<Vec<_>>();
    let moment = (select(vec![libc::SIGKILL, libc::SIGTERM]), select(vec!["started", "finished"]), select(phases));
    prop_oneof![5 => Just(None), 1 => moment.prop_map(Some)]
}

fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![
        6 => passing(),
        3 => looks(),
        2 => create_volume(),
        3 => attach(),
        2 => give_back(),
        4 => create_snapshot(),
    ]
}

fn error(code: &str, status: u16) -> Value {
    json!({ "error": { "code": code, "status": status, "message": format!("{code}, for this test") } })
}

/// What a call of any action can meet, and what is over after a while.
fn passing() -> impl Strategy<Value = Rule> {
    let effect = prop_oneof![
        3 => select(vec![
            error("RequestLimitExceeded", 503),
            error("Throttling", 400),
            error("Unavailable", 503),
            error("InternalError", 500),
        ]),
        1 => Just(json!("drop")),
        1 => Just(json!("drop-after")),
        1 => Just(json!({ "delay": 0.7 })),
    ];
    let action = prop_oneof![
        4 => select(vec!["DescribeVolumes", "DescribeSnapshots"]),
        5 => select(vec!["CreateVolume", "AttachVolume", "DetachVolume", "DeleteVolume"]),
    ];
    let one = (action, 1..=4_u32, 1..=4_u32, effect);
    // A storm over everything: the SDK repeats each call, but for CreateSnapshot, which is told to wait.
    let all = (1..=12_u32, 2..=5_u32).prop_map(|(nth, times)| ("*", nth, times, error("RequestLimitExceeded", 503)));
    prop_oneof![5 => one, 1 => all].prop_map(|(action, nth, times, effect)| Rule {
        action,
        nth,
        times,
        effect,
        mercy: Mercy::Passing,
    })
}

/// Rules of one action, each with its weight: effect, most times, mercy.
fn of(action: &'static str, effects: Vec<(u32, Value, u32, Mercy)>) -> impl Strategy<Value = Rule> {
    let rules = effects.into_iter().map(move |(weight, effect, most, mercy)| {
        let rule = (1..=7_u32, 1..=most);
        let rule = rule.prop_map(move |(nth, times)| Rule { action, nth, times, effect: effect.clone(), mercy });
        (weight, rule.boxed())
    });
    proptest::strategy::Union::new_weighted(rules.collect())
}

/// Answers that are older than what was done last, and states that run backwards.
fn looks() -> impl Strategy<Value = Rule> {
    use Mercy::{Harsh, Mild};
    let free = json!({ "override": { "*": { "status": "available", "attachmentSet": null } } });
    let attaching = json!({ "override": { "*": { "attachmentSet/item/status": "attaching" } } });
    let detaching = json!({ "override": { "*": { "attachmentSet/item/status": "detaching" } } });
    let elsewhere = json!({ "override": { "*": { "attachmentSet/item/instanceId": "i-0fedcba9876543210" } } });
    let creating = json!({ "override": { "*": { "status": "creating", "attachmentSet": null } } });
    let volumes = vec![
        (4, json!("stale"), 2, Mild),
        (3, free, 2, Mild),
        (1, attaching, 2, Mild),
        (1, detaching, 2, Mild),
        (1, creating, 2, Mild),
        (1, elsewhere, 1, Harsh),
    ];
    let pending = json!({ "override": { "*": { "status": "pending", "progress": "10%" } } });
    let snapshots = vec![(2, json!("stale"), 2, Mild), (2, pending, 2, Mild)];
    prop_oneof![3 => of("DescribeVolumes", volumes), 1 => of("DescribeSnapshots", snapshots)]
}

fn create_volume() -> impl Strategy<Value = Rule> {
    use Mercy::{Harsh, Mild};
    let effects = vec![
        (2, error("IdempotentParameterMismatch", 400), 2, Mild),
        (2, json!({ "hide": { "polls": 2 } }), 1, Mild),
        (2, json!({ "takes": { "polls": 3 } }), 1, Mild),
        (2, json!({ "becomes": "error" }), 1, Harsh),
        (1, error("InvalidSnapshot.NotFound", 400), 1, Harsh),
        (1, error("VolumeLimitExceeded", 400), 1, Harsh),
    ];
    of("CreateVolume", effects).prop_map(first)
}

fn attach() -> impl Strategy<Value = Rule> {
    use Mercy::{Harsh, Mild};
    let effects = vec![
        (2, error("IncorrectState", 400), 2, Mild),
        (2, error("InvalidVolume.NotFound", 400), 1, Mild),
        (2, error("VolumeInUse", 400), 1, Mild),
        (2, json!({ "takes": { "polls": 3 } }), 1, Mild),
        (2, json!({ "takes": "never" }), 1, Harsh),
        (1, json!({ "device": { "present": false } }), 1, Harsh),
        (1, json!({ "device": { "eio": true } }), 1, Harsh),
        (1, error("AttachmentLimitExceeded", 400), 1, Harsh),
        (1, json!({ "delay": 32 }), 1, Harsh),
    ];
    of("AttachVolume", effects).prop_map(first)
}

fn give_back() -> impl Strategy<Value = Rule> {
    use Mercy::{Harsh, Mild};
    let effects = vec![
        (2, error("IncorrectState", 400), 1, Mild),
        (2, json!({ "takes": { "polls": 3 } }), 1, Mild),
        (2, error("InvalidAttachment.NotFound", 400), 1, Mild),
        (1, error("UnauthorizedOperation", 403), 1, Harsh),
    ];
    let deleting = vec![(1, error("VolumeInUse", 400), 1, Mild), (1, error("IncorrectState", 400), 1, Mild)];
    prop_oneof![3 => of("DetachVolume", effects), 1 => of("DeleteVolume", deleting)].prop_map(first)
}

fn create_snapshot() -> impl Strategy<Value = Rule> {
    use Mercy::{Harsh, Mild};
    let effects = vec![
        (4, json!("drop-after"), 1, Mild),
        (4, json!({ "drop-after": true, "hide": { "polls": 3 } }), 1, Mild),
        (3, json!({ "hide": { "polls": 3 } }), 1, Mild),
        (3, json!({ "takes": { "polls": 3 } }), 1, Mild),
        (3, json!({ "takes": "never" }), 1, Harsh),
        (3, json!({ "becomes": "error" }), 1, Harsh),
        (2, error("SnapshotCreationPerVolumeRateExceeded", 400), 2, Mild),
        (1, error("ConcurrentSnapshotLimitExceeded", 400), 1, Mild),
        (2, error("IncorrectState", 400), 1, Harsh),
        (2, error("SnapshotLimitExceeded", 400), 1, Harsh),
        // Each of these is looked after for a minute.
        (1, error("InternalError", 500), 1, Mild),
        (1, json!("drop"), 1, Harsh),
    ];
    of("CreateSnapshot", effects).prop_map(first)
}

/// A bake makes few of these calls.
fn first(rule: Rule) -> Rule {
    Rule { nth: 1, ..rule }
}
