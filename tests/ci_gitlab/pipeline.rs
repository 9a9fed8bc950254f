//! Pipelines that gitlab-ci-local executes: real jobs, the real program, the embedded store or the bridge's EC2, a git host that wants
//! the job's token.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::bake::{Host, names_in};
use crate::component;
use crate::fleet::{REGION, Yard};
use crate::git_cli::Scratch;
use crate::git_server::GitServer;
use crate::store::needs_root;
use crate::tools::node_tool;

const JOB_TOKEN: &str = "glcbt-64_sEcReT";
const ID_TOKEN: &str = "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl";
/// Where the project is below the git host's root.
const PROJECT: &str = "acme/chef.git";

/// A private project on a git host, and a runner: programs on PATH that say how they were called.
struct GitLab {
    host: Host,
    scratch: Scratch,
    server: GitServer,
}

impl GitLab {
    fn new(files: &[(&str, &str)]) -> GitLab {
        let (host, scratch) = (Host::new(), Scratch::new());
        scratch.repository(PROJECT);
        let server = GitServer::start(&scratch.path(""));
        scratch.git(PROJECT, &["remote", "add", "origin", &server.url(PROJECT)]);
        scratch.commit(PROJECT, files);
        server.require_login(&format!("gitlab-ci-token:{JOB_TOKEN}"));

        let bin = host.path("bin");
        fs::create_dir(&bin).unwrap();
        let token = "for file in ${AWS_WEB_IDENTITY_TOKEN_FILE-}; do stat -c %a \"$file\"; cat \"$file\"; echo; done";
        let recorded = |name| format!("{{ printf '%s\\n' \"$@\"; {token}; }} >> '{}.calls'\n", host.text(name));
        let ours = env!("CARGO_BIN_EXE_ebs-bake");
        program(&bin.join("ebs-bake"), &format!("{}exec '{ours}' \"$@\"\n", recorded("ebs-bake")));
        program(&bin.join("next"), &recorded("next"));
        GitLab { host, scratch, server }
    }

    /// What the runner and the administrator set; these win over a job's own variables.
    fn run(&self, variables: &[(&str, &str)]) -> Output {
        let mut command = node_tool("gitlab-ci-local");
        let path = format!("{}:{}", self.host.text("bin"), std::env::var("PATH").unwrap());
        command.arg("--force-shell-executor").current_dir(self.scratch.path(PROJECT));
        command.env_clear().env("PATH", path).env("HOME", self.host.path("home")).env("TMPDIR", self.host.path("tmp"));
        let url = self.server.url(PROJECT).replace("http://", &format!("http://gitlab-ci-token:{JOB_TOKEN}@"));
        // What a runner sets itself and gitlab-ci-local has otherwise or not at all.
        let directory = self.scratch.path(PROJECT);
        let given = [
            ("GITLAB_CI", "true"),
            ("CI_REPOSITORY_URL", url.as_str()),
            ("CI_PROJECT_DIR", directory.to_str().unwrap()),
            ("AWS_ID_TOKEN", ID_TOKEN),
        ];
        for (name, value) in given.iter().chain(variables) {
            command.arg("--variable").arg(format!("{name}={value}"));
        }
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// The variables that make this an instance of EC2, which has no role: there are credentials for nobody but whom the ID token says.
    fn on_ec2(&self, yard: &Yard) -> Vec<(&'static str, String)> {
        let instance = yard.cloud.bridge.host("us-east-1a");
        let mut variables = yard.cloud.bridge.environment(&instance);
        variables.retain(|(name, _)| !name.contains("ACCESS_KEY"));
        variables.push(("AWS_REGION", REGION.to_owned()));
        variables.push(("EBS_BAKE_SYSFS_ROOT", instance.sysfs.display().to_string()));
        variables.extend(self.store().into_iter().filter(|(name, _)| *name != "EBS_BAKE_LOCAL_DIR"));
        variables
    }

    /// The variables that send the example's bake to the embedded store.
    fn store(&self) -> Vec<(&'static str, String)> {
        let places = [("EBS_BAKE_LOCAL_DIR", "store"), ("EBS_BAKE_MOUNT_POINT", "code/chef"), ("EBS_BAKE_STATE_DIR", "state")];
        places.map(|(name, place)| (name, self.host.text(place))).into()
    }

    /// The arguments of all calls of a program on PATH since they were last asked for; after those of each call the permissions
    /// and the content of the file with the ID token, if it was told of one.
    fn calls(&self, program: &str) -> Vec<String> {
        let file = self.host.path(&format!("{program}.calls"));
        let text = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(&file);
        text.lines().map(str::to_owned).collect()
    }

    /// No file that a command in a value would have made, no token, no device.
    fn assert_nothing_left(&self, volumes: usize) {
        let everywhere = [self.scratch.path(PROJECT), self.host.path("home"), self.host.path("tmp"), self.host.path("")];
        for directory in everywhere {
            let names = names_in(&directory);
            assert!(!names.iter().any(|name| name.contains("canary") || name.contains("token")), "{directory:?}: {names:?}");
        }
        self.host.assert_nothing_left(volumes);
    }
}

fn program(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\nset -eu\n{text}")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What was said on both streams.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn passed(output: &Output) {
    let said = said(output);
    assert!(output.status.success(), "{said}");
    for secret in [JOB_TOKEN, ID_TOKEN] {
        assert!(!said.contains(secret), "{said}");
    }
}

/// The bake failed as it was meant to, and what comes after it was done.
#[track_caller]
fn failed_and_cleaned_up(gitlab: &GitLab, output: &Output) {
    assert!(!output.status.success() && said(output).contains("no-such-branch"), "{}", said(output));
    assert_eq!(gitlab.calls("ebs-bake"), ["bake", "600", ID_TOKEN, "cleanup", "600", ID_TOKEN]);
}

fn borrowed<'a>(variables: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    variables.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[test]
fn root_the_example_bakes_a_private_project_and_rolls_the_snapshot_out() {
    if !needs_root() {
        return;
    }
    let gitlab = GitLab::new(&[(".gitlab-ci.yml", &component::text("ci-examples/gitlab-ci.yml"))]);
    let yard = Yard::new().unwrap();
    yard.fleet();
    let variables = gitlab.on_ec2(&yard);
    for run in 1..=2 {
        passed(&gitlab.run(&borrowed(&variables)));
        let calls = yard.cloud.bridge.calls().calls;
        let asked = |action: &str| calls.iter().filter(|call| call.action == action).cloned().collect::<Vec<_>>();
        let roles: BTreeSet<String> =
            asked("AssumeRoleWithWebIdentity").iter().map(|call| call.params["RoleArn"].as_str().unwrap().to_owned()).collect();
        assert_eq!(roles, ["ebs-bake", "chef-rollout"].map(|role| format!("arn:aws:iam::123456789012:role/{role}")).into());
        let called = gitlab.calls("ebs-bake");
        let id = called.get(5).unwrap();
        assert_eq!(
            called,
            ["bake", "600", ID_TOKEN, "rollout", "--snapshot-id", id, "600", ID_TOKEN],
            "nothing is cleaned up after success"
        );
        let made = ["CreateSnapshot", "CreateLaunchTemplateVersion", "StartInstanceRefresh"].map(|action| asked(action).len());
        assert_eq!(made, if run == 1 { [1; 3] } else { [0; 3] }, "run {run}");
        if run == 1 {
            yard.assert_rolled_out(id);
        }
        gitlab.assert_nothing_left(0);
    }
}

#[test]
fn root_a_failed_bake_is_cleaned_up_after_and_nothing_is_rolled_out() {
    if !needs_root() {
        return;
    }
    let gitlab = GitLab::new(&[(".gitlab-ci.yml", &component::text("ci-examples/gitlab-ci.yml"))]);
    let variables = [gitlab.store(), vec![("EBS_BAKE_REF", "no-such-branch".to_owned())]].concat();
    failed_and_cleaned_up(&gitlab, &gitlab.run(&borrowed(&variables)));
    gitlab.assert_nothing_left(0);
}

/// A pipeline that includes the component of its own project, as GitLab's users do, and hands the outputs on.
fn with_component(inputs: &BTreeMap<&str, &str>) -> String {
    let inputs = serde_json::to_string(inputs).unwrap();
    format!(
        "include:\n  - component: $CI_SERVER_FQDN/$CI_PROJECT_PATH/bake@$CI_COMMIT_SHA\n    inputs: {inputs}\n\
         next:\n  stage: deploy\n  script:\n    - next step \"$SNAPSHOT_ID\" \"$REF\"\n"
    )
}

#[test]
fn root_the_component_hands_its_inputs_on_as_they_are() {
    if !needs_root() {
        return;
    }
    let gitlab = GitLab::new(&[("templates/bake.yml", &component::text("templates/bake.yml"))]);
    let places: BTreeMap<&str, String> = gitlab.store().into_iter().collect();
    let branch = "x/$(>canary)`>canary`\"';>canary;#&|<>%41ä";
    let note = "$(touch canary) `touch canary` \"';touch canary;# $HOME $CI_JOB_TOKEN $[[ inputs.ref ]] ::set-output name=x::y";
    let tags = format!("note={note}\nteam=a b");
    let command = "# a: 'b'\nfor word in $HOME; do echo \"$word: $((1 + 1))\"; done > made\n";
    let inputs = BTreeMap::from([
        ("image", "registry.example.com/ebs-bake:0.1.0"),
        ("aws-role-arn", "arn:aws:iam::123456789012:role/ebs-bake"),
        ("ref", branch),
        ("snapshot-tag", &tags),
        ("after-checkout", command),
        ("git-dir", "exclude"),
        ("allow-lfs-pointers", "true"),
        ("volume-name", "web"),
        ("local-dir", &places["EBS_BAKE_LOCAL_DIR"]),
        ("mount-point", &places["EBS_BAKE_MOUNT_POINT"]),
        ("state-dir", &places["EBS_BAKE_STATE_DIR"]),
        ("output-env", "out.env"),
    ]);
    gitlab.scratch.commit(PROJECT, &[(".gitlab-ci.yml", &with_component(&inputs))]);
    gitlab.scratch.git(PROJECT, &["branch", branch]);

    passed(&gitlab.run(&[]));
    let snapshots = gitlab.host.snapshots();
    let [snapshot] = snapshots.as_slice() else { panic!("{snapshots:?}") };
    let id = snapshot["snapshot-id"].as_str().unwrap();
    assert_eq!((&snapshot["ref"], &snapshot["volume-name"]), (&format!("refs/heads/{branch}").into(), &"web".into()));
    let record = fs::read_to_string(gitlab.host.path("store/snapshots").join(id).join("snapshot.json")).unwrap();
    let tags = serde_json::from_str::<Value>(&record).unwrap()["tags"].take();
    assert_eq!((&tags["note"], &tags["team"]), (&note.into(), &"a b".into()));
    let made = gitlab.host.restored(id, |root| fs::read_to_string(root.join("made")).unwrap());
    assert_eq!(made, format!("{}: 2\n", gitlab.host.text("home")), "its own shell runs the command, and no other");

    let escaped = ebs_bake::report::escape::env_value(&format!("refs/heads/{branch}"));
    assert_eq!(gitlab.calls("next"), ["step", id, &escaped]);

    // And so does what GitLab itself tells of a branch that somebody named.
    passed(&gitlab.run(&[("EBS_BAKE_REF", ""), ("CI_COMMIT_REF_NAME", branch)]));
    assert_eq!(gitlab.calls("next"), ["step", id, &escaped]);
    assert_eq!(gitlab.calls("ebs-bake"), ["bake", "600", ID_TOKEN].repeat(2));

    failed_and_cleaned_up(&gitlab, &gitlab.run(&[("EBS_BAKE_REF", "no-such-branch")]));
    gitlab.assert_nothing_left(1);
}

#[test]
fn inputs_of_the_wrong_kind_are_refused_before_anything_runs() {
    let valid = "image: x";
    for (inputs, message) in [
        ("ref: x", "image` input: required value has not been provided"),
        (&format!("{valid}, volume-size: 5"), "volume-size` input: provided value is not a string"),
        (&format!("{valid}, no-wait: true"), "no-wait` input: provided value is not a string"),
        (&format!("{valid}, git-dir: inside"), "not in the list of allowed options"),
        (&format!("{valid}, git-strategy: all"), "not in the list of allowed options"),
    ] {
        let scratch = Scratch::new();
        scratch.repository("project");
        let pipeline = format!("include:\n  - local: templates/bake.yml\n    inputs: {{{inputs}}}\n");
        let component = component::text("templates/bake.yml");
        scratch.commit("project", &[(".gitlab-ci.yml", &pipeline), ("templates/bake.yml", &component)]);
        let mut command = node_tool("gitlab-ci-local");
        command.arg("--force-shell-executor").current_dir(scratch.path("project"));
        command.env_clear().env("PATH", std::env::var("PATH").unwrap()).env("HOME", scratch.path(""));
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success() && said(&output).contains(message), "{inputs}: {}", said(&output));
    }
}

/// As the runner does it: the script in a shell of its own below the first one, and SIGTERM to every process but that.
#[test]
fn root_a_cancelled_job_ends_when_the_bake_has_undone_everything() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = (Host::new(), Scratch::new());
    scratch.repository("up");
    let (_, job) = component::component();
    let script = component::scripts(&job).swap_remove(0);
    let run = host.bake(scratch.path("up")).env("EBS_BAKE_LOCAL_DIR", host.path("store")).env("AWS_ROLE_ARN", "");
    let mut shell = Command::new("bash");
    shell
        .args(["-c", "set -o pipefail; : | eval \"$SCRIPT\"; exit $?"])
        .env_clear()
        .envs(run.0.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let path =
        format!("{}:{}", Path::new(env!("CARGO_BIN_EXE_ebs-bake")).parent().unwrap().display(), std::env::var("PATH").unwrap());
    shell.env("SCRIPT", script).env("PATH", path).env("EBS_BAKE_REPOSITORY", scratch.path("up"));
    shell.env("EBS_BAKE_AFTER_CHECKOUT", format!("touch '{}'; sleep 600", host.text("reached")));
    let mut shell = shell.current_dir(host.path("home")).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !host.path("reached").exists() && shell.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    for process in descendants(shell.id()) {
        let _ = kill(Pid::from_raw(process), Signal::SIGTERM);
    }
    let status = shell.wait().unwrap();
    host.assert_nothing_left(0);
    assert!(host.path("reached").exists() && !status.success(), "it was cancelled in the middle");
}

/// The processes below one, the youngest first.
fn descendants(root: u32) -> Vec<i32> {
    let mut parents = BTreeMap::new();
    for process in names_in(Path::new("/proc")).iter().filter_map(|name| name.parse::<i32>().ok()) {
        let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        parents.insert(process, fields.split_whitespace().nth(1).and_then(|parent| parent.parse::<i32>().ok()).unwrap_or(0));
    }
    let root = i32::try_from(root).unwrap();
    let below = |process: &i32| std::iter::successors(parents.get(process), |parent| parents.get(parent)).any(|at| *at == root);
    parents.keys().rev().copied().filter(|process| below(process)).collect()
}
