//! What becomes of a program when the process that started it is killed.

#![allow(clippy::unwrap_used, reason = "test helpers")]

mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use ebs_bake::cancel::Cancel;
use ebs_bake::host::command::{Program, Shell};
use support::host::Helper;

const HELPER: &str = "EBS_BAKE_TEST_COMMAND";

/// Not a test of its own: the process that is killed in others.
#[test]
fn helper_runs_a_program() {
    let Some(what) = std::env::var_os(HELPER) else { return };
    let script = "sleep 600 & echo ready $! $$; wait";
    if what == "shell" {
        let shell = Shell { script: script.into(), directory: "/".into(), withheld: Vec::new() };
        let _ = shell.run(&Cancel::new(), |line| writeln!(std::io::stdout(), "{line}").unwrap());
    } else {
        let _ = Program::new("sh").args(["-c", "echo ready $$ > /proc/$PPID/fd/1; exec sleep 600"]).run(&Cancel::new());
    }
}

fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn nothing_of_it_outlives_a_killed_parent() {
    for what in ["shell", "program"] {
        let (mut helper, line) = Helper::test("helper_runs_a_program", HELPER, what);
        let pids: Vec<&str> = line.split_whitespace().skip_while(|word| *word != "ready").skip(1).collect();
        assert!(!pids.is_empty() && pids.iter().all(|pid| is_alive(pid)), "{what}: {line}");
        helper.kill();
        let deadline = Instant::now() + Duration::from_secs(20);
        while pids.iter().any(|pid| is_alive(pid)) {
            assert!(Instant::now() < deadline, "{what}: {line}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
