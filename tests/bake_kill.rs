//! Being told to stop while the user's command runs.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/git_cli.rs"]
mod git_cli;
mod support;

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
