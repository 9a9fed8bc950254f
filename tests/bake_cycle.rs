//! From a commit to a snapshot and again: the whole program on real loop devices.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/git_cli.rs"]
#[allow(dead_code)]
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
