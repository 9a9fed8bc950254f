//! EC2's words in ours, and what its states mean. Values in, values out.

use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{
    self, Filter, ResourceType, StorageTier, TagSpecification, VolumeAttachmentState as AttachmentState, VolumeState as State,
};
use jiff::Timestamp;

use crate::error::{Error, Kind, OrFail, Result};
use crate::host::device::Locator;
use crate::key::tag;
use crate::storage::{Attachment, Snapshot, SnapshotId, SnapshotState, Tags, Volume, VolumeId, VolumeState};

/// How a volume stands to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Attached to it, under this name.
    Here {
        /// The device name that EC2 was told.
        device: String,
    },
    /// Being attached to it.
    Attaching,
    /// Attached to another instance, or being so.
    Elsewhere {
        /// Its ID.
        host: String,
    },
    /// Can be attached.
    Free,
    /// On its way: being made or detached; or EC2 contradicts itself, which passes.
    Unsettled,
    /// Unusable, and why.
    Broken(String),
}

/// How the volume stands to the instance `me`. Instance, device and state count together: EC2's answers may be of different age.
pub fn standing(volume: &types::Volume, me: &str) -> Standing {
    let live = |it: &&types::VolumeAttachment| it.state() != Some(&AttachmentState::Detached);
    let mut attachments = volume.attachments().iter().filter(live);
    let other = attachments.clone().find(|it| it.instance_id() != Some(me));
    match volume.state() {
        Some(State::Error) => return Standing::Broken("EC2 says that it is in state error".into()),
        Some(State::Deleting | State::Deleted) => return Standing::Broken("it is being deleted".into()),
        _ => {}
    }
    if let Some(other) = other {
        return match other.state() {
            Some(AttachmentState::Detaching) => Standing::Unsettled,
            _ => Standing::Elsewhere { host: other.instance_id().unwrap_or("something that EC2 does not tell").to_owned() },
        };
    }
    match (volume.state(), attachments.next()) {
        (Some(State::Available), None) => Standing::Free,
        (Some(State::InUse), Some(own)) => match (own.state(), own.device()) {
            (Some(AttachmentState::Attached), Some(device)) => Standing::Here { device: device.to_owned() },
            (Some(AttachmentState::Attaching), _) => Standing::Attaching,
            _ => Standing::Unsettled,
        },
        (_, Some(own)) if own.state() == Some(&AttachmentState::Attaching) => Standing::Attaching,
        _ => Standing::Unsettled,
    }
}

/// What finds the device of an attached volume.
pub fn locator(id: &VolumeId, device: &str) -> Locator {
    Locator::Ebs { serial: id.as_str().replacen('-', "", 1), name: device.to_owned() }
}

/// A volume; `me` is this instance's ID, which only an attached volume needs.
///
/// # Errors
/// `Storage` for an answer that lacks what every volume has.
pub fn volume(volume: &types::Volume, me: &str) -> Result<Volume> {
    let id: VolumeId = required(volume.volume_id(), "volume's ID")?.parse()?;
    let state = match (volume.state(), standing(volume, me)) {
        (_, Standing::Broken(why)) => VolumeState::Error(why),
        (Some(State::Creating), _) => VolumeState::Creating,
        _ => VolumeState::Ready,
    };
    let attachment = match standing(volume, me) {
        Standing::Here { device } => Attachment::Here { locator: locator(&id, &device), device },
        Standing::Elsewhere { host } => Attachment::Elsewhere { host },
        _ => Attachment::None,
    };
    Ok(Volume {
        id,
        state,
        size_gib: size(volume.size())?,
        tags: tags(volume.tags()),
        source: volume.snapshot_id().filter(|id| !id.is_empty()).map(str::parse).transpose()?,
        attachment,
        created: timestamp(volume.create_time())?,
    })
}

/// Whether the volume counts: one that is being deleted does not.
pub fn is_there(volume: &types::Volume) -> bool {
    !matches!(volume.state(), Some(State::Deleting | State::Deleted))
}

/// A snapshot.
///
/// # Errors
/// `Storage` for an answer that lacks what every snapshot has.
pub fn snapshot(snapshot: &types::Snapshot) -> Result<Snapshot> {
    let id: SnapshotId = required(snapshot.snapshot_id(), "snapshot's ID")?.parse()?;
    Ok(Snapshot {
        id,
        state: snapshot_state(snapshot),
        // A copy has an arbitrary volume ID, `vol-ffffffff` (API reference, CopySnapshot).
        volume: snapshot.volume_id().and_then(|id| id.parse().ok()),
        size_gib: size(snapshot.volume_size())?,
        tags: tags(snapshot.tags()),
        description: snapshot.description().unwrap_or_default().to_owned(),
        started: timestamp(snapshot.start_time())?,
        parent: None,
        changed_blocks: None,
    })
}

fn snapshot_state(snapshot: &types::Snapshot) -> SnapshotState {
    let reason = |what: &str| match snapshot.state_message() {
        Some(message) if !message.is_empty() => format!("{what}: {message}"),
        _ => what.to_owned(),
    };
    match snapshot.state() {
        Some(types::SnapshotState::Completed) if snapshot.storage_tier() == Some(&StorageTier::Archive) => {
            SnapshotState::PutAway("it is archived: restore it from the archive tier".into())
        }
        Some(types::SnapshotState::Completed) => SnapshotState::Completed,
        Some(types::SnapshotState::Pending) => SnapshotState::Pending(snapshot.progress().and_then(percent)),
        Some(types::SnapshotState::Error) => SnapshotState::Error(reason("EC2 says that it failed")),
        Some(types::SnapshotState::Recoverable | types::SnapshotState::Recovering) => {
            SnapshotState::PutAway(reason("it is in the recycle bin"))
        }
        other => {
            let state = other.map_or("in no state", types::SnapshotState::as_str);
            SnapshotState::PutAway(reason(&format!("EC2 says that it is {state}")))
        }
    }
}

/// `45%`.
fn percent(progress: &str) -> Option<u8> {
    progress.strip_suffix('%').unwrap_or(progress).trim().parse().ok().filter(|percent| *percent <= 100)
}

/// The tags, without the one that is the store's own.
fn tags(tags: &[types::Tag]) -> Tags {
    let pairs = tags.iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())));
    pairs.filter(|(key, _)| key != tag::RUN).collect()
}

/// The call that made a thing.
pub fn run_of(tags: &[types::Tag]) -> Option<&str> {
    tags.iter().find(|tag| tag.key() == Some(tag::RUN))?.value()
}

/// Tags for the call that makes a thing, with the one that tells which call that was.
pub fn specification(of: ResourceType, tags: &Tags, run: &str) -> TagSpecification {
    let pairs = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).chain([(tag::RUN, run)]);
    let pairs = pairs.map(|(key, value)| types::Tag::builder().key(key).value(value).build()).collect();
    TagSpecification::builder().resource_type(of).set_tags(Some(pairs)).build()
}

/// A filter with one value.
pub fn filter(name: impl Into<String>, value: impl Into<String>) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// A filter for each tag.
pub fn tag_filters(tags: &Tags) -> Vec<Filter> {
    tags.iter().map(|(key, value)| filter(format!("tag:{key}"), escaped(value))).collect()
}

/// `*`, `?` and `\` have a meaning in filters (EC2 User Guide, "Filter your resources").
fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '*' | '?' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn required<T>(value: Option<T>, what: &str) -> Result<T> {
    value.ok_or_else(|| Error::new(Kind::Storage, format!("EC2's answer lacks the {what}")))
}

fn size(gib: Option<i32>) -> Result<u32> {
    u32::try_from(required(gib, "size")?).or_fail(Kind::Storage, || "EC2's answer has a negative size")
}

fn timestamp(time: Option<&DateTime>) -> Result<Timestamp> {
    let time = required(time, "time")?;
    let nanoseconds = i32::try_from(time.subsec_nanos()).unwrap_or_default();
    Timestamp::new(time.secs(), nanoseconds).or_fail(Kind::Storage, || "EC2's answer has an impossible time")
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::VolumeAttachment;

    use super::*;

    const ME: &str = "i-0123456789abcdef0";
    const OTHER: &str = "i-0fedcba9876543210";

    fn attachment(instance: &str, state: &str) -> VolumeAttachment {
        VolumeAttachment::builder().instance_id(instance).state(state.into()).device("/dev/sdk").build()
    }

    fn ec2_volume(state: &str, attachments: &[VolumeAttachment]) -> types::Volume {
        types::Volume::builder()
            .volume_id("vol-0123456789abcdef0")
            .state(state.into())
            .size(8)
            .snapshot_id("")
            .create_time(DateTime::from_secs(1))
            .set_attachments(Some(attachments.to_vec()))
            .build()
    }

    #[test]
    fn instance_device_and_state_count_together() {
        let here = Standing::Here { device: "/dev/sdk".into() };
        let elsewhere = Standing::Elsewhere { host: OTHER.into() };
        for (state, attachments, expected) in [
            ("available", vec![], Standing::Free),
            ("creating", vec![], Standing::Unsettled),
            ("in-use", vec![], Standing::Unsettled),
            ("in-use", vec![attachment(ME, "attached")], here.clone()),
            ("in-use", vec![attachment(OTHER, "detached"), attachment(ME, "attached")], here),
            ("available", vec![attachment(ME, "attached")], Standing::Unsettled),
            ("in-use", vec![attachment(ME, "attaching")], Standing::Attaching),
            ("available", vec![attachment(ME, "attaching")], Standing::Attaching),
            ("in-use", vec![attachment(ME, "detaching")], Standing::Unsettled),
            ("in-use", vec![attachment(ME, "busy")], Standing::Unsettled),
            ("in-use", vec![attachment(OTHER, "attached")], elsewhere.clone()),
            ("in-use", vec![attachment(OTHER, "attaching")], elsewhere.clone()),
            ("in-use", vec![attachment(ME, "attached"), attachment(OTHER, "attached")], elsewhere),
            ("in-use", vec![attachment(OTHER, "detaching")], Standing::Unsettled),
            ("available", vec![attachment(ME, "detached")], Standing::Free),
        ] {
            assert_eq!(standing(&ec2_volume(state, &attachments), ME), expected, "{state} {attachments:?}");
        }
        for broken in ["error", "deleting", "deleted"] {
            assert!(matches!(standing(&ec2_volume(broken, &[]), ME), Standing::Broken(_)), "{broken}");
        }
    }

    #[test]
    fn an_attached_volume_is_found_by_its_serial() {
        let volume = volume(&ec2_volume("in-use", &[attachment(ME, "attached")]), ME).unwrap();
        let locator = Locator::Ebs { serial: "vol0123456789abcdef0".into(), name: "/dev/sdk".into() };
        assert_eq!(volume.attachment, Attachment::Here { device: "/dev/sdk".into(), locator });
        assert_eq!((volume.source, volume.state), (None, VolumeState::Ready));
    }

    #[test]
    fn states_of_snapshots_mean_what_can_be_done_with_them() {
        let state = |state: &str, tier: &str, progress: &str| {
            let snapshot = types::Snapshot::builder().state(state.into()).storage_tier(tier.into()).progress(progress).build();
            snapshot_state(&snapshot)
        };
        assert_eq!(state("completed", "standard", "100%"), SnapshotState::Completed);
        assert_eq!(state("pending", "standard", "45%"), SnapshotState::Pending(Some(45)));
        assert_eq!(state("pending", "standard", ""), SnapshotState::Pending(None));
        assert!(matches!(state("error", "standard", "100%"), SnapshotState::Error(_)));
        // Nobody who may delete what failed shall take these for it.
        for (name, tier) in [("completed", "archive"), ("recoverable", "standard"), ("odd", "standard")] {
            assert!(matches!(state(name, tier, "100%"), SnapshotState::PutAway(_)), "{name} {tier}");
        }
    }

    #[test]
    fn the_tag_of_the_call_is_not_shown() {
        let shown = Tags::from([("a".to_owned(), "b".to_owned())]);
        let specification = specification(ResourceType::Volume, &shown, "42");
        assert_eq!(run_of(specification.tags()), Some("42"));
        assert_eq!(tags(specification.tags()), shown);
    }

    #[test]
    fn values_of_filters_mean_themselves() {
        assert_eq!(escaped(r"feature/*?\x"), r"feature/\*\?\\x");
    }
}
