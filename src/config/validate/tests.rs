use std::path::Path;

use super::*;
use crate::cli::{Command, Context, Parsed, parse};
use crate::key::{GitDirMode, SubmoduleMode};

mod rollout;

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

/// A stand-in for the real reader of repositories: URLs are remote, the rest is local, and `user:password@` is a login.
fn fake_location(text: &str) -> Result<(Location, Option<Login>)> {
    let Ok(url) = url::Url::parse(text) else { return Ok((Location::Local(text.into()), None)) };
    let login = url.password().map(|password| Login { user: url.username().into(), password: password.into() });
    Ok((Location::Remote(url), login))
}

/// A working directory with (or without) a file, and an environment.
struct Here {
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Here {
    fn new(yaml: &str, variables: &[(&str, &str)]) -> Here {
        let directory = tempfile::tempdir().unwrap();
        if !yaml.is_empty() {
            std::fs::write(directory.path().join("ebs-bake.yml"), yaml).unwrap();
        }
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Here { directory, variables }
    }

    fn parse(&self, arguments: &str) -> Parsed {
        let context = Context {
            environment: self.variables.iter().cloned().collect(),
            directory: self.directory.path().to_owned(),
            stderr_is_terminal: false,
            parse_location: fake_location,
        };
        parse(format!("ebs-bake {arguments}").split_whitespace().map(Into::into), &context)
    }

    fn bake(&self, arguments: &str) -> Bake {
        match self.parse(&format!("bake {arguments}")).command {
            Ok(Command::Bake(bake)) => *bake,
            other => panic!("{other:?}"),
        }
    }

    /// Message and hint.
    fn refusal(&self, arguments: &str) -> (String, String) {
        let error = self.parse(arguments).command.unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        (error.to_string(), error.hint_text().unwrap_or_default().to_owned())
    }
}

#[test]
fn defaults() {
    let bake = Here::new("", &[]).bake("--repository /srv/chef");
    let volume = Ec2Volume { kind: "gp3".into(), ..Ec2Volume::default() };
    assert_eq!(
        bake.store,
        Store::Ec2(Box::new(Ec2 { device: "/dev/sdk".into(), attach_timeout: DEFAULT_ATTACH_TIMEOUT, volume, ..Ec2::default() }))
    );
    assert_eq!(bake.location, Location::Local("/srv/chef".into()));
    assert_eq!(bake.wanted, Wanted::default());
    assert_eq!((bake.volume_name.as_str(), bake.mount_point.as_path()), ("chef", Path::new("/code/chef")));
    assert_eq!((bake.volume_size_gib, bake.git_dir, bake.submodules), (None, GitDirMode::Include, SubmoduleMode::No));
    assert!(bake.clean && bake.wait && !bake.dry_run && !bake.allow_lfs_pointers);
    assert_eq!(bake.outputs, OutputFiles::default());
    assert_eq!(bake.access.login, None);
}

#[test]
fn a_flag_beats_a_variable_beats_the_file() {
    let yaml = "repository: /file\nvolume-name: file\nvolume-size: 1\nno-wait: true\nsubmodules: true\n";
    let variables = [("EBS_BAKE_VOLUME_NAME", "variable"), ("EBS_BAKE_VOLUME_SIZE", "2"), ("EBS_BAKE_REF", "")];
    let bake = Here::new(yaml, &variables).bake("--volume-size 3");
    assert_eq!(bake.location, Location::Local("/file".into()));
    assert_eq!((bake.volume_name.as_str(), bake.volume_size_gib), ("variable", Some(3)));
    assert_eq!(bake.mount_point, Path::new("/code/variable"));
    assert_eq!((bake.wait, bake.submodules), (false, SubmoduleMode::Yes));
    assert_eq!(bake.wanted.reference, None, "an empty variable is not set");
    assert!(Here::new(yaml, &variables).bake("--no-wait=false").wait, "a flag can undo what the file says");
}

#[test]
fn options_of_other_commands_may_stand_in_the_file() {
    let here = Here::new("repository: /file\nwait-timeout: 2h\nvolume-name: chef\n", &[]);
    match here.parse("list --json").command.unwrap() {
        Command::List(list) => assert_eq!((list.volume_name.as_deref(), list.json), (Some("chef"), true)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn general_options_work_before_and_after_the_command_and_in_all_layers() {
    use crate::config::settings::LogFormat;
    let here = Here::new("log-format: json\n", &[]);
    assert_eq!(here.parse("cleanup").console.format, LogFormat::Json);
    assert_eq!(here.parse("--log-format text cleanup").console.format, LogFormat::Text);
    assert_eq!(here.parse("cleanup --log-format text").console.format, LogFormat::Text);
    let here = Here::new("log-format: json\n", &[("EBS_BAKE_LOG_FORMAT", "text")]);
    assert_eq!(here.parse("cleanup").console.format, LogFormat::Text);
}

#[test]
fn errors_too_are_told_in_the_format_that_was_asked_for() {
    use crate::config::settings::LogFormat;
    for arguments in ["bake --log-format json --nonsense", "--log-format=json bake --volume-size x", "list --log-format json"] {
        let parsed = Here::new("nonsense: 1\n", &[]).parse(arguments);
        assert!(parsed.command.is_err());
        assert_eq!(parsed.console.format, LogFormat::Json, "{arguments}");
    }
    let parsed = Here::new("", &[("EBS_BAKE_LOG_FORMAT", "json")]).parse("nonsense");
    assert_eq!(parsed.console.format, LogFormat::Json);
}

#[test]
fn unknown_names_are_refused_with_the_nearest_one() {
    let here = Here::new("ref: main\nvolume_sise: 3\n", &[]);
    let expected = ("ebs-bake.yml:2: volume_sise: there is no such option", "did you mean volume-size?");
    assert_eq!(here.refusal("bake"), (expected.0.into(), expected.1.into()));

    let (message, hint) = Here::new("", &[("EBS_BAKE_VOLUMENAME", "x")]).refusal("list");
    assert!(message.starts_with("EBS_BAKE_VOLUMENAME: there is no such option"), "{message}");
    assert_eq!(hint, "did you mean EBS_BAKE_VOLUME_NAME?");

    assert_eq!(Here::new("", &[("EBS_BAKE_GIT_TOKN", "x")]).refusal("list").1, "did you mean EBS_BAKE_GIT_TOKEN?");

    let (message, hint) = Here::new("", &[]).refusal("bake --volume-siz 3");
    assert_eq!((message.as_str(), hint.as_str()), ("there is no option --volume-siz", "did you mean --volume-size?"));
    assert!(Here::new("xyzzy: 1\n", &[]).refusal("bake").1.contains("docs/configuration.md"));
}

#[test]
fn wrong_values_name_their_place_and_what_is_expected() {
    let here = Here::new("# sizes\nvolume-size: large\n", &[]);
    let expected = "ebs-bake.yml:2: volume-size: \"large\" is not a whole number of GiB from 1 to 65536";
    assert_eq!(here.refusal("bake --repository /x").0, expected);
    let here = Here::new("", &[("EBS_BAKE_AFTER", "kepe")]);
    let expected = ("EBS_BAKE_AFTER: \"kepe\" is not one of restore, keep, detach, delete", "did you mean keep?");
    assert_eq!(here.refusal("bake --repository /x"), (expected.0.into(), expected.1.into()));
    let here = Here::new("no-clean: perhaps\n", &[]);
    assert_eq!(here.refusal("bake --repository /x").0, "ebs-bake.yml:1: no-clean: \"perhaps\" is not true or false");
    let nothing = Here::new("", &[]);
    assert_eq!(nothing.refusal("bake --lock-timeout 90").0, "--lock-timeout: \"90\" is not a duration such as 90s, 10m or 2h");
    assert_eq!(nothing.refusal("bake --ref=").0, "--ref: a value is needed, it is empty");
    for path in ["relative", "/", "/code/../etc"] {
        let (message, _) = nothing.refusal(&format!("bake --repository /x --mount-point {path}"));
        assert!(message.starts_with("--mount-point: "), "{message}");
    }
}

#[test]
fn secrets_do_not_belong_into_the_file_and_are_not_repeated() {
    for yaml in [
        "git-token: hunter2\n",
        "token: hunter2\n",
        "repository: https://user:hunter2@example.com/x\n",
        "repository: 'HTTPS://user:hunter2@example.com'\n",
    ] {
        let (message, hint) = Here::new(yaml, &[]).refusal("bake");
        assert!(message.contains("a secret does not belong"), "{message}");
        assert!(hint.contains("EBS_BAKE_GIT_TOKEN"), "{hint}");
        assert!(!format!("{message}{hint}").contains("hunter2"));
    }
    Here::new("repository: ssh://git@example.com/x\n", &[]).bake("");
    Here::new("", &[]).bake("--repository https://user:hunter2@example.com/x");
}

#[test]
fn tokens_are_sent_with_the_name_that_the_host_expects() {
    let login = |variables: &[(&str, &str)], arguments: &str| Here::new("", variables).bake(arguments).access.login.unwrap();
    let token = ("EBS_BAKE_GIT_TOKEN", "t0ken\n");
    let github = login(&[token], "--repository https://github.com/a/b");
    assert_eq!((github.user.as_str(), github.password.as_str()), ("x-access-token", "t0ken"));
    assert_eq!(login(&[token], "--repository https://bitbucket.org/a/b").user, "x-token-auth");
    assert_eq!(login(&[token], "--repository https://bitbucket.org/a/b --git-user me").user, "me");
    let job = [token, ("GITLAB_CI", "true"), ("CI_JOB_TOKEN", "t0ken\n")];
    assert_eq!(login(&job, "--repository https://gitlab.com/a/b").user, "gitlab-ci-token");
    assert_eq!(login(&[token], "--repository https://u:p@h/x").password, "t0ken", "the variable beats the URL");
    assert_eq!(login(&[], "--repository https://u:p@h/x").password, "p");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "from-file\n").unwrap();
    let arguments = format!("--repository https://h/x --git-token-file {}", file.path().display());
    assert_eq!(login(&[], &arguments).password, "from-file");
    std::fs::write(file.path(), "two words\n").unwrap();
    let (message, _) = Here::new("", &[]).refusal(&format!("bake {arguments}"));
    assert!(message.contains("is no token") && !message.contains("two words"), "{message}");
}

#[test]
fn a_gitlab_jobs_own_token_is_for_its_own_repository_only() {
    let job = [
        ("GITLAB_CI", "true"),
        ("CI_REPOSITORY_URL", "https://gitlab-ci-token:j0b@gitlab.example.com:8443/acme/chef.git"),
        ("CI_JOB_TOKEN", "j0b"),
    ];
    let login = |variables: &[(&str, &str)], arguments: &str| {
        let login = Here::new("", variables).bake(arguments).access.login;
        login.map(|login| format!("{}:{}", login.user, login.password))
    };
    let own = Some("gitlab-ci-token:j0b".to_owned());
    assert_eq!(login(&job, ""), own);
    assert_eq!(login(&job, "--repository https://GitLab.example.com:8443/acme/chef"), own);
    for other in [
        "https://gitlab.example.com:8443/acme/other",
        "https://gitlab.example.com/acme/chef.git",
        "http://gitlab.example.com:8443/acme/chef.git",
        "https://gitlab.example.com.evil.example:8443/acme/chef.git",
        "ssh://git@gitlab.example.com:8443/acme/chef.git",
        "/acme/chef",
    ] {
        assert_eq!(login(&job, &format!("--repository {other}")), None, "{other}");
    }
    let given = [&job[..], &[("EBS_BAKE_GIT_TOKEN", "deploy")]].concat();
    assert_eq!(login(&given, ""), Some("x-access-token:deploy".into()), "who gives a token wants that one");
    assert_eq!(login(&job, "--repository https://u:p@gitlab.example.com:8443/acme/chef"), Some("u:p".into()));
}

#[test]
fn the_ci_jobs_commit_counts_for_its_own_repository_only() {
    let job = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_REPOSITORY", "acme/chef"),
        ("GITHUB_SHA", SHA),
        ("GITHUB_REF", "refs/heads/main"),
        ("GITHUB_RUN_ID", "1"),
        ("GITHUB_OUTPUT", "/tmp/o"),
    ];
    let here = Here::new("", &job);
    let both = Wanted { reference: Some("refs/heads/main".into()), commit: git2::Oid::from_str(SHA).ok() };
    let bake = here.bake("");
    assert_eq!(bake.location, Location::Remote("https://github.com/acme/chef".parse().unwrap()));
    assert_eq!(bake.wanted, both);
    assert_eq!(bake.run_url.as_deref(), Some("https://github.com/acme/chef/actions/runs/1"));
    assert_eq!(bake.outputs.github_output.as_deref(), Some(Path::new("/tmp/o")));

    assert_eq!(here.bake("--repository ssh://git@github.com/acme/chef.git").wanted, both);
    assert_eq!(here.bake("--repository https://github.com/acme/other").wanted, Wanted::default());
    assert_eq!(here.bake("--repository .").wanted, Wanted::default());
    let other = Wanted { reference: Some("v1".into()), commit: None };
    assert_eq!(here.bake("--ref v1").wanted, other);
    assert_eq!(here.bake(&format!("--commit {SHA}")).wanted.reference, None);
}

#[test]
fn on_github_owner_and_name_are_a_repository_of_its_server_unless_there_is_such_a_directory() {
    let job = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_SERVER_URL", "https://ghe.example.com"),
        ("GITHUB_REPOSITORY", "acme/chef"),
        ("GITHUB_SHA", SHA),
    ];
    let here = Here::new("", &job);
    let remote = |url: &str| Location::Remote(url.parse().unwrap());
    let other = here.bake("--repository acme/other");
    assert_eq!((other.location, other.wanted), (remote("https://ghe.example.com/acme/other"), Wanted::default()));
    let own = here.bake("--repository acme/chef");
    assert_eq!(own.location, remote("https://ghe.example.com/acme/chef"));
    assert_eq!(own.wanted.commit, git2::Oid::from_str(SHA).ok(), "it is the job's own repository");
    assert_eq!(here.bake("--repository src/config").location, Location::Local("src/config".into()), "a directory is here");
    assert_eq!(Here::new("", &[]).bake("--repository acme/chef").location, Location::Local("acme/chef".into()));
}

#[test]
fn a_github_jobs_own_token_is_for_its_own_repository_only() {
    let login = |arguments: &str, more: &[(&str, &str)]| {
        let server = ("GITHUB_SERVER_URL", "https://ghe.example.com");
        let job = [("GITHUB_ACTIONS", "true"), server, ("GITHUB_REPOSITORY", "acme/chef"), ("GITHUB_TOKEN", "j0b\n")];
        let login = Here::new("", &[&job[..], more].concat()).bake(arguments).access.login;
        login.map(|login| (login.user, login.password))
    };
    let job = Some(("x-access-token".to_owned(), "j0b".to_owned()));
    assert_eq!(login("", &[]), job);
    assert_eq!(login("--repository acme/chef", &[]), job);
    for elsewhere in [
        "acme/other",
        "https://github.com/acme/chef",
        "http://ghe.example.com/acme/chef",
        "https://ghe.example.com:444/acme/chef",
        ".",
    ] {
        assert_eq!(login(&format!("--repository {elsewhere}"), &[]), None, "{elsewhere}");
    }
    let other = login("--repository acme/chef", &[("EBS_BAKE_GIT_TOKEN", "other")]);
    assert_eq!(other.unwrap().1, "other", "the user's own token comes first");
    assert_eq!(login("--repository https://u:p@ghe.example.com/acme/chef", &[]).unwrap().1, "p");
    assert_eq!(login("", &[("GITHUB_TOKEN", "two words")]), None);
    assert_eq!(login("--repository acme/chef", &[("GITHUB_ACTIONS", "")]), None);
}

#[test]
fn without_a_repository_nothing_can_be_baked() {
    let (message, hint) = Here::new("", &[]).refusal("bake");
    assert!(message.contains("--repository is not given") && hint.contains("--repository ."), "{message} {hint}");
}

#[test]
fn restore_needs_to_know_which() {
    let restore = |arguments: &str| match Here::new("", &[]).parse(&format!("restore {arguments}")).command {
        Ok(Command::Restore(restore)) => Ok(restore.action),
        Err(error) => Err(error.to_string()),
        other => panic!("{other:?}"),
    };
    let snapshot: crate::storage::SnapshotId = "snap-0123456789abcdef0".parse().unwrap();
    let mount_point = PathBuf::from("/mnt/x");
    assert_eq!(
        restore("--snapshot-id snap-0123456789abcdef0 --mount-point /mnt/x"),
        Ok(RestoreAction::Mount { snapshot, mount_point: mount_point.clone() })
    );
    let expected = RestoreAction::Detach { snapshot: None, mount_point: Some(mount_point) };
    assert_eq!(restore("--detach --mount-point /mnt/x"), Ok(expected));
    assert_eq!(restore("--mount-point /mnt/x"), Err("restore: --snapshot-id is not given".into()));
    assert!(restore("--snapshot-id snap-0123456789abcdef0").is_err());
    assert!(restore("--detach").is_err());
    assert!(restore("--snapshot-id vol-0123456789abcdef0").unwrap_err().starts_with("--snapshot-id: "));
}

#[test]
fn a_named_file_must_be_there() {
    let here = Here::new("ref: main\n", &[("EBS_BAKE_CONFIG", "/nonexistent/x.yml")]);
    assert_eq!(here.refusal("cleanup").0, "cannot read the configuration file /nonexistent/x.yml");
    let (message, _) = Here::new("config: other.yml\n", &[]).refusal("cleanup");
    assert_eq!(message, "ebs-bake.yml:1: config: a file cannot name the file to read");
}
