//! What the tests of the local store need: root, filesystems of their own.

#![allow(dead_code)]

#[path = "needs.rs"]
mod needs;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ebs_bake::error::Result;
use ebs_bake::storage::local::LocalStore;
use ebs_bake::storage::{
    Attachment, BlockStorage, NewSnapshot, NewVolume, Snapshot, SnapshotQuery, Tags, Volume, VolumeId, VolumeQuery,
};

pub use needs::{needs, needs_root};

/// Runs async code as the program does: on one thread.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A mounted filesystem that is gone when this is dropped.
pub struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// What is in an image, read-only.
    pub fn image(image: &Path) -> Mounted {
        Self::mount(tempfile::tempdir().unwrap(), &["-o", "loop,ro"], image)
    }

    fn mount(dir: tempfile::TempDir, args: &[&str], source: &Path) -> Mounted {
        let mounted = Mounted { dir };
        std::fs::create_dir(mounted.path()).unwrap();
        run(Command::new("mount").args(args).arg(source).arg(mounted.path()));
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.path()).status();
        if !std::thread::panicking() {
            assert!(unmounted.unwrap().success(), "cannot unmount {}", self.path().display());
        }
    }
}

/// An XFS that can share extents, on a loop image.
pub fn xfs() -> Option<Mounted> {
    let found = Command::new("mkfs.xfs").arg("-V").output().is_ok_and(|output| output.status.success());
    if !needs(found, "mkfs.xfs (package xfsprogs)") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("xfs");
    std::fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
    run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image));
    Some(Mounted::mount(dir, &["-o", "loop"], &image))
}

/// A tmpfs of so many MiB.
pub fn tmpfs(mib: u32) -> Mounted {
    let size = format!("size={mib}m");
    Mounted::mount(tempfile::tempdir().unwrap(), &["-t", "tmpfs", "-o", &size], Path::new("none"))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A store in a directory of its own.
pub struct Here {
    pub dir: tempfile::TempDir,
    pub store: LocalStore,
}

impl Here {
    pub fn new() -> Here {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(dir.path().join("store")).unwrap();
        Here { dir, store }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn image(&self, id: &VolumeId) -> PathBuf {
        self.path().join("volumes").join(id.as_str()).join("image")
    }

    pub fn volume(&self, tags: Tags) -> VolumeId {
        block_on(self.store.create_volume(&NewVolume { size_gib: 1, source: None, tags, token: None })).unwrap().1.id
    }

    /// A volume that holds so many MiB.
    pub fn filled(&self, mib: usize) -> VolumeId {
        let id = self.volume(Tags::new());
        let image = fs::OpenOptions::new().write(true).open(self.image(&id)).unwrap();
        image.write_all_at(&vec![1; mib << 20], 4096).unwrap();
        id
    }

    /// The first 16 MiB of an image.
    pub fn content(&self, folder: &str, id: &str) -> Vec<u8> {
        let mut content = vec![0; 16 << 20];
        let image = self.path().join(folder).join(id).join("image");
        fs::File::open(image).unwrap().read_exact_at(&mut content, 0).unwrap();
        content
    }

    pub fn device(&self, id: &VolumeId) -> String {
        let Attachment::Here { device, .. } = block_on(self.store.attach(id)).unwrap().1 else { panic!("not attached") };
        device
    }

    pub fn detach(&self, id: &VolumeId) -> Result<()> {
        block_on(self.store.detach(id, None))
    }

    pub fn snapshot(&self, id: &VolumeId) -> Result<Snapshot> {
        let new = NewSnapshot { volume: id.clone(), tags: Tags::new(), description: String::new() };
        block_on(self.store.create_snapshot(&new))
    }

    pub fn volumes(&self) -> Vec<Volume> {
        block_on(self.store.volumes(&VolumeQuery::default())).unwrap()
    }

    pub fn snapshots(&self) -> Vec<Snapshot> {
        block_on(self.store.snapshots(&SnapshotQuery::default())).unwrap()
    }

    pub fn attachment(&self, id: &VolumeId) -> Attachment {
        self.volumes().into_iter().find(|volume| volume.id == *id).unwrap().attachment
    }

    /// The loop devices that the kernel has on files of this store.
    pub fn devices(&self) -> Vec<PathBuf> {
        let all = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
        let ours = |device: &PathBuf| {
            fs::read_to_string(device.join("loop/backing_file")).is_ok_and(|path| path.starts_with(self.path().to_str().unwrap()))
        };
        all.filter(ours).collect()
    }

    /// Whether the kernel has released every device of this store, or does so soon: udev and others open any device for
    /// moments, which delays it.
    pub fn is_released(&self) -> bool {
        (0..5000).any(|_| {
            let released = self.devices().is_empty();
            if !released {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            released
        })
    }

    pub fn staged(&self) -> usize {
        fs::read_dir(self.path().join("staging")).unwrap().count()
    }
}
