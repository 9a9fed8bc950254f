//! Which EC2 actions a bake calls here, and whether it may.

use super::Check;
use crate::aws::api::Action;
use crate::config::{After, Doctor};
use crate::storage::ec2::preflight::Permission;
use crate::storage::{Attachment, Volume};

/// The actions that are tried, in the order that a bake calls them.
pub(super) const TRIED: [Action; 11] = [
    Action::CreateVolume,
    Action::AttachVolume,
    Action::CreateSnapshot,
    Action::DetachVolume,
    Action::ModifyVolume,
    Action::DescribeVolumesModifications,
    Action::DeleteVolume,
    Action::DeleteSnapshot,
    Action::CopySnapshot,
    Action::DescribeSnapshotAttribute,
    Action::ModifySnapshotAttribute,
];

/// Why a bake as it is configured would do without the action; `None`: it needs it.
pub(super) fn spare(action: Action, config: &Doctor, volume: Option<&Volume>) -> Option<&'static str> {
    let is_here = volume.is_some_and(|volume| matches!(volume.attachment, Attachment::Here { .. }));
    let grows = volume.zip(config.volume_size_gib).is_some_and(|(volume, wanted)| wanted > volume.size_gib);
    match action {
        Action::CreateVolume if volume.is_some() => Some("needed to make the volume anew"),
        Action::AttachVolume if is_here => Some("needed once the volume is detached"),
        Action::DetachVolume if config.after == After::Keep => Some("needed without --after keep"),
        Action::DetachVolume if is_here && config.after == After::Restore => Some("needed once a bake attaches the volume"),
        Action::ModifyVolume | Action::DescribeVolumesModifications if !grows => Some("needed to grow a volume (--volume-size)"),
        Action::DeleteVolume if config.after != After::Delete => {
            Some("needed to delete what a failed bake, restore or --after delete leaves")
        }
        Action::DeleteSnapshot => Some("needed to delete a snapshot whose volume was attached anew meanwhile"),
        Action::CopySnapshot => Some("needed for --copy-to"),
        Action::DescribeSnapshotAttribute | Action::ModifySnapshotAttribute => Some("needed for --share-with"),
        _ => None,
    }
}

/// What is told of one action. `None`: it is about something that is not there.
pub(super) fn permission(action: Action, told: Option<Permission>, spare: Option<&str>) -> Check {
    let name = action.permission();
    match (told, spare) {
        (None, _) => Check::skipped(name, "nothing is there yet to try it on"),
        (Some(Permission::Granted), _) => Check::ok(name, "permitted"),
        (Some(Permission::Untold(code)), _) => Check::skipped(name, format!("EC2 answered {code}, which does not tell")),
        (Some(Permission::Refused(error)), None) => Check::of_error(name, &error),
        (Some(Permission::Refused(error)), Some(why)) => {
            let check = Check::of_error(name, &error).no_worse_than_warning();
            Check { detail: format!("{why}: {}", check.detail), ..check }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::Outcome;
    use super::*;
    use crate::config::{Examined, Store};
    use crate::error::{Error, Kind};
    use crate::host::device::Locator;
    use crate::storage::{Tags, VolumeState};

    fn config(after: After, volume_size_gib: Option<u32>) -> Doctor {
        Doctor {
            examined: Examined::Bake,
            store: Store::Ec2(Box::default()),
            volume_name: "chef".into(),
            volume_id: None,
            volume_size_gib,
            mount_point: "/code/chef".into(),
            after,
            state_dir: "/var/cache/ebs-bake".into(),
            json: false,
        }
    }

    fn volume(attached: bool) -> Volume {
        let device = "/dev/sdk".to_owned();
        let locator = Locator::Ebs { serial: "vol00000000".into(), name: device.clone() };
        Volume {
            id: "vol-00000000".parse().unwrap(),
            state: VolumeState::Ready,
            size_gib: 8,
            tags: Tags::new(),
            source: None,
            attachment: if attached { Attachment::Here { device, locator } } else { Attachment::None },
            created: Timestamp::UNIX_EPOCH,
        }
    }

    fn needed(config: &Doctor, volume: Option<&Volume>) -> Vec<Action> {
        TRIED.into_iter().filter(|action| spare(*action, config, volume).is_none()).collect()
    }

    #[test]
    fn what_a_bake_needs_depends_on_what_is_there_and_what_it_shall_do() {
        use Action::*;
        let (free, here) = (volume(false), volume(true));
        let plain = config(After::Restore, None);
        assert_eq!(needed(&plain, None), [CreateVolume, AttachVolume, CreateSnapshot, DetachVolume]);
        assert_eq!(needed(&plain, Some(&free)), [AttachVolume, CreateSnapshot, DetachVolume]);
        assert_eq!(needed(&plain, Some(&here)), [CreateSnapshot]);
        assert_eq!(needed(&config(After::Keep, None), Some(&free)), [AttachVolume, CreateSnapshot]);
        let grow_and_delete = config(After::Delete, Some(16));
        let all = [CreateSnapshot, DetachVolume, ModifyVolume, DescribeVolumesModifications, DeleteVolume];
        assert_eq!(needed(&grow_and_delete, Some(&here)), all);
        assert_eq!(needed(&config(After::Keep, Some(8)), Some(&here)), [CreateSnapshot], "it has that size");
    }

    #[test]
    fn a_denial_of_what_is_not_needed_is_a_warning() {
        let denied = || Some(Permission::Refused(Error::new(Kind::Permission, "no").hint("docs/iam-policy.json")));
        assert_eq!(permission(Action::CreateVolume, denied(), None).outcome, Outcome::Failure(Kind::Permission));
        let spare = permission(Action::CreateVolume, denied(), Some("needed for Y"));
        assert_eq!((spare.outcome, spare.detail.as_str()), (Outcome::Warning, "needed for Y: no"));
        assert!(spare.hint.is_some());
        assert_eq!(permission(Action::CreateVolume, Some(Permission::Granted), None).outcome, Outcome::Ok);
        for untold in [None, Some(Permission::Untold("IncorrectState".into()))] {
            assert_eq!(permission(Action::CreateVolume, untold, None).outcome, Outcome::Skipped);
        }
    }
}
