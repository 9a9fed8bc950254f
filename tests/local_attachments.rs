//! The local block store's attachments: whose they are, and dying in the midst of anything.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::Command;

use ebs_bake::error::Kind;
use ebs_bake::storage::local::LocalStore;
use ebs_bake::storage::{Attachment, BlockStorage, SnapshotState, Tags, VolumeState};

mod support {
    pub mod child;
    pub mod kill;
    pub mod store;
}

use support::child::{Other, command, restored};
use support::kill::run_until_change;
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
    assert!(here.is_released());
    assert_eq!(here.attachment(&id), Attachment::None);
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
    assert_eq!(here.devices().len(), 1, "it outlives the process");
    assert_eq!(here.device(&id), device);
    here.detach(&id).unwrap();
    assert!(here.is_released());
    assert_eq!(here.attachment(&id), Attachment::None);
    assert_eq!(block_on(here.store.keep_attached(&id)).unwrap_err().kind(), Kind::Storage);
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
        assert!(here.is_released());
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
    // As if the other had mounted it already.
    let claimed = fs::OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&device).unwrap();
    here.detach(&id).unwrap();
    drop(claimed);
    assert!(matches!(here.attachment(&id), Attachment::Here { device: seen, .. } if seen == device));
    fs::OpenOptions::new().write(true).open(&device).unwrap().write_all_at(&[1; 512], 0).unwrap();
    waiting.finish();
    assert!(here.is_released());
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
    assert!(here.is_released(), "the kernel released it when it was closed");
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
    assert!(here.is_released());
    assert_eq!(here.staged(), 0);
}

#[test]
fn root_killed_before_any_of_its_changes_the_store_is_whole() {
    if !needs_root() {
        return;
    }
    let mut calls = Vec::new();
    loop {
        let here = Here::new();
        let killed = run_until_change(command("everything", &here.path(), ""), calls.len());
        let told = format!("killed at change {} (system call {killed:?}, after {calls:?})", calls.len());
        assert!(here.is_released(), "{told}");
        let (volumes, snapshots) = (here.volumes(), here.snapshots());
        assert!(volumes.iter().all(|volume| volume.state == VolumeState::Ready), "{told}: {volumes:?}");
        for snapshot in &snapshots {
            assert_eq!(snapshot.state, SnapshotState::Completed, "{told}");
            let content = here.content("snapshots", snapshot.id.as_str());
            assert!(content[4096..12288] == [7; 8192], "{told}: {snapshot:?} lacks what was written before it");
        }
        // What was begun is finished by doing it again, and nothing stays behind.
        let id = volumes.first().map_or_else(|| here.volume(Tags::new()), |volume| volume.id.clone());
        here.device(&id);
        here.snapshot(&id).unwrap();
        here.detach(&id).unwrap();
        assert_eq!((here.snapshots().len(), here.staged()), (snapshots.len() + 1, 0), "{told}");
        let Some(call) = killed else { break };
        calls.push(call);
    }
    assert!(calls.len() > 50, "only {} changes were seen: {calls:?}", calls.len());
}
