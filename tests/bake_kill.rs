//! Being killed, being told to stop, and several at once.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/git_cli.rs"]
mod git_cli;
mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bake::{Host, PHASES, Run};
use git_cli::Scratch;
use support::needs_root;

/// The promise is 7 s from the signal on.
const PROMISED: Duration = Duration::from_secs(7);

fn start() -> (Host, Scratch, String) {
    let (host, scratch) = (Host::new(), Scratch::new());
    let commit = scratch.repository("up");
    (host, scratch, commit)
}

fn run(host: &Host, scratch: &Scratch) -> Run {
    host.bake(scratch.path("up")).args(["--after-checkout", "echo built > built"])
}

/// After whatever happened: one good snapshot of the commit, one volume, and nothing else.
#[track_caller]
fn assert_repaired(host: &Host, scratch: &Scratch, when: &str) {
    host.wait_for_devices();
    let baked = run(host, scratch).baked();
    assert_eq!(host.program("cleanup").ended().code, 0, "{when}");
    // What the killed run made for its mount is nobody's now: one or two empty directories.
    for directory in ["code/chef", "code"] {
        let _ = std::fs::remove_dir(host.path(directory));
    }
    host.assert_nothing_left(1);
    let with_key = host.snapshots().iter().filter(|it| it["key"] == baked.result["key"]).count();
    assert_eq!(with_key, 1, "{when}: snapshots of one commit");
    host.restored(&baked.id, |root| {
        assert_eq!(std::fs::read_to_string(root.join("built")).unwrap(), "built\n", "{when}");
        let status = host.git(root, &["status", "--porcelain"]);
        assert_eq!(status, "?? built", "{when}");
    });
}

#[test]
fn root_a_run_killed_at_any_event_is_repaired_by_the_next() {
    if !needs_root() {
        return;
    }
    let (host, scratch, _) = start();
    // The first time blank, then on a volume that is there.
    for round in 0..2 {
        for phase in PHASES {
            for event in ["started", "finished"] {
                if round == 1 {
                    scratch.commit("up", &[("round", &format!("{phase} {event}\n"))]);
                }
                let mut killed = run(&host, &scratch).started();
                killed.until(event, phase);
                killed.signal(libc::SIGKILL);
                killed.end();
                if round == 1 || event == "finished" && phase == "snapshot" {
                    assert_repaired(&host, &scratch, &format!("{event} {phase}, round {round}"));
                }
            }
        }
    }
}

#[test]
fn root_a_run_killed_at_any_moment_is_repaired_by_the_next() {
    if !needs_root() {
        return;
    }
    let (host, scratch, _) = start();
    for step in 0..24 {
        scratch.commit("up", &[("step", &format!("{step}\n"))]);
        let killed = run(&host, &scratch).started();
        std::thread::sleep(Duration::from_millis(7 * step));
        killed.signal(libc::SIGKILL);
        killed.end();
        assert_repaired(&host, &scratch, &format!("after {} ms", 7 * step));
    }
}

#[test]
fn root_a_run_that_is_told_to_stop_cleans_up() {
    if !needs_root() {
        return;
    }
    let (host, scratch, _) = start();
    for (number, phase) in PHASES.into_iter().enumerate() {
        let (signal, code) = [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)][number % 3];
        let mut stopped = host.bake(scratch.path("up")).args(["--after-checkout", "sleep 600"]).started();
        assert!(stopped.until("started", phase), "{phase} never began");
        let began = Instant::now();
        stopped.signal(signal);
        let done = stopped.end();
        assert!(began.elapsed() < PROMISED, "{phase}: {:?}", began.elapsed());
        assert_eq!((done.code, done.stdout.as_str()), (code, ""), "{phase}: {done:?}");
        assert_eq!(done.events("error").len(), 1, "{phase}: {done:?}");
        host.assert_nothing_left(0);
        if phase == "after-checkout" {
            break;
        }
    }
    assert_repaired(&host, &scratch, "after all signals");
}

#[test]
fn root_runs_at_once_for_one_commit_make_one_snapshot() {
    if !needs_root() {
        return;
    }
    let (host, scratch, commit) = start();
    let runs: Vec<_> = (0..8).map(|_| host.bake(scratch.path("up")).started()).collect();
    let ended: Vec<_> = runs.into_iter().map(bake::Running::end).collect();
    assert!(ended.iter().all(|done| done.code == 0), "{ended:#?}");
    let ids: BTreeSet<_> = ended.iter().map(|done| done.stdout.clone()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    host.assert_nothing_left(1);
    assert_eq!(host.snapshots().len(), 1);
    host.assert_holds(ended[0].stdout.trim(), &scratch.path("up"), &commit);
}

#[test]
fn root_runs_at_once_for_several_commits_each_hold_their_own() {
    if !needs_root() {
        return;
    }
    let (host, scratch, first) = start();
    let mut commits = vec![first];
    commits.extend((1..8).map(|n| scratch.commit("up", &[("README", &format!("{n}\n")), (&format!("file{n}"), "x\n")])));
    let runs: Vec<_> = commits.iter().map(|commit| host.bake(scratch.path("up")).args(["--commit", commit]).started()).collect();
    let ended: Vec<_> = runs.into_iter().map(bake::Running::end).collect();
    assert!(ended.iter().all(|done| done.code == 0), "{ended:#?}");
    host.assert_nothing_left(1);
    for (commit, done) in commits.iter().zip(&ended) {
        host.assert_holds(done.stdout.trim(), &scratch.path("up"), commit);
    }
}

#[test]
fn root_a_run_that_fails_takes_nothing_from_those_that_wait_for_it() {
    if !needs_root() {
        return;
    }
    let (host, scratch, commit) = start();
    let gate = host.path("gate");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done; exit 1", gate.display());
    let mut failing = host.bake(scratch.path("up")).args(["--after-checkout", &script]).started();
    assert!(failing.until("started", "after-checkout"));
    let mut waiting: Vec<_> = (0..3).map(|_| host.bake(scratch.path("up")).started()).collect();
    for run in &mut waiting {
        assert!(run.until_line(|line| line["event"] == "note" && line["message"].as_str().unwrap().contains("in use")));
    }
    std::fs::write(&gate, "").unwrap();
    assert_eq!(failing.end().code, 7);
    let ended: Vec<_> = waiting.into_iter().map(bake::Running::end).collect();
    assert!(ended.iter().all(|done| done.code == 0), "{ended:#?}");
    host.assert_nothing_left(1);
    host.assert_holds(ended[0].stdout.trim(), &scratch.path("up"), &commit);
}
