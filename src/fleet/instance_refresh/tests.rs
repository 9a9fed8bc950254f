use aws_sdk_autoscaling::primitives::DateTime;
use aws_sdk_autoscaling::types::{LaunchTemplateSpecification, RollbackDetails};

use super::*;

fn spec(version: &str) -> LaunchTemplateSpecification {
    LaunchTemplateSpecification::builder().launch_template_id("lt-1").launch_template_name("chef").version(version).build()
}

fn refresh(status: &str, desired: Option<DesiredConfiguration>) -> InstanceRefresh {
    let builder = InstanceRefresh::builder().instance_refresh_id("r-1").status(status.into());
    builder.set_desired_configuration(desired).start_time(DateTime::from_secs(100)).build()
}

fn to_version(version: &str) -> Option<DesiredConfiguration> {
    desired(&Launch::Template(spec(version)))
}

fn wish(desired: Option<DesiredConfiguration>, since: Option<i64>) -> Wish {
    Wish { group: "web".into(), desired, skip_matching: true, since }
}

#[test]
fn every_status_is_an_end_or_goes_on() {
    let of = |status| outcome(&refresh(status, None));
    assert_eq!(of("Successful"), Some(true));
    for bad in ["Failed", "Cancelled", "RollbackSuccessful", "RollbackFailed"] {
        assert_eq!(of(bad), Some(false), "{bad}");
    }
    for on in ["Pending", "InProgress", "Cancelling", "RollbackInProgress", "Baking", "SomethingNew"] {
        assert_eq!(of(on), None, "{on}");
    }
}

#[test]
fn a_refresh_to_the_same_configuration_is_for_us() {
    // As Auto Scaling may show it: with the name too.
    let shown = DesiredConfiguration::builder().launch_template(spec("2")).build();
    let ours = wish(to_version("2"), None);
    assert!(is_for(&refresh("InProgress", Some(shown.clone())), &ours));
    assert!(is_for(&refresh("Baking", Some(shown.clone())), &ours));
    for undone in ["Cancelling", "RollbackInProgress"] {
        assert!(!is_for(&refresh(undone, Some(shown.clone())), &ours), "{undone}");
    }
    assert!(!is_for(&refresh("InProgress", Some(shown)), &wish(to_version("3"), None)));
    assert!(!is_for(&refresh("InProgress", None), &ours));
}

#[test]
fn without_a_goal_it_counts_whether_it_is_younger_than_the_configuration() {
    let running = refresh("InProgress", None);
    for (since, expected) in [(None, false), (Some(101), false), (Some(100), true), (Some(i64::MIN), true)] {
        assert_eq!(is_for(&running, &wish(None, since)), expected, "{since:?}");
    }
    assert!(!is_for(&refresh("InProgress", to_version("2")), &wish(None, Some(0))));
}

#[test]
fn what_it_came_to_is_told_with_all_reasons() {
    let mut failed = refresh("RollbackSuccessful", None);
    assert_eq!(reason(&failed), "Auto Scaling does not say why");
    failed.status_reason = Some("1 instance is unhealthy".into());
    failed.rollback_details = Some(RollbackDetails::builder().rollback_reason("automatic").build());
    assert_eq!(reason(&failed), "automatic; 1 instance is unhealthy");
}

#[test]
fn only_what_was_wished_for_is_a_preference() {
    let plain = preferences(&Wishes::default(), true);
    assert_eq!(plain, RefreshPreferences::builder().skip_matching(true).build());
    let wishes = Wishes { warmup: Some(Duration::from_secs(90)), checkpoints: vec![50, 100], ..Wishes::default() };
    let some = preferences(&wishes, false);
    assert_eq!((some.instance_warmup(), some.checkpoint_percentages(), some.skip_matching()), (Some(90), &[50, 100][..], None));
}
