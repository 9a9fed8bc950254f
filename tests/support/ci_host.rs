//! A host that runs the jobs of CI systems, for tests: `docker`, `aws` and `buildkite-agent` are those of `ci_programs`, and jobs see
//! nothing of the user's environment. What whoever opens a pull request can decide on is as bad as it can be. Bakes that shall be
//! rolled out happen on an instance of the bridge's EC2, all others on the local store.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bake::Host;
use crate::bridge;
use crate::fleet::{COMMIT_BEFORE, Yard};
use crate::git_cli::Scratch;
use crate::git_server::GitServer;

/// The token for the git host, which asks for one.
pub const TOKEN: &str = "t0ken-of-the-job";
/// A branch that git allows.
pub const BRANCH: &str = "a$(touch${IFS}canary)`touch${IFS}canary`;touch${IFS}canary;'\"";
/// What else a stranger can write: a commit's message, a title.
pub const MESSAGE: &str = "'\"; touch canary\n`touch canary`\n$(touch canary)\n##vso[task.setvariable variable=id;isOutput=true]snap-bad\n\
                           export SNAPSHOT_ID=snap-bad\nSNAPSHOT_ID=snap-bad\n";
pub const RUN_URL: &str = "https://ci.example.com/builds/42";

/// Names and values of environment variables.
pub type Variables = BTreeMap<String, String>;

pub fn variables<const N: usize>(pairs: [(&str, &str); N]) -> Variables {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A script as a CI system runs it.
#[derive(Debug, Clone)]
pub struct Step {
    /// What the script is appended to: `bash -e -c`
    pub shell: Vec<String>,
    pub script: String,
    pub variables: Variables,
    /// Whether it runs when one before it failed, and then only.
    pub on_failure: bool,
}

/// How a step ended.
#[derive(Debug)]
pub struct Ran {
    /// Negative: the signal that ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub struct CiHost {
    pub host: Host,
    pub scratch: Scratch,
    pub server: GitServer,
    /// The commit of the job.
    pub commit: String,
    ec2: Option<Ec2>,
}

/// The instance that the host is, and the fleet that launches from the template `chef`.
struct Ec2 {
    yard: Yard,
    instance: bridge::Host,
}

impl CiHost {
    pub fn new() -> CiHost {
        let (host, scratch) = (Host::new(), Scratch::new());
        let commit = scratch.repository("chef-repo");
        // Somebody pushes again before the job runs.
        scratch.git("chef-repo", &["checkout", "-q", "-b", BRANCH]);
        scratch.commit("chef-repo", &[("README", "later\n")]);
        let server = GitServer::start(&scratch.path(""));
        server.require_login(&format!("x-access-token:{TOKEN}"));
        for directory in ["bin", "workspace", "root"] {
            fs::create_dir(host.path(directory)).unwrap();
        }
        for program in fs::read_dir(example("tests/support/ci_programs")).unwrap() {
            let program = program.unwrap();
            fs::copy(program.path(), host.path("bin").join(program.file_name())).unwrap();
        }
        let ci = CiHost { host, scratch, server, commit, ec2: None };
        ci.containers_have(&[]);
        ci
    }

    /// The same as an instance of EC2, beside a group of machines that run another commit.
    pub fn on_ec2() -> CiHost {
        let yard = Yard::new().expect("this test is root's");
        yard.fleet();
        let instance = yard.cloud.bridge.host("us-east-1a");
        let mut ci = CiHost::new();
        ci.ec2 = Some(Ec2 { yard, instance });
        ci.containers_have(&[]);
        ci
    }

    /// The URL of the repository, as its owner knows it.
    pub fn url(&self) -> String {
        self.server.url("chef-repo")
    }

    pub fn workspace(&self, file: &str) -> PathBuf {
        self.host.path("workspace").join(file)
    }

    /// Containers have the store, and these variables too.
    pub fn containers_have(&self, more: &[(&str, &str)]) {
        let store: Vec<(&str, String)> = match &self.ec2 {
            Some(Ec2 { yard, instance }) => yard.cloud.variables(instance),
            None => vec![("EBS_BAKE_LOCAL_DIR", self.host.text("store"))],
        };
        let places = [("EBS_BAKE_MOUNT_POINT", "code/chef"), ("EBS_BAKE_STATE_DIR", "state"), ("TMPDIR", "tmp")];
        let places = places.map(|(name, place)| (name, self.host.text(place)));
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let environment = store.into_iter().chain(places).chain(more).map(|(name, value)| (name.to_owned(), value));
        let environment: Variables = environment.collect();
        let program = env!("CARGO_BIN_EXE_ebs-bake");
        let setup = json!({"program": program, "directory": self.host.text("root"), "environment": environment});
        fs::write(self.host.path("bin/container.json"), setup.to_string()).unwrap();
    }

    pub fn container_variables(&self) -> Variables {
        let setup: Value = serde_json::from_str(&fs::read_to_string(self.host.path("bin/container.json")).unwrap()).unwrap();
        serde_json::from_value(setup["environment"].clone()).unwrap()
    }

    /// From now on bakes do not end by themselves.
    pub fn bakes_hang(&self) {
        let script = format!("touch {}; exec sleep 600", self.host.text("hanging"));
        self.containers_have(&[("EBS_BAKE_AFTER_CHECKOUT", &script)]);
    }

    /// A command with this host's programs and the variables of a job, in its workspace and in a process group of its own.
    pub fn command(&self, arguments: &[String], variables: &Variables) -> Command {
        let mut command = Command::new(&arguments[0]);
        let path = format!("{}:{}", self.host.text("bin"), std::env::var("PATH").unwrap());
        command.args(&arguments[1..]).env_clear().env("PATH", path).env("HOME", self.host.path("home")).env("LC_ALL", "C");
        command.envs(variables).current_dir(self.host.path("workspace")).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Who runs the tests in the background may ignore SIGINT, which a shell then cannot trap.
        // SAFETY: `signal` is one system call; it allocates nothing and takes no lock.
        unsafe { command.pre_exec(|| Ok(nix::sys::signal::signal(Signal::SIGINT, SigHandler::SigDfl).map(drop)?)) };
        command
    }

    fn start(&self, step: &Step) -> Child {
        let words: Vec<_> = step.shell.iter().chain([&step.script]).cloned().collect();
        self.command(&words, &step.variables).spawn().unwrap()
    }

    pub fn run(&self, step: &Step) -> Ran {
        Ran::of(self.start(step).wait_with_output().unwrap())
    }

    /// Runs the steps of a job, each if it is its turn.
    pub fn job(&self, steps: &[Step]) -> Vec<Ran> {
        let mut ran: Vec<Ran> = Vec::new();
        for step in steps {
            let failed = ran.iter().any(|before| before.code != 0);
            if failed == step.on_failure {
                ran.push(self.run(step));
            }
        }
        ran
    }

    /// Runs a job whose steps must all succeed; what they wrote to stdout.
    #[track_caller]
    pub fn succeeds(&self, steps: &[Step]) -> String {
        let ran = self.job(steps);
        assert!(ran.iter().all(|ran| ran.code == 0), "{ran:#?}");
        ran.into_iter().map(|ran| ran.stdout).collect()
    }

    /// Starts a step that bakes, and once it does, sends the signal to its process (`to_group`: to all of its processes). What is left of
    /// the step ten seconds later is killed, as by all CI systems sooner or later.
    #[track_caller]
    pub fn cancelled(&self, step: &Step, signal: Signal, to_group: bool) -> Ran {
        let mut child = self.start(step);
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let group = Pid::from_raw(-pid.as_raw());
        let hangs = self.waits_for(|| self.host.path("hanging").exists());
        let _ = kill(if to_group { group } else { pid }, signal);
        let given_up = Instant::now() + Duration::from_secs(10);
        while (child.try_wait().unwrap().is_none() || kill(group, None).is_ok()) && Instant::now() < given_up {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = kill(group, Signal::SIGKILL);
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert!(hangs, "{ran:?}");
        ran
    }

    /// Whether it came true in time.
    pub fn waits_for(&self, is_true: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_true() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// The calls of a program, in their order. No secret is in one.
    pub fn calls(&self, program: &str) -> Vec<Vec<String>> {
        let calls = fs::read_to_string(self.host.path("bin/calls")).unwrap_or_default();
        assert!(!calls.contains(TOKEN), "everybody on a host can read the arguments of a process: {calls}");
        let calls = calls.lines().map(|line| serde_json::from_str::<Vec<String>>(line).unwrap());
        calls.filter(|call| call[0] == program).map(|call| call[1..].to_vec()).collect()
    }

    /// There is one snapshot: of the job's commit, with what the CI system knows of it; and it was rolled out, once, by a container
    /// without privileges or, where there is none, by the program. Nothing else happened. Its ID.
    #[track_caller]
    pub fn assert_rolled_out(&self, repository: &str, run_url: &str) -> String {
        let Ec2 { yard, instance } = self.ec2.as_ref().expect("machines are on EC2");
        let listed = yard.cloud.run(instance, &["list", "--json"]);
        let listed: Value = serde_json::from_str(&listed.stdout).unwrap_or_else(|_| panic!("{listed:?}"));
        let snapshots: Vec<&Value> =
            listed["snapshots"].as_array().unwrap().iter().filter(|it| it["commit"] != COMMIT_BEFORE).collect();
        let [snapshot] = snapshots.as_slice() else { panic!("one snapshot is expected: {snapshots:#?}") };
        let of = |field: &str| snapshot[field].as_str().unwrap_or_default().to_owned();
        assert_eq!((of("commit"), of("state")), (self.commit.clone(), "completed".to_owned()));
        assert_eq!((of("ref"), of("run-url")), (format!("refs/heads/{BRANCH}"), run_url.to_owned()));
        assert_eq!(of("repository"), repository);
        yard.assert_rolled_out(&of("snapshot-id"));
        self.assert_nothing_left(0);
        let attached = yard.cloud.bridge.state().volumes.into_values().filter_map(|volume| volume.attachment);
        let here: Vec<_> = attached.filter(|it| it.instance == instance.instance_id && it.device != "/dev/sda1").collect();
        assert!(here.is_empty(), "left attached to the instance: {here:?}");
        of("snapshot-id")
    }

    /// The last things that a job did were to stop its container and to clean up, and it rolled nothing out.
    #[track_caller]
    pub fn assert_cleaned_up(&self) {
        let calls = self.calls("docker");
        let [.., bake, stop, cleanup] = calls.as_slice() else { panic!("three calls are expected: {calls:#?}") };
        assert!(!calls.iter().flatten().any(|word| word == "rollout"), "nothing may be rolled out: {calls:#?}");
        let name = &bake[bake.iter().position(|word| word == "--name").unwrap() + 1];
        assert_eq!(stop[..], ["stop", "-t", "60", name]);
        assert_eq!((cleanup[0].as_str(), cleanup.last().unwrap().as_str()), ("run", "cleanup"));
    }

    /// No container, device or mount, so many volumes, and nothing that a variable wanted done.
    #[track_caller]
    pub fn assert_nothing_left(&self, volumes: usize) {
        self.host.wait_for_devices();
        let running = fs::read_dir(self.host.path("bin")).unwrap().flatten().map(|entry| entry.path());
        let running: Vec<_> =
            running.filter(|path| path.extension().is_some_and(|it| it == "pid")).filter(|path| is_alive(path)).collect();
        assert_eq!(running, Vec::<PathBuf>::new(), "containers are left");
        self.host.assert_nothing_left(volumes);
        for place in ["bin", "home", "root", "workspace"] {
            assert!(!self.host.path(place).join("canary").exists(), "the text of a variable was run");
        }
    }
}

impl Drop for CiHost {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.host.path("bin")).into_iter().flatten().flatten() {
            if let Some(pid) = pid_in(&entry.path()) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    }
}

impl Ran {
    pub fn of(output: Output) -> Ran {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().or(output.status.signal().map(|signal| -signal)).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// A file of this repository.
pub fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The process in a file that is named for a container.
fn pid_in(path: &Path) -> Option<Pid> {
    path.extension().filter(|extension| *extension == "pid")?;
    Some(Pid::from_raw(fs::read_to_string(path).ok()?.parse().ok()?))
}

fn is_alive(path: &Path) -> bool {
    let Some(pid) = pid_in(path) else { return false };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
