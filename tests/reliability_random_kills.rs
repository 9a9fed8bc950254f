//! SIGKILL at any moment of a bake: the next run puts everything right.
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
use std::time::{Duration, Instant};

use support::reliability::{record, rounds};
use support::scenarios::{Scenario, assert_repaired, steps};
use support::seeded::{below, random};
use support::store::needs_root;
use support::world::World;

/// Kills that many runs of each kind, at moments that are drawn from the time that such a run takes and a tenth more.
fn kill_any_time(world: &World, scenarios: &[Scenario], kills: u64, seed: u64) -> String {
    let mut table = String::new();
    for (number, scenario) in scenarios.iter().enumerate() {
        let seed = seed + number as u64;
        let mut rng = random(seed);
        let (_, mut length) = steps(world, *scenario);
        let (mut killed, mut round) = (0, 0);
        while killed < kills {
            round += 1;
            let moment = Duration::from_micros(below(&mut rng, length.as_micros() as u64 * 11 / 10));
            let when = format!("{} {scenario:?}, seed {seed}, kill {round} after {moment:?} of {length:?}", world.store());
            match kill_and_repair(world, *scenario, round, moment, &when) {
                None => killed += 1,
                // The machine has more time for it than it had for the one that was measured.
                Some(took) => length = length.min(took),
            }
        }
        let (store, title) = (world.store(), scenario.title());
        writeln!(table, "| {store} | {title} | {seed} | {} ms | {killed} of {round} |", length.as_millis()).unwrap();
    }
    table
}

/// How long the run took, if it had ended before it could be killed.
fn kill_and_repair(world: &World, scenario: Scenario, round: usize, moment: Duration, when: &str) -> Option<Duration> {
    let commit = scenario.prepare(world, round);
    let before = world.see();
    let began = Instant::now();
    let run = scenario.bake(world, round).started_as_session();
    std::thread::sleep(moment.saturating_sub(began.elapsed()));
    run.signal(libc::SIGKILL);
    let session = run.pid();
    let done = run.end();
    let took = began.elapsed();
    world.assert_alone(session, when);
    assert_repaired(world, scenario, round, &before, &commit, when);
    (done.code != -libc::SIGKILL).then_some(took)
}

#[test]
fn root_a_run_that_is_killed_at_any_moment_is_repaired_by_the_next() {
    use Scenario::{Blank, FromSnapshot, Next, Published, Unclean};
    if !needs_root() {
        return;
    }
    let local = std::thread::spawn(|| kill_any_time(&World::local(), &[Blank, Next, FromSnapshot, Unclean], rounds(5, 30), 1000));
    let ec2 = kill_any_time(&World::ec2(rounds(0, 1) as u32), &[Next, Blank, FromSnapshot, Published], rounds(2, 20), 2000);
    let local = local.join().unwrap();
    let head = "| Store | Run | Seed | Takes | Killed |\n|---|---|---:|---:|---:|";
    let said = "The moments are drawn evenly from the time that the run takes and a tenth more; who was not killed had ended before. \
                Asserted after each: all that is asserted after a kill at a step.";
    record("random-kills", &format!("{head}\n{local}{ec2}\n{said}"));
}
