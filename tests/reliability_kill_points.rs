//! SIGKILL at every step of a bake: the next run puts everything right.
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

use std::collections::BTreeSet;
use std::fmt::Write;

use support::reliability::{is_soak, record, rounds};
use support::scenarios::{Blow, Point, Scenario, first_and_last, kill_and_repair, steps};
use support::store::needs_root;
use support::world::World;

/// What was done.
#[derive(Default)]
struct Tally {
    steps: BTreeSet<String>,
    kills: usize,
    table: String,
}

/// Kills a run at each point of each scenario: in the long run everywhere on the embedded store, and wherever the first scenario
/// comes on EC2; else at steps that are not known from elsewhere.
fn kill_everywhere(world: &World, known: &BTreeSet<String>) -> Tally {
    let mut tally = Tally::default();
    for scenario in Scenario::of(world.store()) {
        let (found, _) = steps(world, *scenario);
        let mut points = first_and_last(&found);
        let is_new = |point: &Point| point.nth == 1 && !known.contains(&point.step) && !tally.steps.contains(&point.step);
        let everywhere = is_soak() && (world.cloud.is_none() || tally.steps.is_empty());
        points.retain(|point| everywhere || is_new(point));
        let mut kills = 0;
        for (round, point) in points.iter().enumerate() {
            let blow = Blow { scenario: *scenario, round: round + 1, point, signal: "SIGKILL" };
            let killed = kill_and_repair(world, &blow);
            // How often EC2 is looked at is a matter of time.
            assert!(killed || point.nth > 1, "{}: it did not come there", blow.told());
            kills += usize::from(killed);
        }
        let (store, title) = (world.store(), scenario.title());
        writeln!(tally.table, "| {store} | {title} | {} | {kills} |", found.len()).unwrap();
        tally.steps.extend(found.into_iter().map(|(step, _)| step));
        tally.kills += kills;
    }
    tally
}

#[test]
fn root_a_run_that_is_killed_at_any_step_is_repaired_by_the_next() {
    if !needs_root() {
        return;
    }
    // The steps of the embedded store are known when its first run has been seen, and are not tried again elsewhere.
    let world = World::local();
    let known = steps(&world, Scenario::Blank).0.into_iter().map(|(step, _)| step).collect();
    let local = std::thread::spawn(move || kill_everywhere(&world, &BTreeSet::new()));
    let ec2 = kill_everywhere(&World::ec2(rounds(0, 1) as u32), &known);
    let local = local.join().unwrap();
    let steps: BTreeSet<_> = local.steps.union(&ec2.steps).collect();
    assert!(steps.len() >= 40, "{} steps", steps.len());
    let kills = local.kills + ec2.kills;
    let head = "| Store | Run | Steps | Kills |\n|---|---|---:|---:|";
    let (of_local, of_ec2) = (local.steps.len(), ec2.steps.len());
    let which = match is_soak() {
        true => {
            "on the embedded store each step of each kind of run, when it is first and when it is last reached; on EC2 so in the \
                 first kind, and each step that is new in the others"
        }
        false => "each step in the kind of run in which it is new",
    };
    let said = format!(
        "{} distinct steps ({of_local} of the embedded store, {of_ec2} of EC2) and {kills} kills: {which}. Asserted after each: no \
         process of the run lives on; the next run ends well and waits for no lock; one snapshot with the key, whose filesystem is \
         clean and whose content is git's (work tree, `git status`, `git fsck`); a third run changes nothing; no volume too many, \
         nothing attached by the second run; after `cleanup` no attachment, mount, loop device or temporary file.",
        steps.len()
    );
    record("kill-points", &format!("{head}\n{}{}\n{said}", local.table, ec2.table));
}
