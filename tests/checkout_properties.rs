//! Whatever is committed, and whatever was done to the volume by hand: what is checked out is what git checks out.

#![allow(missing_docs, dead_code, unused_imports, clippy::unwrap_used)]

#[path = "support/checkout.rs"]
mod support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use support::{Bed, Node, STRICT, Tree, restore_mtime, set_mode};

/// One step of a history: what is committed, and what is done by hand before it is checked out.
#[derive(Debug, Clone)]
struct Step {
    tree: Tree,
    damage: Vec<(usize, Damage)>,
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    SameSizeAndTime,
    Append,
    Chmod,
    ChmodDirectory,
    Delete,
    ToSymlink,
    ToDirectory,
    HardLink,
    AddFile,
    AddDirectory,
    AddRepository,
    DeleteDirectory,
    NewIndex,
    BreakIndex,
    BreakHead,
    DeleteGit,
}

const DAMAGES: [Damage; 16] = [
    Damage::SameSizeAndTime,
    Damage::Append,
    Damage::Chmod,
    Damage::ChmodDirectory,
    Damage::Delete,
    Damage::ToSymlink,
    Damage::ToDirectory,
    Damage::HardLink,
    Damage::AddFile,
    Damage::AddDirectory,
    Damage::AddRepository,
    Damage::DeleteDirectory,
    Damage::NewIndex,
    Damage::BreakIndex,
    Damage::BreakHead,
    Damage::DeleteGit,
];

fn node() -> impl Strategy<Value = Node> {
    let content = prop_oneof![
        Just(b"".to_vec()),
        Just(b"one\ntwo\n".to_vec()),
        Just(b"one\r\ntwo\n$Id$\n".to_vec()),
        Just(b"$Id: old $ and $Id: x,v 1 $\n".to_vec()),
        Just("gr\u{fc}\u{df}e \u{1f600}\n".as_bytes().to_vec()),
        Just(b"\xff\xfe\0binary\n".to_vec()),
        Just(b"lone\rcr\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
        proptest::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'$'), Just(b'I'), Just(b'd'), Just(b':'), Just(b' '), Just(7)],
            0..200
        ),
    ];
    let target =
        prop_oneof![Just(b"/etc/passwd".to_vec()), Just(b"../x".to_vec()), Just(b"gone".to_vec()), Just(vec![b'x'; 100])];
    prop_oneof![
        8 => content.clone().prop_map(Node::File),
        2 => content.prop_map(Node::Executable),
        2 => target.prop_map(Node::Symlink),
        1 => Just(Node::Submodule),
    ]
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let names = [&b"a"[..], b"b", b"dir", b"dir-x", b"with space", b"new\nline", b"\xff\xfe", b"-dash", b".hidden"];
    let files = [&b"x.txt"[..], b"y.txt", b"z.utf", b"q\"uote.txt", b"back\\slash.txt", b"a", b"dir", b"README"];
    let component = proptest::sample::select(names.to_vec());
    (proptest::collection::vec(component, 0..3), proptest::sample::select(files.to_vec())).prop_map(|(mut parts, file)| {
        parts.push(file);
        parts.join(&b'/')
    })
}

fn attributes() -> impl Strategy<Value = Node> {
    let patterns = [
        "*.txt",
        "*",
        "x.*",
        "dir/*.txt",
        "/x.txt",
        "**/dir/*",
        "dir/**",
        "\"with space/x.txt\"",
        "[xy].txt",
        "?.utf",
        "dir/",
        "!x.txt",
    ];
    let values = [
        "text=auto",
        "text",
        "-text",
        "!text",
        "eol=crlf",
        "eol=lf",
        "text=auto eol=crlf",
        "text eol=crlf",
        "ident",
        "-ident",
        "binary",
        "working-tree-encoding=UTF-16",
        "working-tree-encoding=UTF-16LE-BOM",
        "working-tree-encoding=UTF-16BE",
        "working-tree-encoding=ISO-8859-1",
        "working-tree-encoding=utf8",
        "-working-tree-encoding=x",
        "crlf",
        "-crlf",
        "crlf=input eol=crlf",
        "dos",
        "-dos",
        "!dos ident",
        "filter=unknown",
        "=bad ident",
        "text=input eol=crlf",
        "diff=x\teol=crlf\r",
    ];
    // git dies on an encoding that is said to be true or false.
    let values: Vec<_> = values.into_iter().filter(|value| !value.starts_with("-working")).collect();
    let line = (proptest::sample::select(patterns.to_vec()), proptest::sample::select(values))
        .prop_map(|(pattern, value)| format!("{pattern} {value}\n"));
    let head = proptest::sample::select(vec![
        "",
        "[attr]dos text eol=crlf\n",
        "\u{feff}# comment\n",
        "[attr]dos ident\n[attr]binary ident\n",
    ]);
    (head, proptest::collection::vec(line, 1..5))
        .prop_map(|(head, lines)| Node::File((head.to_owned() + &lines.concat()).into_bytes()))
}

fn tree() -> impl Strategy<Value = Tree> {
    let attribute_path = proptest::sample::select(vec![&b".gitattributes"[..], b"dir/.gitattributes", b"a/b/.gitattributes"]);
    let files = proptest::collection::vec((path(), node()), 0..14);
    let attributes = proptest::collection::vec((attribute_path, attributes()), 0..3);
    (files, attributes).prop_map(|(files, attributes)| {
        let mut tree = Tree::new();
        let attributes = attributes.into_iter().map(|(path, node)| (path.to_vec(), node));
        for (path, node) in files.into_iter().chain(attributes) {
            let inside = [&path[..], b"/"].concat();
            tree.retain(|other, _| !other.starts_with(&inside) && !path.starts_with(&[&other[..], b"/"].concat()));
            tree.insert(path, node);
        }
        tree
    })
}

fn step() -> impl Strategy<Value = Step> {
    let damage = proptest::collection::vec((any::<proptest::sample::Index>(), proptest::sample::select(DAMAGES.to_vec())), 0..4);
    (tree(), damage).prop_map(|(tree, damage)| Step {
        tree,
        damage: damage.into_iter().map(|(index, damage)| (index.index(1000), damage)).collect(),
    })
}

fn on_disk(root: &Path, path: &[u8]) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(path))
}

/// Does it to some file; nothing if there is none that it can be done to.
fn inflict(bed: &Bed, position: usize, damage: Damage) {
    let all: Vec<Vec<u8>> = bed.listing().into_keys().collect();
    let of_kind = |wanted: fn(&fs::Metadata) -> bool| {
        let some: Vec<PathBuf> =
            all.iter().map(|path| on_disk(&bed.root, path)).filter(|path| wanted(&path.symlink_metadata().unwrap())).collect();
        (!some.is_empty()).then(|| some[position % some.len()].clone())
    };
    let file = of_kind(|metadata| metadata.is_file());
    let directory = of_kind(|metadata| metadata.is_dir());
    match (damage, file, directory) {
        (Damage::SameSizeAndTime, Some(file), _) => {
            let mtime = file.metadata().unwrap().modified().unwrap();
            let other = fs::read(&file).unwrap().iter().map(|byte| byte ^ 1).collect::<Vec<_>>();
            fs::write(&file, other).unwrap();
            restore_mtime(&file, mtime);
        }
        (Damage::Append, Some(file), _) => fs::write(&file, [fs::read(&file).unwrap(), b"more".to_vec()].concat()).unwrap(),
        (Damage::Chmod, Some(file), _) => set_mode(&file, [0o600, 0o755, 0o644, 0o4755][position % 4]),
        (Damage::ChmodDirectory, _, Some(directory)) => set_mode(&directory, 0o700),
        (Damage::Delete, Some(file), _) => fs::remove_file(file).unwrap(),
        (Damage::ToSymlink, Some(file), _) => {
            fs::remove_file(&file).unwrap();
            std::os::unix::fs::symlink(bed.outside().join("precious"), &file).unwrap();
        }
        (Damage::ToDirectory, Some(file), _) => {
            fs::remove_file(&file).unwrap();
            fs::create_dir_all(file.join("deep")).unwrap();
            fs::write(file.join("deep/file"), "x").unwrap();
        }
        (Damage::HardLink, Some(file), _) => fs::hard_link(&file, bed.outside().join(format!("link{position}"))).unwrap_or(()),
        (Damage::AddFile, _, Some(directory)) => fs::write(directory.join("untracked"), "x").unwrap(),
        (Damage::AddFile, _, None) => fs::write(bed.root.join("untracked"), "x").unwrap(),
        (Damage::AddDirectory, _, _) => fs::create_dir_all(bed.root.join("dir-x/empty")).unwrap_or(()),
        (Damage::AddRepository, _, _) => fs::create_dir_all(bed.root.join("nested/.git/objects")).unwrap_or(()),
        (Damage::DeleteDirectory, _, Some(directory)) => fs::remove_dir_all(directory).unwrap(),
        (Damage::NewIndex, _, _) => {
            let _ = fs::remove_file(bed.git_dir.join("index"));
        }
        (Damage::BreakIndex | Damage::BreakHead | Damage::DeleteGit, _, _) if !bed.git_dir.exists() => {}
        (Damage::BreakIndex, _, _) => fs::write(bed.git_dir.join("index"), "DIRC").unwrap(),
        (Damage::BreakHead, _, _) => fs::write(bed.git_dir.join("HEAD"), "\0\0").unwrap(),
        (Damage::DeleteGit, _, _) => fs::remove_dir_all(&bed.git_dir).unwrap(),
        _ => {}
    }
}

/// Sixteen cases each; more with `PROPTEST_CASES` (256 is the default).
fn run(strategy: impl Strategy<Value = Vec<Step>>) {
    let config = Config {
        cases: Config::default().cases.div_ceil(16),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(&strategy, |steps| {
            let mut bed = Bed::new();
            fs::write(bed.outside().join("precious"), "precious").unwrap();
            for (number, step) in steps.into_iter().enumerate() {
                for (position, damage) in step.damage.iter().filter(|_| number > 0) {
                    inflict(&bed, *position, *damage);
                }
                if !step.damage.is_empty() {
                    bed.mount_elsewhere();
                }
                let commit = bed.commit(&step.tree);
                let run = bed.check_out(commit, &STRICT).unwrap();
                let (ours, expected) = (bed.listing(), bed.expected(commit));
                for path in ours.keys().chain(expected.keys()) {
                    let shown = String::from_utf8_lossy(path);
                    prop_assert_eq!(ours.get(path), expected.get(path), "{} after {:?}", shown, run);
                }
                bed.assert_clean();
                prop_assert_eq!(fs::read(bed.outside().join("precious")).unwrap(), b"precious");
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_is_checked_out_is_what_git_checks_out() {
    run(proptest::collection::vec(step().prop_map(|step| Step { damage: Vec::new(), ..step }), 1..4));
}

#[test]
fn damage_done_by_hand_is_put_right() {
    run(proptest::collection::vec(step(), 2..4));
}

/// Patterns out of the pieces that mean something in them.
fn pattern() -> impl Strategy<Value = String> {
    let pieces = [
        "a",
        "b",
        "x",
        ".",
        "/",
        "*",
        "**",
        "?",
        "**/",
        "/**",
        "[ab]",
        "[!a]",
        "[a-x]",
        "[[:alpha:]]",
        "\\*",
        "\\a",
        "[",
        "]",
        "[]-]",
    ];
    proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 1..6).prop_map(|pieces| pieces.concat())
}

#[test]
fn patterns_match_what_they_match_for_git() {
    let mut paths = vec![String::new()];
    for _ in 0..3 {
        let longer = |path: &String| {
            ["a", "b", "x.a", "ab"].map(|name| if path.is_empty() { name.into() } else { format!("{path}/d{name}") })
        };
        paths.extend(paths.clone().iter().flat_map(longer));
    }
    let lines = proptest::collection::vec((pattern(), any::<bool>()), 1..8);
    let strategy = proptest::collection::vec(lines, 1..3);
    let config = Config { cases: Config::default().cases.div_ceil(16), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&strategy, |files| {
        let mut tree = Tree::new();
        for path in paths.iter().filter(|path| !path.is_empty()) {
            // A file, and below a directory of another name the longer paths.
            tree.insert(path.replace("/d", "/").replace('/', "_/").into_bytes(), Node::File(b"$Id$\n".to_vec()));
        }
        for (lines, place) in files.iter().zip(["", "a_/"]) {
            let lines: String =
                lines.iter().map(|(pattern, set)| format!("{pattern} {}\n", if *set { "ident" } else { "-ident" })).collect();
            tree.insert(format!("{place}.gitattributes").into_bytes(), Node::File(lines.into_bytes()));
        }
        let mut bed = Bed::new();
        let commit = bed.commit(&tree);
        bed.check_out(commit, &STRICT).unwrap();
        let (ours, expected) = (bed.listing(), bed.expected(commit));
        for (path, expected) in &expected {
            prop_assert_eq!(ours.get(path), Some(expected), "{}", String::from_utf8_lossy(path));
        }
        Ok(())
    });
    outcome.unwrap();
}
