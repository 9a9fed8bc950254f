//! Secrets are planted wherever one can come from, and every byte that leaves a run is searched for them.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/bridge.rs"]
mod bridge;
#[path = "support/ec2.rs"]
mod ec2;
#[path = "support/git_cli.rs"]
mod git_cli;
#[path = "support/git_server.rs"]
mod git_server;
#[path = "support/reliability.rs"]
mod reliability;
#[path = "support/secrets.rs"]
mod secrets;
#[path = "support/ssh_server.rs"]
#[allow(dead_code)]
mod ssh_server;
#[path = "support/store.rs"]
mod store;
#[path = "support/tools.rs"]
mod tools;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bake::{Host, Run};
use git_cli::Scratch;
use git_server::{Fault, GitServer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use reliability::record;
use secrets::{Search, in_url, planted};
use serde_json::json;
use store::needs_root;

/// Where else secrets are in every run, whether it needs them or not.
const AROUND: [&str; 9] =
    ["aws-secret-key", "aws-session-token", "ci-job-token", "ci-url", "run-url", "proxy", "github-token", "netrc", "aws-file"];

/// A machine, a repository behind HTTP that wants a login, and what is searched for.
struct Stage {
    host: Host,
    scratch: Scratch,
    server: GitServer,
    search: Search,
    runs: u64,
}

/// What the tests of this file have searched: runs, places, bytes.
static SEARCHED: Mutex<BTreeMap<&str, (u64, u64, u64)>> = Mutex::new(BTreeMap::new());

/// Notes it for the page, of which the test that ends last writes all.
fn note(test: &'static str, runs: u64, search: &Search) {
    let ((places, bytes), mut all) = (search.extent(), SEARCHED.lock().unwrap());
    let sum = all.entry(test).or_default();
    *sum = (sum.0 + runs, sum.1 + places, sum.2 + bytes);
    let mut figures = "Searched for each secret as it is, percent-encoded and in Base64 at all offsets; none was found.\n\n\
                       | Secrets | Runs | Places searched | MiB |\n|---|--:|--:|--:|\n"
        .to_owned();
    for (test, (runs, places, bytes)) in all.iter() {
        writeln!(figures, "| {test} | {runs} | {places} | {} |", bytes >> 20).unwrap();
    }
    record("secrets", &figures);
}

impl Stage {
    fn new(place: &str) -> Stage {
        let (host, scratch) = (Host::new(), Scratch::new());
        scratch.repository("up");
        let server = GitServer::start(&scratch.path(""));
        server.require_login(&format!("ci:{}", planted(place)));
        let mut search = Search::of(&AROUND);
        search.add(place, planted(place).as_bytes());
        fs::write(host.path("home/.netrc"), format!("machine 127.0.0.1 login ci password {}\n", planted("netrc"))).unwrap();
        fs::create_dir(host.path("home/.aws")).unwrap();
        let keys = format!("[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = {}\n", planted("aws-file"));
        fs::write(host.path("home/.aws/credentials"), keys).unwrap();
        Stage { host, scratch, server, search, runs: 0 }
    }

    /// A bake with secrets all around, and every output that there is.
    fn run(&self, url: &str) -> Run {
        self.run_logging(url, "json")
    }

    fn run_logging(&self, url: &str, format: &str) -> Run {
        let host = &self.host;
        let run = host
            .program_logging("bake", format)
            .env("EBS_BAKE_REPOSITORY", url)
            .env("EBS_BAKE_TRACE", "trace")
            .env("RUST_BACKTRACE", "full");
        run.env("EBS_BAKE_MOUNT_POINT", host.path("code/chef"))
            .env("EBS_BAKE_STATE_DIR", host.path("state"))
            .env("EBS_BAKE_STORE", "local")
            .env("EBS_BAKE_OUTPUT_JSON", host.path("out.json"))
            .env("EBS_BAKE_OUTPUT_ENV", host.path("out.env"))
            .env("GITHUB_OUTPUT", host.path("github-output"))
            .env("GITHUB_STEP_SUMMARY", host.path("summary"))
            .env("AWS_ACCESS_KEY_ID", "AKIAPLANTED")
            .env("AWS_SECRET_ACCESS_KEY", planted("aws-secret-key"))
            .env("AWS_SESSION_TOKEN", planted("aws-session-token"))
            .env("GITLAB_CI", "true")
            .env("CI_JOB_TOKEN", planted("ci-job-token"))
            .env("CI_REPOSITORY_URL", format!("https://gitlab-ci-token:{}@gitlab.example/acme/chef.git", in_url("ci-url")))
            .env("CI_PROJECT_URL", "https://gitlab.example/acme/chef")
            .env("CI_JOB_URL", format!("https://u:{}@gitlab.example/acme/chef/-/jobs/1", in_url("run-url")))
            .env("GITHUB_TOKEN", planted("github-token"))
            .env("https_proxy", format!("http://u:{}@127.0.0.1:9", in_url("proxy")))
    }

    /// That nothing of a run tells: its streams, and every file of the machine, images of volumes and snapshots included, but
    /// those that secrets are kept in.
    #[track_caller]
    fn tells_nothing(&mut self, run: Run) -> (i32, String) {
        let done = run.ended();
        self.runs += 1;
        assert!(done.code != 0 || done.stderr.contains("ebs_bake::host::command"), "or the trace shows nothing: {done:?}");
        self.search.absent("stdout", done.stdout.as_bytes());
        self.search.absent("stderr", done.stderr.as_bytes());
        let kept = ["home/.netrc", "home/.aws/credentials", "token"].map(|name| self.host.path(name));
        self.search.absent_below(&self.host.path(""), &kept);
        (done.code, done.stdout.trim().to_owned())
    }

    /// What is in the repository on a snapshot's volume, a file each, as one reads it there.
    fn search_repository(&mut self, id: &str) {
        let git_dir = |root: &Path| root.join(".git");
        let search = &mut self.search;
        self.host.restored(id, |root| {
            search.absent_below(&git_dir(root), &[]);
            search.absent_below(&root.join(".ebs-bake.json"), &[]);
        });
    }
}

#[test]
fn root_no_login_for_a_git_host_leaves_a_run_in_any_way() {
    if !needs_root() {
        return;
    }
    for format in ["json", "text"] {
        for place in ["url", "variable", "file", "gitlab"] {
            let mut stage = Stage::new(place);
            stage.scratch.commit("up", &[("control", &planted("control"))]);
            let url = stage.server.url("up");
            let with_login = url.replace("http://", &format!("http://ci:{}@", in_url(place)));
            let run = stage.run_logging(if place == "url" { &with_login } else { &url }, format);
            let run = match place {
                "variable" => run.env("EBS_BAKE_GIT_TOKEN", planted(place)).env("EBS_BAKE_GIT_USER", "ci"),
                "file" => {
                    fs::write(stage.host.path("token"), planted(place) + "\n").unwrap();
                    run.env("EBS_BAKE_GIT_TOKEN_FILE", stage.host.path("token")).env("EBS_BAKE_GIT_USER", "ci")
                }
                "gitlab" => run.env("CI_REPOSITORY_URL", with_login).env("CI_PROJECT_URL", &url),
                _ => run,
            };
            let (code, id) = stage.tells_nothing(run);
            assert_eq!(code, 0, "{place} is not taken for the login");
            assert!(stage.server.requests().iter().any(|request| request.authorization.is_some()), "or the test shows nothing");
            stage.search_repository(&id);
            for image in [stage.host.volume(), stage.host.snapshot_image(&id)] {
                assert!(Search::would_find("control", &image), "or the test shows nothing");
            }
            stage.host.assert_nothing_left(1);
            note("Logins for git hosts: URL, variable, file, GitLab's own", stage.runs, &stage.search);
        }
    }
}

#[test]
fn root_no_failure_tells_a_secret() {
    if !needs_root() {
        return;
    }
    let mut stage = Stage::new("variable");
    stage.search.add("answer", planted("answer").as_bytes());
    let elsewhere = GitServer::start(&stage.scratch.path(""));
    let location = format!("http://u:{}@{}{{}}", in_url("answer"), elsewhere.address);
    let url = stage.server.url("up");
    let with_login = url.replace("http://", &format!("http://u:{}@", in_url("variable")));
    for (what, fault, url) in [
        ("refused", Fault::Status(403), &url),
        ("not there", Fault::Status(404), &url),
        ("broken", Fault::Status(500), &url),
        ("redirect to another host", Fault::Redirect(location), &url),
        ("a page", Fault::Page, &url),
        ("cut off", Fault::Truncate, &url),
        ("wrong password", Fault::None, &with_login),
        ("a query", Fault::None, &format!("{with_login}?private_token={}", in_url("variable"))),
        ("no such protocol", Fault::None, &with_login.replace("http://", "gopher://")),
        ("an SSH URL with a password", Fault::None, &with_login.replace("http://", "ssh://")),
        ("no URL", Fault::None, &format!("http://u:{}@", in_url("variable"))),
        ("control characters", Fault::None, &format!("{with_login}\n")),
        ("no such host", Fault::None, &with_login.replace("127.0.0.1", "nowhere.invalid")),
        ("nobody there", Fault::None, &format!("http://u:{}@127.0.0.1:1/up", in_url("variable"))),
        ("proxy", Fault::None, &with_login.replace("http://", "https://").replace("127.0.0.1", "git.example")),
    ] {
        stage.server.fault(fault);
        stage.server.require_login(&format!("ci:{}", planted("variable")));
        let run = stage.run(url);
        let run = if url.contains('@') {
            run
        } else {
            run.env("EBS_BAKE_GIT_TOKEN", planted("variable")).env("EBS_BAKE_GIT_USER", "ci")
        };
        let (code, _) = stage.tells_nothing(run);
        assert!([2, 7].contains(&code), "{what}: {code}");
        let asked = elsewhere.requests();
        assert!(asked.is_empty(), "{what}: another host was asked: {asked:?}");
    }
    for (name, value) in
        [("EBS_BAKE_GIT_TOKEN", format!("{} x", planted("variable"))), ("EBS_BAKE_GIT_PASSWORD", planted("variable"))]
    {
        let (code, _) = stage.tells_nothing(stage.run(&url).env(name, value));
        assert_eq!(code, 2, "{name}");
    }
    fs::write(stage.host.path("home/ebs-bake.yml"), "store: local\n").unwrap();
    let file = stage.host.path("token");
    for line in ["git-token: S", "repository: http://u:S@git.example/up", "password: S"] {
        fs::write(&file, line.replace("token: S", &format!("token: {}", planted("variable"))).replace('S', &in_url("variable")))
            .unwrap();
        let (code, _) = stage.tells_nothing(stage.run(&url).args(["--config", file.to_str().unwrap()]));
        assert_eq!(code, 2, "{line}");
    }
    note("The same, in failures of every kind", stage.runs, &stage.search);
}

#[test]
fn root_a_submodules_login_stays_where_the_commit_has_it() {
    if !needs_root() {
        return;
    }
    let mut stage = Stage::new("variable");
    stage.search.add("submodule", planted("submodule").as_bytes());
    stage.scratch.repository("inner");
    let url = stage.server.url("inner").replace("http://", &format!("http://u:{}@", in_url("submodule")));
    let inner = stage.scratch.git("inner", &["rev-parse", "HEAD"]);
    let modules = format!("[submodule \"inner\"]\n\tpath = inner\n\turl = {url}\n");
    stage.scratch.git("up", &["update-index", "--add", "--cacheinfo", &format!("160000,{inner},inner")]);
    fs::write(stage.scratch.path("up/.gitmodules"), &modules).unwrap();
    stage.scratch.git("up", &["add", ".gitmodules"]);
    stage.scratch.git("up", &["commit", "-qm", "submodule"]);
    let run = stage.run(&stage.server.url("up")).args(["--submodules", "yes"]);
    let done = run.env("EBS_BAKE_GIT_TOKEN", planted("variable")).env("EBS_BAKE_GIT_USER", "ci").ended();
    assert_eq!(done.code, 0, "{done:?}");
    stage.search.absent("stderr", done.stderr.as_bytes());
    // The commit's own file is baked as it is.
    stage.host.restored(done.stdout.trim(), |root| {
        assert_eq!(fs::read_to_string(root.join(".gitmodules")).unwrap(), modules);
        stage.search.absent_below(&root.join(".git"), &[]);
    });
    note("In a submodule's URL", 1, &stage.search);
}

#[test]
fn root_programs_get_no_secrets_and_the_users_command_only_those_of_the_job() {
    if !needs_root() {
        return;
    }
    let mut stage = Stage::new("variable");
    let programs = stage.host.path("programs");
    fs::create_dir(&programs).unwrap();
    for name in ["mkfs.ext4", "e2fsck", "resize2fs"] {
        let script = format!(
            "#!/bin/sh\n{{ echo \"$0 $*\"; tr '\\0' '\\n' </proc/self/environ; }} >>'{}'\nexec /usr/sbin/{name} \"$@\"\n",
            programs.join("seen").display()
        );
        fs::write(programs.join(name), script).unwrap();
        fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let seen = stage.scratch.path("command-environment");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let command = format!("tr '\\0' '\\n' </proc/self/environ >'{}'; tr '\\0' ' ' </proc/$PPID/cmdline", seen.display());
    let run = stage.run(&stage.server.url("up")).env("PATH", path).env("EBS_BAKE_AFTER_CHECKOUT", command);
    let run = run.env("EBS_BAKE_GIT_TOKEN", planted("variable")).env("EBS_BAKE_GIT_USER", "ci");
    let (code, _) = stage.tells_nothing(run);
    assert_eq!(code, 0);
    assert!(fs::read_to_string(programs.join("seen")).unwrap().contains("mkfs.ext4"), "or the test shows nothing");
    let environment = fs::read(&seen).unwrap();
    // What docs/configuration.md says: it is a step of the job as any other, but for our own secrets.
    Search::of(&["variable", "github-token"]).absent("the environment of --after-checkout", &environment);
    assert!(String::from_utf8(environment).unwrap().contains("CI_JOB_TOKEN"));
    note("What programs that are started get", stage.runs, &stage.search);
}

#[test]
fn root_an_ssh_key_and_its_passphrase_stay_where_they_are() {
    if !needs_root() {
        return;
    }
    let Some(server) = ssh_server::Server::start() else { return };
    let mut stage = Stage::new("passphrase");
    let plain = server.scratch.path("user");
    let locked = server.scratch.path("locked");
    fs::copy(&plain, &locked).unwrap();
    let mut keygen = std::process::Command::new("ssh-keygen");
    bake::succeed(keygen.args(["-q", "-p", "-P", "", "-N", &planted("passphrase"), "-f"]).arg(&locked));
    for (key, good) in [(&plain, true), (&locked, false), (&server.scratch.path("stranger"), false)] {
        let text = fs::read_to_string(key).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('-') && line.len() > 40).skip(1) {
            stage.search.add("the key", line.as_bytes());
        }
        let run = stage.run(&server.url("up")).args(["--ssh-key", key.to_str().unwrap()]);
        let (code, _) = stage.tells_nothing(run.arg("--known-hosts").arg(server.known_hosts("host")));
        assert_eq!(code, if good { 0 } else { 7 });
    }
    note("SSH keys and a passphrase", stage.runs, &stage.search);
}

#[test]
fn root_a_crash_leaves_no_image_of_the_memory() {
    if !needs_root() {
        return;
    }
    let mut stage = Stage::new("variable");
    let with_cores = |command: &mut std::process::Command| {
        // SAFETY: setrlimit is a system call and nothing else.
        unsafe {
            command.pre_exec(|| {
                let (_, most) = getrlimit(Resource::RLIMIT_CORE)?;
                Ok(setrlimit(Resource::RLIMIT_CORE, most, most)?)
            });
        }
    };
    let cores = |directory: &Path| -> Vec<PathBuf> {
        let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("core")).collect()
    };
    let mut other = std::process::Command::new("/bin/sh");
    with_cores(&mut other);
    other.args(["-c", "kill -ABRT $$"]).current_dir(stage.scratch.path("")).status().unwrap();
    if cores(&stage.scratch.path("")).is_empty() {
        #[allow(clippy::print_stderr)] // how a skipped test says so
        {
            eprintln!("skipped: this machine's cores are no files in the working directory (/proc/sys/kernel/core_pattern)");
        }
        return;
    }
    let run = stage.run(&stage.server.url("up")).env("EBS_BAKE_AFTER_CHECKOUT", "kill -ABRT $PPID; sleep 100");
    let mut run = run.env("EBS_BAKE_GIT_TOKEN", planted("variable")).env("EBS_BAKE_GIT_USER", "ci");
    with_cores(&mut run.0);
    let (code, _) = stage.tells_nothing(run);
    assert_eq!(code, -libc::SIGABRT);
    assert_eq!(cores(&stage.host.path("home")), Vec::<PathBuf>::new());
    stage.host.wait_for_devices();
    note("A crash (SIGABRT)", stage.runs, &stage.search);
}

#[test]
fn root_no_credentials_of_aws_leave_a_run_in_any_way() {
    if !needs_root() {
        return;
    }
    let cloud = ec2::Stage::like(json!({ "zone": "us-east-1a" }));
    let cloud_path = |name: &str| cloud.cloud.path(name);
    let mut search = Search::of(&["aws-secret-key", "aws-session-token", "aws-file", "role-secret", "role-token"]);
    fs::create_dir(cloud_path("home/.aws")).unwrap();
    let keys = format!("[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = {}\n", planted("aws-file"));
    fs::write(cloud_path("home/.aws/credentials"), keys).unwrap();
    let role = json!({
        "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIAROLE", "SecretAccessKey": planted("role-secret"),
        "Token": planted("role-token"), "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z",
    });
    cloud.cloud.bridge.imds(&cloud.host, json!({ "role": "baker", "credentials": role }));
    let json = cloud_path("out.json").to_str().unwrap().to_owned();
    let (mut runs, mut signed) = (0, 0);
    for (place, key) in [("environment", "AKIAPLANTED"), ("file", "AKIAFILE"), ("role", "ASIAROLE")] {
        for (fault, options) in [
            (None, vec!["bake", "--log-format", "text"]),
            (None, vec!["bake", "--log-format", "json", "--encrypted", "--volume-name", "sealed", "--copy-to", "eu-west-1"]),
            (Some("UnauthorizedOperation"), vec!["bake"]),
            (Some("AuthFailure"), vec!["doctor", "--json"]),
        ] {
            cloud.change();
            cloud.cloud.bridge.clear_calls();
            if let Some(code) = fault {
                cloud.fault("CreateSnapshot", json!({ "error": { "code": code, "status": 403 } }));
            }
            let mut command = cloud.cloud.program(&cloud.host, &options);
            if options[0] == "bake" {
                let mount_point = cloud_path("mnt");
                command.arg("--repository").arg(&cloud.repository).arg("--mount-point").arg(mount_point);
                command.args(["--verbose", "--output-json", &json]);
            }
            command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").env("EBS_BAKE_TRACE", "trace");
            if place == "environment" {
                command.env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", planted("aws-secret-key"));
                command.env("AWS_SESSION_TOKEN", planted("aws-session-token"));
            }
            if place == "role" {
                command.env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent");
            }
            let output = command.output().unwrap();
            runs += 1;
            let said = String::from_utf8_lossy(&output.stderr);
            let traced = ["aws_sigv4", "ebs_bake::aws::api"].iter().all(|target| said.contains(target));
            assert!(traced, "or the trace shows nothing: {said}");
            let calls = cloud.cloud.bridge.calls().calls;
            assert!(calls.iter().any(|call| call.access_key == key), "{place} is not taken: {said}");
            // Also tags and descriptions: they are handed in as parameters. By a copy's URL EC2 itself acts in our name: it has the
            // session's token, and whoever has the URL can have the copy made.
            for mut call in calls {
                if let Some(url) = call.params.remove("PresignedUrl") {
                    let (_, signature) = url.as_str().unwrap().split_once("X-Amz-Signature=").unwrap();
                    search.add("a signed URL", &signature.as_bytes()[..64]);
                    signed += 1;
                }
                search.absent(&call.action, format!("{:?}", call.params).as_bytes());
            }
            search.absent("stdout", &output.stdout);
            search.absent("stderr", &output.stderr);
            search.absent_below(&cloud_path(""), &[cloud_path("home/.aws/credentials")]);
            cloud.cloud.bridge.clear_faults();
        }
    }
    assert_eq!(signed, 3, "or the test shows nothing");
    note("Credentials of AWS: environment, file, instance role", runs, &search);
}
