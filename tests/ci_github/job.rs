//! Workflows run by act, which runs their steps as GitHub's runner does: here on this machine, as a self-hosted runner.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::action::root;
use crate::bake::Host;
use crate::engine::Engine;
use crate::git_cli::Scratch;
use crate::git_server::GitServer;
use crate::tools::python_tool;

/// The repository that the job is of, on a server that wants the job's token.
pub const REPOSITORY: &str = "acme/chef";
/// That token.
pub const TOKEN: &str = "t0ken-of-the-job";
/// What a container needs for the loop devices of the local store.
pub const LOOP_DEVICES: &str = "--device-cgroup-rule=b 7:* rwm\n--device-cgroup-rule=c 10:237 rwm";

/// A runner, and a repository with a workflow.
pub struct Job {
    pub host: Host,
    pub scratch: Scratch,
    pub server: GitServer,
}

impl Job {
    /// The repository has the action at its root.
    pub fn new() -> Job {
        let (host, scratch) = (Host::new(), Scratch::new());
        scratch.repository(REPOSITORY);
        copy_action(&scratch.path(REPOSITORY));
        let server = GitServer::start(&scratch.path(""));
        server.require_login(&format!("x-access-token:{TOKEN}"));
        Job { host, scratch, server }
    }

    pub fn repository(&self) -> PathBuf {
        self.scratch.path(REPOSITORY)
    }

    /// Inputs of the action that make it bake into this host's store, as JSON, which is YAML.
    pub fn inputs(&self, more: &[(&str, &str)]) -> String {
        let store = self.host.text("store");
        let state = self.host.text("state");
        let image = Engine::shared().image();
        let base = [("image", image), ("local-dir", &store), ("state-dir", &state), ("docker-options", LOOP_DEVICES)];
        let inputs: BTreeMap<&str, &str> = base.into_iter().chain(more.iter().copied()).collect();
        serde_json::to_string(&inputs).unwrap()
    }

    /// Commits a workflow.
    pub fn push(&self, workflow: &str) -> String {
        self.scratch.commit(REPOSITORY, &[(".github/workflows/job.yml", workflow)])
    }

    /// Runs what a push of the last commit runs.
    pub fn run(&self, more: impl FnOnce(&mut Command)) -> Ran {
        let mut act = Command::new(python_tool("act"));
        act.args(["push", "--json", "--no-cache-server", "--concurrent-jobs", "1"]);
        act.args(["-P", "self-hosted=-self-hosted", "-P", "ubuntu-latest=-self-hosted"]);
        act.args(["--env", &format!("GITHUB_SERVER_URL=http://{}", self.server.address)]);
        act.args(["--env", &format!("GITHUB_REPOSITORY={REPOSITORY}"), "--secret", &format!("GITHUB_TOKEN={TOKEN}")]);
        of_runner(&mut act, &self.host.path("home"));
        act.current_dir(self.repository());
        more(&mut act);
        let output = act.output().unwrap();
        let (log, complaints) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        let read = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("act says: {log} {complaints}"));
        Ran { success: output.status.success(), lines: log.lines().map(read).collect() }
    }
}

/// Gives a command the variables that a runner has, before a job's: enough to find programs and the engine.
pub fn of_runner(command: &mut Command, home: &Path) {
    let engine = Engine::shared().environment().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let own = ["PATH", "DOCKER_HOST", "DOCKER_CONFIG"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
    command.env_clear().envs(own.chain(engine)).env("HOME", home).env("LC_ALL", "C").stdin(Stdio::null());
}

/// Puts into a directory what GitHub would have there of the action.
pub fn copy_action(to: &Path) {
    for entry in ["action.yml", "Dockerfile", "Cargo.lock", "Cargo.toml", "LICENSE", "rollout", "scripts", "src"] {
        let copied = Command::new("cp").arg("-r").arg(root().join(entry)).arg(to).status().unwrap();
        assert!(copied.success(), "{entry}");
    }
}

/// A program that is a script.
pub fn program(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What came of it.
#[derive(Debug)]
pub struct Ran {
    pub success: bool,
    lines: Vec<Value>,
}

impl Ran {
    /// What the steps wrote.
    pub fn log(&self) -> String {
        self.lines.iter().filter(|line| line["raw_output"] == true).map(|line| line["msg"].as_str().unwrap()).collect()
    }

    /// What the runner obeyed: commands in the log and files, and their arguments. Of one step, or of all.
    pub fn commands(&self, step: Option<&[&str]>) -> Vec<(String, String)> {
        let wanted = |line: &&Value| step.is_none_or(|step| line["stepID"] == Value::from(step.to_vec()));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let command = |line: &Value| {
            let name = line["command"].as_str()?;
            let argument = match name {
                "set-output" => format!("{}={}", text(&line["name"]), text(&line["arg"])),
                "summary" => text(&line["content"]),
                _ => text(&line["raw"]),
            };
            Some((name.to_owned(), argument))
        };
        self.lines.iter().filter(wanted).filter_map(command).collect()
    }

    /// The outputs of a step.
    pub fn outputs(&self, step: &[&str]) -> BTreeMap<String, String> {
        let set = self.commands(Some(step)).into_iter().filter(|(name, _)| name == "set-output");
        set.map(|(_, argument)| argument.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap())
            .collect()
    }

    /// How a step of the action ended.
    pub fn result(&self, step: &[&str]) -> &str {
        let of_step = self.lines.iter().filter(|line| line["stepID"] == Value::from(step.to_vec()));
        of_step.filter_map(|line| line["stepResult"].as_str()).next_back().unwrap_or("none")
    }
}
