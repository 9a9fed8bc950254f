//! Whole bakes in the tests' EC2, beside the script that a user would write with the AWS command line.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::bridge::{self, Bridge, Host};
use super::process::{Spent, milliseconds, spend};
use super::repository::Repository;
use super::table::Row;
use super::tools;

pub fn measure(repository: &Repository, rounds: usize) -> Vec<Row> {
    let pace = |table: &str, timing: Value| Pace { name: table.to_owned(), timing };
    let paces = [
        pace("no waits", json!({})),
        // EC2 attaches within some seconds; a small increment is completed within less than a minute.
        pace(
            "EC2's waits",
            json!({ "volume.attaching": { "seconds": 2 }, "volume.detaching": { "seconds": 2 }, "snapshot.pending": { "seconds": 20 } }),
        ),
    ];
    let [(_, path), _] = repository.sources();
    let mut rows = Vec::new();
    for (index, pace) in paces.iter().enumerate() {
        let rounds = if index == 0 { rounds } else { rounds.min(3) };
        rows.extend(compare(repository, &path, pace, rounds));
    }
    rows
}

/// How long EC2's states take.
struct Pace {
    name: String,
    timing: Value,
}

#[derive(Default)]
struct Taken {
    first: Vec<Spent>,
    detached: Vec<Spent>,
    attached: Vec<Spent>,
    again: Vec<Spent>,
    calls: [usize; 4],
}

/// Each in a cloud of its own, in turns.
fn compare(repository: &Repository, url: &str, pace: &Pace, rounds: usize) -> Vec<Row> {
    let mut ways = [Way::new(true, repository, url, pace), Way::new(false, repository, url, pace)];
    for (round, commit) in repository.commits.iter().take(2 * rounds + 1).enumerate() {
        eprintln!("{}: round {round} of {} with {}", repository.title, 2 * rounds, pace.name);
        if round % 2 == 1 {
            ways.reverse();
        }
        for way in &mut ways {
            way.round(commit, round, rounds);
        }
    }
    ways.sort_by_key(|way| !way.is_script);
    let [script, ours] = ways.map(|way| way.taken);
    let row = |what: &str, kind: fn(&Taken) -> &Vec<Spent>, index: usize, limit| {
        let what = format!("{what}, {} ({} and {} calls)", pace.name, script.calls[index], ours.calls[index]);
        Row::times(what, milliseconds(kind(&script)), milliseconds(kind(&ours)), limit)
    };
    vec![
        row("first bake", |it| &it.first, 0, 1.0).for_information(),
        row("bake of one commit, volume detached before and after", |it| &it.detached, 1, 0.25),
        row("bake of one commit, volume attached", |it| &it.attached, 2, 0.25),
        row("already baked", |it| &it.again, 3, 0.05),
    ]
}

struct Way {
    is_script: bool,
    cloud: Bridge,
    host: Host,
    url: String,
    scratch: PathBuf,
    taken: Taken,
}

impl Way {
    fn new(is_script: bool, repository: &Repository, url: &str, pace: &Pace) -> Way {
        let cloud = Bridge::start();
        cloud.limits(json!({ "snapshot_interval": 0 }));
        cloud.timing(pace.timing.clone());
        let host = cloud.host("us-east-1a");
        let scratch = repository.scratch.clone();
        Way { is_script, cloud, host, url: url.to_owned(), scratch, taken: Taken::default() }
    }

    /// A first bake, then bakes that attach and detach, then bakes on a volume that stays attached; each once more.
    fn round(&mut self, commit: &str, round: usize, rounds: usize) {
        let stays = round > rounds;
        if round == rounds + 1 {
            self.attach();
        }
        let (spent, calls) = self.bake(commit);
        let (again, calls_again) = self.bake(commit);
        let (taken, index) = match (round, stays) {
            (0, _) => (&mut self.taken.first, 0),
            (_, false) => (&mut self.taken.detached, 1),
            (_, true) => (&mut self.taken.attached, 2),
        };
        taken.push(spent);
        self.taken.calls[index] = calls;
        self.taken.again.push(again);
        self.taken.calls[3] = calls_again;
        // So that nobody waits for what the other left.
        self.cloud.settle();
    }

    fn attach(&self) {
        let state = self.cloud.state();
        let is_free = |volume: &&bridge::VolumeState| volume.attachment.is_none();
        let volume = state.volumes.iter().find(|(_, volume)| is_free(volume)).expect("the volume").0;
        let params = [("VolumeId", volume.as_str()), ("InstanceId", &self.host.instance_id), ("Device", "/dev/sdk")];
        self.cloud.ec2("us-east-1", "AttachVolume", &params);
        self.cloud.settle();
    }

    fn bake(&self, commit: &str) -> (Spent, usize) {
        self.cloud.clear_calls();
        let mount_point = self.scratch.join("mount").join(if self.is_script { "script" } else { "ours" });
        let mut command = if self.is_script {
            let mut command = Command::new("bash");
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/support/ec2_bake.sh"));
            command.args([self.url.as_str(), commit]).arg(mount_point).env("DEV_ROOT", &self.host.dev);
            let aws = tools::python_environment(&aws_requirements()).join("bin");
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", aws.display()));
            command
        } else {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ebs-bake"));
            command.env_clear().envs(["PATH", "TMPDIR", "HOME"].map(|name| (name, std::env::var_os(name).unwrap_or_default())));
            command.args(["bake", "--quiet", "--repository", &self.url, "--ref", "main", "--commit", commit]);
            command.arg("--mount-point").arg(mount_point).env("EBS_BAKE_SYSFS_ROOT", &self.host.sysfs);
            command
        };
        let spent = spend(command.envs(self.cloud.environment(&self.host)));
        (spent, self.cloud.calls().calls.len())
    }
}

fn aws_requirements() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/support/aws-requirements.txt"))
}
