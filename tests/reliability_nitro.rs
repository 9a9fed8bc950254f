//! The shipped program on a Nitro-like host: a virtual machine whose volumes are NVMe disks that are really plugged in and out, with the
//! kernel's own drivers, and whose power is cut.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod support {
    #[allow(dead_code, reason = "a part is used")]
    pub mod bake;
    pub mod bridge;
    pub mod ec2;
    pub mod git_cli;
    pub mod git_server;
    pub mod machine;
    pub mod nitro;
    pub mod reliability;
    pub mod store;
    pub mod tools;
}

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::bake::PHASES;
use support::ec2::Ended;
use support::nitro::Nitro;
use support::reliability::{At, record, rounds};

/// Fields of a run's result.
#[track_caller]
fn result(ended: &Ended) -> Value {
    ended.snapshot();
    let mut events = ended.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.rfind(|event| event["event"] == "result").expect("a result is logged")
}

#[track_caller]
fn volume_of(ended: &Ended) -> String {
    result(ended)["volume-id"].as_str().unwrap().to_owned()
}

#[test]
fn root_a_volume_is_plugged_in_baked_on_unplugged_and_its_snapshot_is_the_commit() {
    let Some(mut nitro) = Nitro::new() else { return };
    let first = nitro.commit(1, 200);
    let snapshot = nitro.bake(&[]).snapshot();
    nitro.assert_holds(&snapshot, &first);
    nitro.cloud.rests(1, 1);

    // As in a container: its /dev has no node of a disk that came after its start.
    let second = nitro.commit(2, 220);
    let command = nitro.baking(&[]);
    let contained = format!("unshare -m sh -c 'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && \"$@\"' sh {command}");
    let snapshot = nitro.machine().run(&contained).snapshot();
    nitro.assert_holds(&snapshot, &second);
    nitro.cloud.rests(1, 2);

    let again = nitro.bake(&[]);
    assert_eq!(result(&again)["reused"], true);
    assert_eq!(again.snapshot(), snapshot);
    nitro.cloud.rests(1, 2);
    assert_eq!(nitro.machine().says("ls /sys/block"), "nvme0n1", "only the root volume is left");
    nitro.machine().kernel_is_well();
}

/// A disk that is somebody else's, and what it was like when it was made.
struct Foreign {
    volume: String,
    image: PathBuf,
    was: (i64, i64, u64),
}

impl Foreign {
    const CONTENT: &[u8] = b"mine";

    fn plug(nitro: &Nitro, serial: &str, number: u8) -> Foreign {
        let answer = nitro.ec2("CreateVolume", &[("AvailabilityZone", "us-east-1a"), ("Size", "1")]);
        let volume = answer.split("<volumeId>").nth(1).unwrap().split('<').next().unwrap().to_owned();
        let image = nitro.cloud.bridge.state().volumes[&volume].image.clone();
        nitro.cloud.bridge.write(&volume, 4096, Self::CONTENT);
        let was = Self::look(&image);
        nitro.attach(&volume, &format!("/dev/xvd{}{}", char::from(b'b' + number / 26), char::from(b'a' + number % 26)));
        nitro.cloud.bridge.disk(&volume, json!({ "serial": serial }));
        Foreign { volume, image, was }
    }

    /// When it was last written to, and how much.
    fn look(image: &PathBuf) -> (i64, i64, u64) {
        let metadata = std::fs::metadata(image).unwrap();
        (metadata.mtime(), metadata.mtime_nsec(), metadata.blocks())
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let mut content = [0; Self::CONTENT.len()];
        std::fs::File::open(&self.image).unwrap().read_exact_at(&mut content, 4096).unwrap();
        assert_eq!(content, Self::CONTENT, "{}", self.volume);
        assert_eq!(Self::look(&self.image), self.was, "{} was written to", self.volume);
    }
}

/// Serial numbers that a careless comparison takes for this one: its beginning, and those that differ in one digit.
fn neighbours(serial: &str) -> Vec<String> {
    let without_one = (4..serial.len()).rev().map(|at| {
        let other = if &serial[at..=at] == "0" { "1" } else { "0" };
        format!("{}{other}{}", &serial[..at], &serial[at + 1..])
    });
    std::iter::once(serial[..serial.len() - 1].to_owned()).chain(without_one).collect()
}

#[test]
fn root_a_disk_of_a_neighbouring_name_is_never_touched_and_one_with_new_numbers_is_found() {
    let Some(mut nitro) = Nitro::new() else { return };
    nitro.commit(1, 50);
    let volume = volume_of(&nitro.bake(&[]));
    let serial = volume.replace('-', "");

    // Ten disks that are there before, so that ours is nvme11.
    let neighbours = neighbours(&serial);
    let mut numbers = 0..;
    let mut plug = |nitro: &Nitro, serial: &str| Foreign::plug(nitro, serial, numbers.next().unwrap());
    let mut foreign: Vec<Foreign> = neighbours[..10].iter().map(|neighbour| plug(&nitro, neighbour)).collect();
    let commit = nitro.commit(2, 60);
    let baked = nitro.bake(&[]);
    assert_eq!((volume_of(&baked), nitro.mounted_last()), (volume.clone(), "nvme11n1".into()));
    nitro.assert_holds(&baked.snapshot(), &commit);

    // nvme1 beside nvme10, and the other way round; a disk that comes while the volume is mounted.
    let first = foreign.remove(0);
    nitro.detach(&first.volume);
    first.assert_untouched();
    let commit = nitro.commit(3, 70);
    let comes = &neighbours[10];
    let wait = format!("until grep -q {comes} /sys/block/nvme*/device/serial; do usleep 20000; done");
    nitro.start(&["--after", "keep", "--after-checkout", &wait]);
    assert!(nitro.until("started", "after-checkout"));
    foreign.push(plug(&nitro, comes));
    let baked = nitro.machine().end();
    assert_eq!((volume_of(&baked), nitro.mounted_last()), (volume.clone(), "nvme1n1".into()));
    nitro.assert_holds(&baked.snapshot(), &commit);

    // It is attached anew between two runs, after others.
    nitro.detach(&volume);
    foreign.push(plug(&nitro, &neighbours[11]));
    nitro.attach(&volume, "/dev/sdk");
    let commit = nitro.commit(4, 80);
    let baked = nitro.bake(&[]);
    assert_eq!((volume_of(&baked), nitro.mounted_last()), (volume.clone(), "nvme12n1".into()));
    nitro.assert_holds(&baked.snapshot(), &commit);
    assert_eq!(nitro.disk(&serial).as_deref(), Some("nvme12n1"), "it was attached before the run, and stays");
    for disk in &foreign {
        disk.assert_untouched();
    }
    nitro.machine().kernel_is_well();
}

#[test]
fn root_a_volume_that_is_unplugged_while_it_is_mounted_fails_the_run_and_the_next_one_repairs() {
    let Some(mut nitro) = Nitro::new() else { return };
    nitro.commit(1, 50);
    nitro.bake(&[]).snapshot();
    let gone = "while grep -q SERIAL /sys/block/nvme*/device/serial; do usleep 20000; done";
    let back = "until grep -q SERIAL /sys/block/nvme*/device/serial; do usleep 20000; done";
    let commands = [
        // What was written is in memory only when the disk goes; is written when it is gone; was on the disk before; is on its way.
        (format!("echo built > built; echo go; {gone}"), "is attached no more"),
        (format!("echo go; {gone}; echo built > built"), "is attached no more"),
        (format!("sync; echo go; {gone}"), "is attached no more"),
        ("echo go; while dd if=/dev/zero of=big bs=64k count=64 conv=fsync; do :; done".to_owned(), "is attached no more"),
        // It comes back at once, but as another device.
        (format!("echo built > built; echo go; {gone}; {back}"), "the volume that was device nvme1n1"),
    ];
    for (number, (command, words)) in (2..).zip(&commands) {
        let commit = nitro.commit(number, 50 + number);
        let (volume, _) = nitro.cloud.bridge.state().volumes.into_iter().find(|(_, volume)| volume.state == "available").unwrap();
        nitro.start(&["--after-checkout", &command.replace("SERIAL", &volume.replace('-', ""))]);
        assert!(nitro.machine().until(|line| line.contains(r#""line":"go""#)));
        nitro.ec2("DetachVolume", &[("VolumeId", &volume), ("Force", "true")]);
        if command.ends_with(back) {
            nitro.cloud.bridge.settle();
            nitro.attach(&volume, "/dev/sdk");
        }
        let ended = nitro.machine().end();
        ended.failed(6, &[words, "run again"]);
        assert_eq!(nitro.machine().says("grep -c /chef /proc/mounts || true"), "0");
        assert_eq!(nitro.cloud.bridge.state().snapshots.len(), number as usize - 1, "{command}: a snapshot was taken");
        let baked = nitro.bake(&[]);
        nitro.assert_holds(&baked.snapshot(), &commit);
        nitro.cloud.rests(1, number as usize);
    }
    nitro.machine().kernel_is_well();
}

#[test]
fn root_a_volume_whose_filesystem_a_power_cut_left_beyond_repair_is_made_anew() {
    let Some(mut nitro) = Nitro::new() else { return };
    nitro.commit(1, 50);
    let volume = volume_of(&nitro.bake(&["--after", "keep"]));
    nitro.cut();
    // Every block group descriptor and inode of the first group, and "not clean" in the superblock.
    nitro.cloud.bridge.write(&volume, 4096, &[0xff; 256 * 1024]);
    nitro.cloud.bridge.write(&volume, 1024 + 0x3a, &[0, 0]);
    nitro.boot();
    let commit = nitro.commit(2, 60);
    let baked = nitro.bake(&[]);
    assert_ne!(volume_of(&baked), volume);
    assert!(baked.stderr.contains("is made anew"), "{}", baked.stderr);
    nitro.assert_holds(&baked.snapshot(), &commit);
    nitro.cloud.rests(1, 2);
    nitro.machine().kernel_is_well();
    nitro.machine().filesystems_are_well();
}

/// When the power is cut.
#[derive(Debug)]
struct Cut {
    event: &'static str,
    phase: &'static str,
    /// After the event, in milliseconds.
    later: u64,
    /// The volume is being made, rather than used again.
    blank: bool,
}

/// Makes files and removes them, while all of it is being written to the disk.
const CHURN: &str =
    "(while :; do sync; done) & for i in 1 2 3 4 5 6 7 8; do cp -r cookbooks churn; rm -rf churn; done; kill $!; wait";

/// Of the order in which the power is cut: one whose first few differ much.
const SEED: u64 = 1208;

impl Cut {
    /// All events of all phases, blank and not, in the seed's order; then once more, with a delay. The command always has one, so that it
    /// is cut while it makes files.
    fn all() -> impl Iterator<Item = Cut> {
        let phases = [&PHASES[..], &["release", "wait"]].concat();
        let mut points: Vec<u64> = (0..4 * phases.len() as u64).collect();
        points.sort_by_key(|point| mixed(SEED * 1000 + point));
        let cut = move |point: &u64, later: u64| {
            let event = if point.is_multiple_of(2) { "started" } else { "finished" };
            let phase = phases[(point / 4) as usize];
            let later = if (event, phase) == ("started", "after-checkout") { 300 + mixed(later) % 1500 } else { later };
            Cut { event, phase, later, blank: (point / 2).is_multiple_of(2) }
        };
        let prompt: Vec<Cut> = points.iter().map(|point| cut(point, 0)).collect();
        let late: Vec<Cut> = points.iter().map(|point| cut(point, mixed(*point) % 150)).collect();
        prompt.into_iter().chain(late)
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): the same numbers everywhere.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[test]
fn root_a_power_cut_in_any_phase_is_repaired_by_the_next_run() {
    let Some(mut nitro) = Nitro::new() else { return };
    nitro.bake(&[]).snapshot();
    let (rounds, mut volumes) = (rounds(4, 84), 1);
    let (mut booting, mut reused, mut unclean) = (Duration::ZERO, 0, 0);
    for (round, cut) in (0..rounds).zip(Cut::all()) {
        let when = format!("{cut:?}");
        let _at = At(&when);
        let commit = nitro.commit(round + 1, 100 + round);
        let name = if cut.blank { format!("chef{round}") } else { "chef".to_owned() };
        volumes += usize::from(cut.blank);
        let command: &[&str] = if cut.phase == "after-checkout" { &["--after-checkout", CHURN] } else { &[] };
        let arguments = [&["--volume-name", &name], command].concat();
        nitro.start(&arguments);
        assert!(nitro.until(cut.event, cut.phase), "{cut:?} never came");
        std::thread::sleep(Duration::from_millis(cut.later));
        nitro.cut();
        let began = Instant::now();
        nitro.boot();
        booting += began.elapsed();
        let baked = nitro.bake(&arguments);
        assert_eq!(baked.code, 0, "{baked:?}");
        reused += u64::from(result(&baked)["reused"] == true);
        unclean += u64::from(baked.stderr.contains("was not unmounted cleanly") || baked.stderr.contains("repaired"));
        nitro.assert_holds(&baked.snapshot(), &commit);
        nitro.machine().kernel_is_well();
        nitro.machine().filesystems_are_well();
        let cleanup = nitro.program(&["cleanup"]);
        nitro.machine().says(&cleanup);
        nitro.rests(volumes, 2 + round as usize);
    }
    record("nitro", &figures(rounds, booting, reused, unclean));
}

/// What the next runs found, and how long the machine took until they could begin.
fn figures(rounds: u64, booting: Duration, reused: u64, unclean: u64) -> String {
    let boot = booting.as_secs_f64() / rounds as f64;
    format!(
        "| Power cuts | The snapshot was there | The filesystem was not clean | Neither | Boot, mean |\n|---|---|---|---|---|\n\
         | {rounds} | {reused} | {unclean} | {} | {boot:.1} s |\n",
        rounds - reused - unclean
    )
}
