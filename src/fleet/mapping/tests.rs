use jiff::Timestamp;

use super::*;
use crate::storage::{SnapshotState, Tags};

type OfTemplate = ec2::LaunchTemplateBlockDeviceMappingRequest;
type OfConfiguration = scaling::BlockDeviceMapping;

const NEW: &str = "snap-00000002";

pub(in crate::fleet) fn snapshot_of(size_gib: u32) -> Snapshot {
    Snapshot {
        id: NEW.parse().unwrap(),
        state: SnapshotState::Completed,
        volume: None,
        size_gib,
        tags: Tags::new(),
        description: String::new(),
        started: Timestamp::UNIX_EPOCH,
        parent: None,
        changed_blocks: None,
    }
}

pub(in crate::fleet) fn of_device(device: &str) -> Change {
    Change {
        device: device.into(),
        kind: None,
        size_gib: None,
        iops: None,
        throughput: None,
        initialization_rate: None,
        delete_on_termination: true,
    }
}

fn sdk() -> Change {
    of_device("/dev/sdk")
}

fn mapping<M: Mapping>(device: &str, disk: Disk) -> M {
    let mut mapping = M::of(device);
    mapping.set(&disk);
    mapping
}

fn old() -> Disk {
    Disk {
        snapshot_id: Some("snap-00000001".into()),
        volume_size: Some(8),
        volume_type: Some("io1".into()),
        iops: Some(400),
        throughput: Some(200),
        volume_initialization_rate: None,
        delete_on_termination: Some(true),
    }
}

fn only_the_device_changes<M: Mapping + std::fmt::Debug>(odd: M) {
    let all = [mapping("/dev/sda1", Disk::default()), odd, mapping::<M>("/dev/sdk", old())];
    let changed = change(&all, &sdk(), &snapshot_of(8)).unwrap();
    assert_eq!(changed.mappings[..2], all[..2]);
    assert_eq!(changed.mappings[2].disk(), Some(Disk { snapshot_id: Some(NEW.into()), ..old() }));
    assert_eq!(changed.differences, ["snapshot-id snap-00000001 → snap-00000002"]);
    let again = change(&changed.mappings, &sdk(), &snapshot_of(8)).unwrap();
    assert_eq!((again.mappings, again.differences), (changed.mappings, vec![]));
}

#[test]
fn only_the_device_s_mapping_changes() {
    only_the_device_changes(OfTemplate::builder().device_name("/dev/sdb").virtual_name("ephemeral0").build());
    only_the_device_changes(OfTemplate::builder().device_name("/dev/sdc").no_device("").build());
    let mut odd = OfConfiguration::of("/dev/sdb");
    odd.no_device = Some(true);
    only_the_device_changes(odd);
}

#[test]
fn a_mapping_that_is_not_there_is_added() {
    let root: OfTemplate = mapping("/dev/sda1", Disk::default());
    let changed = change(std::slice::from_ref(&root), &sdk(), &snapshot_of(8)).unwrap();
    assert_eq!((changed.mappings.len(), &changed.mappings[0]), (2, &root));
    let disk = Disk { snapshot_id: Some(NEW.into()), delete_on_termination: Some(true), ..Disk::default() };
    assert_eq!((changed.mappings[1].device(), changed.mappings[1].disk()), ("/dev/sdk", Some(disk)));
    assert_eq!(changed.differences, ["snapshot-id nothing → snap-00000002", "delete-on-termination nothing → true"]);
}

#[test]
fn a_device_that_was_left_out_becomes_a_volume() {
    let none: OfTemplate = OfTemplate::builder().device_name("/dev/sdk").no_device("").build();
    let changed = change(&[none], &sdk(), &snapshot_of(8)).unwrap();
    assert_eq!((changed.mappings.len(), changed.mappings[0].no_device()), (1, None));
    assert!(!changed.differences.is_empty());
}

#[test]
fn what_else_is_said_of_the_volume_stays() {
    let mut encrypted: OfTemplate = mapping("/dev/sdk", old());
    let ebs = encrypted.ebs.as_mut().unwrap();
    (ebs.encrypted, ebs.kms_key_id, ebs.ebs_card_index) = (Some(true), Some("alias/chef".into()), Some(1));
    let changed = change(&[encrypted], &sdk(), &snapshot_of(8)).unwrap();
    let ebs = changed.mappings[0].ebs().unwrap();
    assert_eq!((ebs.encrypted, ebs.kms_key_id(), ebs.ebs_card_index), (Some(true), Some("alias/chef"), Some(1)));
}

#[test]
fn what_is_given_is_changed_and_what_cannot_stay_goes() {
    let all = [mapping::<OfTemplate>("/dev/sdk", old())];
    let disk = |wish: Change| change(&all, &wish, &snapshot_of(8)).unwrap().mappings[0].disk().unwrap();
    let gp3 = disk(Change { kind: Some("gp3".into()), throughput: Some(250), ..sdk() });
    assert_eq!((gp3.volume_type.as_deref(), gp3.iops, gp3.throughput), (Some("gp3"), None, Some(250)));
    let same = disk(Change { kind: Some("io1".into()), ..sdk() });
    assert_eq!((same.iops, same.throughput), (Some(400), Some(200)));
    let more = disk(Change { size_gib: Some(16), initialization_rate: Some(300), delete_on_termination: false, ..sdk() });
    let expected = (Some(16), Some(300), Some(false));
    assert_eq!((more.volume_size, more.volume_initialization_rate, more.delete_on_termination), expected);
}

#[test]
fn a_volume_is_never_smaller_than_its_snapshot() {
    let all = [mapping::<OfTemplate>("/dev/sdk", old())];
    let grown = change(&all, &sdk(), &snapshot_of(9)).unwrap();
    assert_eq!(grown.mappings[0].disk().unwrap().volume_size, Some(9));
    assert!(grown.differences.contains(&"volume-size 8 → 9".to_owned()), "{:?}", grown.differences);
    let refused = change(&all, &Change { size_gib: Some(8), ..sdk() }, &snapshot_of(9)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Usage);
    assert!(refused.to_string().contains("needs 9 GiB"));
}

#[test]
fn one_device_has_one_mapping_under_either_name() {
    let all = [mapping::<OfTemplate>("/dev/xvdk", old())];
    let refused = change(&all, &sdk(), &snapshot_of(8)).unwrap_err();
    assert_eq!((refused.kind(), refused.hint_text()), (Kind::Usage, Some("give --fleet-device /dev/xvdk")));
    assert_eq!(change(&all, &of_device("/dev/xvdk"), &snapshot_of(8)).unwrap().mappings.len(), 1);
    assert_eq!(snapshot(&all, "/dev/xvdk").as_deref(), Some("snap-00000001"));
    for (one, other) in [("/dev/sdk", "xvdk"), ("sdk", "/dev/xvdk"), ("/dev/sdba", "/dev/xvdba")] {
        assert_eq!(letters(one), letters(other));
    }
    assert_ne!(letters("/dev/sdk"), letters("/dev/sdl"));
}
