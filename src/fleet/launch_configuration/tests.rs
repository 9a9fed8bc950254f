use aws_sdk_autoscaling::config::{BehaviorVersion, Config};
use aws_sdk_autoscaling::primitives::DateTime;
use aws_sdk_autoscaling::types::{BlockDeviceMapping, Ebs, InstanceMetadataOptions, InstanceMonitoring};

use super::super::mapping::tests::{of_device, snapshot_of};
use super::*;

fn full() -> LaunchConfiguration {
    let ebs = Ebs::builder().snapshot_id("snap-00000001").encrypted(true).build();
    LaunchConfiguration::builder()
        .launch_configuration_name("old")
        .launch_configuration_arn("arn:aws:autoscaling:eu-central-1:123456789012:launchConfiguration:x")
        .image_id("ami-1")
        .key_name("ops")
        .security_groups("sg-1")
        .classic_link_vpc_id("vpc-1")
        .classic_link_vpc_security_groups("sg-2")
        .user_data("eA==")
        .instance_type("m5.large")
        .kernel_id("aki-1")
        .ramdisk_id("ari-1")
        .block_device_mappings(BlockDeviceMapping::builder().device_name("/dev/sdk").ebs(ebs).build())
        .instance_monitoring(InstanceMonitoring::builder().enabled(true).build())
        .spot_price("0.05")
        .iam_instance_profile("web")
        .created_time(DateTime::from_secs(1))
        .ebs_optimized(true)
        .associate_public_ip_address(true)
        .placement_tenancy("dedicated")
        .metadata_options(InstanceMetadataOptions::builder().http_tokens("required".into()).build())
        .build()
}

/// Name → value of a struct's fields, as Debug writes them.
fn fields<T: std::fmt::Debug>(value: &T) -> BTreeMap<String, String> {
    let text = format!("{value:#?}");
    let mut fields = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines().filter(|line| line.starts_with("    ")) {
        match line
            .strip_prefix("    ")
            .filter(|line| !line.starts_with([' ', '}', ')', ']']))
            .and_then(|line| line.split_once(": "))
        {
            Some((name, value)) => {
                last = name.to_owned();
                fields.insert(last.clone(), value.to_owned());
            }
            None => *fields.get_mut(&last).unwrap() += line,
        }
    }
    fields
}

/// A field that is new in the SDK must be carried over in `copy` too.
#[test]
fn every_field_is_carried_over() {
    let config = Config::builder().behavior_version(BehaviorVersion::latest()).build();
    let request = Client::from_conf(config).create_launch_configuration();
    let mut copied = fields(copy(request, &full()).as_input());
    let mut shown = fields(&full());
    for ours in ["launch_configuration_name", "launch_configuration_arn", "created_time"] {
        shown.remove(ours);
    }
    // What a configuration is made from, rather than what it says.
    assert_eq!(copied.remove("instance_id").as_deref(), Some("None,"));
    assert_eq!(copied.remove("launch_configuration_name").as_deref(), Some("None,"));
    assert_eq!(copied, shown);
    assert!(!shown.values().any(|value| value == "None,"), "give the new field a value here: {shown:?}");
}

#[test]
fn what_is_empty_is_not_handed_in() {
    let config = Config::builder().behavior_version(BehaviorVersion::latest()).build();
    let bare = LaunchConfiguration::builder().image_id("ami-1").kernel_id("").key_name("").user_data("");
    let bare = bare.set_security_groups(Some(Vec::new())).build();
    let input = copy(Client::from_conf(config).create_launch_configuration(), &bare);
    assert_eq!((input.get_kernel_id(), input.get_key_name(), input.get_user_data()), (&None, &None, &None));
    assert_eq!(input.get_security_groups(), &None);
}

fn snapshot() -> Snapshot {
    let mut snapshot = snapshot_of(1);
    snapshot.tags.insert(tag::COMMIT.into(), "0123456789abcdef0123456789abcdef01234567".into());
    snapshot
}

#[test]
fn names_tell_commit_and_content() {
    let plan_of = |configuration: &LaunchConfiguration| plan(configuration, "chef", &of_device("/dev/sdk"), &snapshot()).unwrap();
    let first = plan_of(&full());
    assert!(first.name.starts_with("chef-0123456789ab-") && is_ours(&first.name, "chef"), "{}", first.name);
    assert!(!first.is_done() && first.source == "old");
    let mut renamed = full();
    (renamed.launch_configuration_name, renamed.created_time) = (Some("older".into()), None);
    assert_eq!(plan_of(&renamed).name, first.name);
    let mut other = full();
    other.user_data = Some("eQ==".into());
    assert_ne!(plan_of(&other).name, first.name);
    let mut done = first.content.clone();
    done.launch_configuration_name = Some(first.name.clone());
    assert!(plan_of(&done).is_done());
    let untagged = plan(&full(), "chef", &of_device("/dev/sdk"), &snapshot_of(1)).unwrap();
    assert!(untagged.name.starts_with("chef-00000002-") && is_ours(&untagged.name, "chef"), "{}", untagged.name);
}

#[test]
fn names_of_others_are_not_ours() {
    assert!(is_ours("chef-0123456789ab-0123456789ab", "chef") && is_ours("a-b-01234567-0123456789ab", "a-b"));
    for theirs in [
        "chef",
        "chef-web",
        "chef-0123456789ab",
        "chef-0123456789ab-by-hand",
        "chef-web-0123456789ab-0123456789ab",
        "chefs-01234567-0123456789ab",
    ] {
        assert!(!is_ours(theirs, "chef"), "{theirs}");
    }
}

#[test]
fn what_templates_alone_can_is_refused() {
    let wish = Change { initialization_rate: Some(200), ..of_device("/dev/sdk") };
    assert_eq!(plan(&full(), "chef", &wish, &snapshot()).unwrap_err().kind(), Kind::Usage);
}
