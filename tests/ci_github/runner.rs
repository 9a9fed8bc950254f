//! The steps of the action on a runner, as the runner starts them (`ScriptHandler.cs` and `ProcessInvoker.cs` in actions/runner).

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::action::{BAKE, step, string};
use crate::engine::Engine;
use crate::job::{Job, LOOP_DEVICES, of_runner};
use crate::tools::run;

/// The command begins, and would go on for long.
pub const LONG: &str = "echo begun; sleep 600";

/// A workspace, a place for files, and a store, for one run of the action.
pub struct Runner {
    pub job: Job,
    pub container: String,
}

impl Runner {
    pub fn new() -> Runner {
        let job = Job::new();
        for name in ["temp", "workspace"] {
            fs::create_dir(job.host.path(name)).unwrap();
        }
        fs::write(job.host.path("summary"), "").unwrap();
        let mut runner = Runner { container: String::new(), job };
        run(&mut runner.step("prepare", &[]));
        runner.container = runner.outputs().strip_prefix("container=").unwrap().trim().to_owned();
        runner
    }

    /// What the steps have given out since the last call.
    pub fn outputs(&self) -> String {
        let file = self.job.host.path("output");
        let outputs = fs::read_to_string(&file).unwrap_or_default();
        fs::write(file, "").unwrap();
        outputs
    }

    pub fn step(&self, name: &str, variables: &[(&str, &str)]) -> Command {
        let (host, script) = (&self.job.host, self.job.host.path("temp/step.sh"));
        fs::write(&script, string(&step(BAKE, name)["run"])).unwrap();
        let mut bash = Command::new("bash");
        bash.args(["--noprofile", "--norc", "-e", "-o", "pipefail"]).arg(script).current_dir(host.path("workspace"));
        of_runner(&mut bash, &host.path("home"));
        bash.env("GITHUB_ACTIONS", "true").env("GITHUB_ACTION_PATH", self.job.repository()).env("RUNNER_TEMP", host.path("temp"));
        bash.env("GITHUB_WORKSPACE", host.path("workspace")).env("GITHUB_OUTPUT", host.path("output"));
        bash.env("GITHUB_STEP_SUMMARY", host.path("summary")).env("DOCKER_OPTIONS", LOOP_DEVICES);
        bash.env("IMAGE", Engine::shared().image()).env("CONTAINER", &self.container);
        bash.env("EBS_BAKE_LOCAL_DIR", host.path("store")).env("EBS_BAKE_STATE_DIR", host.path("state"));
        bash.envs(variables.iter().copied());
        bash
    }

    pub fn bake(&self, variables: &[(&str, &str)]) -> Command {
        let repository = self.job.repository();
        let mut bash = self.step("bake", variables);
        bash.env("EBS_BAKE_REPOSITORY", repository).stdout(Stdio::null()).stderr(Stdio::piped());
        bash
    }

    /// A bake whose own command has begun.
    pub fn begun(&self) -> Child {
        let mut child = self.bake(&[("EBS_BAKE_AFTER_CHECKOUT", LONG)]).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.as_mut().unwrap()).lines();
        assert!(log.any(|line| line.unwrap().ends_with("after-checkout | begun")), "the command did not begin");
        child
    }

    /// The step that always runs; what it says.
    pub fn clean_up(&self, outcome: &str) -> String {
        let output = self.step("Clean up after ebs-bake", &[("OUTCOME", outcome)]).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
        said
    }

    /// Names of the containers that there are, running or not.
    pub fn containers(&self) -> String {
        let filter = format!("name={}", self.container);
        let output = Engine::shared().docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[track_caller]
    pub fn assert_nothing_left(&self, volumes: usize) {
        assert_eq!(self.containers(), "");
        assert_eq!(fs::read_dir(self.job.host.path("temp")).unwrap().count(), 1, "only the step's script");
        assert_eq!(self.outputs(), "");
        self.job.host.wait_for_devices();
        self.job.host.assert_nothing_left(volumes);
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = Engine::shared().docker(&["rm", "--force", &self.container]).output();
    }
}
