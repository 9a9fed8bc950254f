//! What every block store must do, written against the trait alone: each implementation runs it.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use ebs_bake::error::Kind;
use ebs_bake::report::Change;
use ebs_bake::storage::{
    Attachment, BlockStorage, NewSnapshot, NewVolume, Snapshot, SnapshotId, SnapshotQuery, SnapshotState, Tags, Volume, VolumeId,
    VolumeQuery, VolumeState,
};

/// 512 KiB, the unit of `changed_blocks`.
pub const BLOCK: u64 = 512 * 1024;
const GIB: u64 = 1 << 30;

/// A store under test.
pub struct Subject<'a> {
    pub store: &'a dyn BlockStorage,
    /// The same store, as another process of this host sees it.
    pub other: &'a dyn BlockStorage,
    /// Opens the device of an attachment, to read and write.
    pub open: &'a dyn Fn(&Attachment) -> File,
    /// A tag value that nothing else in the store has.
    pub run: String,
    /// For a store with room for one volume at a time: the one that is attached.
    pub one_at_a_time: Option<RefCell<Option<VolumeId>>>,
}

/// Runs every check. Panics at the first that fails.
pub async fn run(subject: &Subject<'_>) {
    subject.volumes_are_found_by_what_they_are().await;
    subject.one_token_makes_one_volume().await;
    subject.tags_come_back_as_they_were().await;
    subject.unknown_ids_are_told().await;
    subject.attached_is_attached().await;
    subject.a_volume_starts_blank_and_keeps_what_is_written().await;
    subject.a_snapshot_is_the_content_of_one_moment().await;
    subject.parents_and_changes_are_told().await;
    subject.volumes_grow_and_never_shrink().await;
    subject.what_is_attached_is_not_deleted().await;
    subject.snapshots_outlive_their_origins().await;
    subject.two_users_share_a_volume().await;
    subject.nothing_is_left().await;
}

impl Subject<'_> {
    fn tags(&self, name: &str) -> Tags {
        Tags::from([("contract".into(), self.run.clone()), ("Name".into(), name.into())])
    }

    async fn blank(&self, name: &str) -> Volume {
        let new = NewVolume { size_gib: 1, source: None, tags: self.tags(name), token: None };
        self.store.create_volume(&new).await.unwrap().1
    }

    async fn volume_from(&self, snapshot: &Snapshot, size_gib: u32) -> Volume {
        let new = NewVolume { size_gib, source: Some(snapshot.id.clone()), tags: self.tags("from"), token: None };
        self.store.create_volume(&new).await.unwrap().1
    }

    async fn snapshot(&self, volume: &VolumeId, name: &str) -> Snapshot {
        let new = NewSnapshot { volume: volume.clone(), tags: self.tags(name), description: format!("of {name}") };
        let made = self.store.create_snapshot(&new).await.unwrap();
        self.completed(&made.id).await
    }

    /// Waits until a snapshot can be restored; a store whose snapshots are slow decides how long that may take.
    async fn completed(&self, id: &SnapshotId) -> Snapshot {
        loop {
            let query = SnapshotQuery { id: Some(id.clone()), ..SnapshotQuery::default() };
            let snapshot = self.store.snapshots(&query).await.unwrap().remove(0);
            match snapshot.state {
                SnapshotState::Completed => return snapshot,
                SnapshotState::Pending(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
                SnapshotState::Error(reason) | SnapshotState::PutAway(reason) => panic!("{id}: {reason}"),
            }
        }
    }

    async fn find(&self, store: &dyn BlockStorage, id: &VolumeId) -> Option<Volume> {
        let query = VolumeQuery { id: Some(id.clone()), ..VolumeQuery::default() };
        let mut found = store.volumes(&query).await.unwrap();
        assert!(found.len() <= 1);
        found.pop()
    }

    async fn named(&self, name: &str) -> Vec<VolumeId> {
        let query = VolumeQuery { id: None, tags: self.tags(name) };
        self.store.volumes(&query).await.unwrap().into_iter().map(|volume| volume.id).collect()
    }

    async fn device(&self, id: &VolumeId) -> File {
        let before = self.one_at_a_time.as_ref().and_then(|attached| attached.replace(Some(id.clone())));
        if let Some(before) = before.filter(|before| before != id) {
            self.store.detach(&before, None).await.unwrap();
        }
        (self.open)(&self.store.attach(id).await.unwrap().1)
    }

    /// Writes runs of `(offset, length, byte)` to the volume's device, and lets go of the device.
    async fn write(&self, id: &VolumeId, runs: &[(u64, usize, u8)]) {
        let device = self.device(id).await;
        for (offset, length, byte) in runs {
            device.write_all_at(&vec![*byte; *length], *offset).unwrap();
        }
        device.sync_all().unwrap();
    }

    async fn expect(&self, id: &VolumeId, runs: &[(u64, usize, u8)]) {
        let device = self.device(id).await;
        for (offset, length, byte) in runs {
            let mut bytes = vec![0; *length];
            device.read_exact_at(&mut bytes, *offset).unwrap();
            assert!(bytes.iter().all(|b| b == byte), "{id}: {length} bytes at {offset} are not all {byte}");
        }
    }

    async fn drop_volume(&self, id: &VolumeId) {
        self.store.detach(id, None).await.unwrap();
        self.store.delete_volume(id).await.unwrap();
    }

    async fn volumes_are_found_by_what_they_are(&self) {
        assert_eq!(self.named("a").await, []);
        let made = self.blank("a").await;
        assert_eq!((made.size_gib, &made.state, &made.source), (1, &VolumeState::Ready, &None));
        assert_eq!(made.attachment, Attachment::None);
        let later = [self.blank("a").await.id, self.blank("a").await.id, self.blank("b").await.id];
        assert_eq!(self.find(self.store, &made.id).await.unwrap(), made);
        assert_eq!(self.find(self.other, &made.id).await.unwrap(), made, "another process sees the same");
        // Oldest first, all tags matching.
        assert_eq!(self.named("a").await, [made.id.clone(), later[0].clone(), later[1].clone()]);
        assert_eq!(self.named("b").await, [later[2].clone()]);
        let both = VolumeQuery { id: Some(made.id.clone()), tags: self.tags("b") };
        assert_eq!(self.store.volumes(&both).await.unwrap(), []);
        for id in [&made.id].into_iter().chain(&later) {
            self.store.delete_volume(id).await.unwrap();
            self.store.delete_volume(id).await.unwrap();
            assert_eq!(self.find(self.store, id).await, None);
        }
    }

    async fn tags_come_back_as_they_were(&self) {
        let mut tags = self.tags("tags");
        tags.insert("unicode".into(), "Küche \u{1F373} 厨师".into());
        tags.insert("lines".into(), "one\ntwo\n\t\"three\"\\ ::set-output".into());
        tags.insert("empty".into(), String::new());
        let volume =
            self.store.create_volume(&NewVolume { size_gib: 1, source: None, tags: tags.clone(), token: None }).await.unwrap().1;
        assert_eq!(self.find(self.other, &volume.id).await.unwrap().tags, tags);
        let new = NewSnapshot { volume: volume.id.clone(), tags: tags.clone(), description: "a commit: \"ü\"".into() };
        let snapshot = self.store.create_snapshot(&new).await.unwrap();
        let found = self.other.snapshots(&SnapshotQuery { id: None, tags: tags.clone() }).await.unwrap();
        assert_eq!(found.iter().map(|s| &s.id).collect::<Vec<_>>(), [&snapshot.id]);
        assert_eq!((&found[0].tags, &found[0].description), (&tags, &new.description));
        tags.insert("empty".into(), "no".into());
        assert_eq!(self.store.snapshots(&SnapshotQuery { id: None, tags }).await.unwrap(), []);
        self.store.delete_snapshot(&snapshot.id).await.unwrap();
        self.drop_volume(&volume.id).await;
    }

    async fn unknown_ids_are_told(&self) {
        let volume: VolumeId = "vol-00000000000000000".parse().unwrap();
        let snapshot: SnapshotId = "snap-00000000000000000".parse().unwrap();
        assert_eq!(self.find(self.store, &volume).await, None);
        let query = SnapshotQuery { id: Some(snapshot.clone()), ..SnapshotQuery::default() };
        assert_eq!(self.store.snapshots(&query).await.unwrap(), []);
        self.store.delete_volume(&volume).await.unwrap();
        self.store.delete_snapshot(&snapshot).await.unwrap();
        let new_snapshot = NewSnapshot { volume: volume.clone(), tags: self.tags("none"), description: String::new() };
        let new_volume = NewVolume { size_gib: 1, source: Some(snapshot.clone()), tags: self.tags("none"), token: None };
        for (error, id) in [
            (self.store.attach(&volume).await.unwrap_err(), volume.as_str()),
            (self.store.grow_volume(&volume, 2).await.unwrap_err(), volume.as_str()),
            (self.store.create_snapshot(&new_snapshot).await.unwrap_err(), volume.as_str()),
            (self.store.create_volume(&new_volume).await.unwrap_err(), snapshot.as_str()),
        ] {
            assert_eq!(error.kind(), Kind::Storage);
            assert!(error.to_string().contains(id), "{error}");
        }
        assert_eq!(self.named("none").await, []);
    }

    async fn one_token_makes_one_volume(&self) {
        let token = Some(format!("token of {}", self.run));
        let new = NewVolume { size_gib: 1, source: None, tags: self.tags("token"), token };
        let (one, two) = tokio::join!(self.store.create_volume(&new), self.other.create_volume(&new));
        let ((change, volume), (other_change, other)) = (one.unwrap(), two.unwrap());
        assert_eq!(other.id, volume.id);
        assert_ne!(change, other_change, "one of them made it");
        self.drop_volume(&volume.id).await;
        let other_token = NewVolume { token: Some(format!("another token of {}", self.run)), ..new };
        let (change, another) = self.store.create_volume(&other_token).await.unwrap();
        assert_eq!(change, Change::Created);
        assert_ne!(another.id, volume.id);
        self.drop_volume(&another.id).await;
    }

    async fn attached_is_attached(&self) {
        let id = self.blank("attach").await.id;
        self.store.detach(&id, None).await.unwrap();
        let (change, attachment) = self.store.attach(&id).await.unwrap();
        assert!(matches!(attachment, Attachment::Here { .. }), "{attachment:?}");
        assert_eq!(change, Change::Created);
        let again = (Change::Unchanged, attachment.clone());
        assert_eq!(self.store.attach(&id).await.unwrap(), again, "attaching twice is attaching once");
        assert_eq!(self.find(self.other, &id).await.unwrap().attachment, attachment, "another process sees it");
        assert_eq!(size((self.open)(&attachment)), GIB);
        self.store.detach(&id, None).await.unwrap();
        assert_eq!(self.find(self.store, &id).await.unwrap().attachment, Attachment::None);
        self.store.detach(&id, None).await.unwrap();
        self.drop_volume(&id).await;
    }

    async fn a_volume_starts_blank_and_keeps_what_is_written(&self) {
        let id = self.blank("blank").await.id;
        self.expect(&id, &[(0, 1 << 20, 0), (GIB - 4096, 4096, 0)]).await;
        self.write(&id, &[(0, 512, 1), (GIB - 512, 512, 2)]).await;
        self.store.detach(&id, None).await.unwrap();
        self.expect(&id, &[(0, 512, 1), (512, 4096, 0), (GIB - 1024, 512, 0), (GIB - 512, 512, 2)]).await;
        self.drop_volume(&id).await;
    }

    async fn a_snapshot_is_the_content_of_one_moment(&self) {
        let id = self.blank("moment").await.id;
        self.write(&id, &[(4096, 100_000, 1)]).await;
        // Still attached: what was written to the device counts.
        let attached = self.snapshot(&id, "attached").await;
        self.write(&id, &[(4096, 512, 2), (8 << 20, 512, 3)]).await;
        self.store.detach(&id, None).await.unwrap();
        let detached = self.snapshot(&id, "detached").await;
        self.write(&id, &[(0, 2 << 20, 9)]).await;
        assert_eq!((attached.volume.as_ref(), attached.size_gib, attached.description.as_str()), (Some(&id), 1, "of attached"));
        assert!(attached.started < detached.started);
        let old = self.volume_from(&attached, 1).await;
        let new = self.volume_from(&detached, 2).await;
        assert_eq!((old.source.as_ref(), new.source.as_ref(), new.size_gib), (Some(&attached.id), Some(&detached.id), 2));
        self.expect(&old.id, &[(0, 4096, 0), (4096, 100_000, 1), (104_096, 1 << 20, 0), (8 << 20, 512, 0)]).await;
        self.expect(&new.id, &[(4096, 512, 2), (4608, 99_488, 1), (8 << 20, 512, 3), (GIB, 1 << 20, 0), (2 * GIB - 512, 512, 0)])
            .await;
        let too_small = NewVolume {
            size_gib: 1,
            source: Some(self.snapshot(&new.id, "two").await.id),
            tags: self.tags("small"),
            token: None,
        };
        assert_eq!(self.store.create_volume(&too_small).await.unwrap_err().kind(), Kind::Usage);
        self.clean().await;
    }

    async fn parents_and_changes_are_told(&self) {
        let id = self.blank("changes").await.id;
        self.write(&id, &[(0, 512, 1), (10 * BLOCK - 512, 1024, 1)]).await;
        let first = self.snapshot(&id, "first").await;
        self.write(&id, &[(0, 512, 2), (100 * BLOCK, 4096, 1), (10 * BLOCK, 512, 1)]).await;
        let second = self.snapshot(&id, "second").await;
        let third = self.snapshot(&id, "third").await;
        // What was written becomes zeros again.
        self.write(&id, &[(100 * BLOCK, 4096, 0)]).await;
        let fourth = self.snapshot(&id, "fourth").await;
        let copy = self.volume_from(&first, 1).await.id;
        self.write(&copy, &[(3 * BLOCK, 512, 1)]).await;
        let fifth = self.snapshot(&copy, "fifth").await;
        // A store that does not tell says `None`, never something wrong.
        for (snapshot, parent, changed) in [
            (&first, None, 3),
            (&second, Some(&first), 2),
            (&third, Some(&second), 0),
            (&fourth, Some(&third), 1),
            (&fifth, Some(&first), 1),
        ] {
            assert!(snapshot.parent.is_none() || snapshot.parent.as_ref() == parent.map(|parent| &parent.id));
            assert!(snapshot.changed_blocks.is_none_or(|blocks| blocks == changed), "{snapshot:?}: {changed} blocks changed");
            assert_eq!(snapshot.parent.is_some(), snapshot.changed_blocks.is_some() && parent.is_some());
        }
        let query = SnapshotQuery { id: None, tags: Tags::from([("contract".into(), self.run.clone())]) };
        let listed: Vec<_> = self.store.snapshots(&query).await.unwrap().into_iter().map(|snapshot| snapshot.id).collect();
        assert_eq!(listed, [first.id, second.id, third.id, fourth.id, fifth.id], "oldest first");
        self.clean().await;
    }

    async fn volumes_grow_and_never_shrink(&self) {
        let id = self.blank("grow").await.id;
        self.write(&id, &[(0, 512, 1)]).await;
        let attachment = self.store.attach(&id).await.unwrap();
        self.store.grow_volume(&id, 2).await.unwrap();
        assert_eq!(size((self.open)(&attachment.1)), 2 * GIB, "an attached device grows too");
        self.write(&id, &[(2 * GIB - 512, 512, 2)]).await;
        self.store.detach(&id, None).await.unwrap();
        self.store.grow_volume(&id, 3).await.unwrap();
        self.store.grow_volume(&id, 3).await.unwrap();
        let error = self.store.grow_volume(&id, 2).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert_eq!(self.find(self.other, &id).await.unwrap().size_gib, 3);
        self.expect(&id, &[(0, 512, 1), (2 * GIB - 512, 512, 2), (3 * GIB - 512, 512, 0)]).await;
        assert_eq!(self.snapshot(&id, "grown").await.size_gib, 3);
        self.clean().await;
    }

    async fn what_is_attached_is_not_deleted(&self) {
        let id = self.blank("busy").await.id;
        self.write(&id, &[(0, 512, 1)]).await;
        for store in [self.store, self.other] {
            assert_eq!(store.delete_volume(&id).await.unwrap_err().kind(), Kind::Storage);
        }
        self.expect(&id, &[(0, 512, 1)]).await;
        self.drop_volume(&id).await;
    }

    async fn snapshots_outlive_their_origins(&self) {
        let id = self.blank("origin").await.id;
        self.write(&id, &[(0, 512, 1), (BLOCK, 512, 1)]).await;
        let parent = self.snapshot(&id, "parent").await;
        self.write(&id, &[(0, 512, 2)]).await;
        let child = self.snapshot(&id, "child").await;
        self.drop_volume(&id).await;
        self.store.delete_snapshot(&parent.id).await.unwrap();
        self.store.delete_snapshot(&parent.id).await.unwrap();
        let still = self.completed(&child.id).await;
        assert_eq!((still.volume, still.parent), (child.volume.clone(), child.parent.clone()));
        let restored = self.volume_from(&child, 1).await.id;
        self.expect(&restored, &[(0, 512, 2), (BLOCK, 512, 1)]).await;
        self.clean().await;
    }

    async fn two_users_share_a_volume(&self) {
        let id = self.blank("shared").await.id;
        let (one, two) = tokio::join!(self.store.attach(&id), self.other.attach(&id));
        self.one_at_a_time.as_ref().map(|attached| attached.replace(Some(id.clone())));
        let ((change, attachment), (other_change, other)) = (one.unwrap(), two.unwrap());
        assert_eq!(other, attachment, "attaching at once makes one attachment");
        assert_ne!(change, other_change, "one of them made it");
        let device = (self.open)(&attachment);
        device.write_all_at(&[7; 512], 0).unwrap();
        device.sync_all().unwrap();
        drop(device);
        let new = NewSnapshot { volume: id.clone(), tags: self.tags("shared"), description: String::new() };
        let (a, b) = tokio::join!(self.store.create_snapshot(&new), self.other.create_snapshot(&new));
        let restored = self.volume_from(&self.completed(&a.unwrap().id).await, 1).await.id;
        self.expect(&restored, &[(0, 512, 7)]).await;
        self.completed(&b.unwrap().id).await;
        let (one, two) = tokio::join!(self.store.detach(&id, None), self.other.detach(&id, None));
        one.and(two).unwrap();
        assert_eq!(self.find(self.store, &id).await.unwrap().attachment, Attachment::None);
        self.clean().await;
    }

    /// Removes what the checks made.
    async fn clean(&self) {
        let tags = Tags::from([("contract".to_owned(), self.run.clone())]);
        for volume in self.store.volumes(&VolumeQuery { id: None, tags: tags.clone() }).await.unwrap() {
            self.drop_volume(&volume.id).await;
        }
        for snapshot in self.store.snapshots(&SnapshotQuery { id: None, tags }).await.unwrap() {
            self.store.delete_snapshot(&snapshot.id).await.unwrap();
        }
    }

    async fn nothing_is_left(&self) {
        let tags = Tags::from([("contract".to_owned(), self.run.clone())]);
        assert_eq!(self.other.volumes(&VolumeQuery { id: None, tags: tags.clone() }).await.unwrap(), []);
        assert_eq!(self.other.snapshots(&SnapshotQuery { id: None, tags }).await.unwrap(), []);
    }
}

fn size(mut device: File) -> u64 {
    use std::io::Seek;
    device.seek(std::io::SeekFrom::End(0)).unwrap()
}
