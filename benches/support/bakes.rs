//! Whole bakes, beside the script that a user would write instead.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::blocks::{self, Blocks};
use super::checkouts::alternating;
use super::device::Filesystem;
use super::process::{Spent, mean, milliseconds, spend};
use super::repository::Repository;
use super::table::Row;

/// Room for a volume and, without reflinks, a copy of it for every commit. A sparse file holds it.
const STORE_GIB: u64 = 60;

pub fn measure(repository: &Repository, rounds: usize) -> Vec<Row> {
    let [(file, path), (http, url)] = repository.sources();
    let directory = &repository.scratch;
    let mut rows = Vec::new();
    {
        let disk = Filesystem::new(directory, "xfs", STORE_GIB, &["mkfs.xfs", "-q"]);
        let run = Run::new(repository, &disk.mount.join("file"), &path, repository.commits.len());
        rows.extend(run.times(&format!("{file}, xfs")));
        rows.extend(run.blocks());
        rows.extend(run.memory(file));
        let run = Run::new(repository, &disk.mount.join("http"), &url, rounds + 1);
        rows.extend(run.times(&format!("{http}, xfs")));
        rows.extend(run.memory(http));
    }
    let disk = Filesystem::ext4(directory, "ext4", STORE_GIB);
    let run = Run::new(repository, &disk.mount.join("file"), &path, rounds + 1);
    rows.extend(run.times(&format!("{file}, ext4 without reflinks")));
    rows
}

/// A way to bake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Script,
    /// With `.git` on the volume.
    Ours,
    /// With `.git` elsewhere.
    Exclude,
}

/// What a way took and left.
#[derive(Default)]
struct Taken {
    first: Spent,
    commits: Vec<Spent>,
    again: Vec<Spent>,
    /// Blocks that a commit changed.
    changed: Vec<u64>,
    /// Blocks that a node reads, after the first bake and after the last.
    read: [u64; 2],
}

/// A first bake, then one commit after the other, each of them once more.
struct Run {
    script: Taken,
    ours: Taken,
    exclude: Taken,
}

impl Run {
    fn new(repository: &Repository, store: &Path, url: &str, commits: usize) -> Run {
        let bench = |way| Bench { way, store: store.join(way.name()), url: url.to_owned(), scratch: repository.scratch.clone() };
        let [script, ours, exclude] = [Way::Script, Way::Ours, Way::Exclude].map(bench);
        let mut run = Run { script: Taken::default(), ours: Taken::default(), exclude: Taken::default() };
        let last = commits - 1;
        for (round, commit) in repository.commits.iter().take(commits).enumerate() {
            eprintln!("{}: bake {round} of {last} in {}", repository.title, store.display());
            alternating(
                round,
                || script.round(commit, &mut run.script, round == last),
                || {
                    ours.round(commit, &mut run.ours, round == last);
                    exclude.round(commit, &mut run.exclude, round == last);
                },
            );
        }
        run
    }

    fn times(&self, how: &str) -> [Row; 5] {
        let (script, ours, exclude) = (&self.script, &self.ours, &self.exclude);
        let row = |what: &str, theirs: &[Spent], ours: &[Spent], limit| {
            Row::times(format!("{what}, {how}"), milliseconds(theirs), milliseconds(ours), limit)
        };
        [
            row("first bake", &[script.first], &[ours.first], 1.0).for_information(),
            row("bake of one commit", &script.commits, &ours.commits, 0.6),
            row("already baked", &script.again, &ours.again, 0.1),
            row("first bake, `--git-dir exclude`", &[script.first], &[exclude.first], 1.0).for_information(),
            row("bake of one commit, `--git-dir exclude`", &script.commits, &exclude.commits, 0.6).for_information(),
        ]
    }

    fn blocks(&self) -> [Row; 4] {
        let (script, ours, exclude) = (&self.script, &self.ours, &self.exclude);
        let read = |what: &str, at: usize| Row::blocks(what, script.read[at] as f64, ours.read[at] as f64, 0.65);
        [
            Row::blocks("blocks changed by a commit", mean(&script.changed), mean(&ours.changed), 0.75),
            Row::blocks("blocks changed, `--git-dir exclude`", mean(&script.changed), mean(&exclude.changed), 0.45),
            read("blocks that a node reads", 0),
            read("blocks that a node reads after all these commits", 1),
        ]
    }

    fn memory(&self, how: &str) -> [Row; 2] {
        let peak = |runs: &[Spent]| runs.iter().map(|run| run.peak_kib).max().unwrap_or_default() as f64 / 1024.0;
        let row = |what, theirs: &[Spent], ours: &[Spent]| Row::memory(format!("{what}, {how}"), peak(theirs), peak(ours), 96.0);
        [
            row("peak memory of the first bake", &[self.script.first], &[self.ours.first, self.exclude.first]),
            row("peak memory of a bake of one commit", &self.script.commits, &self.ours.commits),
        ]
    }
}

struct Bench {
    way: Way,
    store: PathBuf,
    url: String,
    scratch: PathBuf,
}

impl Bench {
    /// Bakes the commit, and bakes it again.
    fn round(&self, commit: &str, taken: &mut Taken, last: bool) {
        let before = (!taken.commits.is_empty() || taken.first.peak_kib > 0).then(|| Blocks::of(&self.image()));
        let spent = self.bake(commit);
        match before {
            None => {
                taken.first = spent;
                taken.read[0] = self.read();
            }
            Some(before) => {
                taken.changed.push(before.changed_to(&Blocks::of(&self.image())));
                taken.commits.push(spent);
                taken.again.push(self.bake(commit));
            }
        }
        if last {
            taken.read[1] = self.read();
        }
    }

    fn bake(&self, commit: &str) -> Spent {
        std::fs::create_dir_all(&self.store).expect("a directory");
        let mount_point = self.scratch.join("mount").join(self.way.name());
        if self.way == Way::Script {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/support/bake.sh");
            return spend(Command::new("bash").arg(script).arg(&self.store).args([&self.url, commit]).arg(mount_point));
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebs-bake"));
        // Without the variables of a CI system, which say what to bake.
        command.env_clear().envs(["PATH", "TMPDIR", "HOME"].map(|name| (name, std::env::var_os(name).unwrap_or_default())));
        command.args(["bake", "--quiet", "--repository", &self.url, "--ref", "main", "--commit", commit]);
        command.arg("--local-dir").arg(&self.store).arg("--mount-point").arg(mount_point);
        if self.way == Way::Exclude {
            command.args(["--git-dir", "exclude", "--state-dir"]).arg(self.scratch.join("state"));
        }
        spend(&mut command)
    }

    fn image(&self) -> PathBuf {
        match self.way {
            Way::Script => self.store.join("volume.img"),
            Way::Ours | Way::Exclude => {
                let volumes = std::fs::read_dir(self.store.join("volumes")).expect("volumes").flatten();
                let is_volume = |path: &PathBuf| path.join("image").is_file();
                volumes.map(|entry| entry.path()).find(is_volume).expect("a volume").join("image")
            }
        }
    }

    fn read(&self) -> u64 {
        blocks::read_by_a_node(&self.image(), &self.scratch.join("node"))
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Script => "script",
            Way::Ours => "ours",
            Way::Exclude => "exclude",
        }
    }
}
