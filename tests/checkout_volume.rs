//! On real filesystems: the room that a plan asks for, and volumes of other owners.

#![allow(missing_docs, dead_code, unused_imports, clippy::unwrap_used)]

#[path = "support/checkout.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ebs_bake::cancel::Cancel;
use ebs_bake::error::Kind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;

use support::{Bed, Node, STRICT, Tree, files, needs_root, phase, some_manifest};

/// An ext4 filesystem in a file, mounted; unmounted when dropped.
struct Filesystem {
    root: PathBuf,
}

impl Filesystem {
    fn new(directory: &Path, mib: u64, block: &str) -> Filesystem {
        let (image, root) = (directory.join("image"), directory.join("volume"));
        fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        fs::create_dir(&root).unwrap();
        let options = ["-q", "-F", "-b", block, "-O", "^has_journal", "-i", "4096", "-m", "0"];
        run(Command::new("mkfs.ext4").args(options).arg(&image));
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop,nosuid,nodev,noatime"]).arg(&image).arg(&root));
        Filesystem { root }
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.root).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Free bytes and inodes, when all that is written is on the disk.
fn free(root: &Path) -> (u64, u64) {
    nix::unistd::syncfs(fs::File::open(root).unwrap()).unwrap();
    let stat = nix::sys::statvfs::statvfs(root).unwrap();
    (stat.blocks_free() * stat.fragment_size(), stat.files_free())
}

fn file(size: usize) -> Node {
    Node::File((0..size).map(|position| (position * 7 + position / 251) as u8).collect())
}

/// Trees that strain one thing each, and what one of them becomes of another.
fn trees() -> Vec<Tree> {
    let names = |prefix: &str, count: usize, size: usize| -> Tree {
        (0..count).map(|number| (format!("{prefix}{number}").into_bytes(), file(size))).collect()
    };
    let long = "n".repeat(200);
    let mut deep = Tree::new();
    for number in 0..300 {
        deep.insert(format!("{}/{number}", vec!["d"; number % 30 + 1].join(&format!("{number}/"))).into_bytes(), file(10));
    }
    let links =
        (0..500).map(|number| (format!("link{number}").into_bytes(), Node::Symlink(vec![b'x'; number % 120 + 1]))).collect();
    let mut mixed = names("dir/small", 300, 1);
    mixed.insert(b"large".to_vec(), file(9 << 20));
    let mut grown = names("dir/small", 300, 5000);
    grown.insert(b"large".to_vec(), file(11 << 20));
    vec![
        names("a", 2000, 0),
        names(&format!("dir/{long}"), 1500, 1),
        deep,
        links,
        mixed,
        grown,
        names("b/c/", 50, 100_000),
        Tree::new(),
    ]
}

#[test]
fn root_a_plan_asks_for_enough_room_and_not_much_more() {
    if !needs_root() {
        return;
    }
    for block in ["1024", "4096"] {
        let directory = tempfile::tempdir().unwrap();
        let filesystem = Filesystem::new(directory.path(), 96, block);
        let mut bed = Bed::at(directory, filesystem.root.clone());
        for (number, tree) in trees().iter().enumerate() {
            let commit = bed.commit(tree);
            let mut work_tree = bed.open();
            bed.fetch(commit);
            let (bytes_before, inodes_before) = free(&bed.root);
            let plan = work_tree.plan(commit, &STRICT, &Cancel::new()).unwrap();
            let (bytes_needed, inodes_needed) = (plan.bytes_needed, plan.inodes_needed);
            work_tree.apply(plan, &phase(), &Cancel::new()).unwrap();
            work_tree.finish(Some(&some_manifest(commit)), true).unwrap();
            let (bytes_after, inodes_after) = free(&bed.root);
            let used = bytes_before.saturating_sub(bytes_after);
            let case = format!("tree {number} on blocks of {block}: asked for {bytes_needed}, took {used}");
            assert!(used <= bytes_needed, "{case}");
            assert!(bytes_needed <= used + used / 4 + (1 << 20), "{case}");
            assert!(inodes_before.saturating_sub(inodes_after) <= inodes_needed, "{case}");
        }
        drop(filesystem);
    }
}

#[test]
fn root_a_full_volume_is_an_error_that_the_next_run_recovers_from() {
    if !needs_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let filesystem = Filesystem::new(directory.path(), 16, "4096");
    let mut bed = Bed::at(directory, filesystem.root.clone());
    let small = bed.commit(&files(&[("a", "1"), ("b/c", "2")]));
    bed.check_out(small, &STRICT).unwrap();
    // Compresses well: the objects find room, the files do not.
    let large = (0..20).map(|number| (format!("a/{number}").into_bytes(), Node::File(vec![b'x'; 1 << 20]))).collect();
    let large = bed.commit(&large);
    let mut work_tree = bed.open();
    bed.fetch(large);
    let before = bed.listing();
    let plan = work_tree.plan(large, &STRICT, &Cancel::new()).unwrap();
    assert!(plan.bytes_needed > free(&bed.root).0, "the caller is told beforehand");
    assert_eq!(bed.listing(), before);
    let error = work_tree.apply(plan, &phase(), &Cancel::new()).unwrap_err();
    assert_eq!(error.kind(), Kind::Device);
    assert!(error.hint_text().unwrap_or_default().contains("full"), "{error}");
    drop(work_tree);
    bed.check_out(small, &STRICT).unwrap();
    assert_eq!(bed.listing(), bed.expected(small));
    bed.assert_clean();
    drop(filesystem);
}

#[test]
fn root_the_volume_may_belong_to_somebody_else() {
    if !needs_root() {
        return;
    }
    let mut bed = Bed::new();
    let commit = bed.commit(&files(&[("a", "1"), ("b/c", "2")]));
    bed.check_out(commit, &STRICT).unwrap();
    for path in ["", "a", "b", "b/c", ".git", ".git/HEAD", ".git/config"] {
        chown(bed.root.join(path), Some(12345), Some(12345)).unwrap();
    }
    bed.mount_elsewhere();
    let commit = bed.commit(&files(&[("a", "1"), ("b/c", "3")]));
    bed.check_out(commit, &STRICT).unwrap();
    assert_eq!(bed.listing(), bed.expected(commit));
    assert_eq!(["a", "b/c"].map(|path| bed.root.join(path).metadata().unwrap().uid()), [0, 0]);
}

#[test]
fn root_another_user_can_read_what_was_baked() {
    if !needs_root() {
        return;
    }
    let mut bed = Bed::new();
    fs::set_permissions(bed.outside(), fs::Permissions::from_mode(0o755)).unwrap();
    let commit = bed.commit(&files(&[("a", "1"), ("b/c", "2")]));
    bed.check_out(commit, &STRICT).unwrap();
    for arguments in [&["status", "--porcelain"][..], &["fsck", "--no-progress", "--no-dangling"], &["log", "--format=%s"]] {
        let safe = [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")];
        let mut git = Command::new("git");
        git.args(arguments).current_dir(&bed.root).env("HOME", "/nonexistent").envs(safe).uid(65534).gid(65534);
        let output = git.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "");
    }
}
