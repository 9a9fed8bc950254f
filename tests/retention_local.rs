//! `list` and `prune` on the embedded store.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

mod support {
    #[allow(dead_code, reason = "each test program uses its own part")]
    pub mod bake;
    pub mod git_cli;
    pub mod store;
}

use support::bake::{Done, Host};
use support::git_cli::Scratch;
use support::store::needs_root;

/// A store with a snapshot for each of so many commits, oldest first.
fn baked(count: usize) -> (Host, Scratch, Vec<String>) {
    let (host, scratch) = (Host::new(), Scratch::new());
    scratch.repository("origin");
    let ids = (0..count).map(|number| bake(&host, &scratch, number)).collect();
    (host, scratch, ids)
}

fn bake(host: &Host, scratch: &Scratch, number: usize) -> String {
    scratch.commit("origin", &[("README", &format!("change {number}\n"))]);
    host.bake(scratch.path("origin")).baked().id
}

/// Lets a snapshot be so many days older.
fn age(host: &Host, id: &str, days: i64) {
    let record = host.path("store/snapshots").join(id).join("snapshot.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    let started: jiff::Timestamp = value["started"].as_str().unwrap().parse().unwrap();
    value["started"] = json!(started - jiff::SignedDuration::from_hours(24 * days));
    fs::write(record, value.to_string()).unwrap();
}

fn left(host: &Host) -> BTreeSet<String> {
    host.snapshots().iter().map(|snapshot| snapshot["snapshot-id"].as_str().unwrap().to_owned()).collect()
}

fn set<const N: usize>(ids: [&String; N]) -> BTreeSet<String> {
    ids.into_iter().cloned().collect()
}

fn prune(host: &Host, more: &[&str]) -> Done {
    host.program("prune").args(more).ended()
}

/// Others rely on the fields of what is printed as JSON.
#[track_caller]
fn assert_documented(object: &Value) {
    let page = include_str!("../docs/reference.md");
    for name in object.as_object().unwrap().keys() {
        assert!(page.contains(&format!("`{name}`")), "docs/reference.md lacks {name}");
    }
}

/// What a table says of a snapshot.
#[track_caller]
fn row(done: &Done, id: &str) -> String {
    let text = done.stdout.split_once(id).unwrap_or_else(|| panic!("{id} is not in {done:?}")).1;
    text.split("snap-").next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn root_old_snapshots_go_and_the_next_bake_builds_on_the_newest() {
    if !needs_root() {
        return;
    }
    let (host, scratch, ids) = baked(4);
    for (id, days) in ids.iter().zip([90, 60, 31, 10]) {
        age(&host, id, days);
    }
    let dry = prune(&host, &["--keep", "2", "--dry-run"]);
    assert_eq!((dry.code, left(&host).len()), (0, 4), "{dry:?}");
    assert!(row(&dry, &ids[1]).ends_with("60d delete older than 30 days; not one of the newest 2 of chef; unused"), "{dry:?}");
    let half_made = host.path("store/staging/dead");
    fs::create_dir_all(&half_made).unwrap();

    let done = prune(&host, &["--keep", "2"]);
    assert_eq!((done.code, left(&host)), (0, set([&ids[2], &ids[3]])), "{done:?}");
    assert!(row(&done, &ids[0]).contains("90d deleted older than 30 days"), "{done:?}");
    assert!(row(&done, &ids[2]).contains("31d kept one of the newest 2 of chef"), "{done:?}");
    assert!(half_made.exists(), "what killed runs left is the business of cleanup");
    let names: Vec<_> = fs::read_dir(host.path("store/snapshots")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let again = prune(&host, &["--keep", "2"]);
    assert_eq!((again.code, again.stdout.contains("deleted")), (0, false), "{again:?}");

    let next = bake(&host, &scratch, 9);
    let snapshots = host.snapshots();
    let made = snapshots.iter().find(|snapshot| snapshot["snapshot-id"] == next.as_str()).unwrap();
    assert_eq!(made["parent"], ids[3].as_str());
    let baked_before = host.bake(scratch.path("origin")).args(["--ref", "main"]).baked();
    assert!(baked_before.reused());
    host.assert_nothing_left(1);
}

#[test]
fn root_an_attached_volume_keeps_its_snapshot() {
    if !needs_root() {
        return;
    }
    let (host, _scratch, ids) = baked(3);
    let everything = ["--keep", "0", "--keep-days", "0"];
    host.restored(&ids[0], |_| {
        let listed = host.program("list").ended();
        assert!(row(&listed, &ids[0]).contains("(attached here)"), "{listed:?}");
        let snapshots = host.snapshots();
        assert_eq!((&snapshots[0]["in-use"], &snapshots[1]["in-use"]), (&json!(true), &json!(false)));
        assert_eq!(snapshots[0]["used-by"]["volumes"][0]["held-by"], "here");
        let done = prune(&host, &everything);
        assert_eq!((done.code, left(&host)), (0, set([&ids[0], &ids[2]])), "{done:?}");
        assert!(row(&done, &ids[0]).contains("kept used by volume vol-"), "{done:?}");
    });
    assert_documented(&host.snapshots()[0]);
    assert_documented(&host.snapshots()[0]["used-by"]);
    let done = prune(&host, &[&everything[..], &["--json", "--dry-run"]].concat());
    let pruned: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_documented(&pruned);
    assert_documented(&pruned["snapshots"][0]);
    let done = prune(&host, &everything);
    assert_eq!((done.code, left(&host)), (0, set([&ids[2]])), "{done:?}");
    assert!(row(&done, &ids[2]).contains("the newest of chef"), "{done:?}");
    host.assert_nothing_left(1);
}

#[test]
fn root_what_is_damaged_or_not_ours_is_told_from_what_may_go() {
    if !needs_root() {
        return;
    }
    let (host, _scratch, ids) = baked(3);
    let entry = |id: &str| host.path("store/snapshots").join(id);
    // One whose image is lost, and one that a newer program wrote: nobody knows what that is.
    fs::remove_file(host.snapshot_image(&ids[0])).unwrap();
    age(&host, &ids[0], 2);
    let record = entry(&ids[1]).join("snapshot.json");
    let newer = fs::read_to_string(&record).unwrap().replacen("\"format\": 1", "\"format\": 2", 1);
    fs::write(record, newer).unwrap();
    let done = prune(&host, &["--keep", "0", "--keep-days", "0"]);
    assert_eq!((done.code, left(&host)), (0, set([&ids[1], &ids[2]])), "{done:?}");
    assert!(row(&done, &ids[0]).contains("deleted failed, more than a day ago; unused"), "{done:?}");
    assert!(!done.stdout.contains(&ids[1]), "{done:?}");
}

#[test]
fn a_store_without_snapshots_has_nothing_to_prune() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    for command in ["prune", "list"] {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_ebs-bake"));
        let output = program.env_clear().current_dir(&directory).args([command, "--local-dir"]).arg(&store).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "no snapshots\n");
    }
    assert!(!store.exists(), "looking makes nothing");
}
