//! From a commit to a snapshot and again: the whole program on real loop devices.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/git_cli.rs"]
mod git_cli;
mod support;

use bake::Host;
use git_cli::Scratch;
use support::needs_root;

#[test]
fn root_a_commit_is_baked_once() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = (Host::new(), Scratch::new());
    let commit = scratch.repository("up");
    let up = scratch.path("up");
    let first = host.bake(&up).baked();
    host.assert_nothing_left(1);
    assert!(!first.reused());
    assert_eq!(first.result["commit"], commit.as_str());
    assert_eq!(first.result["ref"], "refs/heads/main");
    assert_eq!(first.result["size-gib"], 8);
    host.assert_holds(&first.id, &up, &commit);

    let image = std::fs::metadata(host.volume()).unwrap().modified().unwrap();
    let second = host.bake(&up).baked();
    assert_eq!((second.id.as_str(), second.reused()), (first.id.as_str(), true));
    assert_eq!(std::fs::metadata(host.volume()).unwrap().modified().unwrap(), image, "the volume was touched");
    assert_eq!(second.done.phase("attach"), None);
    assert_eq!(second.result["key"], first.result["key"]);
    host.assert_nothing_left(1);
    assert_eq!(host.snapshots().len(), 1);
}

#[test]
fn root_the_next_commit_is_an_increment() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = (Host::new(), Scratch::new());
    scratch.repository("up");
    let up = scratch.path("up");
    let first = host.bake(&up).baked();
    let commit = scratch.commit("up", &[("README", "two\n"), ("new/file", "x\n")]);
    let second = host.bake(&up).baked();
    assert_ne!(second.id, first.id);
    assert_eq!(second.done.detail("checkout"), "2 written, 0 removed");
    assert_eq!(host.snapshots()[1]["parent"], first.id.as_str());
    assert!(second.result["changed-blocks"].as_u64().unwrap() < first.result["changed-blocks"].as_u64().unwrap());
    host.assert_holds(&second.id, &up, &commit);

    // An empty commit changes no file, but is a commit of its own.
    let empty = scratch.commit("up", &[]);
    let third = host.bake(&up).baked();
    assert_eq!(third.done.detail("checkout"), "0 written, 0 removed");
    host.assert_holds(&third.id, &up, &empty);

    // History that was rewritten is as good as any.
    scratch.git("up", &["reset", "-q", "--hard", "HEAD~2"]);
    let forced = scratch.commit("up", &[("README", "forced\n")]);
    let fourth = host.bake(&up).baked();
    host.assert_holds(&fourth.id, &up, &forced);
    host.assert_nothing_left(1);
}

#[test]
fn root_a_commit_is_found_by_every_name_it_has() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = (Host::new(), Scratch::new());
    let first = scratch.repository("up");
    scratch.git("up", &["tag", "-a", "-m", "one", "v1"]);
    let second = scratch.commit("up", &[("README", "two\n")]);
    let up = scratch.path("up");
    let tagged = host.bake(&up).args(["--ref", "v1"]).baked();
    assert_eq!(tagged.result["commit"], first.as_str());
    assert_eq!(tagged.result["ref"], "refs/tags/v1");
    let by_sha = host.bake(&up).args(["--ref", &first]).baked();
    assert_eq!((&by_sha.id, by_sha.reused()), (&tagged.id, true));
    let latest = host.bake(&up).baked();
    assert_eq!(latest.result["commit"], second.as_str());
    let by_commit = host.bake(&up).args(["--ref", "main", "--commit", &second]).baked();
    assert_eq!(by_commit.id, latest.id);
    host.assert_holds(&tagged.id, &up, &first);
    host.assert_holds(&latest.id, &up, &second);
    host.assert_nothing_left(1);
}

#[test]
fn root_a_shallow_clone_in_the_workspace_is_its_origin() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = (Host::new(), Scratch::new());
    scratch.repository("up");
    let commit = scratch.commit("up", &[("README", "two\n")]);
    let up = scratch.path("up");
    let url = format!("file://{}", up.display());
    scratch.git("", &["clone", "-q", "--depth", "1", &url, "workspace"]);
    let first = host.bake(scratch.path("workspace")).baked();
    host.assert_holds(&first.id, &up, &commit);
    let second = host.bake(&url).baked();
    assert_eq!(second.result["key"], first.result["key"]);
    assert!(second.reused());
    host.assert_nothing_left(1);
}

#[test]
fn root_what_cannot_be_resolved_touches_no_store() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = (Host::new(), Scratch::new());
    scratch.repository("up");
    let up = scratch.path("up");
    scratch.git("", &["init", "-q", "-b", "main", "none"]);
    host.bake(scratch.path("none")).failed(7).says("no commit", "");
    host.bake(scratch.path("missing")).failed(7).says("missing", "");
    host.bake(&up).args(["--ref", "mian"]).failed(7).says("mian", "");
    host.bake("https://127.0.0.1:1/x.git").failed(7).says("127.0.0.1", "");
    host.bake("https://no-such-host.invalid/x.git").failed(7).says("no-such-host.invalid", "");
    for hostile in ["--upload-pack=x", "a\nb", "refs/heads/../../x", "::add-mask::x", "a..b", "main:refs/heads/x"] {
        let done = host.bake(&up).arg(format!("--ref={hostile}")).ended();
        assert!(matches!(done.code, 2 | 7), "{hostile:?}: {done:?}");
        assert_eq!(done.stdout, "");
        assert!(done.stderr.lines().all(|line| line.starts_with('{')), "{done:?}");
    }
    assert!(!host.path("store").exists(), "the store was made for nothing");
    // Whether a commit is there shows when it is fetched, while the volume is being made.
    host.bake(&up).args(["--commit", &"1".repeat(40)]).failed(7).says("1111", "");
    host.assert_nothing_left(0);
}
