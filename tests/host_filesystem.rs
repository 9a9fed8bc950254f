//! Making, examining, checking and growing filesystems, on real loop devices.

#![allow(clippy::unwrap_used, reason = "test helpers")]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ebs_bake::error::Kind;
use ebs_bake::host::capabilities::{Capability, Effective};
use ebs_bake::host::filesystem::{self, Checked, Growth, Probe, State};
use support::host::{
    Loop, MIB, READ_ONLY, READ_WRITE, formatted, mount, mount_as, mount_directory, never, private_mounts, run, superblock,
};
use support::needs_root;

fn probe(disk: &Loop) -> Probe {
    let node = disk.device.node().unwrap();
    filesystem::probe(&node.open(false).unwrap(), disk.device.size_bytes).unwrap()
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

/// The superblock as e2fsprogs shows it.
fn header(disk: &Loop) -> String {
    let node = disk.device.node().unwrap();
    let output = std::process::Command::new("dumpe2fs").arg("-h").arg(node.path()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
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
    let header = header(&disk);
    let features = header.lines().find_map(|line| line.strip_prefix("Filesystem features:")).unwrap();
    let mut features: Vec<_> = features.split_whitespace().collect();
    features.sort_unstable();
    let expected = "dir_index dir_nlink ext_attr extent extra_isize filetype flex_bg huge_file large_file metadata_csum \
                    resize_inode sparse_super";
    assert_eq!(features.join(" "), expected);
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
fn root_the_hosts_mke2fs_conf_changes_nothing() {
    if !needs_root() {
        return;
    }
    private_mounts();
    let disk = Loop::new(64 * MIB);
    let config = disk.directory.path().join("mke2fs.conf");
    let hostile = "[defaults]\nbase_features = has_journal\ndefault_mntopts = journal_data\nenable_periodic_fsck = 1\n\
                   [fs_types]\next2 = {\nfeatures = has_journal\n}\next4 = {\nfeatures = has_journal\n}\n";
    fs::write(&config, hostile).unwrap();
    if !Path::new("/etc/mke2fs.conf").exists() {
        return; // Then no host's configuration is in the way.
    }
    run("mount", &["--bind", config.to_str().unwrap(), "/etc/mke2fs.conf"]);
    filesystem::make(&disk.device, "chef", 32 * MIB, &never()).unwrap();
    let header = header(&disk);
    for line in ["Default mount options:    user_xattr acl", "Maximum mount count:      -1", "Check interval:           0"] {
        assert!(header.contains(line), "{header}");
    }
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
    // resize2fs refuses by itself what was mounted since its last full check.
    debugfs(&disk, "set_super_value lastcheck 20200101");

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
