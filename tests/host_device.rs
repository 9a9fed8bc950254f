//! Devices, locks and claims, on real loop devices.

#![allow(clippy::unwrap_used, reason = "test helpers")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use ebs_bake::cancel::Cancel;
use ebs_bake::error::Kind;
use ebs_bake::host::device::{Device, Locator, SysFs};
use ebs_bake::host::lock::{DeviceLock, Exclusive};
use support::host::{Helper, Loop, MIB, Node, container_dev, mount_directory, never, private_mounts, run, wait_until_unused};
use support::needs_root;

const HELPER: &str = "EBS_BAKE_TEST_LOCK";

fn try_lock(device: &Device) -> ebs_bake::error::Result<DeviceLock> {
    DeviceLock::acquire(device, Duration::ZERO, &never(), |_, _| {})
}

#[test]
fn root_a_loop_device_is_found_by_its_backing_file() {
    if !needs_root() {
        return;
    }
    let mut disk = Loop::new(8 * MIB);
    let other = Loop::new(8 * MIB);
    assert_eq!(disk.device.size_bytes, 8 * MIB);
    assert_ne!(disk.device.name, other.device.name);
    let sys = SysFs::new("/sys");
    sys.verify(&disk.device, &disk.locator).unwrap();
    let error = sys.verify(&other.device, &disk.locator).unwrap_err();
    assert!(error.to_string().contains(&disk.device.name), "{error}");
    disk.grow(16 * MIB);
    assert_eq!(disk.device.size_bytes, 16 * MIB);

    let (device, locator) = (disk.device.clone(), disk.locator.clone());
    disk.detach();
    let error = sys.verify(&device, &locator).unwrap_err();
    assert!(error.to_string().contains("attached no more"), "{error}");
}

#[test]
fn root_another_inode_or_filesystem_is_not_found() {
    if !needs_root() {
        return;
    }
    let disk = Loop::new(MIB);
    let Locator::LoopBacking { device, inode } = disk.locator else { panic!("not a loop device") };
    let sys = SysFs::new("/sys");
    assert_eq!(sys.find(&Locator::LoopBacking { device, inode: inode + (1 << 40) }).unwrap(), None);
    assert_eq!(sys.find(&Locator::LoopBacking { device: device + 1, inode }).unwrap(), None);
}

#[test]
fn root_a_file_attached_twice_and_an_empty_one_are_not_taken() {
    if !needs_root() {
        return;
    }
    let mut disk = Loop::new(MIB);
    let again = Node::attach(&disk.image);
    let error = SysFs::new("/sys").find(&disk.locator).unwrap_err();
    assert_eq!(error.kind(), Kind::Device);
    assert!(error.to_string().contains("both are the volume"), "{error}");
    again.detach();

    disk.image.set_len(0).unwrap();
    disk.reread_size();
    assert_eq!(SysFs::new("/sys").find(&disk.locator).unwrap(), None, "a size of zero means not yet");
    disk.image.set_len(MIB).unwrap();
    disk.grow(MIB);
}

#[test]
fn root_a_missing_node_is_made_privately_and_removed() {
    if !needs_root() {
        return;
    }
    let disk = Loop::new(MIB);
    disk.write(0, b"right device");
    container_dev();
    let node = disk.device.node().unwrap();
    assert_ne!(node.path(), std::path::Path::new("/dev").join(&disk.device.name));
    let mut bytes = [0; 12];
    std::os::unix::fs::FileExt::read_exact_at(&node.open(false).unwrap(), &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"right device");
    let path = node.path().to_owned();
    drop(node);
    assert!(!path.exists() && !path.parent().unwrap().exists());

    // A node of that name that is something else is not used either.
    fs::write(std::path::Path::new("/dev").join(&disk.device.name), "").unwrap();
    disk.device.node().unwrap().open(false).unwrap();
}

/// Not a test of its own: the process that holds the lock in others.
#[test]
fn root_helper_holds_the_lock() {
    let Some(value) = std::env::var_os(HELPER) else { return };
    let value = value.to_str().unwrap();
    let (container, numbers) = value.split_once(' ').unwrap();
    let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
    if container == "container" {
        container_dev();
    }
    let locator = Locator::LoopBacking { device: numbers[0], inode: numbers[1] };
    let device = SysFs::new("/sys").find(&locator).unwrap().unwrap();
    let _lock = try_lock(&device).unwrap();
    // The parent waits for this line on standard output.
    use std::io::Write;
    writeln!(std::io::stdout(), "ready").unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

fn holder(disk: &Loop, place: &str) -> Helper {
    let Locator::LoopBacking { device, inode } = disk.locator else { panic!("not a loop device") };
    Helper::test("root_helper_holds_the_lock", HELPER, &format!("{place} {device} {inode}")).0
}

#[test]
fn root_the_lock_excludes_other_processes_until_they_are_killed() {
    if !needs_root() {
        return;
    }
    let disk = Loop::new(MIB);
    for place in ["host", "container"] {
        let mut holder = holder(&disk, place);
        let error = try_lock(&disk.device).unwrap_err();
        assert_eq!(error.kind(), Kind::Contended);
        assert!(error.to_string().contains(&format!("pid {} (", holder.pid())), "{place}: {error}");
        holder.kill();
        try_lock(&disk.device).unwrap();
    }
}

#[test]
fn root_a_container_without_a_devtmpfs_takes_the_same_lock() {
    if !needs_root() {
        return;
    }
    let disk = Loop::new(MIB);
    let lock = try_lock(&disk.device).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            container_dev();
            assert_eq!(try_lock(&disk.device).unwrap_err().kind(), Kind::Contended);
        });
    });
    drop(lock);
    try_lock(&disk.device).unwrap();
}

#[test]
fn root_waiting_for_the_lock_ends_when_it_is_free() {
    if !needs_root() {
        return;
    }
    let disk = Loop::new(MIB);
    let mut lock = Some(try_lock(&disk.device).unwrap());
    let mut holders = Vec::new();
    let taken = DeviceLock::acquire(&disk.device, Duration::from_secs(60), &never(), |_, holder| {
        holders.push(holder.unwrap());
        lock = None;
    });
    taken.unwrap();
    assert_eq!(holders.len(), 1);
    assert!(holders[0].starts_with(&format!("pid {} (", std::process::id())), "{holders:?}");
}

#[test]
fn root_waiting_for_the_lock_can_be_cancelled() {
    if !needs_root() {
        return;
    }
    let disk = Loop::new(MIB);
    let _lock = try_lock(&disk.device).unwrap();
    let cancel = Cancel::new();
    let began = Instant::now();
    let error =
        DeviceLock::acquire(&disk.device, Duration::from_secs(600), &cancel, |_, _| cancel.cancel(libc::SIGINT)).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted(libc::SIGINT));
    assert!(began.elapsed() < Duration::from_secs(300), "it did not wait for the time-out");
}

#[test]
fn root_a_mount_in_another_namespace_is_seen_by_the_claim() {
    if !needs_root() {
        return;
    }
    let disk = Loop::new(16 * MIB);
    run("mkfs.ext4", &["-q", disk.device.node().unwrap().path().to_str().unwrap()]);
    Exclusive::probe(&disk.device).unwrap();
    let at = mount_directory(&disk);
    let script = "exec unshare -m sh -c 'mount \"$1\" \"$2\" && echo ready && exec sleep 600' x \"$1\" \"$2\"";
    let (mut helper, _) = Helper::shell(script, &[disk.device.node().unwrap().path(), &at]);
    let error = Exclusive::probe(&disk.device).unwrap_err();
    assert_eq!(error.kind(), Kind::Device);
    let expected = format!("mounted at {} (seen by pid {}", at.display(), helper.pid());
    assert!(error.to_string().contains(&expected), "{error}");
    helper.kill();

    wait_until_unused(&disk);
}

#[test]
fn root_a_claim_keeps_others_from_mounting() {
    if !needs_root() {
        return;
    }
    let disk = Loop::new(16 * MIB);
    let node = disk.device.node().unwrap();
    run("mkfs.ext4", &["-q", node.path().to_str().unwrap()]);
    let claim = Exclusive::open(&disk.device).unwrap();
    assert!(Exclusive::probe(&disk.device).is_err());
    let at = mount_directory(&disk);
    private_mounts();
    let mount = || std::process::Command::new("mount").arg(node.path()).arg(&at).output().unwrap().status.success();
    assert!(!mount());
    drop(claim);
    assert!(mount());
    run("umount", &[at.to_str().unwrap()]);
}
