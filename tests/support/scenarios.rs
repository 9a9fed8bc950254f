//! What a run can be in the middle of when it is killed or told to stop, and what must be true after the next.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::bake::{Baked, Done, Run, names_in, succeed};
use super::reliability::At;
use super::world::{Seen, World, waited};

pub const STEPS: &str = "EBS_BAKE_TEST_STEPS";
const SIGNAL_AT: &str = "EBS_BAKE_TEST_SIGNAL_AT";

/// Where copies go.
const REGIONS: [&str; 2] = ["eu-west-1", "us-west-2"];

/// What a run finds, and what it is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// No volume and no snapshot; all output files.
    Blank,
    /// A volume with another commit.
    Next,
    /// A snapshot and no volume, which goes afterwards; a command after the checkout.
    FromSnapshot,
    /// A volume that stays attached afterwards.
    Kept,
    /// A volume whose filesystem was not unmounted.
    Unclean,
    /// A filesystem with too little room.
    Growing,
    /// A volume that is smaller than it shall be.
    Larger,
    /// As `Blank`, in a container whose `/dev` has nothing.
    Container,
    /// As `Blank`, from a git host.
    Remote,
    /// As `Next`, with copies, accounts and a parameter.
    Published,
}

use Scenario::{Blank, Container, FromSnapshot, Growing, Kept, Larger, Next, Published, Remote, Unclean};

/// A step, when it is reached for the nth time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub step: String,
    pub nth: usize,
}

impl Scenario {
    /// All that there are on a store of this kind.
    pub fn of(store: &str) -> &'static [Scenario] {
        match store {
            "local" => &[Blank, Next, FromSnapshot, Kept, Unclean, Growing, Larger, Container, Remote],
            _ => &[Next, Blank, FromSnapshot, Kept, Unclean, Growing, Larger, Published],
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Blank => "first of all",
            Next => "next commit",
            FromSnapshot => "volume from a snapshot, deleted afterwards",
            Kept => "volume kept attached",
            Unclean => "filesystem not clean",
            Growing => "filesystem grows",
            Larger => "volume grows",
            Container => "first of all, in a container",
            Remote => "first of all, over HTTP",
            Published => "copies, accounts, parameter",
        }
    }

    /// The volume's name: one for each round where each begins with nothing.
    fn volume(self, round: usize) -> String {
        match self {
            Next | FromSnapshot | Kept | Unclean | Published => format!("{self:?}"),
            Blank | Growing | Larger | Container | Remote => format!("{self:?}-{round}"),
        }
    }

    /// Brings the world to where the run begins; returns the commit that it is about.
    pub fn prepare(self, world: &World, round: usize) -> String {
        let volume = self.volume(round);
        let bake = |more: &[&str]| world.bake(&[&["--volume-name", &volume], more].concat()).baked();
        let first = round == 0;
        if matches!(self, Blank | Container | Remote | Growing | Larger) {
            // The first run of all makes the store; and volumes of their own for each round would fill the memory that they are in.
            let _ = fs::remove_dir_all(world.host.path("store"));
        }
        match self {
            Next | Unclean | Published | Kept if first => drop(bake(&[])),
            FromSnapshot if first => drop(bake(&["--after", "delete"])),
            Growing => {
                world.commit();
                bake(&[]);
            }
            Larger => drop(bake(&["--volume-size", "1"])),
            _ => {}
        }
        if self == Unclean {
            // As after a power cut: what a killed process had mounted the kernel unmounts cleanly.
            for image in world.images() {
                succeed(Command::new("debugfs").args(["-w", "-R", "set_super_value state 0"]).arg(image));
            }
        }
        if self == Growing { world.commit_large(70) } else { world.commit() }
    }

    pub fn bake(self, world: &World, round: usize) -> Run {
        let file = |name: &str| world.host.text(name);
        let mut options = vec!["--volume-name".to_owned(), self.volume(round)];
        options.extend(match self {
            Blank => ["--output-json", &file("json"), "--output-env", &file("env")].map(str::to_owned).to_vec(),
            FromSnapshot => ["--after", "delete", "--after-checkout", "echo built > built"].map(str::to_owned).to_vec(),
            Kept => ["--after", "keep"].map(str::to_owned).to_vec(),
            Larger => ["--volume-size", "2"].map(str::to_owned).to_vec(),
            Published => {
                let copies = ["--copy-to", REGIONS[0], "--copy-to", REGIONS[1]];
                let named = ["--share-with", "111122223333", "--ssm-parameter", "/chef/latest"];
                [copies, named].concat().into_iter().map(str::to_owned).collect()
            }
            Next | Unclean | Growing | Container | Remote => Vec::new(),
        });
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        match self {
            Blank => {
                let run = world.bake(&options).env("GITHUB_ACTIONS", "true");
                run.env("GITHUB_OUTPUT", file("github-output")).env("GITHUB_STEP_SUMMARY", file("summary"))
            }
            Container => in_container(world.bake(&options)),
            Remote => world.bake_from(&world.server().url("up"), &options),
            _ => world.bake(&options),
        }
    }

    /// How many volumes more there are after a run.
    pub fn makes(self) -> usize {
        usize::from(matches!(self, Blank | Container | Remote))
    }
}

/// The steps that a run passes, each with how often, in the order of their first time; and how long it takes.
pub fn steps(world: &World, scenario: Scenario) -> (Vec<(String, usize)>, Duration) {
    scenario.prepare(world, 0);
    let file = world.host.path("steps");
    let _ = fs::remove_file(&file);
    let began = Instant::now();
    scenario.bake(world, 0).env(STEPS, &file).baked();
    let length = began.elapsed();
    let mut steps: Vec<(String, usize)> = Vec::new();
    for step in fs::read_to_string(&file).unwrap().lines() {
        match steps.iter_mut().find(|(known, _)| known == step) {
            Some((_, times)) => *times += 1,
            None => steps.push((step.to_owned(), 1)),
        }
    }
    conclude(world, scenario);
    (steps, length)
}

/// Each step when it is first reached, and when it is last.
pub fn first_and_last(steps: &[(String, usize)]) -> Vec<Point> {
    let points = steps.iter().flat_map(|(step, times)| [1, *times].map(|nth| Point { step: step.clone(), nth }));
    let mut points: Vec<Point> = points.collect();
    points.dedup();
    points
}

/// Where and by what a run is to be hit.
pub struct Blow<'a> {
    pub scenario: Scenario,
    pub round: usize,
    pub point: &'a Point,
    pub signal: &'static str,
}

impl Blow<'_> {
    pub fn run(&self, world: &World) -> Run {
        let Point { step, nth } = self.point;
        self.scenario.bake(world, self.round).env(SIGNAL_AT, format!("{step}:{nth}={}", self.signal))
    }

    pub fn told(&self) -> String {
        let Point { step, nth } = self.point;
        format!("{:?}, {} {step:?} ({nth})", self.scenario, self.signal)
    }
}

/// Kills a run with SIGKILL at a point and runs it again. `false`: it did not come there.
pub fn kill_and_repair(world: &World, blow: &Blow<'_>) -> bool {
    let when = format!("{} {}", world.store(), blow.told());
    let commit = blow.scenario.prepare(world, blow.round);
    let before = world.see();
    let (done, session) = blow.run(world).ended_with_session();
    if done.code != -libc::SIGKILL {
        assert_eq!(done.code, 0, "{when}: {done:?}");
    }
    world.assert_alone(session, &when);
    assert_repaired(world, blow.scenario, blow.round, &before, &commit, &when);
    done.code == -libc::SIGKILL
}

/// Runs it again: after whatever happened there is one good snapshot of the commit, no volume too many, and nothing else.
#[track_caller]
pub fn assert_repaired(world: &World, scenario: Scenario, round: usize, before: &Seen, commit: &str, when: &str) {
    let _at = At(when);
    let left = world.see();
    assert!(left.volumes <= before.volumes + 1, "{when}: {before:?} {left:?}");
    let baked = again(scenario.bake(world, round).ended(), when);
    assert!(!waited(&baked), "{when}: a lock is left");
    if !baked.reused() {
        assert_eq!(names_in(&world.host.path("tmp")), [""; 0], "{when}: temporary files are left");
    }
    let with_key =
        |snapshots: Vec<(String, String)>| snapshots.into_iter().filter(|(key, _)| baked.result["key"] == key.as_str());
    let ids: Vec<String> = with_key(world.snapshots()).map(|(_, id)| id).collect();
    assert_eq!(ids, [baked.id.as_str()], "{when}: snapshots of one commit");
    for region in REGIONS.into_iter().filter(|_| scenario == Published) {
        assert_eq!(with_key(world.snapshots_in(region)).count(), 1, "{when}: copies in {region}");
    }
    world.assert_holds(&baked.id, commit, scenario == FromSnapshot, when);
    let _ = world.changes();
    let once_more = again(scenario.bake(world, round).ended(), when);
    assert_eq!((&once_more.id, once_more.reused()), (&baked.id, true), "{when}");
    assert_eq!(world.changes(), [""; 0], "{when}: there was something left to do");

    let after = world.see();
    let most = before.volumes + scenario.makes().max(usize::from(scenario == FromSnapshot));
    // A run that was told to stop may have given up the volume when its snapshot was just complete.
    let least = before.volumes + if baked.reused() { 0 } else { scenario.makes() };
    assert!((least..=most).contains(&after.volumes), "{when}: {before:?} {after:?}");
    let new: BTreeSet<_> = after.attached.difference(&left.attached).collect();
    assert!(new.len() <= usize::from(scenario == Kept), "{when}: attached by the second run: {new:?}");
    conclude(world, scenario);
    world.assert_clean(if scenario == FromSnapshot { before.volumes } else { after.volumes }, when);
}

/// Takes away what is meant to stay, or what the next commit's run would use.
fn conclude(world: &World, scenario: Scenario) {
    let after = match scenario {
        Kept => "detach",
        FromSnapshot => "delete",
        _ => return,
    };
    world.commit();
    world.bake(&["--volume-name", &scenario.volume(0), "--after", after]).baked();
}

#[track_caller]
fn again(done: Done, when: &str) -> Baked {
    assert_eq!(done.code, 0, "{when}: the next run: {done:?}");
    Baked::of(done)
}

/// The same where `/dev` lacks all that came after its start.
fn in_container(run: Run) -> Run {
    let mut command = Command::new("unshare");
    // The test's own directories are below /dev/shm.
    let script = "set -e; mount --bind /dev/shm /mnt; mount -t tmpfs none /dev; mkdir /dev/shm
        mount --move /mnt /dev/shm; mknod -m 666 /dev/null c 1 3; exec \"$0\" \"$@\"";
    command.args(["-m", "sh", "-c", script]).arg(run.0.get_program()).args(run.0.get_args()).env_clear();
    command.envs(run.0.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(run.0.get_current_dir().unwrap()).stdin(std::process::Stdio::null());
    Run(command)
}
