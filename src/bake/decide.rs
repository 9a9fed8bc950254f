//! What a run decides from what it has seen. Values in, values out: a dry run makes the very same decisions.

use crate::error::{Error, Kind, Result};
use crate::host::filesystem::Probe;
use crate::key::tag;
use crate::storage::{Attachment, Snapshot, SnapshotId, SnapshotState, Volume, VolumeId, VolumeState};

/// The snapshot that is the answer for a key: the oldest completed one, else the oldest pending one. Failed ones are none.
///
/// `snapshots` are those with the key, oldest first.
pub fn answer(snapshots: &[Snapshot]) -> Option<&Snapshot> {
    let completed = snapshots.iter().find(|snapshot| snapshot.state == SnapshotState::Completed);
    completed.or_else(|| snapshots.iter().find(|snapshot| matches!(snapshot.state, SnapshotState::Pending(_))))
}

/// The snapshot that a new volume is made from, so that the next snapshot is an increment: the newest completed one.
///
/// `snapshots` are those of the volume's name, oldest first.
pub fn lineage(snapshots: &[Snapshot]) -> Option<&Snapshot> {
    snapshots.iter().rev().find(|snapshot| snapshot.state == SnapshotState::Completed)
}

/// Which volume to bake on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeChoice {
    /// This one is there.
    Use(Box<Volume>),
    /// One has to be made from this snapshot.
    FromSnapshot(SnapshotId),
    /// One has to be made, blank.
    Blank,
}

impl VolumeChoice {
    /// Whether nothing will be on it.
    pub fn is_blank(&self) -> bool {
        *self == VolumeChoice::Blank
    }
}

/// Chooses among the volumes of a name.
///
/// # Errors
/// `Storage` when there are several or the one is broken, `Contended` when it is attached to another host.
pub fn choose_volume(name: &str, volumes: &[Volume], snapshots: &[Snapshot]) -> Result<VolumeChoice> {
    let baked: Vec<&Volume> = volumes.iter().filter(|volume| !volume.tags.contains_key(tag::RESTORED)).collect();
    match baked.as_slice() {
        [] => Ok(lineage(snapshots).map_or(VolumeChoice::Blank, |s| VolumeChoice::FromSnapshot(s.id.clone()))),
        [volume] => usable(volume).map(|()| VolumeChoice::Use(Box::new((*volume).clone()))),
        several => {
            let ids: Vec<&str> = several.iter().map(|volume| volume.id.as_str()).collect();
            let message = format!("{} volumes are named {name:?}: {}", ids.len(), ids.join(", "));
            Err(Error::new(Kind::Storage, message).hint("delete all but one, or remove their ebs-bake:volume tag"))
        }
    }
}

/// The volume that the user named, if it can be used.
///
/// # Errors
/// As for [`choose_volume`], and `Storage` when it is not there.
pub fn choose_given_volume(id: &VolumeId, volumes: Vec<Volume>) -> Result<VolumeChoice> {
    match volumes.into_iter().next() {
        Some(volume) => usable(&volume).map(|()| VolumeChoice::Use(Box::new(volume))),
        None => Err(Error::new(Kind::Storage, format!("there is no volume {id}")).hint("see --volume-id and --region")),
    }
}

fn usable(volume: &Volume) -> Result<()> {
    if let VolumeState::Error(why) = &volume.state {
        let message = format!("volume {} is damaged: {why}", volume.id);
        return Err(Error::new(Kind::Storage, message).hint("delete it: the next run makes it anew from its last snapshot"));
    }
    if let Attachment::Elsewhere { host } = &volume.attachment {
        let message = format!("volume {} is attached to {host}", volume.id);
        return Err(Error::new(Kind::Contended, message).hint("wait for the run there to end, or use another --volume-name"));
    }
    Ok(())
}

/// For `--after delete`: what ebs-bake did not make it does not delete.
///
/// # Errors
/// `Usage` for a volume that somebody else made.
pub fn require_deletable(choice: &VolumeChoice) -> Result<()> {
    match choice {
        VolumeChoice::Use(volume) if !made_by_us(volume) => {
            let message = format!("--after delete: volume {} was not made by ebs-bake", volume.id);
            Err(Error::new(Kind::Usage, message).hint("--after detach gives it back; delete it yourself if nobody needs it"))
        }
        _ => Ok(()),
    }
}

/// What to do with what is on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesystemChoice {
    /// Make an ext4 filesystem.
    Make,
    /// Mount what is there (the type for mount(2)).
    Mount(&'static str),
    /// Check it first: it was not unmounted cleanly.
    Check,
    /// The volume is ours, holds nothing that cannot be made again, and is unusable: make it anew.
    Remake(String),
}

/// Decides from what the device holds. Formats nothing but a volume that ebs-bake made blank and that reads as blank
/// everywhere: "nothing recognised" also happens to devices that are unreadable or hold something unknown. Which run made it
/// does not matter: of several that want it, any may have its lock first.
///
/// # Errors
/// `Device` when the device holds what must not be overwritten.
pub fn choose_filesystem(probe: &Probe, volume: &Volume) -> Result<FilesystemChoice> {
    let refuse = |what: &str| {
        let message = format!("volume {} holds {what}; refusing to format it", volume.id);
        Err(Error::new(Kind::Device, message)
            .hint("use another --volume-name, or remove the ebs-bake:volume tag from that volume so that a new one is made"))
    };
    match probe {
        Probe::Blank if volume.tags.get(tag::ORIGIN).is_some_and(|origin| origin == tag::BLANK) => Ok(FilesystemChoice::Make),
        Probe::Blank if made_by_us(volume) => Ok(FilesystemChoice::Remake("nothing of its snapshot is on it".into())),
        Probe::Blank => refuse("no filesystem, but was not made by ebs-bake"),
        Probe::Ext(superblock) if superblock.clean => Ok(FilesystemChoice::Mount("ext4")),
        Probe::Ext(_) => Ok(FilesystemChoice::Check),
        Probe::Mountable(kind) => Ok(FilesystemChoice::Mount(kind)),
        Probe::Foreign(what) => refuse(&format!("a foreign format ({what})")),
        Probe::Unknown if made_by_us(volume) => {
            Ok(FilesystemChoice::Remake("what it holds is not a filesystem (killed while it was made?)".into()))
        }
        Probe::Unknown => refuse("data that is not recognised"),
    }
}

/// Whether ebs-bake created the volume, so that everything on it is derived data.
pub fn made_by_us(volume: &Volume) -> bool {
    volume.tags.contains_key(tag::ORIGIN)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::storage::Tags;

    fn volume(id: u32, tags: &[&str]) -> Volume {
        Volume {
            id: format!("vol-{id:08x}").parse().unwrap(),
            state: VolumeState::Ready,
            size_gib: 8,
            tags: tags.iter().map(|tag| ((*tag).to_owned(), String::new())).collect(),
            source: None,
            attachment: Attachment::None,
            created: Timestamp::UNIX_EPOCH,
        }
    }

    fn snapshot(id: u32, state: SnapshotState) -> Snapshot {
        Snapshot {
            id: format!("snap-{id:08x}").parse().unwrap(),
            state,
            volume: None,
            size_gib: 8,
            tags: Tags::new(),
            description: String::new(),
            started: Timestamp::UNIX_EPOCH,
            parent: None,
            changed_blocks: None,
        }
    }

    fn several() -> [Snapshot; 5] {
        let failed = SnapshotState::Error("lost".into());
        let states = [failed.clone(), SnapshotState::Pending(None), SnapshotState::Completed, SnapshotState::Completed, failed];
        let mut id = 0;
        states.map(|state| {
            id += 1;
            snapshot(id, state)
        })
    }

    #[test]
    fn the_oldest_completed_snapshot_is_the_answer_and_the_newest_is_built_on() {
        let all = several();
        assert_eq!(answer(&all).unwrap().id, all[2].id);
        assert_eq!(lineage(&all).unwrap().id, all[3].id);
        assert_eq!(answer(&all[..2]).unwrap().id, all[1].id, "a pending one is waited for");
        assert_eq!(lineage(&all[..2]), None, "nothing can be made from a pending one");
        assert_eq!(answer(&all[..1]), None);
    }

    #[test]
    fn a_volume_of_restore_is_none_and_two_of_one_name_are_one_too_many() {
        let (one, two, restored) = (volume(1, &[]), volume(2, &[]), volume(3, &[tag::RESTORED]));
        let chosen = |volumes: &[&Volume]| {
            let volumes: Vec<Volume> = volumes.iter().map(|volume| (*volume).clone()).collect();
            choose_volume("chef", &volumes, &several())
        };
        assert_eq!(chosen(&[&restored, &one]).unwrap(), VolumeChoice::Use(Box::new(one.clone())));
        assert_eq!(chosen(&[&restored]).unwrap(), VolumeChoice::FromSnapshot(several()[3].id.clone()));
        assert_eq!(choose_volume("chef", &[], &[]).unwrap(), VolumeChoice::Blank);
        let error = chosen(&[&one, &two]).unwrap_err();
        assert!(error.to_string().contains("vol-00000001, vol-00000002"), "{error}");
    }

    #[test]
    fn a_volume_that_is_elsewhere_or_broken_is_not_used_by_name_nor_by_id() {
        let elsewhere = Volume { attachment: Attachment::Elsewhere { host: "i-1".into() }, ..volume(1, &[]) };
        let broken = Volume { state: VolumeState::Error("gone".into()), ..volume(2, &[]) };
        for (volume, kind) in [(elsewhere, Kind::Contended), (broken, Kind::Storage)] {
            assert_eq!(choose_volume("chef", std::slice::from_ref(&volume), &[]).unwrap_err().kind(), kind);
            assert_eq!(choose_given_volume(&volume.id.clone(), vec![volume]).unwrap_err().kind(), kind);
        }
        assert_eq!(choose_given_volume(&volume(1, &[]).id, Vec::new()).unwrap_err().kind(), Kind::Storage);
    }

    #[test]
    fn only_what_ebs_bake_made_is_deleted_or_made_anew() {
        let (ours, theirs) = (volume(1, &[tag::ORIGIN]), volume(2, &[tag::VOLUME]));
        let choice = |volume: &Volume| VolumeChoice::Use(Box::new(volume.clone()));
        assert!(require_deletable(&choice(&ours)).is_ok() && require_deletable(&VolumeChoice::Blank).is_ok());
        assert_eq!(require_deletable(&choice(&theirs)).unwrap_err().kind(), Kind::Usage);
        for probe in [Probe::Blank, Probe::Unknown] {
            assert!(matches!(choose_filesystem(&probe, &ours), Ok(FilesystemChoice::Remake(_))), "{probe:?}");
            assert_eq!(choose_filesystem(&probe, &theirs).unwrap_err().kind(), Kind::Device, "{probe:?}");
        }
        let mut blank = ours.clone();
        blank.tags.insert(tag::ORIGIN.to_owned(), tag::BLANK.to_owned());
        assert_eq!(choose_filesystem(&Probe::Blank, &blank).unwrap(), FilesystemChoice::Make);
        assert!(matches!(choose_filesystem(&Probe::Unknown, &blank), Ok(FilesystemChoice::Remake(_))));
        assert!(choose_filesystem(&Probe::Foreign("a partition table"), &blank).is_err());
        assert_eq!(choose_filesystem(&Probe::Mountable("xfs"), &theirs).unwrap(), FilesystemChoice::Mount("xfs"));
    }
}
