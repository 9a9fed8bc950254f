//! SIGTERM and SIGINT at every step of a bake: it ends in time, leaves nothing, and the next run is good.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod support {
    #[allow(dead_code)]
    pub mod bake;
    pub mod bridge;
    pub mod ec2;
    pub mod git_cli;
    pub mod git_server;
    pub mod reliability;
    pub mod scenarios;
    pub mod seeded;
    pub mod store;
    pub mod tools;
    pub mod world;
}

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;
use support::reliability::{At, is_soak, record, rounds};
use support::scenarios::{Blow, Point, STEPS, Scenario, assert_repaired, first_and_last, steps};
use support::seeded::{below, random};
use support::store::needs_root;
use support::world::World;

/// The promise is 7 s from the signal on.
const PROMISED: Duration = Duration::from_secs(7);

/// Exit codes: 128 and the signal's number.
const SIGNALS: [(&str, i32); 2] = [("SIGTERM", 143), ("SIGINT", 130)];

#[derive(Default)]
struct Tally {
    stopped: usize,
    /// They came when there was nothing more to stop.
    finished: usize,
    slowest: Duration,
}

/// How long ago a run was told to stop; `None`: it did not come there.
fn since_the_signal(steps: &Path) -> Option<Duration> {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let steps = fs::read_to_string(steps).unwrap();
    let at = steps.lines().find_map(|line| line.strip_prefix("signal at "))?;
    Some(now.saturating_sub(Duration::from_millis(at.parse().unwrap())))
}

/// Tells a run to stop at a point. Whether it was: a signal that comes when all is done changes nothing.
fn stop_and_repair(world: &World, blow: &Blow<'_>, code: i32, tally: &mut Tally) {
    let when = format!("{} {}", world.store(), blow.told());
    let _at = At(&when);
    let commit = blow.scenario.prepare(world, blow.round);
    let (before, taken) = (world.see(), world.snapshots().len());
    let steps = world.host.path("steps");
    let _ = fs::remove_file(&steps);
    let (done, session) = blow.run(world).env(STEPS, &steps).ended_with_session();
    let took = since_the_signal(&steps);
    // How often EC2 is looked at is a matter of time.
    assert!(took.is_some() || (done.code == 0 && blow.point.nth > 1), "{when}: it did not come there: {done:?}");
    let took = took.unwrap_or_default();
    assert!(took < PROMISED, "{when}: {took:?}");
    world.assert_alone(session, &when);
    tally.slowest = tally.slowest.max(took);
    if done.code == 0 {
        tally.finished += 1;
    } else {
        assert_eq!((done.code, done.stdout.as_str()), (code, ""), "{when}: {done:?}");
        assert_eq!(done.events("error").len(), 1, "{when}: {done:?}");
        tally.stopped += 1;
    }
    // A volume stays only if the commit was baked.
    let after = world.see();
    let made = world.snapshots().len() - taken;
    assert_eq!(after.attached, before.attached, "{when}: {done:?}");
    let volumes = before.volumes..=before.volumes + made * blow.scenario.makes();
    assert!(volumes.contains(&after.volumes), "{when}: {volumes:?} {after:?} {done:?}");
    world.assert_nothing_left(after.volumes);
    assert_repaired(world, blow.scenario, blow.round, &before, &commit, &when);
}

fn stop_everywhere(world: &World, scenarios: &[Scenario], seed: u64) -> String {
    let mut rng = random(seed);
    let mut table = String::new();
    for scenario in scenarios {
        let (found, _) = steps(world, *scenario);
        let points = first_and_last(&found);
        let mut all: Vec<_> = points.iter().flat_map(|point| SIGNALS.map(|signal| (point, signal))).collect();
        let most = if world.cloud.is_some() { rounds(3, 40) } else { rounds(8, u64::MAX) };
        while all.len() as u64 > most {
            all.swap_remove(below(&mut rng, all.len() as u64) as usize);
        }
        let mut tally = Tally::default();
        for (round, (point, (signal, code))) in all.into_iter().enumerate() {
            let blow = Blow { scenario: *scenario, round: round + 1, point, signal };
            stop_and_repair(world, &blow, code, &mut tally);
        }
        let Tally { stopped, finished, slowest } = tally;
        let (store, slowest) = (world.store(), slowest.as_secs_f64());
        writeln!(table, "| {store} | {} | {} | {stopped} | {finished} | {slowest:.1} s |", scenario.title(), points.len())
            .unwrap();
    }
    table
}

#[test]
fn root_a_run_that_is_told_to_stop_at_any_step_ends_in_time_and_leaves_nothing() {
    use Scenario::{Blank, Container, FromSnapshot, Next, Published, Unclean};
    if !needs_root() {
        return;
    }
    let local = std::thread::spawn(|| stop_everywhere(&World::local(), &[Blank, Next, FromSnapshot, Unclean, Container], 1));
    let ec2 = stop_everywhere(&World::ec2(rounds(0, 1) as u32), &[Next, Blank, FromSnapshot, Published], 2);
    let local = local.join().unwrap();
    let head = "| Store | Run | Points | Stopped | Came too late | Slowest |\n|---|---|---:|---:|---:|---:|";
    let which = match is_soak() {
        true => "SIGTERM and SIGINT at each point, on EC2 at 40 that a seed chose",
        false => "SIGTERM or SIGINT at points that a seed chose",
    };
    let said = format!(
        "{which}. Asserted: exit code 143 or 130 with one error and nothing on stdout (or 0 and the ID, when the signal came too late to \
         change anything), within 7 s; the volumes and attachments of before, no mount, loop device, directory, temporary file or \
         process; then all that is asserted after a kill. Slowest: from the signal to the end of the process."
    );
    record("signals", &format!("{head}\n{local}{ec2}\n{said}"));
}

#[test]
fn root_a_volume_is_held_until_it_is_known_what_became_of_its_snapshot() {
    if !needs_root() {
        return;
    }
    let world = World::ec2(0);
    Scenario::Next.prepare(&world, 0);
    world.cloud.as_ref().unwrap().0.bridge.fault("CreateSnapshot", json!({ "delay": 1.5 }));
    let point = Point { step: "before CreateSnapshot".to_owned(), nth: 1 };
    let blow = Blow { scenario: Scenario::Next, round: 1, point: &point, signal: "SIGTERM" };
    let file = world.host.path("steps");
    let done = blow.run(&world).env(STEPS, &file).ended();
    let steps = fs::read_to_string(file).unwrap();
    let place = |step: &str| steps.lines().position(|it| it == step).unwrap_or_else(|| panic!("no {step:?}: {done:?}"));
    assert!(place("after CreateSnapshot") < place("before phase release"), "{steps}");
    assert!(place("before CreateSnapshot") < place("before DetachVolume"), "{steps}");
}

#[test]
fn root_a_run_that_cannot_clean_up_in_time_ends_and_says_what_to_do() {
    if !needs_root() {
        return;
    }
    let world = World::ec2(0);
    Scenario::Next.prepare(&world, 0);
    let commit = Scenario::Next.prepare(&world, 1);
    let before = world.see();
    let bridge = &world.cloud.as_ref().unwrap().0.bridge;
    // It is detached, but EC2 does not say so while there is time.
    bridge.fault("DetachVolume", json!({ "delay": 20 }));
    let point = Point { step: "after phase mount".to_owned(), nth: 1 };
    let blow = Blow { scenario: Scenario::Next, round: 1, point: &point, signal: "SIGTERM" };
    let (done, session) = blow.run(&world).ended_with_session();
    assert_eq!((done.code, done.stdout.as_str()), (143, ""), "{done:?}");
    let errors = done.events("error");
    let [error] = errors.as_slice() else { panic!("one error is expected: {done:?}") };
    assert_eq!(error["causes"], json!(["cleaning up took too long"]));
    assert!(error["hint"].as_str().unwrap().contains("ebs-bake cleanup"), "{error}");
    world.assert_alone(session, &blow.told());
    bridge.clear_faults();
    assert_repaired(&world, Scenario::Next, 1, &before, &commit, &blow.told());
}
