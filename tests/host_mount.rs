//! Mounting and unmounting, on real loop devices and in real mount namespaces.

#![allow(clippy::unwrap_used, reason = "test helpers")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

use ebs_bake::error::Kind;
use ebs_bake::host::mount::{Mount, MountPoint, enter_private_namespace};
use support::host::{
    Helper, READ_ONLY, READ_WRITE, formatted, mount, mount_directory, private_mounts, run, superblock, wait_until_unused,
};
use support::needs_root;

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

/// Runs `child` in a process with one thread, then `meanwhile` here, then `after` there; it ends before this returns.
fn in_a_process_of_its_own(child: impl FnOnce(), meanwhile: impl FnOnce(), after: impl FnOnce()) {
    let (mut ready, mut tell_ready) = std::io::pipe().unwrap();
    let (go_on, tell_go_on) = std::io::pipe().unwrap();
    // SAFETY: glibc keeps its allocator usable in the child, which ends with _exit and runs no destructor of the parent's.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            drop(tell_go_on);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                child();
                tell_ready.write_all(b"x").unwrap();
                let _ = (&go_on).read(&mut [0]);
                after();
            }));
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
    let meanwhile = || {
        assert!(!mountinfo().contains(inner.to_str().unwrap()), "the host does not see it");
        run("umount", &[taken_away.to_str().unwrap()]);
    };
    let after = || {
        assert!(mountinfo().contains(inner.to_str().unwrap()));
        assert!(!mountinfo().contains(taken_away.to_str().unwrap()), "the host could not let go of its disk");
    };
    in_a_process_of_its_own(child, meanwhile, after);
    // The child ended without unmounting, as if it had been killed.
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    wait_until_unused(&disk);
}

#[test]
fn root_a_namespace_of_our_own_is_refused_once_there_are_threads() {
    if !needs_root() {
        return;
    }
    let error = enter_private_namespace().unwrap_err();
    assert!(error.to_string().contains("threads are running"), "{error}");
}
