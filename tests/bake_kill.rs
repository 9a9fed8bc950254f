//! Being told to stop while the user's command runs, and several at once.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/git_cli.rs"]
mod git_cli;
mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bake::Host;
use git_cli::Scratch;
use support::needs_root;

/// The promise is 7 s from the signal on.
const PROMISED: Duration = Duration::from_secs(7);

fn start() -> (Host, Scratch, String) {
    let (host, scratch) = (Host::new(), Scratch::new());
    let commit = scratch.repository("up");
    (host, scratch, commit)
}

#[test]
fn root_a_run_that_is_told_to_stop_ends_the_users_command() {
    if !needs_root() {
        return;
    }
    let (host, scratch, _) = start();
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
        let script = "trap '' INT TERM HUP; echo begun; sleep 600";
        let mut stopped = host.bake(scratch.path("up")).args(["--after-checkout", script]).started();
        assert!(stopped.until_line(|line| line["line"] == "begun"));
        let began = Instant::now();
        stopped.signal(signal);
        let done = stopped.end();
        assert!(began.elapsed() < PROMISED, "{:?}", began.elapsed());
        assert_eq!((done.code, done.stdout.as_str()), (code, ""), "{done:?}");
        assert_eq!(done.events("error").len(), 1, "{done:?}");
        host.assert_nothing_left(0);
    }
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
