//! What earlier runs, and others, left on the volume.

#![allow(missing_docs, dead_code, unused_imports, clippy::unwrap_used)]

#[path = "support/checkout.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ebs_bake::cancel::Cancel;
use ebs_bake::checkout::{Manifest, Options, Stamp, WorkTree};
use ebs_bake::error::Kind;
use ebs_bake::report::{Event, Observer, Phase, Report};
use support::{Bed, Node, STRICT, Tree, files, phase, some_manifest};

const LENIENT: Options = Options { clean: false, allow_lfs_pointers: false };

fn many(version: u32) -> Tree {
    let file = |number: u32| {
        (format!("dir{}/file{number}", number / 50).into_bytes(), Node::File(format!("{version} {number}").into_bytes()))
    };
    (0..400 + version).map(file).collect()
}

#[test]
fn a_trusted_volume_is_not_examined_and_another_is() {
    let mut bed = Bed::new();
    let (one, two) = (files(&[("a/b", "1"), ("c", "1")]), files(&[("a/b", "2"), ("c", "1")]));
    let commit = bed.commit(&one);
    assert_eq!(bed.check_out(commit, &STRICT).unwrap().summary.written, 2);
    // Nobody looks at this one: so it stays.
    fs::write(bed.root.join("untracked"), "x").unwrap();
    let commit = bed.commit(&two);
    let run = bed.check_out(commit, &STRICT).unwrap();
    assert_eq!((run.summary.examined, run.summary.written, run.summary.removed), (0, 1, 0));
    assert!(bed.root.join("untracked").exists());
    bed.mount_elsewhere();
    let run = bed.check_out(commit, &STRICT).unwrap();
    assert_eq!((run.summary.examined, run.summary.written, run.summary.removed), (2, 0, 1));
    assert_eq!(bed.listing(), bed.expected(commit));
}

#[test]
fn after_an_untrusted_end_everything_is_examined() {
    let mut bed = Bed::new();
    let commit = bed.commit(&files(&[("a", "1")]));
    let mut work_tree = bed.open();
    bed.fetch(commit);
    let plan = work_tree.plan(commit, &STRICT, &Cancel::new()).unwrap();
    work_tree.apply(plan, &phase(), &Cancel::new()).unwrap();
    fs::write(bed.root.join("vendored"), "by the command after the checkout").unwrap();
    work_tree.finish(Some(&some_manifest(commit)), false).unwrap();
    let run = bed.check_out(commit, &STRICT).unwrap();
    assert_eq!((run.summary.examined, run.summary.removed), (1, 1));
}

#[test]
fn nothing_to_do_changes_no_file() {
    let mut bed = Bed::new();
    let commit = bed.commit(&files(&[("a", "1"), ("b/c", "2")]));
    bed.check_out(commit, &STRICT).unwrap();
    let stats = |bed: &Bed| -> BTreeSet<_> {
        ["a", "b/c", ".git/index", ".git/HEAD", ".ebs-bake.json"]
            .map(|path| (path, bed.root.join(path).metadata().unwrap()))
            .into_iter()
            .map(|(path, metadata)| (path, metadata.ino(), metadata.mtime_nsec(), metadata.ctime_nsec()))
            .collect()
    };
    let before = stats(&bed);
    assert_eq!(bed.check_out(commit, &STRICT).unwrap().write, 0);
    bed.mount_elsewhere();
    assert_eq!(bed.check_out(commit, &STRICT).unwrap().write, 0);
    assert_eq!(stats(&bed), before);
}

#[test]
fn a_changed_file_keeps_its_place_and_a_linked_one_does_not() {
    let mut bed = Bed::new();
    let commit = bed.commit(&files(&[("a", "one"), ("b", "one")]));
    bed.check_out(commit, &STRICT).unwrap();
    let inode = |bed: &Bed, name: &str| bed.root.join(name).metadata().unwrap().ino();
    let before = inode(&bed, "a");
    let link = bed.outside().join("link");
    fs::hard_link(bed.root.join("b"), &link).unwrap();
    let commit = bed.commit(&files(&[("a", "2"), ("b", "2")]));
    bed.check_out(commit, &STRICT).unwrap();
    assert_eq!(inode(&bed, "a"), before);
    assert_eq!(fs::read(link).unwrap(), b"one", "what was linked elsewhere must not change");
    assert_eq!(bed.listing(), bed.expected(commit));
}

/// Cancels the run once that many files are written.
struct StopAt(u64, Cancel, Arc<AtomicBool>);

impl Observer for StopAt {
    fn event(&self, event: &Event<'_>) {
        if let Event::Progress { done, .. } = event
            && *done >= self.0
        {
            self.1.cancel(libc::SIGTERM);
            self.2.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_run_that_was_stopped_half_way_is_completed_by_the_next() {
    for stop_at in [1, 100, 300] {
        let mut bed = Bed::new();
        let commit = bed.commit(&many(1));
        bed.check_out(commit, &STRICT).unwrap();
        let commit = bed.commit(&many(2));
        let mut work_tree = bed.open();
        bed.fetch(commit);
        let (cancel, stopped) = (Cancel::new(), Arc::new(AtomicBool::new(false)));
        let report = Report::new(Arc::new(StopAt(stop_at, cancel.clone(), stopped.clone())));
        let plan = work_tree.plan(commit, &STRICT, &cancel).unwrap();
        let error = work_tree.apply(plan, &report.phase(Phase::Checkout), &cancel).unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted(libc::SIGTERM));
        assert!(work_tree.finish(Some(&some_manifest(commit)), true).is_err(), "what is half done cannot be finished");
        assert!(stopped.load(Ordering::Relaxed));
        if stop_at == 100 {
            bed.same_mount_again();
        }
        let run = bed.check_out(commit, &STRICT).unwrap();
        assert!(run.summary.examined > 0 && run.write < 402, "{run:?}");
        assert_eq!(bed.listing(), bed.expected(commit));
        bed.assert_clean();
    }
}

#[test]
fn what_a_killed_run_left_in_the_git_directory_goes() {
    let mut bed = Bed::new();
    let commit = bed.commit(&files(&[("a", "1")]));
    bed.check_out(commit, &STRICT).unwrap();
    let litter = [
        "index.lock",
        "HEAD.lock",
        "shallow.lock",
        "refs/ebs-bake/baked.lock",
        "objects/pack/tmp_pack_x",
        "objects/pack/pack_git2_x",
        "objects/tmp_object_git2_x",
        "hooks/post-checkout",
        "info/attributes",
    ];
    for name in litter {
        fs::write(bed.git_dir.join(name), "x").unwrap();
    }
    fs::write(bed.git_dir.join("config"), "[core]\n\tfsmonitor = touch /tmp/x\n").unwrap();
    let commit = bed.commit(&files(&[("a", "2")]));
    bed.check_out(commit, &STRICT).unwrap();
    for name in litter {
        assert!(!bed.git_dir.join(name).exists(), "{name}");
    }
    let config = fs::read_to_string(bed.git_dir.join("config")).unwrap();
    assert_eq!(config, "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = false\n");
    assert_eq!(fs::read_dir(bed.git_dir.join("hooks")).unwrap().count(), 0);
    bed.assert_clean();
}

#[test]
fn a_git_directory_that_is_none_is_made_anew() {
    let spoilers: [fn(&Bed); 4] = [
        |bed| fs::write(&bed.git_dir, "gitdir: /elsewhere\n").unwrap(),
        |bed| std::os::unix::fs::symlink(bed.outside(), &bed.git_dir).unwrap(),
        |bed| fs::create_dir(&bed.git_dir).unwrap(),
        |bed| {
            fs::create_dir_all(bed.git_dir.join("objects/info")).unwrap();
            fs::create_dir_all(bed.git_dir.join("refs")).unwrap();
            fs::write(bed.git_dir.join("HEAD"), "ref: refs/heads/main\n").unwrap();
            fs::write(bed.git_dir.join("objects/info/alternates"), "/elsewhere\n").unwrap();
        },
    ];
    for spoil in spoilers {
        let mut bed = Bed::new();
        let commit = bed.commit(&files(&[("a", "1")]));
        spoil(&bed);
        bed.check_out(commit, &STRICT).unwrap();
        assert_eq!(bed.listing(), bed.expected(commit));
        bed.assert_clean();
    }
}

#[test]
fn on_a_repaired_volume_every_byte_is_compared() {
    let mut bed = Bed::new();
    let commit = bed.commit(&files(&[("a", "right"), ("b", "right")]));
    bed.check_out(commit, &STRICT).unwrap();
    // Damage that no stat shows: the index vouches for the damaged file.
    let path = bed.root.join("a");
    fs::write(&path, "wrong").unwrap();
    bed.volume_git(&["update-index", "--assume-unchanged", "a"]);
    let stamp = Stamp { previous: Some("1".into()), current: Some("2".into()), repaired: true };
    let mut work_tree = WorkTree::open(&bed.root, &bed.git_dir, stamp).unwrap();
    bed.fetch(commit);
    let plan = work_tree.plan(commit, &STRICT, &Cancel::new()).unwrap();
    assert_eq!(plan.write, 1);
    work_tree.apply(plan, &phase(), &Cancel::new()).unwrap();
    work_tree.finish(Some(&some_manifest(commit)), true).unwrap();
    assert_eq!(fs::read(path).unwrap(), b"right");
    bed.assert_clean();
}

#[test]
fn untracked_files_stay_if_they_are_not_to_be_removed() {
    let mut bed = Bed::new();
    let commit =
        bed.commit(&files(&[("gone/a", "1"), ("gone/sub/b", "1"), ("kept/c", "1"), ("x", "1"), (".gitignore", "*.log\n")]));
    bed.check_out(commit, &LENIENT).unwrap();
    for path in ["gone/mine", "kept/mine", "mine", "x.log"] {
        fs::write(bed.root.join(path), "mine").unwrap();
    }
    bed.mount_elsewhere();
    let commit = bed.commit(&files(&[("kept/c", "2"), ("mine/now", "theirs"), (".gitignore", "*.log\n")]));
    bed.check_out(commit, &LENIENT).unwrap();
    let left: Vec<String> = bed.listing().into_keys().map(|path| String::from_utf8(path).unwrap()).collect();
    assert_eq!(left, [".gitignore", "gone", "gone/mine", "kept", "kept/c", "kept/mine", "mine", "mine/now", "x.log"]);
    // Kept by a run that had to; the next one, which need not, removes them, ignored or not.
    bed.check_out(commit, &STRICT).unwrap();
    assert_eq!(bed.listing(), bed.expected(commit));
}

#[test]
fn a_submodules_content_is_its_own_and_goes_with_it() {
    let mut bed = Bed::new();
    let mut tree = files(&[("a", "1")]);
    tree.insert(b"sub".to_vec(), Node::Submodule);
    let commit = bed.commit(&tree);
    let work_tree = bed.open();
    bed.fetch(commit);
    let plan = work_tree.plan(commit, &STRICT, &Cancel::new()).unwrap();
    assert_eq!(plan.submodules(), [("sub".into(), git2::Oid::from_str(&"12".repeat(20)).unwrap())]);
    bed.check_out(commit, &STRICT).unwrap();
    fs::write(bed.root.join("sub/file"), "the submodule's").unwrap();
    bed.mount_elsewhere();
    bed.check_out(commit, &STRICT).unwrap();
    assert!(bed.root.join("sub/file").exists());
    for mounted_elsewhere in [false, true] {
        if mounted_elsewhere {
            bed.mount_elsewhere();
        }
        let without = bed.commit(&files(&[("a", "1")]));
        bed.check_out(without, &STRICT).unwrap();
        assert_eq!(bed.listing(), bed.expected(without));
        bed.check_out(commit, &STRICT).unwrap();
        fs::write(bed.root.join("sub/file"), "the submodule's").unwrap();
    }
}

#[test]
fn what_belongs_to_the_filesystem_stays() {
    let mut bed = Bed::new();
    fs::create_dir(bed.root.join("lost+found")).unwrap();
    fs::write(bed.root.join("lost+found/#12"), "x").unwrap();
    let commit = bed.commit(&files(&[("a", "1")]));
    bed.check_out(commit, &STRICT).unwrap();
    bed.mount_elsewhere();
    bed.check_out(commit, &STRICT).unwrap();
    assert!(bed.root.join("lost+found/#12").exists());
}

#[test]
fn with_the_git_directory_elsewhere_nothing_of_git_is_on_the_volume() {
    let mut bed = Bed::new();
    let commit = bed.commit(&files(&[("a", "1"), ("b/c", "1")]));
    bed.check_out(commit, &STRICT).unwrap();
    bed.git_dir = bed.outside().join("state/chef.git");
    bed.mount_elsewhere();
    bed.check_out(commit, &STRICT).unwrap();
    assert!(!bed.root.join(".git").exists());
    let run = bed.check_out(commit, &STRICT).unwrap();
    assert_eq!((run.summary.examined, run.write), (0, 0));
    assert_eq!(bed.listing(), bed.expected(commit));
    bed.assert_clean();
}

#[test]
fn changed_attributes_change_files_whose_blobs_are_the_same() {
    let mut bed = Bed::new();
    for attributes in ["", "*.txt eol=crlf\n", "*.txt working-tree-encoding=UTF-16\n", "*.txt ident\n", "*.txt text=auto\n"] {
        let commit = bed.commit(&files(&[(".gitattributes", attributes), ("a.txt", "line $Id$\n"), ("b", "line\n")]));
        let run = bed.check_out(commit, &STRICT).unwrap();
        assert_eq!(bed.listing(), bed.expected(commit), "{attributes}");
        bed.mount_elsewhere();
        assert_eq!(bed.check_out(commit, &STRICT).unwrap().write, 0, "{attributes} after {run:?}");
    }
}

#[test]
fn the_manifest_says_what_was_baked_and_status_does_not() {
    let mut bed = Bed::new();
    let commit = bed.commit(&files(&[("a", "1")]));
    bed.check_out(commit, &STRICT).unwrap();
    assert_eq!(Manifest::read(&bed.root).unwrap(), some_manifest(commit));
    bed.assert_clean();
    assert_eq!(bed.volume_git(&["rev-parse", "HEAD", "refs/ebs-bake/baked"]), format!("{commit}\n{commit}"));
    assert_eq!(bed.volume_git(&["log", "--format=%H"]), commit.to_string());
}

#[test]
fn a_large_file_beside_many_small_ones() {
    let mut bed = Bed::new();
    let mut tree = many(1);
    tree.insert(b"large".to_vec(), Node::File((0..20_u32 << 18).flat_map(u32::to_le_bytes).collect()));
    let commit = bed.commit(&tree);
    let run = bed.check_out(commit, &STRICT).unwrap();
    assert!(run.bytes_needed > 20 << 20);
    assert_eq!(bed.listing(), bed.expected(commit));
}

#[test]
fn an_edit_that_leaves_size_and_time_is_found() {
    let mut bed = Bed::new();
    let commit = bed.commit(&files(&[("a", "one"), ("b", "one")]));
    bed.check_out(commit, &STRICT).unwrap();
    // Long after the checkout: so that the files are not read merely because they are as old as the index.
    let index = fs::File::options().write(true).open(bed.git_dir.join("index")).unwrap();
    index.set_modified(index.metadata().unwrap().modified().unwrap() + std::time::Duration::from_secs(10)).unwrap();
    let path = bed.root.join("a");
    let mtime = path.metadata().unwrap().modified().unwrap();
    fs::write(&path, "two").unwrap();
    support::restore_mtime(&path, mtime);
    bed.mount_elsewhere();
    assert_eq!(bed.check_out(commit, &STRICT).unwrap().write, 1);
    assert_eq!(bed.listing(), bed.expected(commit));
}

#[test]
fn permissions_follow_the_commit() {
    let mut bed = Bed::new();
    let (file, executable) = (|text: &str| Node::File(text.into()), |text: &str| Node::Executable(text.into()));
    let one = Tree::from([(b"same".to_vec(), file("x")), (b"other".to_vec(), file("1")), (b"linked".to_vec(), executable("x"))]);
    let two =
        Tree::from([(b"same".to_vec(), executable("x")), (b"other".to_vec(), executable("22")), (b"linked".to_vec(), file("x"))]);
    for tree in [&one, &two, &one] {
        let commit = bed.commit(tree);
        bed.check_out(commit, &STRICT).unwrap();
        assert_eq!(bed.listing(), bed.expected(commit));
        bed.assert_clean();
    }
    support::set_mode(&bed.root.join("same"), 0o600);
    support::set_mode(&bed.root.join("linked"), 0o4777);
    bed.mount_elsewhere();
    let commit = bed.commit(&one);
    assert_eq!(bed.check_out(commit, &STRICT).unwrap().write, 2);
    assert_eq!(bed.listing(), bed.expected(commit));
}
