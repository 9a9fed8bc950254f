//! Bakes in storms of API faults: each ends right or says what is wrong, and the next one repairs.
//!
//! `STORM_SEED=123` runs the one with that seed, `STORM_SEED=100..200` those.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod support {
    #[allow(dead_code)]
    pub mod bake;
    pub mod bridge;
    pub mod ec2;
    pub mod git_cli;
    pub mod reliability;
    pub mod seeded;
    pub mod store;
    pub mod storm;
    pub mod tools;
}

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::bake::{self, Done, Run};
use support::bridge::Host;
use support::ec2::Cloud;
use support::git_cli::Scratch;
use support::reliability::{is_soak, record};
use support::store::needs_root;
use support::storm::{Before, Storm};

/// What is never to come is not waited for as long as it would be otherwise.
const BRIEF: [&str; 6] = ["--attach-timeout", "20s", "--wait-timeout", "20s", "--lock-timeout", "10s"];
/// The exit codes that such faults can lead to (docs/reference.md), and the kinds that they belong to.
const DOCUMENTED: [(i32, &str); 7] =
    [(3, "permission"), (4, "contended"), (5, "storage"), (6, "device"), (8, "snapshot"), (10, "cleanup"), (143, "interrupted")];
/// The seeds of the short run: none of them waits for a minute or more.
const BRIEF_STORMS: std::ops::RangeInclusive<u64> = 18..=29;
/// How many there are at once.
const AT_ONCE: usize = 12;
const KILLED: i32 = -libc::SIGKILL;

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct World {
    volumes: BTreeSet<String>,
    attached: BTreeSet<String>,
}

/// One seed's stage.
struct Sea {
    storm: Storm,
    cloud: Cloud,
    host: Host,
    machine: bake::Host,
    scratch: Scratch,
    /// Commit → the snapshot that a run answered with.
    answers: BTreeMap<String, String>,
}

/// What came of one seed.
struct Weathered {
    code: i32,
    calls: usize,
    hit: usize,
    took: Duration,
    names: Vec<String>,
}

impl Sea {
    fn new(seed: u64) -> Sea {
        let (storm, cloud, scratch) = (Storm::of(seed), Cloud::new(), Scratch::new());
        let host = cloud.bridge.host("us-east-1a");
        scratch.repository("up");
        Sea { storm, cloud, host, machine: bake::Host::new(), scratch, answers: BTreeMap::new() }
    }

    fn repository(&self) -> PathBuf {
        self.scratch.path("up")
    }

    fn head(&self) -> String {
        self.scratch.git("up", &["rev-parse", "HEAD"])
    }

    fn change(&self, to: &str) {
        self.scratch.commit("up", &[("README", to), (&format!("roles/{to}.rb"), to)]);
    }

    fn run(&self, host: &Host, more: &[&str]) -> Run {
        let more: Vec<&str> = ["--log-format", "json"].iter().chain(&BRIEF).chain(more).copied().collect();
        Run(self.cloud.baking(host, &self.repository(), &more))
    }

    /// A bake that nothing happens to.
    fn bakes(&mut self, host: &Host, more: &[&str]) -> bool {
        let baked = self.run(host, more).baked();
        self.answered(baked.id.clone());
        baked.reused()
    }

    /// Whoever was told an ID is told the same for ever.
    fn answered(&mut self, id: String) {
        let commit = self.head();
        let first = self.answers.entry(commit.clone()).or_insert_with(|| id.clone());
        assert_eq!(*first, id, "another answer for {commit}");
    }

    /// The volumes of this test.
    fn world(&self) -> World {
        self.cloud.bridge.settle();
        let state = self.cloud.bridge.state();
        let is_root = |device: &str| device == "/dev/sda1";
        let ours = state.volumes.iter().filter(|(_, it)| !it.attachment.as_ref().is_some_and(|at| is_root(&at.device)));
        let attached = ours.clone().filter(|(_, volume)| volume.attachment.is_some()).map(|(id, _)| id.clone()).collect();
        World { volumes: ours.map(|(id, _)| id.clone()).collect(), attached }
    }

    fn prepare(&mut self) {
        let host = self.host.clone();
        match self.storm.before {
            Before::Nothing => return,
            Before::Baked => self.bakes(&host, &[]),
            Before::Attached => self.bakes(&host, &["--after", "keep"]),
            Before::Snapshot => self.bakes(&host, &["--after", "delete"]),
            Before::OtherZone => {
                let other = self.cloud.bridge.host("us-east-1b");
                self.bakes(&other, &[])
            }
        };
        if !self.storm.same_commit {
            self.change("changed");
        }
    }

    /// The bake in the storm.
    fn storms(&self) -> Done {
        let (bridge, storm) = (&self.cloud.bridge, &self.storm);
        bridge.polls(storm.polls);
        bridge.timing(json!({ "device.appearing": { "seconds": storm.device_late } }));
        storm.rules.iter().for_each(|rule| bridge.rule(rule.spec()));
        bridge.clear_calls();
        let no_wait: &[&str] = if storm.no_wait { &["--no-wait"] } else { &[] };
        let run = self.run(&self.host, &[&["--after", storm.after], no_wait].concat());
        let mut run = run.started();
        if let Some((signal, event, phase)) = storm.end {
            run.until(event, phase);
            run.signal(signal);
        }
        run.end()
    }

    /// The next bakes, in good weather.
    fn repairs(&mut self) {
        let bridge = &self.cloud.bridge;
        bridge.clear_faults();
        bridge.polls(1);
        bridge.timing(json!({ "device.appearing": { "polls": 0 } }));
        bridge.settle();
        let host = self.host.clone();
        if self.bakes(&host, &[]) {
            // It used no volume: the next commit does.
            self.change("repaired");
            self.bakes(&host, &[]);
        }
    }

    /// One whole snapshot for each commit, with what belongs in it, and all bakes agree on it.
    fn is_whole(&self) {
        let listed = self.cloud.run(&self.host, &["list", "--json"]);
        let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
        let good = listed["snapshots"].as_array().unwrap().iter().filter(|it| it["state"] != "error");
        let mut by_commit: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for snapshot in good {
            let text = |name: &str| snapshot[name].as_str().unwrap().to_owned();
            by_commit.entry(text("commit")).or_default().push(text("snapshot-id"));
        }
        let answers: BTreeMap<_, _> = self.answers.iter().map(|(commit, id)| (commit.clone(), vec![id.clone()])).collect();
        assert_eq!(by_commit, answers, "snapshots that are there, and those that were answered");
        let state = self.cloud.bridge.state();
        for (commit, id) in &self.answers {
            let look = |root: &Path| self.machine.assert_is(root, &self.repository(), commit);
            self.machine.mounted(&state.snapshots[id].image, "ro,noload", look);
        }
    }
}

/// What a run said, for people.
fn log(done: &Done) -> String {
    let said = |line: &&str| !line.contains(r#""event":"started""#) && !line.contains(r#""event":"result""#);
    let lines: Vec<&str> = done.stderr.lines().filter(said).collect();
    format!("exit code {}\n{}", done.code, lines.join("\n"))
}

/// What an error must have: the exit code's own kind, one line, and what to do about it.
fn assert_says_what_is_wrong(done: &Done) {
    let errors = done.events("error");
    let [error] = errors.as_slice() else { panic!("one error is expected: {}", log(done)) };
    let kind = DOCUMENTED.iter().find(|(code, _)| *code == done.code).unwrap_or_else(|| panic!("undocumented: {}", log(done))).1;
    let text = |name: &str| error[name].as_str().unwrap_or_default();
    assert_eq!((text("kind"), error["exit-code"].as_i64()), (kind, Some(done.code.into())));
    assert!(!text("message").is_empty() && !text("message").contains('\n'), "{error}");
    assert!(kind == "interrupted" || !text("hint").is_empty(), "no hint: {error}");
}

/// Whether the run said that something is left.
fn told_of_leftovers(done: &Done) -> bool {
    let warnings = done.warnings();
    done.code == 10 || ["cleaning up failed too", "is left over"].iter().any(|words| warnings.contains(words))
}

/// What is there afterwards is what was there before, but for what was asked for.
fn assert_undid_what_it_did(storm: &Storm, done: &Done, before: &World, now: &World) {
    // Once the snapshot is taken, all that can fail is the wait for it.
    if done.phase("snapshot").is_none() && done.code != 0 {
        assert_eq!(now, before, "after a failure: {}", log(done));
        return;
    }
    let reused = done.phase("snapshot").is_none();
    let new: Vec<_> = now.volumes.difference(&before.volumes).collect();
    let attached_before = storm.before == Before::Attached;
    let (volumes, attached) = match storm.after {
        _ if reused => (before.volumes.len(), attached_before),
        "keep" => (1, true),
        "restore" => (1, attached_before),
        "detach" => (1, false),
        _ => (0, false),
    };
    let elsewhere = usize::from(storm.before == Before::OtherZone && !reused);
    assert_eq!(
        (now.volumes.len(), !now.attached.is_empty()),
        (volumes + elsewhere, attached),
        "volumes, attached: {}",
        log(done)
    );
    assert!(new.len() <= 1, "{new:?}");
}

fn weather(seed: u64) -> Weathered {
    let mut sea = Sea::new(seed);
    sea.prepare();
    let before = sea.world();
    let began = Instant::now();
    let done = sea.storms();
    let took = began.elapsed();
    let calls = sea.cloud.bridge.calls().calls;
    let hit = calls.iter().filter(|call| !call.fault.is_empty()).count();
    let names = sea.storm.rules.iter().flat_map(|rule| rule.names()).collect();
    let storm = sea.storm.clone();
    // A run that was told to stop has seconds to undo what it did; what it has not undone by then it leaves, as after SIGKILL.
    let was_out_of_time = done.code == 143 && format!("{:?}", done.events("error")).contains("cleaning up took too long");
    match done.code {
        0 if !storm.may_lose_its_snapshot() => sea.answered(done.stdout.trim().to_owned()),
        0 | KILLED => {}
        _ if was_out_of_time => assert_says_what_is_wrong(&done),
        _ => {
            assert!(!storm.is_weathered(), "this passes, and the run failed: {}", log(&done));
            assert_says_what_is_wrong(&done);
            if done.code == 10 {
                sea.answered(done.stdout.trim().to_owned());
            } else {
                assert_eq!(done.stdout, "");
            }
        }
    }
    if done.code != KILLED && !was_out_of_time && !told_of_leftovers(&done) {
        assert_undid_what_it_did(&storm, &done, &before, &sea.world());
    }
    sea.repairs();
    sea.is_whole();
    let cleanup = sea.cloud.run(&sea.host, &["cleanup"]);
    assert_eq!(cleanup.code, 0, "{cleanup:?}");
    let now = sea.world();
    assert!(now.attached.is_empty(), "left attached: {now:?}");
    assert!(now.volumes.len() <= 1 + usize::from(storm.before == Before::OtherZone), "{now:?}");
    assert_eq!(bake::names_in(&sea.cloud.path("tmp")), [""; 0], "temporary files are left");
    Weathered { code: done.code, calls: calls.len(), hit, took, names }
}

/// All seeds, several at a time; what came of each, or what was wrong.
fn weather_all(seeds: &[u64]) -> BTreeMap<u64, Result<Weathered, String>> {
    let (next, ended) = (AtomicU64::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let outcome = catch_unwind(AssertUnwindSafe(|| weather(*seed))).map_err(|panic| said(panic.as_ref()));
            ended.lock().unwrap().insert(*seed, outcome);
        }
    };
    // A bake in a storm sleeps for most of its time, and each of these has a bridge, which takes a while to start.
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    ended.into_inner().unwrap()
}

fn said(panic: &dyn Any) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

#[test]
fn root_a_bake_in_a_storm_ends_right_or_says_why_and_the_next_one_repairs() {
    if !needs_root() {
        return;
    }
    let seeds: Vec<u64> = match std::env::var("STORM_SEED") {
        Ok(wanted) => {
            let number = |text: &str| text.parse::<u64>().expect("STORM_SEED is a number, or two with .. between");
            wanted.split_once("..").map_or_else(|| vec![number(&wanted)], |(from, to)| (number(from)..number(to)).collect())
        }
        Err(_) if is_soak() => (1..=300).collect(),
        Err(_) => BRIEF_STORMS.collect(),
    };
    let began = Instant::now();
    let ended = weather_all(&seeds);
    let wrong = |(seed, outcome): (&u64, &Result<Weathered, String>)| {
        Some(format!("STORM_SEED={seed}: {}\n{:#?}\n", outcome.as_ref().err()?, Storm::of(*seed)))
    };
    let wrong: Vec<String> = ended.iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{} of {} went wrong:\n{}", wrong.len(), seeds.len(), wrong.join("\n"));
    let weathered: Vec<_> = ended.into_values().flatten().collect();
    record("storms", &figures(&weathered, began.elapsed()));
}

fn figures(weathered: &[Weathered], took: Duration) -> String {
    let (calls, hit) = (weathered.iter().map(|it| it.calls).sum::<usize>(), weathered.iter().map(|it| it.hit).sum::<usize>());
    let mut codes: BTreeMap<i32, usize> = BTreeMap::new();
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for it in weathered {
        *codes.entry(it.code).or_default() += 1;
        it.names.iter().for_each(|name| *names.entry(name).or_default() += 1);
    }
    let mut seconds: Vec<f64> = weathered.iter().map(|it| it.took.as_secs_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    let mut text = format!(
        "{} bakes, seeds 1 to {0}, {calls} calls of which {hit} were hit by a fault, in {} minutes. A bake in a storm took {:.1} s in the \
         median and {:.1} s at most.\n\n| Ended with | Bakes |\n|---|---|\n",
        weathered.len(),
        took.as_secs() / 60,
        seconds[seconds.len() / 2],
        seconds.last().unwrap(),
    );
    for (code, count) in codes {
        let ended = match code {
            0 => "0".to_owned(),
            KILLED => "SIGKILL".to_owned(),
            code => format!("{code} ({})", DOCUMENTED.iter().find(|it| it.0 == code).map_or("?", |it| it.1)),
        };
        text += &format!("| {ended} | {count} |\n");
    }
    let names: Vec<String> = names.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
    text + &format!("\nRules by effect: {}.\n", names.join(", "))
}
