//! A cancelled job: the runner signals the step's shell, waits, kills it, and runs the steps that always run.

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::Engine;
use crate::runner::{LONG, Runner};
use crate::store::needs_root;
use crate::tools::run;

/// Waits for the end; for so long that only what was not told would still run.
fn ended(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status.code(),
            None if Instant::now() > deadline => {
                signal(child, Signal::SIGKILL);
                panic!("the signal did not reach the program");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn root_the_signal_of_the_runner_reaches_the_program_which_undoes_what_it_did() {
    if !needs_root() {
        return;
    }
    for (sent, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let runner = Runner::new();
        let mut step = runner.begun();
        signal(&step, sent);
        assert_eq!(ended(&mut step), Some(code));
        runner.assert_nothing_left(0);
        assert!(fs::read_to_string(runner.job.host.path("summary")).unwrap().starts_with("### Failed: "));
        runner.clean_up("cancelled");
        runner.assert_nothing_left(0);
    }
}

#[test]
fn root_a_container_that_outlives_its_client_is_stopped_by_the_next_step() {
    if !needs_root() {
        return;
    }
    let runner = Runner::new();
    let mut step = runner.begun();
    signal(&step, Signal::SIGKILL);
    step.wait().unwrap();
    assert_eq!(runner.containers(), runner.container, "the client is dead, and the container goes on");
    runner.clean_up("cancelled");
    runner.assert_nothing_left(0);
    // The client died before it started what it had made.
    let engine = Engine::shared();
    run(&mut engine.docker(&["create", "--name", &runner.container, engine.image()]));
    runner.clean_up("cancelled");
    runner.assert_nothing_left(0);
}

#[test]
fn root_a_job_can_be_cancelled_before_the_program_runs() {
    if !needs_root() {
        return;
    }
    let runner = Runner::new();
    let mut step = runner.bake(&[("EBS_BAKE_AFTER_CHECKOUT", LONG)]).spawn().unwrap();
    while runner.containers().is_empty() {
        assert_eq!(step.try_wait().unwrap(), None, "it ended before it began");
    }
    // Whichever of them the client still hears.
    for sent in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        signal(&step, sent);
    }
    step.wait().unwrap();
    runner.clean_up("cancelled");
    // Or before there was a name for the container: files of the job's other steps stay as they are.
    let other = runner.job.host.path("temp/.other");
    fs::write(&other, "").unwrap();
    run(runner.step("Clean up after ebs-bake", &[("OUTCOME", "skipped")]).env("CONTAINER", ""));
    fs::remove_file(other).unwrap();
    // A volume that a run was about to make anew may be there: the next one takes it.
    let volumes = runner.job.host.volumes().len();
    runner.assert_nothing_left(volumes);
}

#[test]
fn root_what_was_left_before_goes_after_a_cancelled_job_only() {
    if !needs_root() {
        return;
    }
    let runner = Runner::new();
    let host = &runner.job.host;
    let baked = runner.bake(&[]).output().unwrap();
    assert!(baked.status.success(), "{}", String::from_utf8_lossy(&baked.stderr));
    let id = host.snapshots()[0]["snapshot-id"].as_str().unwrap().to_owned();
    // As after a restart of the machine: a volume that `restore` made, and nobody has any more.
    let point = host.path("restored");
    let restored = host.program("restore").args(["--snapshot-id", &id, "--mount-point"]).arg(&point).ended();
    assert_eq!(restored.code, 0, "{restored:?}");
    run(Command::new("umount").arg(&point));
    run(Command::new("losetup").arg("-d").arg(&host.loop_devices()[0].0));
    host.wait_for_devices();
    runner.outputs();
    assert_eq!(runner.clean_up("success"), "");
    assert_eq!(host.volumes().len(), 2);
    let said = runner.clean_up("cancelled");
    assert!(said.contains("removed "), "{said}");
    runner.assert_nothing_left(1);
}
