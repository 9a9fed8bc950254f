//! What is in the snapshot is what the git command line checks out, whatever happened to the volume before.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/git_cli.rs"]
mod git_cli;
mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use bake::{Host, assert_same, tree_of};
use git_cli::Scratch;
use support::needs_root;

/// Every kind of thing that git can have in a tree.
fn everything(scratch: &Scratch) -> String {
    scratch.repository("up");
    let up = scratch.path("up");
    let odd: [&[u8]; 5] = [b"with space", b"new\nline", b"\xff\xfe not utf-8", b"-dash", b"quote'\"\\"];
    for name in odd {
        fs::create_dir(up.join(OsStr::from_bytes(name))).unwrap();
        fs::write(up.join(OsStr::from_bytes(name)).join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(up.join("tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(up.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/etc/passwd", up.join("absolute")).unwrap();
    symlink("no/where", up.join("dangling")).unwrap();
    symlink("..", up.join("up")).unwrap();
    fs::write(up.join("empty"), "").unwrap();
    let attributes = "*.crlf text eol=crlf\n*.id ident\n*.utf16 text working-tree-encoding=UTF-16LE\n*.bin -text\n";
    fs::write(up.join(".gitattributes"), attributes).unwrap();
    fs::write(up.join("dos.crlf"), "one\r\ntwo\r\n").unwrap();
    fs::write(up.join("version.id"), "$Id$\n").unwrap();
    fs::write(up.join("wide.utf16"), "wide\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).unwrap();
    fs::write(up.join("raw.bin"), [0, 1, 2, b'\r', b'\n', 255]).unwrap();
    let mut seed = 1_u32;
    let noise = |_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    fs::write(up.join("large"), (0..40 << 20).map(noise).collect::<Vec<u8>>()).unwrap();
    scratch.commit("up", &[("was-directory/file", "x\n"), ("was-file", "y\n")])
}

#[test]
fn root_everything_that_git_can_hold_is_held() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = (Host::new(), Scratch::new());
    let commit = everything(&scratch);
    let up = scratch.path("up");
    let first = host.bake(&up).baked();
    host.assert_holds(&first.id, &up, &commit);

    fs::remove_dir_all(up.join("was-directory")).unwrap();
    fs::remove_file(up.join("was-file")).unwrap();
    fs::remove_file(up.join("absolute")).unwrap();
    fs::set_permissions(up.join("tool"), fs::Permissions::from_mode(0o644)).unwrap();
    let commit = scratch.commit("up", &[("was-directory", "x\n"), ("was-file/deep/er", "y\n"), ("absolute/now", "z\n")]);
    let second = host.bake(&up).baked();
    host.assert_holds(&second.id, &up, &commit);
    host.assert_nothing_left(1);
}

#[test]
fn root_what_was_changed_by_hand_is_put_back() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = (Host::new(), Scratch::new());
    scratch.repository("up");
    scratch.commit("up", &[("keep/one", "1\n"), ("keep/two", "2\n"), ("gone/three", "3\n")]);
    let up = scratch.path("up");
    host.bake(&up).baked();
    host.by_hand("rw", |root| {
        // The same length and the same time: only the bytes tell.
        let path = root.join("keep/one");
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "!\n").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        fs::set_permissions(root.join("keep/two"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::remove_dir_all(root.join("gone")).unwrap();
        symlink("/etc", root.join("gone")).unwrap();
        fs::remove_file(root.join("README")).unwrap();
        fs::create_dir_all(root.join("untracked/deep")).unwrap();
        fs::write(root.join("untracked/deep/file"), "u").unwrap();
        fs::write(root.join("keep/untracked"), "u").unwrap();
        fs::remove_file(root.join(".ebs-bake.json")).unwrap();
    });
    let commit = scratch.commit("up", &[("new", "n\n")]);
    let baked = host.bake(&up).baked();
    assert!(!Path::new("/etc/three").exists(), "written through a link");
    host.assert_holds(&baked.id, &up, &commit);
    host.assert_nothing_left(1);
}

#[test]
fn root_looking_at_the_volume_costs_no_trust() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = (Host::new(), Scratch::new());
    scratch.repository("up");
    let up = scratch.path("up");
    host.bake(&up).baked();
    host.by_hand("ro", |root| drop(fs::read(root.join("README")).unwrap()));
    scratch.commit("up", &[("new", "n\n")]);
    assert_eq!(host.bake(&up).baked().done.detail("checkout"), "1 written, 0 removed");
    host.by_hand("rw", |_| {});
    scratch.commit("up", &[("new", "m\n")]);
    let detail = host.bake(&up).baked().done.detail("checkout");
    assert!(detail.starts_with("1 written, 0 removed, ") && detail.ends_with(" examined"), "{detail}");
}

/// Its name, and what does it to the root of the volume.
type Damage = (&'static str, fn(&Path));

#[test]
fn root_a_git_directory_that_was_damaged_is_made_anew() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = (Host::new(), Scratch::new());
    scratch.repository("up");
    let up = scratch.path("up");
    host.bake(&up).baked();
    let damages: [Damage; 5] = [
        ("no objects", |root| fs::remove_dir_all(root.join(".git/objects")).unwrap()),
        ("no git directory", |root| fs::remove_dir_all(root.join(".git")).unwrap()),
        ("index", |root| fs::write(root.join(".git/index"), "garbage").unwrap()),
        ("lock", |root| fs::write(root.join(".git/index.lock"), "").unwrap()),
        ("config and hooks", |root| {
            fs::write(root.join(".git/config"), "[core]\n\tfsmonitor = touch /tmp/pwned\n\tworktree = /etc\n").unwrap();
            fs::create_dir_all(root.join(".git/hooks")).unwrap();
            fs::write(root.join(".git/hooks/post-checkout"), "#!/bin/sh\nexit 1\n").unwrap();
        }),
    ];
    for (number, (what, damage)) in damages.into_iter().enumerate() {
        host.by_hand("rw", damage);
        let commit = scratch.commit("up", &[("number", &format!("{number}\n"))]);
        let done = host.bake(&up).ended();
        assert_eq!(done.code, 0, "{what}: {done:?}");
        let id = done.stdout.trim();
        host.assert_holds(id, &up, &commit);
        host.restored(id, |root| {
            assert_eq!(bake::names_in(&root.join(".git/hooks")), [""; 0], "{what}");
            assert!(!fs::read_to_string(root.join(".git/config")).unwrap().contains("fsmonitor"), "{what}");
        });
    }
    host.assert_nothing_left(1);
}

#[test]
fn root_the_git_directory_can_be_left_out() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = (Host::new(), Scratch::new());
    scratch.repository("up");
    let up = scratch.path("up");
    let exclude = || host.bake(&up).args(["--git-dir", "exclude"]);
    let holds = |id: &str, commit: &str| {
        host.restored(id, |root| assert!(!root.join(".git").exists()));
        host.assert_holds(id, &up, commit);
    };
    exclude().baked();
    let commit = scratch.commit("up", &[("README", "two\n")]);
    let second = exclude().baked();
    assert_eq!(second.done.detail("checkout"), "1 written, 0 removed");
    holds(&second.id, &commit);

    // On another host there is no git directory to build on.
    fs::remove_dir_all(host.path("state")).unwrap();
    host.by_hand("rw", |root| fs::write(root.join("untracked"), "").unwrap());
    fs::remove_file(up.join("bin/run")).unwrap();
    let commit = scratch.commit("up", &[("README", "three\n")]);
    holds(&exclude().baked().id, &commit);

    // From without to with and back.
    let with = host.bake(&up).baked();
    host.restored(&with.id, |root| host.assert_git_is_content(root, &commit));
    let commit = scratch.commit("up", &[("README", "four\n")]);
    holds(&exclude().baked().id, &commit);
    host.assert_nothing_left(1);
}

#[test]
fn root_equal_commits_give_equal_content_and_manifest() {
    if !needs_root() {
        return;
    }
    let (one, other, scratch) = (Host::new(), Host::new(), Scratch::new());
    scratch.repository("up");
    let up = scratch.path("up");
    one.bake(&up).baked();
    scratch.commit("up", &[("README", "two\n")]);
    let ids = [&one, &other].map(|host| host.bake(&up).baked().id);
    let look = |root: &Path| (tree_of(root), fs::read_to_string(root.join(".ebs-bake.json")).unwrap());
    let (incremental, whole) = (one.restored(&ids[0], look), other.restored(&ids[1], look));
    assert_same(&incremental.0, &whole.0);
    assert_eq!(incremental.1, whole.1);
}
