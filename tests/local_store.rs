//! What is the local block store's alone: its directory, its attachments, and dying in the midst of it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ebs_bake::error::Kind;
use ebs_bake::storage::local::{Leftover, LocalStore};
use ebs_bake::storage::{
    Attachment, BlockStorage, NewSnapshot, NewVolume, Snapshot, SnapshotQuery, SnapshotState, Tags, Volume, VolumeId,
    VolumeQuery, VolumeState,
};

mod support {
    pub mod child;
    pub mod store;
}

use support::child::{Other, restored};
use support::store::{block_on, needs_root, tmpfs};

/// Not a test: what the other processes of these tests run.
#[test]
fn played_by_a_child() {
    support::child::play();
}

/// A store in a directory of its own.
struct Here {
    dir: tempfile::TempDir,
    store: LocalStore,
}

impl Here {
    fn new() -> Here {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(dir.path().join("store")).unwrap();
        Here { dir, store }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn image(&self, id: &VolumeId) -> PathBuf {
        self.path().join("volumes").join(id.as_str()).join("image")
    }

    fn volume(&self, tags: Tags) -> VolumeId {
        block_on(self.store.create_volume(&NewVolume { size_gib: 1, source: None, tags })).unwrap().id
    }

    /// A volume that holds so many MiB.
    fn filled(&self, mib: usize) -> VolumeId {
        let id = self.volume(Tags::new());
        let image = fs::OpenOptions::new().write(true).open(self.image(&id)).unwrap();
        image.write_all_at(&vec![1; mib << 20], 4096).unwrap();
        id
    }

    /// The first 16 MiB of an image.
    fn content(&self, folder: &str, id: &str) -> Vec<u8> {
        let mut content = vec![0; 16 << 20];
        let image = self.path().join(folder).join(id).join("image");
        fs::File::open(image).unwrap().read_exact_at(&mut content, 0).unwrap();
        content
    }

    fn device(&self, id: &VolumeId) -> String {
        let Attachment::Here { device, .. } = block_on(self.store.attach(id)).unwrap() else { panic!("not attached") };
        device
    }

    fn detach(&self, id: &VolumeId) -> ebs_bake::error::Result<()> {
        block_on(self.store.detach(id))
    }

    fn snapshot(&self, id: &VolumeId) -> ebs_bake::error::Result<Snapshot> {
        let new = NewSnapshot { volume: id.clone(), tags: Tags::new(), description: String::new() };
        block_on(self.store.create_snapshot(&new))
    }

    fn volumes(&self) -> Vec<Volume> {
        block_on(self.store.volumes(&VolumeQuery::default())).unwrap()
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        block_on(self.store.snapshots(&SnapshotQuery::default())).unwrap()
    }

    fn attachment(&self, id: &VolumeId) -> Attachment {
        self.volumes().into_iter().find(|volume| volume.id == *id).unwrap().attachment
    }

    /// The loop devices that the kernel has on files of this store.
    fn devices(&self) -> Vec<PathBuf> {
        let all = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
        let ours = |device: &PathBuf| {
            fs::read_to_string(device.join("loop/backing_file")).is_ok_and(|path| path.starts_with(self.path().to_str().unwrap()))
        };
        all.filter(ours).collect()
    }

    fn staged(&self) -> usize {
        fs::read_dir(self.path().join("staging")).unwrap().count()
    }
}

#[test]
fn looking_at_a_store_that_is_not_there_makes_nothing() {
    let here = Here::new();
    assert_eq!((here.volumes(), here.snapshots(), block_on(here.store.leftovers()).unwrap()), (vec![], vec![], vec![]));
    let id = "vol-0123456789abcdef0".parse().unwrap();
    assert_eq!(here.snapshot(&id).unwrap_err().kind(), Kind::Storage);
    block_on(here.store.delete_volume(&id)).unwrap();
    assert_eq!(fs::read_dir(here.dir.path()).unwrap().count(), 0);
    // Nor does a directory that is there become a store by being looked at.
    fs::create_dir(here.path()).unwrap();
    assert_eq!(LocalStore::open(here.path()).unwrap().dir(), here.path());
    assert_eq!(here.volumes(), []);
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0);
}

#[test]
fn a_store_is_for_its_owner_alone() {
    let here = Here::new();
    fs::create_dir(here.path()).unwrap();
    fs::set_permissions(here.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let id = here.volume(Tags::new());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&here.path()), mode(&here.image(&id))), (0o700, 0o600));
    fs::set_permissions(here.path(), fs::Permissions::from_mode(0o770)).unwrap();
    assert_eq!(LocalStore::open(here.path()).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn a_directory_that_is_no_store_is_refused_and_left_as_it_is() {
    let cases: [(&str, &[(&str, &str)], &str); 4] = [
        ("another's", &[("precious", "data")], "neither empty nor a local store"),
        ("newer", &[("format", "ebs-bake local store 2\n"), ("volumes", "")], "format 2"),
        ("no version", &[("format", "ext4\n")], "is not one of ebs-bake"),
        ("a long file", &[("format", &"9".repeat(1000))], "is not one of ebs-bake"),
    ];
    for (name, files, reason) in cases {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(file, text)| fs::write(dir.path().join(file), text).unwrap());
        let error = LocalStore::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{name}");
        assert!(error.to_string().contains(reason), "{name}: {error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), files.len(), "{name}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(LocalStore::open(file.path()).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn a_first_use_that_was_killed_is_taken_up() {
    let here = Here::new();
    fs::create_dir_all(here.path().join("lost+found")).unwrap();
    fs::write(here.path().join("format.new"), "ebs-b").unwrap();
    here.volume(Tags::new());
    assert_eq!(fs::read_to_string(here.path().join("format")).unwrap(), "ebs-bake local store 1\n");
    // Killed after the format was written.
    fs::remove_dir_all(here.path().join("staging")).unwrap();
    here.volume(Tags::new());
    assert_eq!(here.volumes().len(), 2);
}

#[test]
fn damaged_entries_are_listed_and_the_others_work() {
    let here = Here::new();
    let good = here.filled(1);
    let snapshot = here.snapshot(&good).unwrap();
    let damage = |folder: &str, id: &str, spoil: &dyn Fn(&Path)| {
        let (from, to) =
            (if folder == "volumes" { good.as_str() } else { snapshot.id.as_str() }, here.path().join(folder).join(id));
        fs::create_dir(&to).unwrap();
        let json = format!("{}.json", folder.trim_end_matches('s'));
        let text = fs::read_to_string(here.path().join(folder).join(from).join(&json)).unwrap();
        fs::write(to.join(json), text.replace(from, id)).unwrap();
        fs::File::create(to.join("image")).unwrap().set_len(1 << 30).unwrap();
        spoil(&to);
    };
    let spoilers: [(&str, &dyn Fn(&Path)); 7] = [
        ("json", &|dir| fs::remove_file(dir.join("image")).unwrap()),
        ("truncated", &|dir| fs::OpenOptions::new().write(true).open(dir.join("image")).unwrap().set_len(1 << 20).unwrap()),
        ("empty", &|dir| fs::write(dir.join("image"), "").unwrap()),
        ("fifo", &|dir| {
            fs::remove_file(dir.join("image")).unwrap();
            nix::unistd::mkfifo(&dir.join("image"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
        ("link", &|dir| {
            fs::rename(dir.join("image"), dir.join("elsewhere")).unwrap();
            symlink("elsewhere", dir.join("image")).unwrap();
        }),
        ("unparsable", &|dir| fs::read_dir(dir).unwrap().for_each(|file| spoil_json(&file.unwrap().path(), "{"))),
        ("huge", &|dir| fs::read_dir(dir).unwrap().for_each(|file| spoil_json(&file.unwrap().path(), &" ".repeat(1 << 20)))),
    ];
    for (number, (_, spoil)) in spoilers.iter().enumerate() {
        damage("volumes", &format!("vol-000000000000000{number:02}"), spoil);
        damage("snapshots", &format!("snap-000000000000000{number:02}"), spoil);
    }
    symlink(good.as_str(), here.path().join("volumes/vol-00000000000000099")).unwrap();
    symlink(snapshot.id.as_str(), here.path().join("snapshots/snap-00000000000000099")).unwrap();
    fs::create_dir(here.path().join("volumes/..volume")).unwrap();

    let (volumes, snapshots) = (here.volumes(), here.snapshots());
    assert_eq!((volumes.len(), snapshots.len()), (spoilers.len() + 2, spoilers.len() + 2));
    for volume in volumes.iter().filter(|volume| volume.id != good) {
        assert!(matches!(volume.state, VolumeState::Error(_)), "{volume:?}");
        let error = here.snapshot(&volume.id).unwrap_err();
        assert!(error.kind() == Kind::Storage && error.to_string().contains(volume.id.as_str()), "{error}");
        assert!(block_on(here.store.attach(&volume.id)).is_err());
    }
    for damaged in snapshots.iter().filter(|other| other.id != snapshot.id) {
        assert!(matches!(damaged.state, SnapshotState::Error(_)), "{damaged:?}");
        let new = NewVolume { size_gib: 1, source: Some(damaged.id.clone()), tags: Tags::new() };
        assert_eq!(block_on(here.store.create_volume(&new)).unwrap_err().kind(), Kind::Storage);
        block_on(here.store.delete_snapshot(&damaged.id)).unwrap();
    }
    assert_eq!(here.snapshots(), [snapshot.clone()]);
    assert_eq!(here.snapshot(&good).unwrap().parent, Some(snapshot.id));
}

fn spoil_json(file: &Path, text: &str) {
    if file.extension().is_some_and(|extension| extension == "json") {
        fs::write(file, text).unwrap();
    }
}

#[test]
fn leftovers_are_what_nobody_uses() {
    let here = Here::new();
    let mut live = Other::start("create", &here.path(), "");
    let in_use: VolumeId = live.said().parse().unwrap();
    let baked = here.volume(Tags::from([("ebs-bake:volume".into(), "chef".into())]));
    fs::create_dir(here.path().join("staging/dead")).unwrap();
    fs::write(here.path().join("staging/dead/image"), "x").unwrap();
    let half_made = Leftover::HalfMade(here.path().join("staging/dead"));
    assert_eq!(block_on(here.store.leftovers()).unwrap(), [half_made.clone()]);
    live.kill();
    let restored = Leftover::Restored { volume: in_use, snapshot: "snap-0123456789abcdef0".into() };
    assert_eq!(block_on(here.store.leftovers()).unwrap(), [half_made.clone(), restored.clone()]);
    let swept = block_on(here.store.sweep()).unwrap();
    assert!(swept.iter().all(|(_, outcome)| outcome.is_ok()));
    assert_eq!(swept.into_iter().map(|(leftover, _)| leftover).collect::<Vec<_>>(), [half_made, restored]);
    assert_eq!(block_on(here.store.leftovers()).unwrap(), []);
    assert_eq!(here.volumes().into_iter().map(|volume| volume.id).collect::<Vec<_>>(), [baked]);
    assert_eq!(here.staged(), 0);
}

#[test]
fn the_order_of_snapshots_survives_a_clock_set_back() {
    let here = Here::new();
    let volume = here.volume(Tags::new());
    let first = here.snapshot(&volume).unwrap();
    let json = here.path().join("snapshots").join(first.id.as_str()).join("snapshot.json");
    let text = fs::read_to_string(&json).unwrap();
    fs::write(&json, text.replace(&first.started.to_string(), "2999-01-01T00:00:00Z")).unwrap();
    let second = here.snapshot(&volume).unwrap();
    let third = here.snapshot(&volume).unwrap();
    assert_eq!((second.parent.as_ref(), third.parent.as_ref()), (Some(&first.id), Some(&second.id)));
    assert_eq!(here.snapshots().into_iter().map(|snapshot| snapshot.id).collect::<Vec<_>>(), [first.id, second.id, third.id]);
}

#[test]
fn root_a_full_disk_is_told_and_leaves_nothing() {
    if !needs_root() {
        return;
    }
    let filesystem = tmpfs(10);
    let here = Here {
        store: LocalStore::open(filesystem.path().join("store")).unwrap(),
        dir: tempfile::tempdir_in(filesystem.path()).unwrap(),
    };
    let dir = filesystem.path().join("store");
    let volume = here.volume(Tags::new());
    let image = fs::OpenOptions::new().write(true).open(dir.join("volumes").join(volume.as_str()).join("image")).unwrap();
    image.write_all_at(&vec![1; 6 << 20], 0).unwrap();
    let error = here.snapshot(&volume).unwrap_err();
    assert_eq!(error.kind(), Kind::Storage);
    assert!(error.to_string().contains(dir.to_str().unwrap()) && error.to_string().contains("6 MiB"), "{error}");
    assert!(error.hint_text().unwrap().contains("4 MiB were free"), "{error:?}");
    assert_eq!(fs::read_dir(dir.join("staging")).unwrap().count(), 0);
    assert_eq!(here.snapshots(), []);
    image.set_len(3 << 20).unwrap();
    image.set_len(1 << 30).unwrap();
    let source = here.snapshot(&volume).unwrap();
    assert_eq!(source.changed_blocks, Some(6));
    image.write_all_at(&vec![1; 3 << 20], 8 << 20).unwrap();
    let new = NewVolume { size_gib: 1, source: Some(source.id), tags: Tags::new() };
    let error = block_on(here.store.create_volume(&new)).unwrap_err();
    assert!(error.to_string().contains("disk full under the local store"), "{error}");
    assert_eq!((here.volumes().len(), fs::read_dir(dir.join("staging")).unwrap().count()), (1, 0));
}

#[test]
fn root_an_attachment_dies_with_its_process() {
    if !needs_root() {
        return;
    }
    let here = Here::new();
    let id = here.volume(Tags::new());
    let mut other = Other::start("attach", &here.path(), id.as_str());
    let device = other.said();
    assert!(matches!(here.attachment(&id), Attachment::Here { device: seen, .. } if seen == device));
    other.kill();
    assert_eq!((here.attachment(&id), here.devices()), (Attachment::None, vec![]));
}

#[test]
fn root_an_attachment_that_was_kept_stays_until_it_is_detached() {
    if !needs_root() {
        return;
    }
    let here = Here::new();
    let id = here.volume(restored());
    let mut other = Other::start("persist", &here.path(), id.as_str());
    let device = other.said();
    other.finish();
    assert_eq!(block_on(LocalStore::open(here.path()).unwrap().sweep()).unwrap().len(), 0);
    assert_eq!(here.device(&id), device);
    here.detach(&id).unwrap();
    assert_eq!((here.attachment(&id), here.devices()), (Attachment::None, vec![]));
    assert_eq!(block_on(here.store.persist(&id)).unwrap_err().kind(), Kind::Storage);
}

#[test]
fn root_many_processes_attach_one_device() {
    if !needs_root() {
        return;
    }
    let here = Here::new();
    for _ in 0..5 {
        let id = here.volume(Tags::new());
        let mut others: Vec<Other> = (0..4).map(|_| Other::start("attach", &here.path(), id.as_str())).collect();
        let devices: Vec<String> = others.iter_mut().map(Other::said).collect();
        assert!(devices.iter().all(|device| *device == devices[0]), "{devices:?}");
        assert_eq!(here.devices().len(), 1);
        others.into_iter().for_each(Other::kill);
        assert_eq!(here.devices(), [] as [PathBuf; 0]);
    }
}

#[test]
fn root_detaching_leaves_the_volume_to_those_who_use_it() {
    if !needs_root() {
        return;
    }
    let here = Here::new();
    let id = here.volume(Tags::new());
    let device = here.device(&id);
    let mut waiting = Other::start("attach", &here.path(), id.as_str());
    assert_eq!(waiting.said(), device);
    here.detach(&id).unwrap();
    assert!(matches!(here.attachment(&id), Attachment::Here { device: seen, .. } if seen == device));
    fs::OpenOptions::new().write(true).open(&device).unwrap().write_all_at(&[1; 512], 0).unwrap();
    waiting.finish();
    assert_eq!(here.devices(), [] as [PathBuf; 0]);
    assert_eq!(here.content("volumes", id.as_str())[..512], [1; 512]);
}

#[test]
fn root_what_is_mounted_or_open_is_not_detached() {
    if !needs_root() {
        return;
    }
    let here = Here::new();
    let id = here.volume(Tags::new());
    let device = here.device(&id);
    let run = |command: &mut Command| assert!(command.output().unwrap().status.success(), "{command:?}");
    run(Command::new("mkfs.ext4").args(["-q", &device, "50M"]));
    let mount_point = tempfile::tempdir().unwrap();
    run(Command::new("mount").arg(&device).arg(mount_point.path()));
    let refused = here.detach(&id);
    let still = here.attachment(&id);
    run(Command::new("umount").arg(mount_point.path()));
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), Kind::Device);
    assert!(error.to_string().contains(&device), "{error}");
    assert!(matches!(still, Attachment::Here { .. }));
    // Refused means that nothing changed: it is attached still.
    assert_eq!(here.devices().len(), 1);
    let open = fs::File::open(&device).unwrap();
    assert_eq!(here.detach(&id).unwrap_err().kind(), Kind::Device);
    drop(open);
    assert_eq!(here.devices(), [] as [PathBuf; 0], "the kernel released it when it was closed");
}

#[test]
fn root_devices_are_found_without_names_in_dev() {
    if !needs_root() {
        return;
    }
    let here = Here::new();
    let id = here.volume(Tags::new());
    let mut other = Other::start_without_dev("attach and detach", &here.path(), id.as_str());
    let device = other.said();
    assert_eq!(here.device(&id), device);
    here.detach(&id).unwrap();
    other.finish_saying("detached");
    assert_eq!((here.devices(), here.staged()), (vec![], 0));
}

#[test]
fn root_killed_at_any_moment_the_store_is_whole() {
    if !needs_root() {
        return;
    }
    let here = Here::new();
    let volume = here.filled(12);
    let source = here.snapshot(&volume).unwrap();
    for (role, id) in [("snapshots", volume.as_str()), ("volumes", source.id.as_str())] {
        let mut other = Other::start(role, &here.path(), id);
        other.said();
        let start = Instant::now();
        other.said();
        let once = start.elapsed();
        other.kill();
        for step in 0..20 {
            let mut other = Other::start(role, &here.path(), id);
            other.said();
            std::thread::sleep(once.mul_f64(f64::from(step) / 20.0).min(Duration::from_secs(2)));
            other.kill();
            assert_eq!(here.devices(), [] as [PathBuf; 0]);
            assert!(here.volumes().iter().all(|volume| volume.state == VolumeState::Ready));
            assert!(here.snapshots().iter().all(|snapshot| snapshot.state == SnapshotState::Completed));
        }
    }
    let content = here.content("volumes", volume.as_str());
    for snapshot in here.snapshots() {
        assert!(here.content("snapshots", snapshot.id.as_str()) == content, "{snapshot:?}");
        block_on(here.store.delete_snapshot(&snapshot.id)).unwrap();
    }
    // What the last one left half made goes with the next use.
    here.snapshot(&volume).unwrap();
    assert_eq!(here.staged(), 0);
}
