//! Ways for the fuzz targets (`fuzz/`) to what is private here; compiled with `--cfg fuzzing` alone.

use aws_sdk_autoscaling::types as scaling;
use aws_sdk_ec2::types as ec2;

use super::group::Group;
use super::instance_refresh::{self, Wish};
use super::launch_template;
use crate::config::rollout::Mapping;
use crate::storage::{Snapshot, SnapshotId, SnapshotState, Tags};

const DEVICE: &str = "/dev/sdk";

/// Versions of a launch template, one a line: words that a mapping is made of.
pub fn launch_template(text: &str, snapshot: &str) {
    let versions = text.lines().enumerate().map(|(number, line)| version(number as i64 - 1, line)).collect();
    let (Some(template), Ok(id)) = (launch_template::template(versions), snapshot.parse()) else { return };
    let change = Mapping {
        device: DEVICE.to_owned(),
        kind: None,
        size_gib: None,
        iops: None,
        throughput: None,
        initialization_rate: None,
        delete_on_termination: true,
    };
    let snapshot = of_id(id);
    for source in &template.versions {
        let Ok(plan) = launch_template::plan(&template, source, &change, &snapshot, &[1], false) else { continue };
        if let Some(present) = plan.present {
            let present = template.versions.iter().find(|version| version.number == present).expect("it is there");
            assert_eq!(present.snapshot(DEVICE).as_deref(), Some(snapshot.id.as_str()), "a version of another snapshot is taken");
        }
    }
}

fn version(number: i64, line: &str) -> ec2::LaunchTemplateVersion {
    let mappings = line.split(';').map(|mapping| {
        let mut words = mapping.split(',');
        let (device, snapshot) = (words.next().map(str::to_owned), words.next().map(str::to_owned));
        let ebs = snapshot.map(|snapshot| {
            ec2::LaunchTemplateEbsBlockDevice::builder()
                .snapshot_id(snapshot)
                .set_volume_size(words.next().and_then(|word| word.parse().ok()))
                .set_volume_type(words.next().map(ec2::VolumeType::from))
                .set_iops(words.next().and_then(|word| word.parse().ok()))
                .set_delete_on_termination(words.next().map(|word| word == "true"))
                .build()
        });
        ec2::LaunchTemplateBlockDeviceMapping::builder().set_device_name(device).set_ebs(ebs).build()
    });
    let data = ec2::ResponseLaunchTemplateData::builder().set_block_device_mappings(Some(mappings.collect())).build();
    ec2::LaunchTemplateVersion::builder()
        .launch_template_id("lt-00000001")
        .version_number(number)
        .default_version(line.len() % 2 == 0)
        .version_description(line)
        .launch_template_data(data)
        .build()
}

fn of_id(id: SnapshotId) -> Snapshot {
    Snapshot {
        id,
        state: SnapshotState::Completed,
        volume: None,
        size_gib: 8,
        tags: Tags::new(),
        description: String::new(),
        started: jiff::Timestamp::UNIX_EPOCH,
        parent: None,
        changed_blocks: None,
    }
}

/// A group and one of its instance refreshes: words that these are made of.
pub fn refresh(text: &str, wanted: &str) {
    let mut words = text.split(',');
    let mut word = || words.next().map(str::to_owned);
    let spec = scaling::LaunchTemplateSpecification::builder()
        .set_launch_template_id(word())
        .set_launch_template_name(word())
        .set_version(word())
        .build();
    let refresh = scaling::InstanceRefresh::builder()
        .set_status(word().as_deref().map(scaling::InstanceRefreshStatus::from))
        .set_percentage_complete(word().and_then(|word| word.parse().ok()))
        .set_status_reason(word())
        .desired_configuration(scaling::DesiredConfiguration::builder().launch_template(spec.clone()).build())
        .build();
    let group = scaling::AutoScalingGroup::builder().set_auto_scaling_group_name(word()).launch_template(spec).build();
    let Some(group) = Group::of(group) else { return };
    let ours = scaling::LaunchTemplateSpecification::builder().launch_template_id("lt-1").version(wanted).build();
    let desired = scaling::DesiredConfiguration::builder().launch_template(ours).build();
    let wish = Wish { group: group.name.clone(), desired: Some(desired), skip_matching: true, since: Some(0) };
    let goes_on = instance_refresh::outcome(&refresh).is_none();
    assert!(goes_on || !instance_refresh::is_for(&refresh, &wish), "a refresh that has ended is taken over");
    assert!(!instance_refresh::reason(&refresh).is_empty());
    let version = text.split(',').nth(2);
    assert!(!instance_refresh::is_for(&refresh, &wish) || version == Some(wanted), "a refresh to another version is taken over");
}
