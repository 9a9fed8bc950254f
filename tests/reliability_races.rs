//! Several at once: runs on one host, hosts that contend, an orphan that holds the lock, a mount that somebody else made.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod support {
    #[allow(dead_code)]
    pub mod bake;
    pub mod bridge;
    pub mod ec2;
    pub mod git_cli;
    pub mod reliability;
    pub mod seeded;
    pub mod site;
    pub mod store;
    pub mod tools;
}

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::test_runner::TestRng;
use support::bake::{Done, Running};
use support::bridge::Host as Instance;
use support::reliability::{record, rounds};
use support::seeded::{below, random};
use support::site::{Orphan, Site};
use support::store::needs_root;

/// How many runs start at once.
const AT_ONCE: usize = 8;
/// The phases of a run on EC2 after which another host's run starts.
const MOMENTS: [&str; 10] =
    ["resolve", "look-up", "volume", "attach", "lock", "mount", "checkout", "unmount", "snapshot", "release"];
const CONTENDED: i32 = 4;

/// The ID that a run answered with; it ended well.
#[track_caller]
fn answer(done: &Done, when: &str) -> String {
    assert_eq!(done.code, 0, "{when}: {done:?}");
    done.stdout.trim().to_owned()
}

/// Bakes these commits, one run for each mention, all started within moments; what each commit came to.
fn at_once(site: &Site, commits: &[String], rng: &mut TestRng, when: &str) -> BTreeMap<String, String> {
    let start = |commit: &String| {
        std::thread::sleep(Duration::from_millis(below(rng, 60)));
        site.bake().args(["--commit", commit]).started()
    };
    let runs: Vec<Running> = commits.iter().map(start).collect();
    let ended: Vec<Done> = runs.into_iter().map(Running::end).collect();
    let mut answers = BTreeMap::new();
    let mut made = 0;
    for (commit, done) in commits.iter().zip(&ended) {
        let id = answer(done, when);
        let first = answers.entry(commit.clone()).or_insert_with(|| id.clone());
        assert_eq!(*first, id, "{when}: two answers for {commit}");
        made += usize::from(done.events("result")[0]["reused"] == false);
    }
    assert_eq!(made, answers.len(), "{when}: one run makes a commit's snapshot, the others find it");
    answers
}

/// Rounds of runs at once, each of this many new commits.
fn race(site: &Site, commits: usize, rounds: u64) {
    let mut all = BTreeMap::new();
    for round in 0..rounds {
        let when = format!("{}, {commits} commits, round {round}", site.name());
        let new: Vec<String> = (0..commits).map(|number| site.commit(&format!("{commits}-{round}-{number}"))).collect();
        let mentions: Vec<String> = (0..AT_ONCE).map(|number| new[number % commits].clone()).collect();
        all.extend(at_once(site, &mentions, &mut random(round), &when));
        site.assert_at_rest(all.len());
    }
    site.assert_one_each(&all);
}

#[test]
fn root_runs_at_once_on_one_host_make_one_snapshot_of_each_commit() {
    if !needs_root() {
        return;
    }
    let (few, many) = (rounds(2, 10), rounds(1, 5));
    let began = Instant::now();
    for (commits, rounds) in [(1, few), (3, many), (AT_ONCE, many)] {
        Site::both().iter().for_each(|site| race(site, commits, rounds));
    }
    record(
        "races",
        &format!(
            "{AT_ONCE} runs at once on one host, for one volume, on either store, the first of them on none yet: {few} times for one \
             commit, {many} times for 3 commits, {many} times for {AT_ONCE} commits; {} runs in {} s. Each ended with 0, the runs \
             of a commit with one ID, of which one run made it; there was one snapshot of each commit, which held what a clone holds, one volume, \
             and no attachment, mount or file.",
            2 * AT_ONCE as u64 * (few + 2 * many),
            began.elapsed().as_secs(),
        ),
    );
}

#[test]
fn root_a_run_that_fails_takes_nothing_from_those_that_wait_for_it() {
    if !needs_root() {
        return;
    }
    for site in Site::both() {
        let gate = site.machine.path("gate");
        let script = format!("while [ ! -e {} ]; do sleep 0.05; done; exit 1", gate.display());
        let mut failing = site.bake().args(["--after-checkout", &script]).started();
        assert!(failing.until("started", "after-checkout"));
        let mut waiting: Vec<_> = (0..3).map(|_| site.bake().started()).collect();
        for run in &mut waiting {
            assert!(run.until_line(|line| line["event"] == "note" && line["message"].as_str().unwrap().contains("in use")));
        }
        std::fs::write(&gate, "").unwrap();
        assert_eq!(failing.end().code, 7);
        let ids: BTreeSet<String> = waiting.into_iter().map(|run| answer(&run.end(), site.name())).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        site.assert_at_rest(1);
        site.assert_holds(ids.first().unwrap(), &site.head());
    }
}

/// Nobody detached or attached a volume for anybody else: the calls of each instance are about itself.
#[track_caller]
fn assert_nothing_was_stolen(site: &Site) {
    for call in site.cloud().bridge.calls().calls {
        if let Some(instance) = call.params.get("InstanceId") {
            assert_eq!(instance, call.access_key.as_str(), "{}", call.action);
        }
        assert!(!call.params.contains_key("Force"), "{}", call.action);
    }
}

/// Two runs, the second after the first has come so far, or so much later; how they ended.
fn two(first: support::bake::Run, second: support::bake::Run, shift: Shift) -> [Done; 2] {
    let mut one = first.started();
    match shift {
        Shift::After(phase) => drop(one.until("finished", phase)),
        Shift::By(pause) => std::thread::sleep(pause),
    }
    let other = second.started();
    [one.end(), other.end()]
}

#[derive(Debug, Clone, Copy)]
enum Shift {
    After(&'static str),
    By(Duration),
}

/// Together, after each phase, and after so many milliseconds.
fn shift(round: u64, rng: &mut TestRng) -> Shift {
    match MOMENTS.get(round as usize / 2) {
        Some(phase) if round % 2 == 1 => Shift::After(phase),
        _ => Shift::By(Duration::from_millis(if round == 0 { 0 } else { below(rng, 3000) })),
    }
}

#[test]
fn root_two_hosts_that_want_one_volume_never_share_it_nor_take_it() {
    if !needs_root() {
        return;
    }
    let site = Site::ec2();
    let hosts = [site.ec2.as_ref().unwrap().1.clone(), site.cloud().bridge.host("us-east-1a")];
    let (all, mut rng, mut answers, mut refused) = (rounds(6, 30), random(1), BTreeMap::new(), 0);
    for round in 0..all {
        let shift = shift(round, &mut rng);
        let when = format!("round {round}, {shift:?}");
        // Half of the rounds are about one key, half about one each.
        let one = site.commit(&format!("one-{round}"));
        let other = if round % 4 < 2 { one.clone() } else { site.commit(&format!("other-{round}")) };
        let run = |host: &Instance, commit: &str| site.bake_on(host).args(["--commit", commit]);
        let ended = two(run(&hosts[0], &one), run(&hosts[1], &other), shift);
        assert!(ended.iter().any(|done| done.code == 0), "{when}: {ended:?}");
        for (number, (done, commit)) in ended.iter().zip([&one, &other]).enumerate() {
            if done.code != 0 {
                assert_eq!(done.code, CONTENDED, "{when}: {done:?}");
                let error = done.events("error").remove(0);
                let message = error["message"].as_str().unwrap();
                assert!(message.contains(&hosts[1 - number].instance_id), "{when}: does not name the other: {error}");
                assert!(error["hint"].is_string(), "{when}: {error}");
                refused += 1;
            }
            // The one that was refused has it now; the one that had it is told the same.
            let id = run(&hosts[number], commit).baked().id;
            assert!(done.code != 0 || done.stdout.trim() == id, "{when}: {done:?}, and now {id}");
            let first = answers.entry(commit.clone()).or_insert_with(|| id.clone());
            assert_eq!(*first, id, "{when}: two answers for {commit}");
        }
        assert_nothing_was_stolen(&site);
        site.assert_at_rest(answers.len());
    }
    site.assert_one_each(&answers);
    record(
        "races-hosts",
        &format!(
            "Two instances, one volume, {all} rounds, the second run started together with the first, after each of its phases and after \
             seeded pauses, for one commit and for two: {} of {} runs ended with their snapshot, {refused} with exit code 4 that \
             named the other instance, and had their snapshot when run again. No run detached or attached anything for another \
             instance; one snapshot of each of {} commits.",
            2 * all - refused,
            2 * all,
            answers.len(),
        ),
    );
}

#[test]
fn root_two_hosts_with_a_volume_each_may_both_make_a_snapshot_and_the_oldest_is_the_answer_for_ever() {
    if !needs_root() {
        return;
    }
    let site = Site::ec2();
    let hosts = [site.ec2.as_ref().unwrap().1.clone(), site.cloud().bridge.host("us-east-1b")];
    let (all, mut rng, mut twice) = (rounds(3, 20), random(2), 0);
    for round in 0..all {
        let shift = shift(round, &mut rng);
        let commit = site.commit(&format!("both-{round}"));
        let run = |host: &Instance| site.bake_on(host).args(["--commit", &commit]);
        let ended = two(run(&hosts[0]), run(&hosts[1]), shift);
        let own = ended.map(|done| answer(&done, &format!("round {round}, {shift:?}")));
        site.cloud().bridge.settle();
        let there = site.snapshots().remove(&commit).unwrap();
        assert_eq!(
            there.iter().cloned().collect::<BTreeSet<_>>(),
            own.iter().cloned().collect(),
            "what was made is what was told"
        );
        // Both are whole, and from now on everybody is told the older one.
        own.iter().for_each(|id| site.assert_holds(id, &commit));
        let later: BTreeSet<String> = hosts.iter().cycle().take(4).map(|host| run(host).baked().id).collect();
        assert_eq!(later.into_iter().collect::<Vec<_>>(), there[..1], "round {round}");
        twice += u64::from(there.len() == 2);
        assert_nothing_was_stolen(&site);
    }
    record(
        "races-zones",
        &format!(
            "Two instances in two zones, so with a volume each, {all} commits: all runs ended well. {twice} times both had made a snapshot \
             before either could see the other's: both held the commit, and every later run on either answered with the older one."
        ),
    );
}

/// An orphan that is in the midst of a bake of the site's head.
fn orphaned_bake(site: &Site) -> Orphan {
    let reached = site.machine.path("reached");
    let script = format!("touch {} && sleep 600", reached.display());
    let run = site.bake().args(["--after-checkout", &script]);
    let orphan = Orphan::start(&run.0, &site.machine.path("orphan.log"));
    wait_for(&reached, &site.machine.path("orphan.log"));
    orphan
}

/// Until another process has made this file; or tells its log.
fn wait_for(file: &Path, log: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !file.exists() {
        assert!(Instant::now() < deadline, "{}", std::fs::read_to_string(log).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn root_an_orphan_in_another_namespace_that_holds_the_lock_is_waited_for_and_named() {
    if !needs_root() {
        return;
    }
    for site in Site::both() {
        let orphan = orphaned_bake(&site);
        site.begin();
        let before = site.seen();
        let failed = site.bake().args(["--lock-timeout", "1s"]).failed(CONTENDED);
        failed.says(&format!("is locked by pid {}", orphan.pid()), "--lock-timeout");
        let notes = failed.done.events("note");
        assert!(notes.iter().any(|note| note["message"].as_str().unwrap().contains("waiting up to 1 s")), "{notes:?}");
        assert_eq!(site.seen(), before, "{}", site.name());
        // It goes while a run waits for it: that one takes over.
        let mut waiting = site.bake().started();
        assert!(waiting.until_line(|line| line["event"] == "note" && line["message"].as_str().unwrap().contains("in use")));
        drop(orphan);
        let id = answer(&waiting.end(), site.name());
        assert_eq!(site.snapshots().into_values().collect::<Vec<_>>(), [[id.clone()]]);
        site.assert_holds(&id, &site.head());
        assert_eq!(site.bake().baked().id, id);
    }
}

#[test]
fn root_a_mount_of_the_device_in_another_namespace_is_refused_and_left_alone() {
    if !needs_root() {
        return;
    }
    for site in Site::both() {
        let first = site.bake().args(["--after", "keep"]).baked().id;
        let first_commit = site.head();
        let second_commit = site.commit("second");
        let (point, ready) = (site.machine.path("elsewhere"), site.machine.path("ready"));
        std::fs::create_dir(&point).unwrap();
        let orphan = Orphan::mounting(&site.device(), &point, &ready);
        wait_for(&ready, &ready);
        site.begin();
        let before = site.seen();
        let failed = site.bake().failed(6);
        failed.says(&format!("is in use: mounted at {} (seen by pid {}", point.display(), orphan.pid()), "unmount it there");
        assert_eq!(site.seen(), before, "{}", site.name());
        // Neither formatted, nor unmounted, nor written to.
        let tree = orphan.path(&point);
        assert_eq!(std::fs::read_to_string(tree.join("README")).unwrap(), "hello\n");
        assert!(!tree.join("roles/second.rb").exists(), "{}: it was checked out under somebody's mount", site.name());
        std::fs::write(tree.join("mine"), "still writable").unwrap();
        drop(orphan);
        site.wait_until_unused();
        let second = site.bake().args(["--after", "detach"]).baked().id;
        site.assert_at_rest(2);
        site.assert_one_each(&BTreeMap::from([(first_commit, first), (second_commit, second)]));
    }
}
