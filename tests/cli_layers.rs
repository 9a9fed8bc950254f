//! Every option means the same as a flag, as a variable and as a key of the file; and all of them are documented.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says what it skips")]

#[path = "support/generated.rs"]
mod generated;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use ebs_bake::cli::{Context, definition, option_names, parse};
use ebs_bake::error::Result;
use ebs_bake::report::outputs::Outputs;
use ebs_bake::source::Location;
use ebs_bake::source::credentials::Login;
use generated::assert_generated;

fn as_path(text: &str) -> Result<(Location, Option<Login>)> {
    Ok((Location::Local(text.into()), None))
}

/// What a command line, an environment and a file come to, as text.
fn outcome(arguments: &[String], variables: &BTreeMap<String, String>, yaml: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ebs-bake.yml"), yaml).unwrap();
    let context = Context {
        environment: variables.iter().collect(),
        directory: directory.path().to_owned(),
        stderr_is_terminal: false,
        parse_location: as_path,
    };
    let arguments = std::iter::once("ebs-bake").chain(arguments.iter().map(String::as_str)).map(Into::into);
    let parsed = parse(arguments, &context);
    format!("{:?} {:?}", parsed.console, parsed.command.unwrap_or_else(|error| panic!("{error}")))
}

/// A value that is not the default.
fn sample(option: &str) -> &'static str {
    match option {
        "after" => "keep",
        "attempts" => "7",
        "availability-zone" => "eu-central-1c",
        "device" => "/dev/xvdz",
        "instance-id" => "i-00000000",
        "iops" | "throughput" | "volume-initialization-rate" => "200",
        "kms-key-id" => "alias/other",
        "copy-to" => "eu-west-1\nus-west-2,alias/chef",
        "share-with" => "123456789012\n210987654321",
        "ssm-parameter" => "/chef/snapshot",
        "launch-template" => "other",
        "source-version" => "$Latest",
        "keep-versions" => "3",
        "auto-scaling-group" => "web\napi (eu)",
        "launch-configuration-prefix" => "chef-",
        "fleet-device" => "/dev/xvdz",
        "fleet-volume-type" => "io2",
        "fleet-volume-size" => "16",
        "fleet-volume-iops" | "fleet-volume-throughput" | "fleet-volume-initialization-rate" => "200",
        "refresh-min-healthy" => "50",
        "refresh-max-healthy" => "150",
        "refresh-warmup" => "45s",
        "refresh-checkpoints" => "10,100",
        "refresh-checkpoint-delay" => "5m",
        "keep" | "keep-days" => "7",
        "region" => "eu-north-1",
        "snapshot-tag" => "team=a b\ncost=1",
        "volume-id" => "vol-00000000",
        "volume-type" => "io2",
        "after-checkout" => "make vendor && echo 'a: b' # c",
        "allow-lfs-pointers" | "detach" | "dry-run" | "encrypted" | "fstab" | "include-shared" | "json" | "no-clean"
        | "no-wait" | "quiet" | "verbose" => "true",
        "set-default" | "delete-unused-configurations" | "fleet-keep-volumes" | "latest" | "previous" => "true",
        "rollout" | "refresh" | "refresh-all" | "refresh-auto-rollback" => "true",
        "checks" => "chef",
        "color" => "always",
        "for" => "prune",
        "commit" => "0123456789012345678901234567890123456789",
        "chef" => "/opt/chef/bin/chef-client",
        "chef-license" => "accept",
        "chef-path" => "infra/chef",
        "cookbook-path" => "vendor/cookbooks\nsite-cookbooks",
        "environment" => "prod",
        "expect-commit" => "0123456789012345678901234567890123456789",
        "expect-repository" => "/",
        "format" => "gzip",
        "git-dir" => "exclude",
        "git-user" => "somebody",
        "local-dir" | "mount-point" | "state-dir" => "/somewhere/else",
        "known-hosts" | "output-env" | "output-json" | "repository" | "ssh-key" => "/some/file",
        "git-token-file" => concat!(env!("CARGO_MANIFEST_DIR"), "/clippy.toml"),
        "attach-timeout" | "device-timeout" | "retry-pause" | "lock-timeout" | "wait-timeout" => "45s",
        "log-format" => "json",
        "on-findings" => "warn",
        "on-failure" | "on-success" => "echo 'a: b' # c",
        "role" => "web",
        "ref" => "refs/heads/other",
        "require-role" => "web\ndb",
        "snapshot-id" => "snap-00000000",
        "store" => "local",
        "submodules" => "recursive",
        "volume-name" => "other",
        "volume-size" => "16",
        other => panic!("give a sample value for --{other}"),
    }
}

/// Whether it is about what launches machines.
fn of_fleet(name: &str) -> bool {
    let definition = definition();
    let rollout = definition.find_subcommand("rollout").unwrap().get_arguments();
    let mut of_rollout =
        rollout.filter(|it| it.get_help_heading().is_some_and(|it| it.contains("machines") || it.contains("refresh")));
    name == "rollout" || of_rollout.any(|argument| argument.get_long() == Some(name))
}

#[test]
fn every_option_means_the_same_in_all_three_layers() {
    let base = |command: &'static str| match command {
        "bake" => vec!["bake", "--repository=/base"],
        "restore" => vec!["restore", "--snapshot-id=snap-11111111", "--mount-point=/base"],
        "user-data" => vec!["user-data", "--role=base"],
        other => vec![other],
    };
    // What an option needs to be possible and to show.
    let needs = |command: &str, name: &str| {
        let choice = (!matches!(name, "latest" | "previous")).then_some("--snapshot-id=snap-11111111");
        let switch = (name != "rollout").then_some("--rollout");
        let targets = ["--launch-template=base", "--launch-configuration-prefix=base", "--auto-scaling-group=base"];
        let refresh = ["--refresh", "--refresh-min-healthy=60", "--refresh-checkpoints=20,100"];
        let refresh = refresh.iter().filter(|_| !matches!(name, "refresh" | "auto-scaling-group"));
        let of_both = targets.iter().chain(refresh).copied();
        match command {
            "rollout" => choice.into_iter().chain(of_both).collect(),
            "bake" if of_fleet(name) => switch.into_iter().chain(of_both).collect(),
            "doctor" if of_fleet(name) => std::iter::once("--for=rollout").chain(of_both).collect(),
            "doctor" if matches!(name, "include-shared" | "ssm-parameter") => vec!["--for=prune"],
            _ => Vec::new(),
        }
    };
    for command in ["bake", "doctor", "list", "prune", "restore", "cleanup", "rollout", "user-data"] {
        let definition = definition();
        let general = definition.get_arguments();
        let own = definition.find_subcommand(command).unwrap().get_arguments();
        let mut names: Vec<&str> = general.chain(own).filter_map(|argument| argument.get_long()).collect();
        // The file's own name can be in no file; git-user and the token's file only show together with a token.
        names.retain(|name| !["config", "help", "version", "git-token-file", "git-user"].contains(name));
        for name in names {
            let arguments = base(command).into_iter().chain(needs(command, name));
            let mut arguments: Vec<String> = arguments.map(str::to_owned).collect();
            arguments.retain(|argument| !argument.starts_with(&format!("--{name}=")));
            let value = sample(name);
            let yaml = format!("# a comment\n{name}: {}\n", serde_json::to_string(value).unwrap());
            let variables = [(format!("EBS_BAKE_{}", name.to_uppercase().replace('-', "_")), value.to_owned())].into();
            let nothing = BTreeMap::new();

            let as_flag = outcome(&[&arguments[..], &[format!("--{name}={value}")]].concat(), &nothing, "");
            assert_eq!(outcome(&arguments, &variables, ""), as_flag, "{command} --{name} as a variable");
            assert_eq!(outcome(&arguments, &nothing, &yaml), as_flag, "{command} --{name} in the file");
            if !matches!(name, "store" | "snapshot-id" | "repository" | "mount-point" | "latest" | "previous" | "role") {
                assert_ne!(outcome(&arguments, &nothing, ""), as_flag, "{command} --{name} does nothing");
            }
        }
    }
}

/// The tables of all options, from the definition of the command line.
fn option_tables() -> String {
    let mut sections: Vec<(String, Vec<String>)> = Vec::new();
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let definition = definition();
    let commands = std::iter::once(&definition).chain(definition.get_subcommands());
    for command in commands {
        let everywhere = command.get_name() == "ebs-bake";
        for argument in command.get_arguments() {
            let Some(name) = argument.get_long().filter(|name| !matches!(*name, "help" | "version")) else { continue };
            let users = seen.entry(name.to_owned()).or_default();
            users.push(if everywhere { "all".into() } else { command.get_name().into() });
            if users.len() > 1 {
                continue;
            }
            let heading = argument.get_help_heading().unwrap_or(command.get_name()).split(" (").next().unwrap().to_owned();
            match sections.iter_mut().find(|(known, _)| *known == heading) {
                Some((_, names)) => names.push(name.to_owned()),
                None => sections.push((heading, vec![name.to_owned()])),
            }
        }
    }
    let help = |name: &str| {
        let commands = std::iter::once(&definition).chain(definition.get_subcommands());
        let mut arguments = commands.flat_map(|command| command.get_arguments());
        let argument = arguments.find(|argument| argument.get_long() == Some(name)).unwrap();
        argument.get_help().unwrap().to_string().replace('<', "&lt;")
    };
    let mut text = String::new();
    // The general ones come first in the definition, but matter least.
    sections.rotate_left(1);
    for (heading, names) in sections {
        let upper = heading[..1].to_uppercase() + &heading[1..];
        write!(text, "\n### {upper}\n\n| Option and key | Variable | Commands | What it does |\n|---|---|---|---|\n").unwrap();
        for name in names {
            let variable = name.to_uppercase().replace('-', "_");
            let users = seen[&name].join(", ");
            writeln!(text, "| `{name}` | `EBS_BAKE_{variable}` | {users} | {} |", help(&name)).unwrap();
        }
    }
    text + "\n"
}

#[test]
fn the_documentation_has_every_option_and_no_other() {
    let tables = option_tables();
    assert_generated("docs/configuration.md", "options", &tables);
    for name in option_names() {
        assert!(tables.contains(&format!("| `{name}` |")), "{name}");
    }
}

fn reference() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md")).unwrap()
}

#[test]
fn the_reference_has_every_output() {
    let outputs = Outputs {
        snapshot_id: "snap-00000000".parse().unwrap(),
        volume_id: None,
        commit: String::new(),
        reference: None,
        repository: String::new(),
        key: String::new(),
        reused: false,
        store: String::new(),
        region: None,
        size_gib: 1,
        changed_blocks: None,
        copies: Vec::new(),
        ssm_parameter: None,
        rollout: None,
        duration: Duration::ZERO,
        phases: Vec::new(),
    };
    let page = reference();
    let value = outputs.to_value();
    let names = value.as_object().unwrap().keys().filter(|name| !matches!(name.as_str(), "version" | "phases"));
    let mut last = 0;
    for name in names {
        let row = format!("| `{name}` | `{}` |", name.to_uppercase().replace('-', "_"));
        let at = page.find(&row).unwrap_or_else(|| panic!("docs/reference.md lacks {row}"));
        assert!(at > last, "{name} stands in another order than in the output");
        last = at;
    }
}

#[test]
fn the_reference_has_every_exit_code_and_tag() {
    use ebs_bake::error::Kind;
    use ebs_bake::key::tag;
    let page = reference();
    let kinds = [
        Kind::Usage,
        Kind::Permission,
        Kind::Contended,
        Kind::Storage,
        Kind::Device,
        Kind::Git,
        Kind::Snapshot,
        Kind::Fleet,
        Kind::Cleanup,
        Kind::Check,
    ];
    for kind in kinds {
        assert!(page.contains(&format!("| {} | `{}` |", kind.exit_code(), kind.name())), "{kind:?}");
    }
    let tags = [
        tag::KEY,
        tag::VOLUME,
        tag::COMMIT,
        tag::REF,
        tag::REPOSITORY,
        tag::RUN_URL,
        tag::VERSION,
        tag::CHECKS,
        tag::RESTORED,
        tag::NAME,
    ];
    for tag in tags {
        assert!(page.contains(&format!("| `{tag}` |")), "{tag}");
    }
}
