//! Commits that were made to do harm: nothing is written, least of all outside the work tree.

#![allow(missing_docs, dead_code, unused_imports, clippy::unwrap_used)]

#[path = "support/checkout.rs"]
mod support;

use std::fs;

use ebs_bake::cancel::Cancel;
use ebs_bake::checkout::{Options, WorkTree};
use ebs_bake::error::Kind;
use git2::Oid;
use support::{Bed, Node, STRICT, Tree, files};

/// One item of a tree object: mode, name, hash.
type Item<'a> = (&'a str, &'a [u8], String);

fn tree(bed: &Bed, items: &[Item<'_>]) -> String {
    let mut content = Vec::new();
    for (mode, name, id) in items {
        content.extend_from_slice(mode.as_bytes());
        content.push(b' ');
        content.extend_from_slice(name);
        content.push(0);
        content.extend_from_slice(Oid::from_str(id).unwrap().as_bytes());
    }
    bed.source_git(&["hash-object", "-t", "tree", "--literally", "-w", "--stdin"], &content)
}

fn blob(bed: &Bed, content: &str) -> String {
    bed.source_git(&["hash-object", "-t", "blob", "-w", "--stdin"], content.as_bytes())
}

/// That planning the tree fails, says so of `named`, and leaves the volume as it is.
fn assert_refused(bed: &mut Bed, root: &str, named: &str) {
    let commit = bed.commit_object(root);
    let work_tree = opened(bed, commit);
    fs::write(bed.root.join("kept"), "kept").unwrap();
    let before = bed.listing();
    let error = work_tree.plan(commit, &STRICT, &Cancel::new()).err().expect(named);
    assert_eq!(error.kind(), Kind::Git);
    assert!(error.to_string().contains(named), "{error} does not name {named}");
    assert_eq!(bed.listing(), before);
}

/// With the source's objects at hand: git would not fetch some of these.
fn opened(bed: &mut Bed, _commit: Oid) -> WorkTree {
    let work_tree = bed.open();
    copy(&bed.source().join("objects"), &bed.git_dir.join("objects"));
    work_tree
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        match item.file_type().unwrap().is_dir() {
            true => copy(&item.path(), &to.join(item.file_name())),
            false => drop(fs::copy(item.path(), to.join(item.file_name())).unwrap()),
        }
    }
}

#[test]
fn unsafe_names_are_refused_at_any_depth() {
    let mut bed = Bed::new();
    let file = blob(&bed, "x");
    let names = [
        &b".."[..],
        b".",
        b"",
        b"../../escaped",
        b"/etc/x",
        b".git",
        b".GIT",
        b".git.",
        b"git~1",
        b".git::$INDEX_ALLOCATION",
        b".g\xe2\x80\x8cit",
    ];
    for name in names {
        let shown = format!("{:?}", String::from_utf8_lossy(name)).trim_matches('"').to_owned();
        let root = tree(&bed, &[("100644", name, file.clone())]);
        assert_refused(&mut bed, &root, &shown);
        let inner = tree(&bed, &[("100644", b"x", file.clone())]);
        let as_directory = tree(&bed, &[("40000", name, inner)]);
        let nested = tree(&bed, &[("40000", b"sub", as_directory)]);
        assert_refused(&mut bed, &nested, &format!("sub/{shown}"));
    }
}

#[test]
fn a_path_through_a_symlink_is_refused() {
    let mut bed = Bed::new();
    let link = blob(&bed, "..");
    let file = blob(&bed, "owned");
    let inner = tree(&bed, &[("100644", b"escaped", file)]);
    let root = tree(&bed, &[("120000", b"a", link), ("40000", b"a", inner)]);
    assert_refused(&mut bed, &root, "\"a\" is both a file and a directory");
    assert!(!bed.outside().join("escaped").exists());
}

#[test]
fn damaged_trees_are_refused() {
    let mut bed = Bed::new();
    let file = blob(&bed, "x");
    let entry = |name: &'static [u8]| ("100644", name, file.clone());
    for items in [vec![entry(b"a"), entry(b"a")], vec![entry(b"b"), entry(b"a")]] {
        let root = tree(&bed, &items);
        assert_refused(&mut bed, &root, "out of order or names a file twice");
    }
    let odd = tree(&bed, &[("020000", b"device", file.clone())]);
    assert_refused(&mut bed, &odd, "\"device\" is of a kind");
    let long = [b'x'; 256];
    let root = tree(&bed, &[("100644", &long, file.clone())]);
    assert_refused(&mut bed, &root, "255 bytes");
    let link = tree(&bed, &[("120000", b".gitmodules", file)]);
    assert_refused(&mut bed, &link, ".gitmodules");
}

#[test]
fn a_few_objects_that_unfold_without_end_are_refused() {
    let mut bed = Bed::new();
    let mut id = tree(&bed, &[("100644", b"x", blob(&bed, "x"))]);
    for _ in 0..300 {
        id = tree(&bed, &[("40000", b"d", id)]);
    }
    assert_refused(&mut bed, &id, "deeper directories");
}

#[test]
fn a_commit_with_a_manifest_of_its_own_is_refused() {
    for path in [".ebs-bake.json", ".ebs-bake.json/x"] {
        let mut bed = Bed::new();
        let commit = bed.commit(&files(&[(path, "{}")]));
        let error = bed.check_out(commit, &STRICT).unwrap_err();
        assert!(error.to_string().contains(".ebs-bake.json"), "{error}");
    }
    let mut bed = Bed::new();
    let commit = bed.commit(&files(&[("sub/.ebs-bake.json", "{}")]));
    bed.check_out(commit, &STRICT).unwrap();
}

#[test]
fn symlinks_on_the_volume_are_not_followed() {
    let mut bed = Bed::new();
    let commit = bed.commit(&files(&[("dir/file", "one")]));
    bed.check_out(commit, &STRICT).unwrap();
    let outside = bed.outside().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "precious").unwrap();
    fs::remove_dir_all(bed.root.join("dir")).unwrap();
    std::os::unix::fs::symlink(&outside, bed.root.join("dir")).unwrap();
    // Although the stamp says that nobody was here.
    let commit = bed.commit(&files(&[("dir/file", "two"), ("dir/new", "x")]));
    let error = bed.check_out(commit, &STRICT).unwrap_err();
    assert!(error.hint_text().unwrap_or_default().contains("symbolic link"), "{error}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"precious");
    // That run did not end, so the next one looks.
    bed.check_out(commit, &STRICT).unwrap();
    assert_eq!(bed.listing(), bed.expected(commit));
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"precious");
}

fn pointer(size: u64) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {size}\n", "ab".repeat(32))
}

#[test]
fn lfs_pointers_are_refused_unless_they_are_wanted() {
    let mut bed = Bed::new();
    let mut tree = files(&[("plain", "x")]);
    for number in 0..5 {
        tree.insert(format!("big{number}").into_bytes(), Node::File(pointer(number).into_bytes()));
    }
    tree.insert(b"ext/declared".to_vec(), Node::File(format!("{}x y\n", pointer(7)).into_bytes()));
    tree.insert(b"ext/.gitattributes".to_vec(), Node::File(b"declared filter=lfs\n".to_vec()));
    let commit = bed.commit(&tree);
    let error = bed.check_out(commit, &STRICT).unwrap_err();
    assert_eq!(error.to_string(), "the commit has 6 git LFS pointers in place of the files: \"big0\", \"big1\", \"big2\", …");
    let lenient = Options { allow_lfs_pointers: true, ..STRICT };
    bed.check_out(commit, &lenient).unwrap();
    assert_eq!(bed.listing(), bed.expected(commit));
    // What was let through then is refused now, although nothing has changed.
    let error = bed.check_out(commit, &STRICT).unwrap_err();
    assert!(error.to_string().contains("6 git LFS pointers"), "{error}");
}

#[test]
fn an_unknown_encoding_is_refused_before_anything_is_written() {
    let mut bed = Bed::new();
    let commit = bed.commit(&files(&[("a", "x"), (".gitattributes", "b.txt working-tree-encoding=EBCDIC-XX\n"), ("b.txt", "x")]));
    let error = bed.check_out(commit, &STRICT).unwrap_err();
    assert!(error.to_string().contains("b.txt") && error.to_string().contains("EBCDIC-XX"), "{error}");
    assert!(bed.listing().is_empty());
}

#[test]
fn a_missing_blob_is_found_before_anything_is_written() {
    let mut bed = Bed::new();
    let there = blob(&bed, "there");
    let root = tree(&bed, &[("100644", b"a", there), ("100644", b"gone", "ab".repeat(20))]);
    assert_refused(&mut bed, &root, "\"gone\"");
}

#[test]
fn an_empty_commit_empties_the_work_tree() {
    let mut bed = Bed::new();
    let commit = bed.commit(&files(&[("a/b", "x")]));
    bed.check_out(commit, &STRICT).unwrap();
    let commit = bed.commit(&Tree::new());
    bed.check_out(commit, &STRICT).unwrap();
    assert!(bed.listing().is_empty());
    bed.assert_clean();
}

#[test]
fn a_tree_without_files_makes_no_directory() {
    let mut bed = Bed::new();
    let (empty, file) = (tree(&bed, &[]), blob(&bed, "x"));
    let root = tree(&bed, &[("100644", b"a", file), ("40000", b"empty", empty)]);
    let commit = bed.commit_object(&root);
    bed.check_out(commit, &STRICT).unwrap();
    assert_eq!(bed.listing(), bed.expected(commit));
    bed.assert_clean();
}
