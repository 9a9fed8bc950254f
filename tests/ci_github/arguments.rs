//! How the container is started: with which privileges, and what of the runner it sees.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::action::root;
use crate::container::LEAST;
use crate::job::program;
use crate::tools::run;

const SECRET: &str = "s3cret";

/// The arguments of `docker` for a bake with these variables; paths are made of names in `directory`.
fn arguments(directory: &Path, variables: &[(&str, &str)]) -> Vec<String> {
    arguments_of("bake", directory, variables)
}

fn arguments_of(command: &str, directory: &Path, variables: &[(&str, &str)]) -> Vec<String> {
    let (bin, log) = (directory.join("bin"), directory.join("log"));
    fs::create_dir_all(&bin).unwrap();
    program(&bin.join("docker"), "#!/bin/sh\nprintf '%s\\0' \"$@\" >\"$LOG\"\n");
    let mut bake = Command::new(root().join("scripts/github-action.sh"));
    bake.arg(command).env_clear().env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())).env("LOG", &log);
    bake.env("HOME", directory).env("RUNNER_TEMP", directory).env("CONTAINER", "the-container").env("IMAGE", "the-image");
    bake.env("GITHUB_WORKSPACE", directory.join("workspace")).env("GITHUB_OUTPUT", directory.join("output"));
    run(bake.envs(variables.iter().copied()));
    fs::read_to_string(log).unwrap().split_terminator('\0').map(str::to_owned).collect()
}

/// The values of an option.
fn values<'a>(arguments: &'a [String], option: &str) -> BTreeSet<&'a str> {
    let pairs = arguments.iter().zip(arguments.iter().skip(1));
    let values: Vec<&str> = pairs.filter(|(name, _)| *name == option).map(|(_, value)| value.as_str()).collect();
    let set: BTreeSet<&str> = values.iter().copied().collect();
    assert_eq!(set.len(), values.len(), "twice the same: {arguments:?}");
    set
}

#[test]
fn the_container_has_the_privileges_that_it_needs_or_all() {
    let directory = tempfile::tempdir().unwrap();
    let least = arguments(directory.path(), &[]);
    assert_eq!(least[..4], ["run", "--name", "the-container", "--rm"]);
    assert_eq!(least[least.len() - 2..], ["the-image", "bake"]);
    assert!(
        !least.iter().any(|it| it.contains("privileged") && it != "no-new-privileges" || it == "-t" || it == "-i"),
        "{least:?}"
    );
    for option in ["--cap-drop", "--cap-add", "--security-opt"] {
        assert_eq!(values(&least, option), values(&LEAST.map(str::to_owned), option), "what bakes are tested with");
    }
    assert_eq!(values(&least, "--device-cgroup-rule"), ["b 202:* rwm", "b 259:* rwm"].into());

    let all = arguments(directory.path(), &[("PRIVILEGED", "true")]);
    assert!(all.contains(&"--privileged".to_owned()) && !all.contains(&"--cap-drop".to_owned()), "{all:?}");
    assert_eq!(arguments(directory.path(), &[("PRIVILEGED", "false")]), least);
}

#[test]
fn a_rollout_has_no_privileges_and_the_files_of_the_runners_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("{}/{name}", directory.path().display());
    for name in ["token", "bake.env"] {
        fs::write(path(name), "").unwrap();
    }
    fs::create_dir(path(".aws")).unwrap();
    let (token, output) = (path("token"), path("out/rollout.json"));
    let variables = [("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()), ("EBS_BAKE_OUTPUT_JSON", &output), ("PRIVILEGED", "true")];
    let arguments = arguments_of("rollout", directory.path(), &variables);
    assert_eq!(arguments[arguments.len() - 2..], ["the-image", "rollout"]);
    let beside: BTreeSet<&str> = ["--cap-add", "--device-cgroup-rule", "--device", "--privileged", "--pid"].into();
    assert!(!arguments.iter().any(|argument| beside.contains(argument.as_str())), "{arguments:?}");
    assert_eq!(
        (values(&arguments, "--cap-drop"), values(&arguments, "--security-opt")),
        (["ALL"].into(), ["no-new-privileges"].into())
    );
    let user = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
    assert_eq!(values(&arguments, "--user"), [user.as_str()].into());
    // Where the SDK of that user looks, as on the runner.
    assert!(values(&arguments, "--env").contains("HOME"));
    let expected = [format!("{0}:{0}:ro", path(".aws")), format!("{token}:{token}:ro"), format!("{0}:{0}", path("out"))];
    let volumes = values(&arguments, "--volume");
    assert!(expected.iter().all(|it| volumes.contains(it.as_str())), "{volumes:?}");
}

#[test]
fn variables_are_handed_on_by_name_and_secrets_are_no_arguments() {
    let directory = tempfile::tempdir().unwrap();
    let variables = [
        ("EBS_BAKE_GIT_TOKEN", SECRET),
        ("EBS_BAKE_AFTER_CHECKOUT", "one s3cret\ntwo"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "eu-central-1"),
        ("GITHUB_TOKEN", SECRET),
        ("HTTPS_PROXY", "http://user:s3cret@proxy"),
        ("no_proxy", "localhost"),
        ("EBS_BAKE_REF", ""),
        ("OTHER", SECRET),
    ];
    let arguments = arguments(directory.path(), &variables);
    let names = values(&arguments, "--env");
    for (name, _) in variables {
        assert_eq!(names.contains(name), name != "OTHER", "{name}");
    }
    assert!(names.contains("GITHUB_OUTPUT"));
    assert!(!arguments.iter().any(|argument| argument.contains(SECRET)), "{arguments:?}");
}

#[test]
fn what_variables_name_is_in_the_container_at_the_same_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("{}/{name}", directory.path().display());
    fs::create_dir(path(".ssh")).unwrap();
    fs::create_dir(path(".aws")).unwrap();
    for name in ["token", "key", "ca", "chef.yml", ".ssh/known_hosts"] {
        fs::write(path(name), "").unwrap();
    }
    let (token, key, ca, config) = (path("token"), path("key"), path("ca"), path("chef.yml"));
    let (json, env, store) = (path("out/bake.json"), path("out/bake.env"), path("store"));
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("EBS_BAKE_SSH_KEY", &key),
        ("AWS_CA_BUNDLE", &ca),
        ("SSL_CERT_FILE", &ca),
        ("EBS_BAKE_CONFIG", &config),
        ("EBS_BAKE_KNOWN_HOSTS", "in/the/workspace"),
        ("EBS_BAKE_REPOSITORY", "https://git.example.com/chef"),
        ("EBS_BAKE_OUTPUT_JSON", &json),
        ("EBS_BAKE_OUTPUT_ENV", &env),
        ("EBS_BAKE_LOCAL_DIR", &store),
    ];
    let arguments = arguments(directory.path(), &variables);
    let volumes = values(&arguments, "--volume");
    let mut expected: BTreeSet<String> = [&token, &key, &ca, &config].map(|path| format!("{path}:{path}:ro")).into();
    expected.extend([path("workspace"), path("output"), path("out"), store.clone()].map(|path| format!("{path}:{path}")));
    expected.insert("/var/cache/ebs-bake:/var/cache/ebs-bake".into());
    expected.extend([".aws", ".ssh/known_hosts"].map(|name| format!("{}:/root/{name}:ro", path(name))));
    let system = "/etc/ssh/ssh_known_hosts";
    expected.extend(Path::new(system).exists().then(|| format!("{system}:{system}:ro")));
    assert_eq!(volumes, expected.iter().map(String::as_str).collect());
    assert_eq!(values(&arguments, "--workdir"), [path("workspace").as_str()].into());
}

#[test]
fn each_line_of_the_docker_options_is_one_argument() {
    let directory = tempfile::tempdir().unwrap();
    let options = "--device-cgroup-rule=b 7:* rwm\n\n--env=A=$(id) `id` \"'\n";
    let arguments = arguments(directory.path(), &[("DOCKER_OPTIONS", options)]);
    let last = &arguments[arguments.len() - 4..];
    assert_eq!(last, ["--device-cgroup-rule=b 7:* rwm", "--env=A=$(id) `id` \"'", "the-image", "bake"]);
}
