use std::collections::BTreeSet;

use aws_sdk_ec2::types::VolumeType;

use super::super::mapping::tests::{of_device, snapshot_of};
use super::*;

/// The names of a struct's fields.
fn fields<T: std::fmt::Debug>(value: &T) -> BTreeSet<String> {
    let text = format!("{value:#?}");
    let own = text.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     "));
    own.filter_map(|line| line.trim().split_once(':')).map(|(name, _)| name.to_owned()).collect()
}

fn of_volume() -> LaunchTemplateEbsBlockDevice {
    LaunchTemplateEbsBlockDevice::builder()
        .encrypted(true)
        .delete_on_termination(false)
        .iops(4000)
        .kms_key_id("alias/chef")
        .snapshot_id("snap-00000001")
        .volume_size(8)
        .volume_type(VolumeType::Gp3)
        .throughput(250)
        .volume_initialization_rate(200)
        .ebs_card_index(1)
        .build()
}

/// EC2's types for what it shows and for what it takes have the same fields; each must be handed in again.
#[test]
fn every_field_of_a_mapping_is_carried_over() {
    let shown = of_volume();
    let handed_in = ebs(shown.clone());
    assert_eq!(format!("{handed_in:?}"), format!("{shown:?}").replacen("BlockDevice", "BlockDeviceRequest", 1));
    assert!(!format!("{handed_in:?}").contains("None"), "a field that is new in the SDK: carry it over in `ebs`: {handed_in:?}");
    assert_eq!(fields(&shown), fields(&handed_in));

    let mapping = LaunchTemplateBlockDeviceMapping::builder()
        .device_name("/dev/sdb")
        .virtual_name("ephemeral0")
        .no_device("")
        .ebs(shown)
        .build();
    let handed_in = request(mapping.clone());
    assert_eq!(fields(&mapping), fields(&handed_in));
    assert!(!format!("{handed_in:?}").contains("None"), "carry the new field over in `request`: {handed_in:?}");
}

fn with_snapshot(id: &str) -> LaunchTemplateBlockDeviceMapping {
    let ebs = LaunchTemplateEbsBlockDevice::builder().snapshot_id(id).delete_on_termination(true).build();
    LaunchTemplateBlockDeviceMapping::builder().device_name("/dev/sdk").ebs(ebs).build()
}

fn numbered(number: i64, snapshot: &str, ami: &str, is_default: bool) -> LaunchTemplateVersion {
    let root = LaunchTemplateBlockDeviceMapping::builder().device_name("/dev/sda1").build();
    let data = ResponseLaunchTemplateData::builder().image_id(ami).block_device_mappings(root);
    LaunchTemplateVersion::builder()
        .launch_template_id("lt-00000001")
        .launch_template_name("chef")
        .version_number(number)
        .default_version(is_default)
        .launch_template_data(data.block_device_mappings(with_snapshot(snapshot)).build())
        .build()
}

/// Versions 1 (the default), 2 and 3 with a snapshot each, and 4 with another AMI.
pub(in crate::fleet) fn chef() -> Template {
    let versions = [
        numbered(3, "snap-00000003", "ami-1", false),
        numbered(1, "snap-00000001", "ami-1", true),
        numbered(2, "snap-00000002", "ami-1", false),
        numbered(4, "snap-00000002", "ami-2", false),
    ];
    template(versions.to_vec()).unwrap()
}

fn planned(template: &Template, source: i64, in_use: &[i64], follows_latest: bool) -> Plan {
    let source = template.require(VersionChoice::Number(source)).unwrap();
    plan(template, source, &of_device("/dev/sdk"), &snapshot_of(1), in_use, follows_latest).unwrap()
}

#[test]
fn a_template_knows_its_versions() {
    let chef = chef();
    assert_eq!((chef.default().number, chef.latest().number, chef.id.as_str()), (1, 4, "lt-00000001"));
    assert_eq!(chef.require(VersionChoice::Number(9)).unwrap_err().kind(), Kind::Fleet);
    assert_eq!(chef.default().snapshot("/dev/sdk").as_deref(), Some("snap-00000001"));
    assert!(
        chef.versions[0].is_alike(&chef.versions[1], "/dev/sdk") && !chef.versions[1].is_alike(&chef.versions[3], "/dev/sdk")
    );
    assert!(!chef.versions[0].is_alike(&chef.versions[1], "/dev/sdl"));
    assert_eq!(template(Vec::new()), None);
}

#[test]
fn a_version_that_is_as_it_shall_be_is_taken() {
    let chef = chef();
    assert_eq!(planned(&chef, 1, &[], false).present, Some(2));
    assert_eq!(planned(&chef, 2, &[1], false).present, Some(2), "the source has it");
    assert_eq!(planned(&chef, 4, &[], false).present, Some(4), "the other AMI");
    assert_eq!(planned(&chef, 1, &[], true).present, None, "whoever follows the latest would not get it");
    assert_eq!(planned(&chef, 4, &[], true).present, Some(4));
    assert_eq!(planned(&chef, 2, &[], false).differences, [""; 0]);
    let mut again = chef.clone();
    again.versions.push(Version { number: 5, ..chef.versions[1].clone() });
    assert_eq!(planned(&again, 1, &[], false).present, Some(5), "the newest");
    assert_eq!(planned(&again, 1, &[2], false).present, Some(2), "the one that is used");
}

#[test]
fn the_order_of_mappings_means_nothing() {
    let mut chef = chef();
    chef.versions[1].mappings.reverse();
    assert_eq!(planned(&chef, 1, &[], false).present, Some(2));
}

#[test]
fn tokens_are_the_same_for_the_same_change_of_the_same_versions() {
    let (chef, mut more) = (chef(), chef());
    more.versions.push(Version { number: 5, ..chef.versions[0].clone() });
    let token = |template: &Template, source| planned(template, source, &[], true).token;
    assert_eq!((token(&chef, 1).len(), token(&chef, 1)), (64, token(&chef, 1)));
    assert_ne!(token(&chef, 1), token(&chef, 3));
    assert_ne!(token(&chef, 1), token(&more, 1));
}

#[test]
fn descriptions_tell_whose_they_are_and_are_short_enough() {
    let mut snapshot = snapshot_of(1);
    assert_eq!(description(&snapshot), "ebs-bake: snap-00000002");
    snapshot.tags.insert(tag::REPOSITORY.into(), format!("https://example.com/{}", "ä".repeat(300)));
    assert_eq!(description(&snapshot).chars().count(), MAX_DESCRIPTION);
    let ours = LaunchTemplateVersion::builder().version_number(1).version_description(description(&snapshot)).build();
    assert!(version(ours).unwrap().is_ours);
    let theirs = LaunchTemplateVersion::builder().version_number(1).version_description("by hand").build();
    assert!(!version(theirs).unwrap().is_ours);
}
