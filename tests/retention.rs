//! `list` and `prune` on EC2: who uses snapshots, and which may go.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use serde_json::{Value, json};

mod support {
    pub mod bridge;
    pub mod ec2;
    pub mod git_cli;
    pub mod shelf;
    pub mod store;
    pub mod tools;
}

use support::ec2::{Baking, Ended};
use support::shelf::Shelf;

/// So that all of these tests' old snapshots are beyond the count.
const ONE: [&str; 2] = ["--keep", "1"];

fn set<const N: usize>(ids: [&String; N]) -> BTreeSet<String> {
    ids.into_iter().cloned().collect()
}

fn denied(code: &str) -> Value {
    json!({ "error": { "code": code, "status": 403, "message": "You are not authorized to perform this operation." } })
}

#[test]
fn root_what_is_old_and_beyond_the_count_and_unused_goes() {
    let Some(shelf) = Shelf::new() else { return };
    let [oldest, old, beyond, newest] = shelf.several([90, 60, 31, 29]);
    let other = shelf.named(90, "web");
    let foreign = shelf.tagged(90, &[("ebs-bake:volume", "chef")]);
    let (ended, verdicts) = shelf.prune(&["--keep", "2"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(shelf.left(), set([&beyond, &newest, &other, &foreign]));
    assert_eq!(verdicts.ids(), set([&oldest, &old, &beyond, &newest, &other]), "what is not ours is not considered");
    for id in [&oldest, &old] {
        assert_eq!(verdicts.action(id, "older than 30 days; not one of the newest 2 of chef; unused"), "deleted");
    }
    assert_eq!(verdicts.action(&beyond, "one of the newest 2 of chef"), "kept");
    assert_eq!(verdicts.action(&newest, "the newest of chef: the next bake builds on it; younger than 30 days"), "kept");
    assert_eq!(verdicts.action(&other, "the newest of web"), "kept");
    assert!(ended.stderr.contains(&format!("deleted {oldest}")), "{ended:?}");

    shelf.bridge().clear_calls();
    let ended = shelf.run(&["prune", "--keep", "2"]);
    assert_eq!((ended.code, shelf.count("Delete")), (0, 0), "a second run has nothing to do: {ended:?}");
    let row = format!("{newest}  fedcba987654  29d  kept    the newest of chef");
    assert!(ended.stdout.starts_with("SNAPSHOT ") && ended.stdout.contains(&row), "{}", ended.stdout);
    // Only the names that are asked for.
    let older = shelf.named(100, "web");
    shelf.prune(&["--keep", "1", "--keep-days", "0", "--volume-name", "web"]);
    assert_eq!(shelf.left(), set([&beyond, &newest, &other, &foreign]), "{older} is gone");
}

#[test]
fn root_who_needs_a_snapshot_keeps_it() {
    let Some(shelf) = Shelf::new() else { return };
    // Pages of one, so that everything but the first is on another one.
    shelf.bridge().limits(json!({ "page_size": 1 }));
    let [unused, default, latest, pinned, named, overridden, old] = shelf.several([90, 89, 88, 87, 86, 85, 84]);
    let [configured, grouped, held, image, parameter, free, newest] = shelf.several([83, 82, 81, 80, 79, 78, 77]);
    shelf.template("unrelated", "snap-00000000");
    let chef = shelf.template("chef", &default);
    for snapshot in [&old, &pinned, &named, &overridden, &latest] {
        shelf.version(&chef, snapshot);
    }
    shelf.group("none", &[("LaunchTemplate.LaunchTemplateName", "unrelated"), ("LaunchTemplate.Version", "$Latest")]);
    shelf.group("web", &[("LaunchTemplate.LaunchTemplateId", &chef), ("LaunchTemplate.Version", "3")]);
    let policy = "MixedInstancesPolicy.LaunchTemplate";
    let own = format!("{policy}.LaunchTemplateSpecification");
    let of_override = format!("{policy}.Overrides.member.1");
    shelf.group(
        "mixed",
        &[
            (&format!("{own}.LaunchTemplateName"), "chef"),
            (&format!("{own}.Version"), "4"),
            (&format!("{of_override}.InstanceType"), "m5.large"),
            (&format!("{of_override}.LaunchTemplateSpecification.LaunchTemplateId"), &chef),
            (&format!("{of_override}.LaunchTemplateSpecification.Version"), "5"),
        ],
    );
    shelf.configuration("alone", &configured);
    shelf.configuration("of-group", &grouped);
    shelf.group("older", &[("LaunchConfigurationName", "of-group")]);
    shelf.held(&held);
    let ami = format!("used by AMI {}", shelf.image(&image));
    let volume = shelf.volume_of(&free);
    shelf.parameter("/chef/latest", &parameter);
    let (ended, verdicts) = shelf.prune(&[&ONE[..], &["--ssm-parameter", "/chef/latest"]].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    let instance = format!("instance {}", shelf.stage.host.instance_id);
    for (id, words) in [
        (&default, "used by template chef v1 (default)"),
        (&latest, "used by template chef v6 (latest)"),
        (&pinned, "used by template chef v3 (pinned), group web"),
        (&named, "used by template chef v4 (pinned), group mixed"),
        (&overridden, "used by template chef v5 (pinned), group mixed"),
        (&configured, "used by launch configuration alone"),
        (&grouped, "used by launch configuration of-group, group older"),
        (&held, instance.as_str()),
        (&image, ami.as_str()),
        (&parameter, "used by parameter /chef/latest"),
        (&newest, "the newest of chef"),
    ] {
        assert_eq!(verdicts.action(id, words), "kept");
    }
    assert_eq!(verdicts.action(&unused, "unused"), "deleted");
    assert_eq!(verdicts.action(&old, "not needed by template chef v2 (old)"), "deleted");
    assert_eq!(verdicts.action(&free, &format!("not needed by volume {volume} (free)")), "deleted");
    assert_eq!(shelf.left().len(), 11 + 1, "the AMI of moto has a snapshot of its own: {:?}", shelf.left());
}

#[test]
fn root_what_a_refresh_that_goes_on_shall_launch_is_in_use() {
    let Some(shelf) = Shelf::new() else { return };
    let [first, second, newest] = shelf.several([90, 80, 70]);
    let chef = shelf.template("chef", &newest);
    shelf.version(&chef, &first);
    shelf.version(&chef, &second);
    shelf.version(&chef, &newest);
    shelf.group("web", &[("LaunchTemplate.LaunchTemplateId", &chef), ("LaunchTemplate.Version", "3")]);
    shelf.bridge().timing(json!({ "refresh.in-progress": "never" }));
    let desired = "DesiredConfiguration.LaunchTemplate";
    let (id, version) = (format!("{desired}.LaunchTemplateId"), format!("{desired}.Version"));
    shelf.scaling("StartInstanceRefresh", &[("AutoScalingGroupName", "web"), (&id, &chef), (&version, "2")]);
    let (_, verdicts) = shelf.prune(&[&ONE[..], &["--dry-run"]].concat());
    assert_eq!(verdicts.action(&first, "used by template chef v2 (pinned), group web"), "keep");
    assert_eq!(
        verdicts.action(&second, "used by template chef v3 (pinned), group web"),
        "keep",
        "where it is, and is rolled back to"
    );
    shelf.bridge().settle();
    let (_, verdicts) = shelf.prune(&ONE);
    assert_eq!(verdicts.action(&second, "not needed by template chef v3 (old)"), "deleted");
    assert_eq!(shelf.left(), set([&first, &newest]));
}

#[test]
fn root_where_a_look_fails_nothing_is_deleted() {
    let Some(shelf) = Shelf::new() else { return };
    let ids = shelf.several([90, 80, 70]);
    let chef = shelf.template("chef", &ids[2]);
    shelf.group("web", &[("LaunchTemplate.LaunchTemplateId", &chef)]);
    let all = [&ONE[..], &["--ssm-parameter", "/chef/latest"]].concat();
    for (action, code) in [
        ("DescribeVolumes", "UnauthorizedOperation"),
        ("DescribeImages", "UnauthorizedOperation"),
        ("DescribeLaunchTemplateVersions", "UnauthorizedOperation"),
        ("DescribeSnapshotAttribute", "UnauthorizedOperation"),
        ("DescribeAutoScalingGroups", "AccessDenied"),
        ("DescribeInstanceRefreshes", "AccessDenied"),
        ("DescribeLaunchConfigurations", "AccessDenied"),
        ("GetParameter", "AccessDeniedException"),
    ] {
        shelf.bridge().clear_faults();
        shelf.stage.fault(action, denied(code));
        let (ended, verdicts) = shelf.prune(&all);
        ended.failed(3, &["nothing was deleted, for not all users of the snapshots are known", action, "docs/iam-policy.json"]);
        assert_eq!(verdicts.action(&ids[0], "who uses it is not known"), "kept", "{action}");
        assert_eq!(verdicts.action(&ids[2], "the newest of chef"), "kept", "{action}");
    }
    // All versions of the template are asked for by a call of their own.
    shelf.bridge().clear_faults();
    shelf
        .bridge()
        .rule(json!({ "action": "DescribeLaunchTemplateVersions", "nth": 2, "effect": denied("UnauthorizedOperation") }));
    shelf.prune(&all).0.failed(3, &["look at the versions of a launch template"]);
    shelf.bridge().clear_faults();
    shelf.stage.fault("DescribeFastSnapshotRestores", denied("UnauthorizedOperation"));
    let (ended, verdicts) = shelf.prune(&all);
    ended.failed(10, &["2 of 2 snapshots could not be deleted", &ids[0], "DescribeFastSnapshotRestores", "docs/iam-policy.json"]);
    assert_eq!(verdicts.action(&ids[1], "UnauthorizedOperation"), "failed");
    assert_eq!((shelf.left().len(), shelf.count("Delete")), (3, 0));
}

#[test]
fn root_a_dry_run_decides_the_same_and_changes_nothing() {
    let Some(shelf) = Shelf::new() else { return };
    let [shared, old, newest] = shelf.several([90, 80, 1]);
    shelf.share(&shared);
    shelf.fast_restore(&old, "us-east-1a");
    let ended = shelf.run(&[&["prune", "--dry-run"], &ONE[..]].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    let line = |id: &str| ended.stdout.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
    assert!(line(&old).ends_with("80d  delete  older than 30 days; not one of the newest 1 of chef; unused"), "{}", ended.stdout);
    assert!(line(&shared).contains("keep    shared with 111122223333, whose use cannot be seen"), "{}", ended.stdout);
    assert!(line(&newest).contains("keep    the newest of chef"), "{}", ended.stdout);
    assert_eq!((shelf.count("Delete"), shelf.count("Disable"), shelf.left().len()), (0, 0, 3));

    let (ended, verdicts) = shelf.prune(&ONE);
    assert_eq!((ended.code, verdicts.action(&old, "unused"), verdicts.action(&shared, "shared with")), (0, "deleted", "kept"));
    let (_, verdicts) = shelf.prune(&[&ONE[..], &["--include-shared"]].concat());
    assert_eq!(verdicts.action(&shared, "unused"), "deleted");
    assert_eq!(shelf.left(), set([&newest]));
}

#[test]
fn root_fast_restore_ends_before_what_it_is_of() {
    let Some(shelf) = Shelf::new() else { return };
    let [first, second, newest] = shelf.several([90, 80, 70]);
    for (id, zone) in [(&first, "us-east-1a"), (&first, "us-east-1b"), (&second, "us-east-1a"), (&newest, "us-east-1a")] {
        shelf.fast_restore(id, zone);
    }
    shelf.bridge().limits(json!({ "page_size": 1 }));
    let refused = json!({ "code": "Some.Code", "message": "it is being enabled" });
    shelf.bridge().rule(json!({
        "action": "DisableFastSnapshotRestores",
        "match": { "SourceSnapshotId.1": second },
        "effect": { "unsuccessful": refused },
    }));
    let (ended, verdicts) = shelf.prune(&ONE);
    let words = ["1 of 2 snapshots could not be deleted", &second, "in us-east-1a: Some.Code", "it is being enabled"];
    ended.failed(10, &words);
    assert_eq!(verdicts.action(&second, "end the fast restore"), "failed");
    assert_eq!(shelf.left(), set([&second, &newest]));
    let calls = shelf.bridge().calls().calls;
    // The oldest comes first.
    let ended: Vec<_> = calls.iter().filter(|call| ["Disable", "Delete"].iter().any(|it| call.action.starts_with(it))).collect();
    let zones = ["AvailabilityZone.1", "AvailabilityZone.2"].map(|name| ended[0].params[name].as_str().unwrap().to_owned());
    assert_eq!((ended[0].action.as_str(), ended[1].action.as_str()), ("DisableFastSnapshotRestores", "DeleteSnapshot"));
    assert_eq!(BTreeSet::from(zones), BTreeSet::from(["us-east-1a".to_owned(), "us-east-1b".to_owned()]));
    assert_eq!(ended[0].params["SourceSnapshotId.1"], json!(first));
    assert!(ended.iter().all(|call| call.params.values().all(|value| *value != json!(newest))), "{ended:?}");
    assert_eq!(shelf.prune(&ONE).0.code, 0);
}

#[test]
fn root_what_cannot_be_deleted_does_not_keep_the_others_from_it() {
    let Some(shelf) = Shelf::new() else { return };
    let [first, locked, used, last, newest] = shelf.several([90, 80, 75, 70, 60]);
    let rule = |id: &str, code: &str, message: &str| {
        let error = json!({ "code": code, "status": 400, "message": message });
        shelf.bridge().rule(json!({ "action": "DeleteSnapshot", "match": { "SnapshotId": id }, "effect": { "error": error } }));
    };
    rule(&locked, "OperationNotPermitted", "the snapshot is locked");
    rule(&used, "InvalidSnapshot.InUse", &format!("The snapshot {used} is currently in use by ami-0123"));
    let (ended, verdicts) = shelf.prune(&ONE);
    ended.failed(10, &["1 of 4 snapshots could not be deleted: ", &locked, "OperationNotPermitted", "the snapshot is locked"]);
    assert_eq!(verdicts.action(&locked, "the snapshot is locked"), "failed");
    assert_eq!(verdicts.action(&used, "in use by ami-0123"), "kept");
    assert_eq!((verdicts.action(&first, "unused"), verdicts.action(&last, "unused")), ("deleted", "deleted"));
    assert_eq!(shelf.left(), set([&locked, &used, &newest]));
    let (ended, _) = shelf.prune(&ONE);
    assert_eq!((ended.code, shelf.left()), (0, set([&newest])), "what stood in the way is gone");
}

#[test]
fn root_who_came_to_use_it_meanwhile_is_seen() {
    let Some(shelf) = Shelf::new() else { return };
    let [old, newest] = shelf.several([90, 80]);
    let volume = shelf.held(&old);
    // The first look does not see it.
    let hidden = json!({ "override": { volume.as_str(): { "snapshotId": null } } });
    shelf.stage.fault("DescribeVolumes", hidden);
    let (ended, verdicts) = shelf.prune(&ONE);
    assert_eq!((ended.code, verdicts.action(&old, "used by instance")), (0, "kept"), "{ended:?}");
    assert_eq!((shelf.left(), shelf.count("Delete")), (set([&old, &newest]), 0));
}

#[test]
fn root_states_decide_too() {
    let Some(shelf) = Shelf::new() else { return };
    let [pending, failed, archived, completed] = shelf.several([90, 80, 70, 60]);
    let [just_failed] = shelf.several([0]);
    shelf.bridge().set_state(&pending, "pending");
    shelf.bridge().set_state(&failed, "error");
    shelf.bridge().set_state(&just_failed, "error");
    let archive = json!({ "override": { archived.as_str(): { "storageTier": "archive" } } });
    shelf.stage.faults("DescribeSnapshots", 0, archive);
    let (ended, verdicts) = shelf.prune(&["--keep", "0", "--keep-days", "0"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(verdicts.action(&pending, "pending"), "kept");
    assert_eq!(verdicts.action(&failed, "failed, more than a day ago"), "deleted");
    assert_eq!(verdicts.action(&just_failed, "failed within the last day"), "kept");
    assert_eq!(verdicts.action(&archived, "it is archived"), "kept");
    assert_eq!(verdicts.action(&completed, "the newest of chef"), "kept");
}

#[test]
fn root_throttling_is_waited_out() {
    let Some(shelf) = Shelf::new() else { return };
    let [_, newest] = shelf.several([90, 80]);
    let error = json!({ "error": { "code": "RequestLimitExceeded", "status": 503 } });
    for action in ["DescribeVolumes", "DescribeLaunchTemplateVersions", "DeleteSnapshot"] {
        shelf.stage.fault(action, error.clone());
    }
    let error = json!({ "error": { "code": "Throttling", "status": 400 } });
    shelf.stage.fault("DescribeAutoScalingGroups", error);
    let (ended, _) = shelf.prune(&ONE);
    assert_eq!((ended.code, shelf.left()), (0, set([&newest])), "{ended:?}");
}

#[test]
fn root_a_signal_stops_it_between_two_snapshots() {
    let Some(shelf) = Shelf::new() else { return };
    let [first, second, third, newest] = shelf.several([90, 80, 70, 60]);
    shelf.bridge().rule(json!({ "action": "DeleteSnapshot", "nth": 2, "effect": { "delay": 30 } }));
    let mut run = Baking::start(shelf.stage.cloud.program(&shelf.stage.host, &["prune", "--keep", "1"]));
    run.until(&format!("deleted {first}"));
    run.terminate();
    let ended = run.end();
    ended.failed(143, &["interrupted by SIGTERM"]);
    let line = |id: &str| ended.stdout.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
    assert!(line(&first).contains("deleted  older"), "{}", ended.stdout);
    assert!(line(&second).contains("kept     interrupted"), "{}", ended.stdout);
    assert!(line(&third).contains("kept     interrupted before its turn"), "{}", ended.stdout);
    assert!(shelf.left().is_superset(&set([&third, &newest])));
}

#[test]
fn root_a_region_s_copies_are_pruned_there() {
    let Some(shelf) = Shelf::new() else { return };
    let [old, newest] = shelf.several([90, 80]);
    for id in [&old, &newest] {
        let tags = ["ebs-bake:key", "ebs-bake:volume"];
        let tags = (1..).zip(tags).flat_map(|(number, key)| {
            let tag = |what: &str| format!("TagSpecification.1.Tag.{number}.{what}");
            [(tag("Key"), key), (tag("Value"), "chef")]
        });
        let tags: Vec<_> = tags.collect();
        let own =
            [("SourceRegion", "us-east-1"), ("SourceSnapshotId", id.as_str()), ("TagSpecification.1.ResourceType", "snapshot")];
        let params: Vec<(&str, &str)> = own.into_iter().chain(tags.iter().map(|(name, value)| (name.as_str(), *value))).collect();
        shelf.bridge().ec2("eu-west-1", "CopySnapshot", &params);
    }
    let (ended, verdicts) = shelf.prune(&["--region", "eu-west-1", "--keep", "1", "--keep-days", "0"]);
    assert_eq!((ended.code, verdicts.ids().len()), (0, 2), "{ended:?}");
    assert_eq!((shelf.left().len(), shelf.left().is_superset(&set([&old, &newest]))), (3, true));
}

fn listed(ended: &Ended) -> Vec<Value> {
    assert_eq!(ended.code, 0, "{ended:?}");
    serde_json::from_str::<Value>(&ended.stdout).unwrap()["snapshots"].as_array().unwrap().clone()
}

#[test]
fn root_list_tells_who_uses_what() {
    let Some(shelf) = Shelf::new() else { return };
    let [old, used, unused] = shelf.several([90, 80, 70]);
    let chef = shelf.template("chef", &old);
    shelf.version(&chef, &used);
    shelf.ec2("ModifyLaunchTemplate", &[("LaunchTemplateId", &chef), ("SetDefaultVersion", "2")]);
    shelf.group("web", &[("LaunchTemplate.LaunchTemplateId", &chef), ("LaunchTemplate.Version", "$Default")]);
    let volume = shelf.held(&used);
    let instance = &shelf.stage.host.instance_id;
    let ended = shelf.run(&["list"]);
    let row = |id: &str, users: &str| format!("{id}  fedcba987654  -    completed  80d  1 GiB  01234567  {users}");
    assert!(ended.stdout.contains(&row(&used, "template chef v2")), "{}", ended.stdout);
    let flat = ended.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains(&format!("template chef v2 (default, latest), group web, instance {instance}")), "{}", ended.stdout);
    assert!(flat.contains("01234567 template chef v1 (old)") && flat.contains("01234567 -"), "{}", ended.stdout);
    assert!(ended.stdout.lines().all(|line| line.len() <= 125), "{}", ended.stdout);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));

    shelf.bridge().clear_calls();
    let snapshots = listed(&shelf.run(&["list", "--json"]));
    assert!(shelf.count("") <= 8, "no call for each snapshot: {:?}", shelf.bridge().calls().counts);
    let of = |id: &str| snapshots.iter().find(|snapshot| snapshot["snapshot-id"] == *id).unwrap();
    assert_eq!((&of(&used)["in-use"], &of(&old)["in-use"]), (&json!(true), &json!(false)));
    let users = &of(&used)["used-by"];
    assert_eq!((&users["groups"], &users["instances"]), (&json!(["web"]), &json!([instance])));
    assert_eq!(users["volumes"], json!([{ "volume-id": volume, "held-by": instance }]));
    let version = json!({
        "template-id": chef, "template": "chef", "version": 2, "default": true, "latest": true, "pinned": false
    });
    assert_eq!(users["template-versions"], json!([version]));
    assert_eq!(of(&unused)["used-by"]["template-versions"], json!([]));
}

#[test]
fn root_list_without_permissions_lists_and_says_what_is_not_known() {
    let Some(shelf) = Shelf::new() else { return };
    let [held, newest] = shelf.several([90, 80]);
    shelf.held(&held);
    shelf.stage.faults("DescribeAutoScalingGroups", 0, denied("AccessDenied"));
    shelf.stage.faults("DescribeLaunchTemplateVersions", 0, denied("UnauthorizedOperation"));
    let ended = shelf.run(&["list"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    for action in ["DescribeAutoScalingGroups", "DescribeLaunchTemplateVersions"] {
        assert!(ended.stderr.contains(action) && ended.stderr.contains("docs/iam-policy.json"), "{ended:?}");
    }
    assert_eq!(ended.stderr.matches("not all users of snapshots are known").count(), 2, "{ended:?}");
    let rest = |id: &str| {
        ended.stdout.lines().find(|line| line.starts_with(id)).unwrap().split("01234567").nth(1).unwrap().trim().to_owned()
    };
    assert_eq!(rest(&newest), "?");
    assert!(rest(&held).starts_with("instance i-"), "{}", ended.stdout);
    let snapshots = listed(&shelf.run(&["list", "--json"]));
    assert_eq!((&snapshots[0]["in-use"], &snapshots[1]["in-use"]), (&json!(true), &Value::Null));
    assert_eq!((&snapshots[1]["used-by"]["groups"], &snapshots[1]["used-by"]["images"]), (&Value::Null, &json!([])));
}

#[test]
fn root_hundreds_of_snapshots_take_few_calls() {
    let Some(shelf) = Shelf::new() else { return };
    let ids: Vec<String> = (0..201).map(|number| shelf.aged(300 - number)).collect();
    let held = shelf.held(&ids[200]);
    let snapshots = listed(&shelf.run(&["list", "--json"]));
    assert_eq!((snapshots.len(), shelf.count("") <= 12), (201, true), "{:?}", shelf.bridge().calls().counts);
    assert_eq!(snapshots[200]["used-by"]["volumes"][0]["volume-id"], json!(held));
}
