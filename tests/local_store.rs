//! The local block store's directory: what it accepts, what it survives, what it says about damage.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use ebs_bake::error::Kind;
use ebs_bake::storage::local::{Leftover, LocalStore};
use ebs_bake::storage::{BlockStorage, NewVolume, SnapshotState, Tags, VolumeId, VolumeState};

mod support {
    pub mod child;
    pub mod store;
}

use support::child::Other;
use support::store::{Here, block_on, needs_root, tmpfs};

/// Not a test: what the other processes of these tests run.
#[test]
fn played_by_a_child() {
    support::child::play();
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
    type Files<'a> = &'a [(&'a str, &'a str)];
    let long = "9".repeat(1000);
    let cases: [(Files, &str); 4] = [
        (&[("precious", "data")], "neither empty nor a local store"),
        (&[("format", "ebs-bake local store 2\n"), ("volumes", "")], "format 2"),
        (&[("format", "ext4\n")], "is not one of ebs-bake"),
        (&[("format", &long)], "is not one of ebs-bake"),
    ];
    for (files, reason) in cases {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(file, text)| fs::write(dir.path().join(file), text).unwrap());
        let error = LocalStore::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{reason}");
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), files.len(), "{reason}");
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
    let spoilers: [&dyn Fn(&Path); 9] = [
        &|dir| {
            let json = json_of(dir);
            fs::remove_file(&json).unwrap();
            nix::unistd::mkfifo(&json, nix::sys::stat::Mode::S_IRWXU).unwrap();
        },
        &|dir| {
            fs::rename(json_of(dir), dir.join("elsewhere")).unwrap();
            symlink("elsewhere", json_of(dir)).unwrap();
        },
        &|dir| fs::remove_file(dir.join("image")).unwrap(),
        &|dir| fs::OpenOptions::new().write(true).open(dir.join("image")).unwrap().set_len(1 << 20).unwrap(),
        &|dir| fs::write(dir.join("image"), "").unwrap(),
        &|dir| {
            fs::remove_file(dir.join("image")).unwrap();
            nix::unistd::mkfifo(&dir.join("image"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        },
        &|dir| {
            fs::rename(dir.join("image"), dir.join("elsewhere")).unwrap();
            symlink("elsewhere", dir.join("image")).unwrap();
        },
        &|dir| fs::write(json_of(dir), "{").unwrap(),
        &|dir| fs::write(json_of(dir), " ".repeat(1 << 20)).unwrap(),
    ];
    for (number, spoil) in spoilers.iter().enumerate() {
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
        let new = NewVolume { size_gib: 1, source: Some(damaged.id.clone()), tags: Tags::new(), token: None };
        assert_eq!(block_on(here.store.create_volume(&new)).unwrap_err().kind(), Kind::Storage);
        block_on(here.store.delete_snapshot(&damaged.id)).unwrap();
    }
    assert_eq!(here.snapshots(), std::slice::from_ref(&snapshot));
    assert_eq!(here.snapshot(&good).unwrap().parent, Some(snapshot.id));
}

/// The record in the directory of an entry.
fn json_of(dir: &Path) -> PathBuf {
    dir.join(if dir.parent().unwrap().ends_with("volumes") { "volume.json" } else { "snapshot.json" })
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
    assert_eq!(block_on(here.store.leftovers()).unwrap(), std::slice::from_ref(&half_made));
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
    let new = NewVolume { size_gib: 1, source: Some(source.id), tags: Tags::new(), token: None };
    let error = block_on(here.store.create_volume(&new)).unwrap_err();
    assert!(error.to_string().contains("disk full under the local store"), "{error}");
    assert_eq!((here.volumes().len(), fs::read_dir(dir.join("staging")).unwrap().count()), (1, 0));
}
