//! Making, examining, checking, growing and mounting filesystems, on real loop devices.

#![allow(clippy::unwrap_used, reason = "test helpers")]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;

use ebs_bake::error::Kind;
use ebs_bake::host::capabilities::{Capability, Effective};
use ebs_bake::host::filesystem::{self, Checked, Growth, Probe, State, Superblock};
use ebs_bake::host::lock::Exclusive;
use ebs_bake::host::mount::{Mount, MountPoint, Options, enter_private_namespace};
use support::host::{Helper, Loop, MIB, mount_directory, never, private_mounts, run};
use support::needs_root;

const READ_WRITE: Options = Options { read_only: false };
const READ_ONLY: Options = Options { read_only: true };

fn probe(disk: &Loop) -> Probe {
    let node = disk.device.node().unwrap();
    filesystem::probe(&node.open(false).unwrap(), disk.device.size_bytes).unwrap()
}

fn superblock(disk: &Loop) -> Superblock {
    Superblock::read(&disk.device.node().unwrap().open(false).unwrap()).unwrap()
}

/// A disk of 256 MiB with a filesystem of 32 MiB.
fn formatted() -> Loop {
    let disk = Loop::new(256 * MIB);
    filesystem::make(&disk.device, "chef", 32 * MIB, &never()).unwrap();
    disk
}

fn mount_as(disk: &Loop, fstype: &str, options: Options) -> Mount {
    let point = MountPoint::prepare(&mount_directory(disk)).unwrap();
    Mount::new(&disk.device.node().unwrap(), point, fstype, options).unwrap()
}

fn mount(disk: &Loop, options: Options) -> Mount {
    mount_as(disk, "ext4", options)
}

/// Takes the image as it is while mounted: what a killed host leaves.
fn pull_the_plug(disk: &Loop) -> Loop {
    let copy = Loop::new(disk.device.size_bytes);
    let mut from = File::open(disk.directory.path().join("image")).unwrap();
    std::io::copy(&mut from, &mut &copy.image).unwrap();
    // What was read through the device before is stale.
    run("blockdev", &["--flushbufs", copy.device.node().unwrap().path().to_str().unwrap()]);
    copy
}

fn debugfs(disk: &Loop, command: &str) {
    run("debugfs", &["-w", "-R", command, disk.device.node().unwrap().path().to_str().unwrap()]);
}

#[test]
fn root_a_made_filesystem_is_what_was_asked_for() {
    if !needs_root() {
        return;
    }
    let disk = Loop::new(256 * MIB);
    assert_eq!(probe(&disk), Probe::Blank);
    filesystem::make(&disk.device, "a-name-that-is-too-long", 64 * MIB, &never()).unwrap();
    let Probe::Ext(it) = probe(&disk) else { panic!("not ext4") };
    assert_eq!((it.label.as_str(), it.size_bytes()), ("a-name-that-is-t", 64 * MIB));
    assert!(it.clean && !it.has_journal && it.inodes >= 16_000, "{it:?}");
    assert_eq!(filesystem::check(&disk.device, &never()).unwrap(), Checked::Clean);
    assert!(filesystem::make(&disk.device, "chef", 257 * MIB, &never()).is_err(), "larger than the device");
    let whole = Loop::new(64 * MIB);
    filesystem::make(&whole.device, "chef", 64 * MIB, &never()).unwrap();
}

#[test]
fn root_features_that_old_kernels_lack_are_never_on() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    let node = disk.device.node().unwrap();
    let output = std::process::Command::new("dumpe2fs").arg("-h").arg(node.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let features = text.lines().find_map(|line| line.strip_prefix("Filesystem features:")).unwrap();
    let mut features: Vec<_> = features.split_whitespace().collect();
    features.sort_unstable();
    let expected = "dir_index dir_nlink ext_attr extent extra_isize filetype flex_bg huge_file large_file metadata_csum \
                    resize_inode sparse_super";
    assert_eq!(features.join(" "), expected);
}

#[test]
fn root_a_mount_has_its_options_and_unmounting_leaves_it_clean() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    private_mounts();
    let mounted = mount(&disk, READ_WRITE);
    fs::write(mounted.path().join("file"), "content").unwrap();
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(mounted.path().to_str().unwrap())).unwrap();
    assert!(line.contains("rw,nosuid,nodev,noatime"), "{line}");
    assert!(!superblock(&disk).clean, "mounted read-write");
    mounted.unmount().unwrap();
    assert!(superblock(&disk).clean);

    let mounted = mount(&disk, READ_ONLY);
    assert_eq!(fs::read(mounted.path().join("file")).unwrap(), b"content");
    assert!(fs::write(mounted.path().join("file"), "other").is_err());
    let at = mounted.path().to_owned();
    drop(mounted);
    assert_eq!(fs::read_dir(at).unwrap().count(), 0, "dropping unmounts");
}

#[test]
fn root_a_mount_can_be_left_and_adopted() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    private_mounts();
    let point = MountPoint::prepare(&disk.directory.path().join("made/for/it")).unwrap();
    let at = Mount::new(&disk.device.node().unwrap(), point, "ext4", READ_ONLY).unwrap().leave();
    assert!(at.join("lost+found").is_dir());
    assert!(Mount::adopt(&disk.device, &at.join("lost+found")).is_err());
    assert!(Mount::adopt(&formatted().device, &at).is_err());
    Mount::adopt(&disk.device, &at).unwrap().unmount().unwrap();
    assert!(at.is_dir() && !at.join("lost+found").exists());
}

#[test]
fn root_directories_made_for_a_mount_go_with_it() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    private_mounts();
    let at = disk.directory.path().join("code/chef");
    let point = MountPoint::prepare(&at).unwrap();
    let mounted = Mount::new(&disk.device.node().unwrap(), point, "ext4", READ_WRITE).unwrap();
    let error = MountPoint::prepare(&at).unwrap_err();
    assert!(error.to_string().contains("mounted on it"), "{error}");
    mounted.unmount().unwrap();
    assert!(!disk.directory.path().join("code").exists());

    let point = MountPoint::prepare(&at).unwrap();
    let error = Mount::new(&disk.device.node().unwrap(), point, "xfs", READ_WRITE).unwrap_err();
    assert_eq!(error.kind(), Kind::Device);
    assert!(!disk.directory.path().join("code").exists(), "nor is anything left of a mount that failed");
}

#[test]
fn root_a_busy_filesystem_is_not_unmounted_and_the_culprit_is_named() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    private_mounts();
    let uses: [(&str, &str); 3] = [
        ("cd \"$1\" && echo ready && exec sleep 600", "sleep"),
        ("exec 3> \"$1/open\" && echo ready && exec sleep 600", "open"),
        ("cp /bin/sleep \"$1/program\" && echo ready && exec \"$1/program\" 600", "program"),
    ];
    for (script, name) in uses {
        let mounted = mount(&disk, READ_WRITE);
        let at = mounted.path().to_owned();
        let (mut helper, _) = Helper::shell(script, &[&at]);
        let error = mounted.unmount().unwrap_err();
        assert_eq!(error.kind(), Kind::Device);
        assert!(error.to_string().contains(&format!("pid {} (", helper.pid())), "{name}: {error}");
        assert!(at.join("lost+found").exists(), "still mounted");
        helper.kill();
        Mount::adopt(&disk.device, &at).unwrap().unmount().unwrap();
    }
    let mounted = mount(&disk, READ_WRITE);
    let inner = mounted.path().join("lost+found");
    run("mount", &["-t", "tmpfs", "none", inner.to_str().unwrap()]);
    let at = mounted.path().to_owned();
    let error = mounted.unmount().unwrap_err();
    assert!(error.to_string().contains(&format!("{} is mounted in it", inner.display())), "{error}");
    run("umount", &[inner.to_str().unwrap()]);
    Mount::adopt(&disk.device, &at).unwrap().unmount().unwrap();
}

#[test]
fn root_a_process_that_ends_in_time_does_not_fail_the_unmount() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    private_mounts();
    let mounted = mount(&disk, READ_WRITE);
    let (_helper, _) = Helper::shell("exec 3> \"$1/open\" && echo ready && exec sleep 0.3", &[mounted.path()]);
    mounted.unmount().unwrap();
    assert!(superblock(&disk).clean);
}

#[test]
fn root_the_stamp_tells_whether_somebody_else_wrote() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    private_mounts();
    let at = mount_directory(&disk);
    let count = || superblock(&disk).mount_count;
    let ours = mount(&disk, READ_WRITE);
    let current = superblock(&disk).stamp();
    ours.unmount().unwrap();
    assert_eq!((count(), superblock(&disk).stamp()), (1, current.clone()), "unmounting does not change it");
    mount(&disk, READ_ONLY).unmount().unwrap();
    assert_eq!(superblock(&disk).stamp(), current, "nor does reading");
    assert_eq!(filesystem::check(&disk.device, &never()).unwrap(), Checked::Clean);
    assert_eq!(superblock(&disk).stamp(), current, "nor does a check that finds nothing");

    mount(&disk, READ_WRITE).unmount().unwrap();
    assert_ne!(superblock(&disk).stamp(), current, "another read-write mount does");
    assert_eq!(count(), 2);
    let reading = mount(&disk, READ_ONLY);
    run("mount", &["-o", "remount,rw", at.to_str().unwrap()]);
    reading.unmount().unwrap();
    assert_eq!(count(), 3, "and so does a remount");

    debugfs(&disk, "set_super_value state 0");
    let before = superblock(&disk).stamp();
    assert_eq!(filesystem::check(&disk.device, &never()).unwrap(), Checked::Repaired);
    assert_ne!(superblock(&disk).stamp(), before, "and a check that has something to do");
    assert_eq!(count(), 0);
}

#[test]
fn root_a_filesystem_that_was_not_unmounted_is_found_and_repaired() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    private_mounts();
    let mounted = mount(&disk, READ_WRITE);
    for number in 0..200 {
        fs::write(mounted.path().join(format!("file{number}")), "x".repeat(number * 10)).unwrap();
    }
    nix::unistd::syncfs(File::open(mounted.path()).unwrap()).unwrap();
    let crashed = pull_the_plug(&disk);
    mounted.unmount().unwrap();

    assert!(!superblock(&crashed).clean);
    assert_eq!(filesystem::check(&crashed.device, &never()).unwrap(), Checked::Repaired);
    assert!(superblock(&crashed).clean);
    let mounted = mount(&crashed, READ_WRITE);
    assert_eq!(fs::read(mounted.path().join("file199")).unwrap().len(), 1990);
    mounted.unmount().unwrap();
}

#[test]
fn root_what_cannot_be_repaired_is_broken() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    private_mounts();
    let mounted = mount(&disk, READ_WRITE);
    fs::create_dir(mounted.path().join("directory")).unwrap();
    fs::write(mounted.path().join("directory/file"), "x").unwrap();
    mounted.unmount().unwrap();
    // A root directory that is none cannot be set right without asking.
    debugfs(&disk, "set_inode_field <2> mode 0100644");
    debugfs(&disk, "set_super_value state 0");
    let Checked::Broken(tail) = filesystem::check(&disk.device, &never()).unwrap() else { panic!("not broken") };
    assert!(tail.contains("UNEXPECTED INCONSISTENCY"), "{tail}");

    let disk = formatted();
    // A superblock that no longer makes sense, and none of its copies.
    for offset in (0..32).map(|number| number * MIB) {
        disk.write(offset, &vec![0xff; MIB as usize]);
    }
    assert!(matches!(filesystem::check(&disk.device, &never()).unwrap(), Checked::Broken(_)));
    assert_eq!(probe(&disk), Probe::Unknown);
}

#[test]
fn root_a_mounted_filesystem_is_not_called_broken_by_a_check() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    private_mounts();
    let mounted = mount(&disk, READ_WRITE);
    let error = filesystem::check(&disk.device, &never()).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    mounted.unmount().unwrap();
}

#[test]
fn root_a_filesystem_grows_unmounted_without_a_full_check() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    private_mounts();
    let mounted = mount(&disk, READ_WRITE);
    fs::write(mounted.path().join("file"), "content").unwrap();
    let before = filesystem::space(mounted.path()).unwrap();
    mounted.unmount().unwrap();
    let stamp = superblock(&disk).stamp();

    let grow = |to| filesystem::grow(&disk.device, State::Unmounted, to, &never());
    assert_eq!(grow(200 * MIB).unwrap(), Growth::Grown);
    assert_eq!(superblock(&disk).size_bytes(), 200 * MIB);
    assert_eq!(superblock(&disk).stamp(), stamp, "what was known about its content still is");
    assert_eq!(grow(200 * MIB).unwrap(), Growth::Unchanged);
    assert_eq!(grow(100 * MIB).unwrap(), Growth::Unchanged, "it never shrinks");
    assert!(grow(257 * MIB).unwrap_err().hint_text().unwrap().contains("--volume-size"));

    let mounted = mount(&disk, READ_WRITE);
    let after = filesystem::space(mounted.path()).unwrap();
    assert!(after.free_bytes > before.free_bytes + 150 * MIB, "{before:?} {after:?}");
    assert!(after.free_inodes > before.free_inodes + 30_000, "{before:?} {after:?}");
    assert_eq!(fs::read(mounted.path().join("file")).unwrap(), b"content");
    fs::write(mounted.path().join("large"), vec![1; 150 << 20]).unwrap();
    mounted.unmount().unwrap();
    run("e2fsck", &["-fn", disk.device.node().unwrap().path().to_str().unwrap()]);
}

#[test]
fn root_a_filesystem_that_is_not_clean_is_not_grown_unmounted() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    debugfs(&disk, "set_super_value state 0");
    let error = filesystem::grow(&disk.device, State::Unmounted, 64 * MIB, &never()).unwrap_err();
    assert!(error.to_string().contains("must be checked"), "{error}");
}

#[test]
fn root_a_mounted_filesystem_grows_or_says_that_it_may_not() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    private_mounts();
    let mounted = mount(&disk, READ_WRITE);
    let grown = filesystem::grow(&disk.device, State::Mounted(mounted.path()), 128 * MIB, &never()).unwrap();
    let permitted = Effective::current().unwrap().has(Capability::SysResource);
    assert_eq!(grown, if permitted { Growth::Grown } else { Growth::NeedsUnmount });
    let expected = if permitted { 128 * MIB } else { 32 * MIB };
    mounted.unmount().unwrap();
    assert_eq!(superblock(&disk).size_bytes(), expected);
}

#[test]
fn root_other_filesystems_are_recognised_and_mounted_when_their_tools_are_here() {
    if !needs_root() {
        return;
    }
    let makers: [(&str, &[&str], &str); 2] = [("mkfs.xfs", &["-q", "-f"], "xfs"), ("mkfs.btrfs", &["-q", "-f"], "btrfs")];
    private_mounts();
    for (program, arguments, fstype) in makers {
        if ebs_bake::host::command::find(program).is_none() {
            continue;
        }
        let disk = Loop::new(512 * MIB);
        let node: PathBuf = disk.device.node().unwrap().path().into();
        run(program, &[arguments, &[node.to_str().unwrap()]].concat());
        assert_eq!(probe(&disk), Probe::Mountable(fstype));
        for options in [READ_WRITE, READ_ONLY] {
            let mounted = mount_as(&disk, fstype, options);
            assert_eq!(fs::write(mounted.path().join("file"), "x").is_ok(), !options.read_only);
            mounted.unmount().unwrap();
        }
    }
}

#[test]
fn root_swap_space_is_refused_as_foreign() {
    if !needs_root() {
        return;
    }
    let disk = Loop::new(16 * MIB);
    run("mkswap", &[disk.device.node().unwrap().path().to_str().unwrap()]);
    assert_eq!(probe(&disk), Probe::Foreign("swap space"));
}

#[test]
fn root_a_read_error_is_never_taken_for_a_blank_device() {
    if !needs_root() {
        return;
    }
    let disk = Loop::new(16 * MIB);
    let node = disk.device.node().unwrap();
    let file = node.open(false).unwrap();
    // The backing file loses its end: the kernel answers reads there with an error.
    disk.image.set_len(MIB).unwrap();
    let error = filesystem::probe(&file, disk.device.size_bytes).unwrap_err();
    assert_eq!(error.kind(), Kind::Device);
    disk.image.set_len(16 * MIB).unwrap();
}

#[test]
fn root_a_read_only_mount_writes_nothing_even_to_a_dirty_journal() {
    if !needs_root() {
        return;
    }
    let disk = Loop::new(64 * MIB);
    run("mkfs.ext4", &["-q", "-b", "4096", disk.device.node().unwrap().path().to_str().unwrap()]);
    private_mounts();
    let mounted = mount(&disk, READ_WRITE);
    fs::write(mounted.path().join("file"), "content").unwrap();
    nix::unistd::syncfs(File::open(mounted.path()).unwrap()).unwrap();
    let crashed = pull_the_plug(&disk);
    mounted.unmount().unwrap();
    assert!(superblock(&crashed).needs_recovery);
    let bytes = || fs::read(crashed.directory.path().join("image")).unwrap();
    let before = bytes();
    mount(&crashed, READ_ONLY).unmount().unwrap();
    assert!(bytes() == before, "the image is the same, byte for byte");
}

/// Runs `child` in a process with one thread; it ends before this returns.
fn in_a_process_of_its_own(child: impl FnOnce(), meanwhile: impl FnOnce()) {
    let (mut ready, mut tell_ready) = std::io::pipe().unwrap();
    let (go_on, tell_go_on) = std::io::pipe().unwrap();
    // SAFETY: glibc keeps its allocator usable in the child, which ends with _exit and runs no destructor of the parent's.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            drop(tell_go_on);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            let _ = tell_ready.write_all(b"x");
            let _ = (&go_on).read(&mut [0]);
            // SAFETY: ends this process.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            let reap = Reap(child);
            drop(tell_ready);
            ready.read_exact(&mut [0]).unwrap();
            meanwhile();
            drop(tell_go_on);
            assert_eq!(reap.status(), 0, "the child panicked");
        }
    }
}

struct Reap(nix::unistd::Pid);

impl Reap {
    fn status(self) -> i32 {
        let status = nix::sys::wait::waitpid(self.0, None).unwrap();
        std::mem::forget(self);
        let nix::sys::wait::WaitStatus::Exited(_, code) = status else { panic!("{status:?}") };
        code
    }
}

impl Drop for Reap {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.0, None);
    }
}

#[test]
fn root_mounts_of_a_private_namespace_stay_there_and_the_hosts_unmounts_arrive() {
    if !needs_root() {
        return;
    }
    let disk = formatted();
    private_mounts();
    let host = disk.directory.path().join("host");
    fs::create_dir(&host).unwrap();
    let host = host.to_str().unwrap();
    run("mount", &["-t", "tmpfs", "none", host]);
    run("mount", &["--make-shared", host]);
    let inner = PathBuf::from(host).join("inner");
    let (taken_away, at) = (PathBuf::from(host).join("taken-away"), mount_directory(&disk));
    for directory in [&inner, &taken_away] {
        fs::create_dir(directory).unwrap();
    }
    run("mount", &["-t", "tmpfs", "none", taken_away.to_str().unwrap()]);
    let mountinfo = || fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let child = || {
        enter_private_namespace().unwrap();
        let point = MountPoint::prepare(&inner).unwrap();
        std::mem::forget(Mount::new(&disk.device.node().unwrap(), point, "ext4", READ_WRITE).unwrap());
        assert!(mountinfo().contains(inner.to_str().unwrap()));
    };
    in_a_process_of_its_own(child, || {
        assert!(!mountinfo().contains(inner.to_str().unwrap()), "the host does not see it");
        run("umount", &[taken_away.to_str().unwrap()]);
    });
    // The child ended without unmounting, as if it had been killed.
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    wait_until_unused(&disk);
}

/// A namespace ends with its last process; the kernel may take a moment for its mounts.
fn wait_until_unused(disk: &Loop) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while let Err(error) = Exclusive::probe(&disk.device) {
        assert!(std::time::Instant::now() < deadline, "{error}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn root_a_namespace_of_our_own_is_refused_once_there_are_threads() {
    if !needs_root() {
        return;
    }
    let error = enter_private_namespace().unwrap_err();
    assert!(error.to_string().contains("threads are running"), "{error}");
}
