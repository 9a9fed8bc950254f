use proptest::prelude::*;

use super::*;
use crate::error::{Error, Kind};
use crate::retention::usage::{Holder, Lookup, TemplateVersion, Users, VolumeUser};
use crate::storage::Tags;

const DAY: i64 = 24 * 3600;
/// A hundred days after the first snapshot.
const NOW: Timestamp = Timestamp::constant(100 * DAY, 0);
const POLICY: Policy = Policy { keep: 2, keep_days: 30, include_shared: false };

fn id(number: usize) -> SnapshotId {
    format!("snap-{number:08x}").parse().unwrap()
}

fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// One of ours.
fn snapshot(number: usize, name: &str, age_in_days: i64, state: SnapshotState) -> Snapshot {
    Snapshot {
        id: id(number),
        state,
        volume: None,
        size_gib: 8,
        tags: tags(&[(tag::KEY, "k"), (tag::VOLUME, name)]),
        description: String::new(),
        started: NOW - SignedDuration::from_secs(age_in_days * DAY),
        parent: None,
        changed_blocks: None,
    }
}

/// Completed ones of these ages, oldest first.
fn of_ages(ages: &[i64]) -> Vec<Snapshot> {
    ages.iter().enumerate().map(|(number, age)| snapshot(number, "chef", *age, SnapshotState::Completed)).collect()
}

fn failed(lookup: Lookup) -> Usage {
    let mut usage = Usage::default();
    usage.add(lookup, Err::<(), _>(Error::new(Kind::Permission, "no")), |_, ()| ());
    usage
}

/// The numbers of those that may go.
fn gone(snapshots: &[Snapshot], usage: &Usage, policy: &Policy) -> Vec<usize> {
    let plan = plan(snapshots, usage, policy, NOW);
    let number = |id: &SnapshotId| snapshots.iter().position(|snapshot| snapshot.id == *id).unwrap();
    let mut numbers: Vec<usize> = may_go(&plan).iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn what_goes_is_old_and_beyond_the_count_and_unused() {
    let snapshots = of_ages(&[90, 80, 40, 35, 10]);
    let unused = Usage::default();
    assert_eq!(gone(&snapshots, &unused, &POLICY), [0, 1, 2]);
    assert_eq!(gone(&snapshots, &unused, &Policy { keep: 4, ..POLICY }), [0]);
    assert_eq!(gone(&snapshots, &unused, &Policy { keep_days: 81, ..POLICY }), [0]);
    assert_eq!(gone(&snapshots, &unused, &Policy { keep_days: 80, ..POLICY }), [0, 1], "to the day");
    assert_eq!(gone(&snapshots, &unused, &Policy { keep: 0, keep_days: 0, ..POLICY }), [0, 1, 2, 3], "but for the newest");
    let mut usage = Usage::default();
    usage.entry(&id(1)).images.insert("ami-1".into());
    assert_eq!(gone(&snapshots, &usage, &POLICY), [0, 2]);
}

#[test]
fn the_count_is_of_completed_ones_of_a_name() {
    let completed = SnapshotState::Completed;
    let mut snapshots = vec![
        snapshot(0, "chef", 90, completed.clone()),
        snapshot(1, "chef", 80, completed.clone()),
        snapshot(2, "web", 70, completed.clone()),
        snapshot(3, "chef", 60, completed),
        snapshot(4, "chef", 50, SnapshotState::Error("lost".into())),
        snapshot(5, "chef", 40, SnapshotState::Pending(None)),
        snapshot(6, "chef", 40, SnapshotState::PutAway("archived".into())),
    ];
    assert_eq!(gone(&snapshots, &Usage::default(), &POLICY), [0, 4]);
    snapshots[4].started = NOW - SignedDuration::from_hours(23);
    assert_eq!(gone(&snapshots, &Usage::default(), &POLICY), [0], "somebody may want to see why it failed");
}

#[test]
fn what_is_not_ours_is_left_out() {
    let mut snapshots = of_ages(&[90, 80, 70, 60, 50]);
    snapshots[0].tags = tags(&[(tag::VOLUME, "chef")]);
    snapshots[1].tags = tags(&[(tag::KEY, "k")]);
    snapshots[2].tags = tags(&[(tag::KEY, "k"), (tag::VOLUME, "")]);
    let policy = Policy { keep: 0, ..POLICY };
    let plan = plan(&snapshots, &Usage::default(), &policy, NOW);
    let ids: Vec<_> = plan.iter().map(|verdict| verdict.snapshot.id.clone()).collect();
    assert_eq!((ids, may_go(&plan)), (vec![id(4), id(3)], vec![id(3)]));
}

#[test]
fn everything_is_kept_if_who_uses_it_is_not_known() {
    for lookup in [Lookup::Templates, Lookup::Volumes, Lookup::Accounts] {
        assert_eq!(gone(&of_ages(&[90, 80, 70, 60]), &failed(lookup), &POLICY), [0; 0], "{lookup:?}");
    }
}

#[test]
fn what_is_shared_goes_only_if_that_is_asked_for() {
    let mut usage = Usage::default();
    usage.entry(&id(0)).accounts.insert("111122223333".into());
    let snapshots = of_ages(&[90, 80, 70, 60]);
    assert_eq!(gone(&snapshots, &usage, &POLICY), [1]);
    assert_eq!(gone(&snapshots, &usage, &Policy { include_shared: true, ..POLICY }), [0, 1]);
}

#[test]
fn the_reasons_are_said() {
    let mut snapshots = of_ages(&[90, 80, 70, 60, 20, 1]);
    snapshots.push(snapshot(6, "chef", 2, SnapshotState::Error("lost".into())));
    let mut usage = Usage::default();
    let version = |number, default| TemplateVersion {
        template_id: "lt-1".into(),
        template: "chef".into(),
        number,
        default,
        latest: false,
        pinned: false,
    };
    usage.entry(&id(0)).templates.insert(version(3, false));
    usage.entry(&id(1)).templates.insert(version(4, true));
    usage.entry(&id(1)).accounts.insert("111122223333".into());
    let plan = plan(&snapshots, &usage, &POLICY, NOW);
    let said: Vec<String> = plan.iter().map(|verdict| words(verdict, &POLICY).join("; ")).collect();
    assert_eq!(
        said,
        [
            "failed, more than a day ago; unused",
            "the newest of chef: the next bake builds on it; younger than 30 days",
            "one of the newest 2 of chef; younger than 30 days",
            "older than 30 days; not one of the newest 2 of chef; unused",
            "older than 30 days; not one of the newest 2 of chef; unused",
            "used by template chef v4 (default); shared with 111122223333, whose use cannot be seen",
            "older than 30 days; not one of the newest 2 of chef; not needed by template chef v3 (old)",
        ]
    );
}

/// Lets somebody need the snapshot, in one of the ways that there are.
fn need(users: &mut Users, way: usize) {
    let version = TemplateVersion {
        template_id: "lt-1".into(),
        template: "chef".into(),
        number: 1,
        default: way == 0,
        latest: way == 1,
        pinned: way == 2,
    };
    let volume = |holder| VolumeUser { id: "vol-00000001".parse().unwrap(), holder };
    let _ = match way {
        0..=2 => users.templates.insert(version),
        3 => users.configurations.insert("web".into()),
        4 => users.groups.insert("web".into()),
        5 => users.volumes.insert(volume(Holder::Instance("i-1".into()))),
        6 => users.volumes.insert(volume(Holder::Here)),
        7 => users.volumes.insert(volume(Holder::Store)),
        8 => users.images.insert("ami-1".into()),
        9 => users.parameter.replace("/chef".into()).is_none(),
        _ => users.accounts.insert("111122223333".into()),
    };
}
const WAYS: usize = 11;

/// Snapshots of all ages, names, states and uses, oldest first, and who uses them.
fn anything() -> impl Strategy<Value = (Vec<Snapshot>, Usage, Vec<bool>)> {
    let state = prop::sample::select(vec![
        SnapshotState::Completed,
        SnapshotState::Completed,
        SnapshotState::Pending(None),
        SnapshotState::Error("lost".into()),
        SnapshotState::PutAway("archived".into()),
    ]);
    let name = prop::sample::select(vec!["chef", "web"]);
    let one = (0..100i64, name, state, prop::bool::weighted(0.9), prop::option::weighted(0.3, 0..WAYS));
    (prop::collection::vec(one, 0..30), prop::bool::weighted(0.1)).prop_map(|(mut all, unknown)| {
        all.sort_by_key(|(age, ..)| -age);
        let mut usage = if unknown { failed(Lookup::Groups) } else { Usage::default() };
        let (mut snapshots, mut used) = (Vec::new(), Vec::new());
        for (number, (age, name, state, ours, way)) in all.into_iter().enumerate() {
            let mut snapshot = snapshot(number, name, age, state);
            if !ours {
                snapshot.tags.remove(tag::KEY);
            }
            if let Some(way) = way {
                need(usage.entry(&snapshot.id), way);
            }
            used.push(way.is_some());
            snapshots.push(snapshot);
        }
        (snapshots, usage, used)
    })
}

proptest! {
    #[test]
    fn nothing_that_is_needed_ever_goes(
        (snapshots, usage, used) in anything(),
        keep in 0..5u32,
        keep_days in 0..60u32,
    ) {
        let policy = Policy { keep, keep_days, include_shared: false };
        let gone = gone(&snapshots, &usage, &policy);
        for number in &gone {
            let snapshot = &snapshots[*number];
            prop_assert!(usage.is_complete() && !used[*number]);
            prop_assert!(snapshot.tags.contains_key(tag::KEY));
            let completed = |other: &&Snapshot| other.state == SnapshotState::Completed && other.tags.contains_key(tag::KEY);
            let of_name = |other: &&Snapshot| other.tags[tag::VOLUME] == snapshot.tags[tag::VOLUME];
            let newer = snapshots[number + 1..].iter().filter(of_name).filter(completed).count();
            let age = (NOW.as_second() - snapshot.started.as_second()) / DAY;
            match &snapshot.state {
                SnapshotState::Completed => prop_assert!(newer >= 1 && newer >= keep as usize && age >= i64::from(keep_days)),
                SnapshotState::Error(_) => prop_assert!(age >= 1),
                other => prop_assert!(false, "{other:?} goes"),
            }
        }
        let left: Vec<Snapshot> = snapshots.iter().filter(|it| !gone.iter().any(|number| it.id == id(*number))).cloned().collect();
        prop_assert_eq!(may_go(&plan(&left, &usage, &policy, NOW)), Vec::<SnapshotId>::new(), "a second run has nothing to do");
    }
}
