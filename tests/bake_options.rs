//! Options of a bake, submodules, and the other commands, on real volumes.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/git_cli.rs"]
mod git_cli;
mod support;

use std::fs;

use bake::{Host, names_in};
use git_cli::Scratch;
use support::needs_root;

fn start() -> (Host, Scratch) {
    let (host, scratch) = (Host::new(), Scratch::new());
    scratch.repository("up");
    (host, scratch)
}

/// Adds `of` as a submodule of `to`, by a relative URL.
fn add_submodule(scratch: &Scratch, to: &str, of: &str, path: &str) -> String {
    let url = format!("../{of}");
    scratch.git(to, &["-c", "protocol.file.allow=always", "submodule", "add", "-q", &url, path]);
    scratch.git(to, &["submodule", "absorbgitdirs"]);
    scratch.commit(to, &[])
}

#[test]
fn root_submodules_are_checked_out_as_asked() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    scratch.repository("inner");
    scratch.commit("inner", &[("inner", "i\n")]);
    scratch.repository("outer");
    add_submodule(&scratch, "outer", "inner", "nested/inner");
    let commit = add_submodule(&scratch, "up", "outer", "vendor/outer");
    let up = scratch.path("up");
    let is_there = |id: &str| {
        host.restored(id, |root| {
            assert_eq!(host.git(root, &["status", "--porcelain"]), "");
            let status = host.git(root, &["submodule", "status", "--recursive"]);
            let outer = root.join("vendor/outer");
            (outer.join("README").exists(), outer.join("nested/inner/inner").exists(), outer.is_dir(), status)
        })
    };
    let off = is_there(&host.bake(&up).baked().id);
    assert!(!off.0 && off.2 && off.3.starts_with('-'), "{off:?}");
    let first_level = is_there(&host.bake(&up).args(["--submodules", "yes"]).baked().id);
    assert!(first_level.0 && !first_level.1, "{first_level:?}");
    let all = host.bake(&up).args(["--submodules", "recursive"]).baked().id;
    let status = is_there(&all);
    assert!(status.0 && status.1, "{status:?}");
    assert!(status.3.lines().all(|line| line.starts_with(' ')), "initialised and at the right commit: {status:?}");
    host.restored(&all, |root| {
        host.git(&root.join("vendor/outer/nested/inner"), &["fsck", "--full", "--strict"]);
        assert_eq!(fs::read_to_string(root.join("vendor/outer/nested/inner/inner")).unwrap(), "i\n");
    });

    // Off again: the directories are empty although they were full on this volume.
    let next = scratch.commit("up", &[("next", "n\n")]);
    let off = host.bake(&up).baked();
    assert!(!is_there(&off.id).0);
    host.assert_holds(&off.id, &up, &next);
    assert_ne!(next, commit);

    // Moved, then removed.
    scratch.git("up", &["-c", "protocol.file.allow=always", "submodule", "update", "-q", "--init"]);
    scratch.git("up", &["mv", "vendor/outer", "moved"]);
    scratch.commit("up", &[]);
    let moved = host.bake(&up).args(["--submodules", "recursive"]).baked();
    host.restored(&moved.id, |root| {
        assert!(root.join("moved/nested/inner/inner").exists() && !root.join("vendor").exists());
        assert_eq!(host.git(root, &["status", "--porcelain"]), "");
    });
    scratch.git("up", &["rm", "-q", "moved"]);
    let commit = scratch.commit("up", &[]);
    let removed = host.bake(&up).args(["--submodules", "recursive"]).baked();
    host.assert_holds(&removed.id, &up, &commit);
    host.assert_nothing_left(1);
}

#[test]
fn root_what_the_command_makes_is_in_the_snapshot() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    let script = "pwd; echo token=$EBS_BAKE_GIT_TOKEN; echo x > made; echo changed > README; (sleep 600; cat < made) & echo '::set-output'";
    let baked = host.bake(&up).args(["--after-checkout", script]).env("EBS_BAKE_GIT_TOKEN", "s3cret").baked();
    let said: Vec<_> = baked.done.events("output").iter().map(|it| it["line"].as_str().unwrap().to_owned()).collect();
    assert!(said.contains(&"token=".to_owned()), "{said:?}");
    assert!(!baked.done.stderr.contains("s3cret"));
    host.assert_nothing_left(1);
    host.restored(&baked.id, |root| {
        assert_eq!(fs::read_to_string(root.join("made")).unwrap(), "x\n");
        assert_eq!(fs::read_to_string(root.join("README")).unwrap(), "changed\n");
    });
    // Without the command it is another snapshot, of which nothing of the command is left.
    let plain = host.bake(&up).baked();
    assert_ne!(plain.id, baked.id);
    host.assert_holds(&plain.id, &up, &scratch.git("up", &["rev-parse", "HEAD"]));
}

#[test]
fn root_a_command_that_fails_means_no_snapshot() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    let failed = host.bake(&up).args(["--after-checkout", "echo why >&2; exit 3"]).failed(7);
    failed.says("--after-checkout failed", "no snapshot");
    assert!(failed.done.events("output").iter().any(|it| it["line"] == "why"), "{failed:?}");
    host.assert_nothing_left(0);
    host.bake(&up).baked();
    scratch.commit("up", &[("next", "n\n")]);
    host.bake(&up).args(["--after-checkout", "rm -rf * .git; exit 3"]).failed(7);
    host.assert_nothing_left(1);
    let commit = scratch.git("up", &["rev-parse", "HEAD"]);
    host.assert_holds(&host.bake(&up).baked().id, &up, &commit);
    assert_eq!(host.snapshots().len(), 2);
}

#[test]
fn root_untracked_files_are_kept_if_asked() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    let first = host.bake(&up).baked();
    host.by_hand("rw", |root| fs::write(root.join("mine"), "m").unwrap());
    let kept = host.bake(&up).arg("--no-clean").baked();
    assert_ne!(kept.id, first.id, "it has other content, so another key");
    host.restored(&kept.id, |root| assert_eq!(fs::read_to_string(root.join("mine")).unwrap(), "m"));
    let commit = scratch.commit("up", &[("next", "n\n")]);
    let clean = host.bake(&up).baked();
    host.assert_holds(&clean.id, &up, &commit);
}

#[test]
fn root_the_volume_ends_as_asked() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    host.bake(&up).args(["--after", "keep"]).baked();
    assert_eq!(host.loop_devices().len(), 1);
    scratch.commit("up", &[("next", "1\n")]);
    // It was attached: a run that restores what it found leaves it so.
    let second = host.bake(&up).baked();
    assert_eq!(second.done.phase("attach").unwrap().0, "unchanged");
    assert_eq!(host.loop_devices().len(), 1);
    scratch.commit("up", &[("next", "2\n")]);
    host.bake(&up).args(["--after", "detach"]).baked();
    host.assert_nothing_left(1);
    scratch.commit("up", &[("next", "3\n")]);
    let third = host.bake(&up).args(["--after", "delete"]).baked();
    host.assert_nothing_left(0);
    let commit = scratch.commit("up", &[("next", "4\n")]);
    let fourth = host.bake(&up).baked();
    assert_eq!(host.snapshots().last().unwrap()["parent"], third.id.as_str());
    assert_eq!(fourth.done.detail("checkout"), "1 written, 0 removed");
    host.assert_holds(&fourth.id, &up, &commit);
    host.assert_nothing_left(1);
}

#[test]
fn root_a_dry_run_changes_nothing() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    let plan = || {
        let done = host.bake(&up).arg("--dry-run").ended();
        assert_eq!((done.code, done.stdout.as_str()), (0, ""), "{done:?}");
        let notes = done.events("note");
        notes.iter().map(|it| it["message"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
    };
    assert!(plan().contains("would create a blank volume"));
    assert!(!host.path("store").exists() && !host.path("code").exists() && !host.path("state").exists());
    let baked = host.bake(&up).baked();
    assert_eq!(plan(), format!("would reuse {} (completed)", baked.id));
    scratch.commit("up", &[("next", "n\n")]);
    let steps = plan();
    assert!(steps.contains("would use volume") && steps.contains("would attach it"), "{steps}");
    host.assert_nothing_left(1);
    assert_eq!(host.snapshots().len(), 1);
}

#[test]
fn root_volume_and_filesystem_grow_and_never_shrink() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    scratch.git("up", &["config", "core.compression", "0"]);
    host.bake(&up).args(["--volume-size", "1"]).baked();
    let big: Vec<u8> = (0..37_500_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(up.join("big"), &big).unwrap();
    let commit = scratch.commit("up", &[]);
    let grown = host.bake(&up).baked();
    host.assert_holds(&grown.id, &up, &commit);

    // More than the volume holds: the size that is needed is said, and what was there stays usable.
    scratch.git("up", &["config", "core.compression", "1"]);
    fs::write(up.join("more"), vec![b'x'; 900 << 20]).unwrap();
    scratch.commit("up", &[]);
    let failed = host.bake(&up).failed(6);
    failed.says("too small: it has 1 GiB, the content needs 2 GiB", "--volume-size 2");
    host.assert_nothing_left(1);
    let previous = host.bake(&up).args(["--commit", &commit, "--no-clean"]).baked();
    host.assert_holds(&previous.id, &up, &commit);
    fs::write(up.join("more"), vec![b'x'; 9 << 20]).unwrap();
    scratch.commit("up", &[]);
    let larger = host.bake(&up).args(["--volume-size", "2"]).baked();
    assert_eq!(larger.result["size-gib"], 2);
    host.assert_holds(&larger.id, &up, &scratch.git("up", &["rev-parse", "HEAD"]));
    scratch.commit("up", &[("next", "n\n")]);
    host.bake(&up).args(["--volume-size", "1"]).failed(2).says("shrink", "only grow");
    host.assert_nothing_left(1);
}

#[test]
fn root_outputs_tell_the_result() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let mut run = host.bake(scratch.path("up")).arg("--output-json").arg(host.path("out.json"));
    run = run.arg("--output-env").arg(host.path("out.env")).env("GITHUB_OUTPUT", host.path("github"));
    fs::write(host.path("github"), "").unwrap();
    let baked = run.baked();
    let json: serde_json::Value = serde_json::from_slice(&fs::read(host.path("out.json")).unwrap()).unwrap();
    assert_eq!(json["snapshot-id"], baked.id.as_str());
    assert_eq!(json["reused"], false);
    assert!(json["phases"].as_array().unwrap().len() >= 10, "{json}");
    assert!(fs::read_to_string(host.path("out.env")).unwrap().contains(&format!("SNAPSHOT_ID={}\n", baked.id)));
    assert!(fs::read_to_string(host.path("github")).unwrap().contains(&baked.id));
}

#[test]
fn root_restoring_leaves_nothing_when_it_fails_or_is_undone() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let baked = host.bake(scratch.path("up")).baked();
    let restore = |id: &str, at: &str| host.program("restore").args(["--snapshot-id", id, "--mount-point"]).arg(host.path(at));
    restore("snap-00000000000000000", "code/x").failed(5).says("there is no snapshot", "list");
    fs::create_dir(host.path("full")).unwrap();
    fs::write(host.path("full/file"), "").unwrap();
    restore(&baked.id, "full").failed(6).says("not empty", "");
    host.assert_nothing_left(1);
    assert_eq!(restore(&baked.id, "shared/seen").ended().code, 0);
    assert!(fs::write(host.path("shared/seen/README"), "").is_err(), "it is read-only");
    restore(&baked.id, "shared/seen").failed(6).says("mounted on it", "");
    assert_eq!(host.loop_devices().len(), 1);
    let done = host.program("restore").args(["--detach", "--snapshot-id", &baked.id]).ended();
    assert_eq!(done.code, 0, "{done:?}");
    host.assert_nothing_left(1);
    host.program("restore").args(["--detach", "--snapshot-id", &baked.id]).failed(2);
    assert!(names_in(&host.path("shared/seen")).is_empty());
}
