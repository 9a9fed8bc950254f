//! The local block store's attachments: whose they are, and dying in the midst of anything.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use ebs_bake::error::Kind;
use ebs_bake::storage::local::LocalStore;
use ebs_bake::storage::{Attachment, BlockStorage, SnapshotState, Tags, VolumeState};

mod support {
    pub mod child;
    pub mod store;
}

use support::child::{Other, restored};
use support::store::{Here, block_on, needs_root};

/// Not a test: what the other processes of these tests run.
#[test]
fn played_by_a_child() {
    support::child::play();
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
