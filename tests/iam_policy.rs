//! `docs/iam-policy.json` permits what the program calls, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use ebs_bake::aws::api::Action;
use serde_json::Value;

fn statements() -> Vec<Value> {
    let policy: Value = serde_json::from_str(include_str!("../docs/iam-policy.json")).unwrap();
    policy["Statement"].as_array().unwrap().clone()
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::Array(several) => several.iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
        one => vec![one.as_str().unwrap().to_owned()],
    }
}

#[test]
fn the_policy_has_every_action_that_is_called_and_no_other() {
    let permitted: BTreeSet<String> = statements().iter().flat_map(|statement| strings(&statement["Action"])).collect();
    // Who we are may be asked by everybody; which instances may be launched depends on the network and the roles of the account.
    let elsewhere = [Action::GetCallerIdentity, Action::RunInstances];
    let called = Action::ALL.iter().filter(|action| !elsewhere.contains(action));
    let mut expected: BTreeSet<String> = called.map(|action| action.permission().to_owned()).collect();
    // Needed by the calls that make something with tags.
    expected.insert("ec2:CreateTags".into());
    assert_eq!(permitted, expected);
}

#[test]
fn what_changes_anything_is_bound_to_our_tags() {
    for statement in statements() {
        let sid = statement["Sid"].as_str().unwrap();
        assert_eq!(statement["Effect"], "Allow", "{sid}");
        let conditions = statement["Condition"].to_string();
        let is_bound = conditions.contains("/ebs-bake:") || conditions.contains("ec2:CreateAction");
        let describes = strings(&statement["Action"]).iter().all(|action| action.contains(":Describe"));
        // The job's instance has no tag of ours, the copy's source and the copy are in two regions, a parameter and a launch
        // configuration have names.
        let named = ["WriteTheParameter", "RolloutByLaunchConfigurations"];
        let cannot_be = ["AttachToInstances", "CopyToOtherRegions"].iter().chain(&named).any(|it| *it == sid);
        assert!(is_bound || describes || cannot_be, "{sid} is bound to nothing");
        assert!(describes || strings(&statement["Resource"]).iter().all(|arn| arn != "*"), "{sid} is about everything");
    }
}
