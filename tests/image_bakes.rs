//! Bakes in a container: with the least privileges and with all, on the embedded store and on EC2, and stopped at any time.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod support {
    #[allow(dead_code)]
    pub mod bake;
    pub mod bridge;
    pub mod container;
    pub mod ec2;
    pub mod engine;
    pub mod git_cli;
    pub mod store;
    pub mod tools;
}

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use support::bake::{self, Host, PHASES, Run};
use support::container::{Container, LEAST, LOOP_RULES};
use support::ec2::Stage;
use support::engine::Engine;
use support::git_cli::Scratch;
use support::store::needs_root;

/// The promise is 7 s from the signal on.
const PROMISED: Duration = Duration::from_secs(7);

/// As terminated by SIGTERM, and by SIGKILL.
const TERMINATED: i32 = 143;
const KILLED: i32 = 137;

/// A machine, and a repository on it.
struct Local {
    host: Host,
    scratch: Scratch,
    commit: String,
}

impl Local {
    fn new() -> Local {
        let (host, scratch) = (Host::new(), Scratch::new());
        let commit = scratch.repository("up");
        Local { host, scratch, commit }
    }

    /// A bake of the repository in this container, whose store and temporary directory are this machine's.
    fn bake(&self, container: &Container, privileges: &[&str]) -> Run {
        let (up, store, tmp) = (self.scratch.path("up"), self.host.text("store"), self.host.text("tmp"));
        let mounts = [format!("{0}:{0}:ro", up.display()), format!("{store}:{store}"), format!("{tmp}:{tmp}")];
        let flags = mounts.iter().flat_map(|mount| ["--volume", mount.as_str()]);
        let flags: Vec<&str> = flags.chain(["--network", "none", "--env", "TMPDIR"]).chain(privileges.iter().copied()).collect();
        let run =
            container.run(&flags).env("TMPDIR", &tmp).args(["bake", "--store", "local", "--log-format", "json", "--verbose"]);
        run.args(["--local-dir", &store, "--repository"]).arg(up)
    }

    /// What a run with the least privileges makes is whole, and nothing else is there.
    #[track_caller]
    fn assert_repaired(&self, when: &str) {
        let container = Container::new();
        let baked = self.bake(&container, &least()).baked();
        assert!(!container.exists(), "{when}");
        assert_eq!(self.host.program("cleanup").ended().code, 0, "{when}");
        self.host.assert_nothing_left(1);
        let of_commit = self.host.snapshots().iter().filter(|it| it["key"] == baked.result["key"]).count();
        assert_eq!(of_commit, 1, "{when}: snapshots of one commit");
        self.host.assert_holds(&baked.id, &self.scratch.path("up"), &self.commit);
    }
}

fn least() -> Vec<&'static str> {
    LEAST.into_iter().chain(LOOP_RULES).collect()
}

#[test]
fn root_a_container_with_the_least_privileges_bakes() {
    if !needs_root() {
        return;
    }
    let local = Local::new();
    let baked = local.bake(&Container::new(), &least()).baked();
    local.host.assert_nothing_left(1);
    assert_eq!(baked.result["commit"], local.commit.as_str());
    local.host.assert_holds(&baked.id, &local.scratch.path("up"), &local.commit);
    let again = local.bake(&Container::new(), &least()).baked();
    assert_eq!((again.id.as_str(), again.reused()), (baked.id.as_str(), true));
}

#[test]
fn root_a_container_may_be_read_only() {
    if !needs_root() {
        return;
    }
    let local = Local::new();
    let privileges: Vec<&str> = least().into_iter().chain(["--read-only"]).collect();
    let baked = local.bake(&Container::new(), &privileges).baked();
    local.host.assert_holds(&baked.id, &local.scratch.path("up"), &local.commit);
}

#[test]
fn root_a_privileged_container_bakes() {
    if !needs_root() {
        return;
    }
    let local = Local::new();
    let baked = local.bake(&Container::new(), &["--privileged"]).baked();
    local.host.assert_nothing_left(1);
    local.host.assert_holds(&baked.id, &local.scratch.path("up"), &local.commit);
}

/// The command in this document's section that runs the image.
fn documented(document: &str, section: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let section = text.split_once(section).unwrap_or_else(|| panic!("no {section:?} in {document}")).1;
    let command = section.split_once("docker run ").unwrap().1.split_once("```").unwrap().0;
    format!("docker run {command}")
}

/// Runs a documented command as it stands, but for the names of image, volume and repository.
#[track_caller]
fn follow(command: &str, scratch: &Scratch) -> bake::Done {
    let (container, volume) = (Container::new(), Container::new());
    let engine = Engine::shared();
    let command = command
        .replace("ebs-bake bake", &format!("{} bake --log-format json", engine.image()))
        .replace("--volume ebs-bake:", &format!("--volume {}:", volume.name))
        .replace("--name ebs-bake-42", &format!("--name {}", container.name))
        .replace("https://git.example.com/infra/chef-repo", "/work")
        .replace("--network host", "--volume \"$PWD:/work:ro\"")
        .replace("docker run", "docker run --network none");
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).current_dir(scratch.path("up")).envs(engine.environment());
    let done = Run(shell).ended();
    let _ = engine.docker(&["volume", "rm", &volume.name]).output();
    done
}

#[test]
fn root_what_the_documents_say_works() {
    if !needs_root() {
        return;
    }
    let scratch = Scratch::new();
    let commit = scratch.repository("up");
    for (document, section) in [("README.md", "### Try it with Docker alone"), ("docs/container.md", "which needs no account")] {
        let done = follow(&documented(document, section), &scratch);
        assert_eq!(done.code, 0, "{document}: {done:?}");
        assert!(done.stdout.starts_with("snap-"), "{document}: {done:?}");
        assert_eq!(done.events("result")[0]["commit"], commit.as_str());
    }
    // The one for EC2 has the same flags but for the devices.
    let ec2 = documented("docs/container.md", "On an EC2 instance");
    let flags: Vec<&str> = ec2.split_whitespace().filter(|word| *word != "\\").collect();
    assert!(flags.join(" ").contains(&LEAST.join(" ")), "{ec2}");
}

#[test]
fn root_each_privilege_is_needed_and_named_when_it_is_missing() {
    if !needs_root() {
        return;
    }
    let local = Local::new();
    for (number, flag) in least().chunks(2).enumerate().filter(|(_, flag)| flag[0] != "--security-opt" && flag[1] != "ALL") {
        let without: Vec<&str> =
            least().chunks(2).enumerate().filter(|(n, _)| *n != number).flat_map(|(_, it)| it.to_vec()).collect();
        let done = local.bake(&Container::new(), &without).ended();
        assert!(done.code == 3 || done.code == 6, "{flag:?}: {done:?}");
        let error = &done.events("error")[0];
        let hint = error["hint"].as_str().unwrap().replace('\'', "");
        assert!(hint.contains(&flag.join(" ")), "{flag:?} is not named: {error}");
        local.host.assert_nothing_left(0);
    }
    let done = local.bake(&Container::new(), &["--privileged", "--user", "1000", "--env", "TMPDIR=/tmp"]).ended();
    assert_eq!(done.code, 3, "{done:?}");
}

#[test]
fn root_doctor_passes_in_a_container() {
    if !needs_root() {
        return;
    }
    let doctor = Container::new().run(&least()).args(["doctor", "--store", "local"]).ended();
    assert_eq!(doctor.code, 0, "{doctor:?}");
    let flags: Vec<&str> = LEAST.into_iter().chain(["--network", "none"]).collect();
    let doctor = Container::new().run(&flags).args(["doctor", "--store", "local"]).ended();
    assert_eq!(doctor.code, 6, "{doctor:?}");
    assert!(doctor.stdout.contains("--device-cgroup-rule 'b 7:* rwm'"), "{doctor:?}");
}

#[test]
fn root_a_container_that_is_stopped_in_any_phase_leaves_nothing() {
    if !needs_root() {
        return;
    }
    let local = Local::new();
    for phase in PHASES {
        let container = Container::new();
        let stopped = local.bake(&container, &least()).args(["--after-checkout", "sleep 600"]);
        let mut stopped = stopped.started();
        let init = container.init(&local.host.text("store"));
        assert!(stopped.until("started", phase), "{phase} never began");
        init.hold();
        let began = Instant::now();
        let mut stop = container.stop();
        init.go_on_to_terminate();
        let done = stopped.end();
        assert!(stop.wait().unwrap().success(), "{phase}");
        assert!(began.elapsed() < PROMISED, "{phase}: {:?}", began.elapsed());
        assert_eq!((done.code, done.stdout.as_str()), (TERMINATED, ""), "{phase}: {done:?}");
        assert_eq!(done.events("error").len(), 1, "{phase}: {done:?}");
        local.host.assert_nothing_left(0);
        assert!(!container.exists(), "{phase}");
        if phase == "after-checkout" {
            break;
        }
    }
    local.assert_repaired("after all stops");
}

#[test]
fn root_a_container_whose_client_is_told_to_stop_leaves_nothing() {
    if !needs_root() {
        return;
    }
    let local = Local::new();
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
        let container = Container::new();
        let mut stopped = local.bake(&container, &least()).args(["--after-checkout", "sleep 600"]).started();
        assert!(stopped.until("started", "after-checkout"));
        let began = Instant::now();
        stopped.signal(signal);
        let done = stopped.end();
        assert!(began.elapsed() < PROMISED, "{:?}", began.elapsed());
        assert_eq!(done.code, code, "{done:?}");
        local.host.assert_nothing_left(0);
    }
}

#[test]
fn root_a_container_that_is_killed_is_repaired_by_the_next() {
    if !needs_root() {
        return;
    }
    let local = Local::new();
    for phase in ["fetch", "filesystem", "mount", "after-checkout"] {
        let container = Container::new();
        let mut killed = local.bake(&container, &least()).args(["--after-checkout", "sleep 600"]).started();
        assert!(killed.until("started", phase), "{phase} never began");
        container.docker(&["kill"]);
        assert_eq!(killed.end().code, KILLED, "{phase}");
    }
    local.assert_repaired("after all kills");
}

/// A container on the stage's instance; the repository is there too.
fn on_ec2(stage: &Stage, container: &Container, privileges: &[&str]) -> Run {
    let (sysfs, up) = (stage.host.sysfs.display().to_string(), stage.repository.display().to_string());
    let mounts = [format!("{sysfs}:{sysfs}:ro"), format!("{up}:{up}:ro")];
    let mut variables = stage.cloud.bridge.environment(&stage.host);
    variables.push(("EBS_BAKE_SYSFS_ROOT", sysfs));
    let flags = mounts.iter().flat_map(|mount| ["--volume", mount.as_str()]);
    let flags = flags.chain(variables.iter().flat_map(|(name, _)| ["--env", *name]));
    let flags: Vec<&str> = flags.chain(["--network", "host"]).chain(privileges.iter().copied()).collect();
    let mut run = container.run(&flags);
    run.0.envs(variables);
    run
}

fn bake_on_ec2(stage: &Stage, container: &Container, privileges: &[&str]) -> Run {
    let run = on_ec2(stage, container, privileges);
    run.args(["bake", "--log-format", "json", "--verbose", "--repository"]).arg(&stage.repository)
}

/// What the tests' volumes need, which are loop devices: on EC2 it is `b 259:*`, or `b 202:*`.
fn least_on_ec2() -> Vec<&'static str> {
    LEAST.into_iter().chain(["--device-cgroup-rule", "b 7:* rwm"]).collect()
}

#[test]
fn root_a_container_finds_an_ebs_volume_that_appears_after_its_start() {
    for privileges in [least_on_ec2(), vec!["--privileged"]] {
        let Some(stage) = Stage::new() else { return };
        stage.cloud.bridge.timing(json!({ "device.appearing": { "seconds": 1 } }));
        let baked = bake_on_ec2(&stage, &Container::new(), &privileges).baked();
        stage.cloud.rests(1, 1);
        let again = bake_on_ec2(&stage, &Container::new(), &privileges).baked();
        assert_eq!((again.id.as_str(), again.reused()), (baked.id.as_str(), true));
        let doctor = on_ec2(&stage, &Container::new(), &privileges).arg("doctor").ended();
        assert_eq!(doctor.code, 0, "{doctor:?}");
        // The program on the host finds the same.
        assert_eq!(stage.bake(&[]).snapshot(), baked.id);
    }
}

#[test]
fn root_a_container_without_the_device_rule_says_which() {
    let Some(stage) = Stage::new() else { return };
    let failed = bake_on_ec2(&stage, &Container::new(), &LEAST).failed(6);
    failed.says("no node for the block device", "--device-cgroup-rule 'b 7:* rwm'");
    stage.cloud.rests(0, 0);
}

#[test]
fn root_a_container_that_is_stopped_on_ec2_leaves_nothing() {
    let Some(stage) = Stage::new() else { return };
    let stop = |container: &Container, phase: &str, more: &[&str]| {
        let mut stopped = bake_on_ec2(&stage, container, &least_on_ec2()).args(more).started();
        assert!(stopped.until("started", phase), "{phase} never began");
        let began = Instant::now();
        assert!(container.stop().wait().unwrap().success(), "{phase}");
        let done = stopped.end();
        assert!(began.elapsed() < PROMISED, "{phase}: {:?}", began.elapsed());
        assert_eq!((done.code, done.stdout.as_str()), (TERMINATED, ""), "{phase}: {done:?}");
    };
    stage.fault("AttachVolume", json!({ "takes": "never" }));
    stop(&Container::new(), "attach", &[]);
    stage.cloud.rests(0, 0);
    stop(&Container::new(), "after-checkout", &["--after-checkout", "sleep 600"]);
    stage.cloud.rests(0, 0);
    // A snapshot that is pending is the next run's to use.
    stage.cloud.bridge.timing(json!({ "snapshot.pending": "never" }));
    stop(&Container::new(), "wait", &[]);
    stage.cloud.rests(1, 1);
    let id = bake_on_ec2(&stage, &Container::new(), &least_on_ec2()).baked().id;
    assert!(stage.cloud.bridge.state().snapshots.contains_key(&id));
    stage.cloud.rests(1, 1);
}
