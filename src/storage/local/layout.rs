//! The store's directory: where things are, and making, checking and locking it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;

use super::metadata::{FORMAT, Record, SnapshotRecord, VolumeRecord};
use crate::error::{Error, Kind, OrFail, Result};
use crate::step;

const FORMAT_FILE: &str = "format";
const FORMAT_DRAFT: &str = "format.new";
const STAGING: &str = "staging";
/// What may be in a directory that becomes a store: the traces of a killed first use, and what `mkfs.ext4` makes.
const HARMLESS: [&str; 2] = [FORMAT_DRAFT, "lost+found"];
/// Locks are held for moments only: one that is not free by then belongs to a process that hangs.
const LOCK_DEADLINE: Duration = Duration::from_secs(30);
const LOCK_POLL: Duration = Duration::from_millis(2);

/// The directory of a store, which may not exist yet.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// Checks what is there, creating nothing.
    ///
    /// Errors of kind `Usage`: something else is in the directory, others may write to it, or a newer version made it.
    pub fn open(dir: &Path) -> Result<Layout> {
        let dir = std::path::absolute(dir).or_fail(Kind::Usage, || format!("{dir:?} is not a directory for a local store"))?;
        let layout = Layout { dir };
        layout.exists()?;
        Ok(layout)
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory in which all entries of a kind are.
    pub fn folder<R: Record>(&self) -> PathBuf {
        self.dir.join(R::FOLDER)
    }

    /// The directory of one entry.
    pub fn entry<R: Record>(&self, id: &R::Id) -> PathBuf {
        self.folder::<R>().join(id.to_string())
    }

    /// Where things are made and unmade.
    pub fn staging(&self) -> PathBuf {
        self.dir.join(STAGING)
    }

    /// Whether the store has been made; an error if what is there is no store, or not one that may be used.
    pub fn exists(&self) -> Result<bool> {
        let shown = self.dir.display();
        let metadata = match fs::metadata(&self.dir) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.failed("look at", error)),
        };
        if !metadata.is_dir() {
            return Err(Error::new(Kind::Usage, format!("{shown} is not a directory, so it cannot hold a local store")));
        }
        match self.read_format()? {
            Some(text) => {
                check_format(&text, &self.dir)?;
                if metadata.mode() & 0o022 != 0 {
                    let message = format!("other users may write to the local store {shown}");
                    return Err(Error::new(Kind::Usage, message).hint(format!("chmod 0700 {shown}")));
                }
                Ok(true)
            }
            None => match self.check_empty() {
                Ok(()) => Ok(false),
                // Another process may be making the store: its file comes before everything else.
                Err(error) => match self.read_format()? {
                    Some(text) => check_format(&text, &self.dir).map(|()| true),
                    None => Err(error),
                },
            },
        }
    }

    /// Makes the store unless it is there.
    pub fn ensure(&self) -> Result<()> {
        if self.exists()? && self.folders().iter().all(|folder| folder.is_dir()) {
            return Ok(());
        }
        self.make().map_err(|error| self.failed("make", error))?;
        // What another process made of it meanwhile counts.
        self.exists().map(drop)
    }

    fn make(&self) -> io::Result<()> {
        fs::create_dir_all(self.dir.parent().unwrap_or(&self.dir))?;
        make_dir(&self.dir)?;
        let dir = File::open(&self.dir)?;
        let lock = Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        let format = self.dir.join(FORMAT_FILE);
        if !format.try_exists()? {
            fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))?;
            let draft = self.dir.join(FORMAT_DRAFT);
            let _ = fs::remove_file(&draft);
            write_file(&draft, format!("ebs-bake local store {FORMAT}\n").as_bytes())?;
            step::around("making the store", || fs::rename(&draft, &format))?;
        }
        step::around("making the folders", || self.folders().iter().try_for_each(|folder| make_dir(folder)))?;
        lock.sync_all()?;
        sync_dir(self.dir.parent().unwrap_or(&self.dir))
    }

    fn folders(&self) -> [PathBuf; 3] {
        [self.folder::<VolumeRecord>(), self.folder::<SnapshotRecord>(), self.staging()]
    }

    fn read_format(&self) -> Result<Option<String>> {
        let file = match open_file(&self.dir.join(FORMAT_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("read the format of", error)),
        };
        let mut text = Vec::new();
        file.take(100).read_to_end(&mut text).map_err(|error| self.failed("read the format of", error))?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }

    fn check_empty(&self) -> Result<()> {
        for entry in fs::read_dir(&self.dir).map_err(|error| self.failed("read", error))? {
            let name = entry.map_err(|error| self.failed("read", error))?.file_name();
            if !HARMLESS.iter().any(|harmless| name == *harmless) {
                let message =
                    format!("{} is neither empty nor a local store: it has no file {FORMAT_FILE:?}", self.dir.display());
                return Err(Error::new(Kind::Usage, message).hint("give another directory"));
            }
        }
        Ok(())
    }

    /// The exclusive lock of an entry's directory, waited for; `None` if there is no such entry.
    pub fn lock<R: Record>(&self, id: &R::Id) -> Result<Option<DirLock>> {
        self.wait_for_lock(&self.entry::<R>(id), &id.to_string())
    }

    /// The exclusive lock of all entries of a kind: for what must not be made twice.
    pub fn lock_folder<R: Record>(&self) -> Result<Option<DirLock>> {
        self.wait_for_lock(&self.folder::<R>(), R::FOLDER)
    }

    fn wait_for_lock(&self, path: &Path, what: &str) -> Result<Option<DirLock>> {
        let deadline = Instant::now() + LOCK_DEADLINE;
        loop {
            match DirLock::try_of(path) {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
                Ok(None) => return Err(Error::new(Kind::Contended, format!("another process holds the lock of {what}"))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(self.failed(&format!("lock {what} of"), error)),
            }
        }
    }

    /// The bytes that may still be written; 0 if nobody knows.
    pub fn free(&self) -> u64 {
        statvfs(&self.dir).map_or(0, |fs| fs.blocks_available() * fs.fragment_size())
    }

    /// [`failed`](Self::failed) for making a copy that takes up to `needs` bytes, of which there were `free` before.
    pub fn failed_to_copy(&self, what: &str, needs: u64, free: u64, error: io::Error) -> Error {
        if !matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) {
            return self.failed(&format!("make {what} in"), error);
        }
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let message = format!("disk full under the local store {}: {what} takes up to {} MiB", self.dir.display(), mib(needs));
        Error::new(Kind::Storage, message)
            .hint(format!("{} MiB were free: make room, or delete snapshots", mib(free)))
            .because(error)
    }

    /// Turns an error of the operating system into ours: `cannot <verb> the local store <dir>`.
    pub fn failed(&self, verb: &str, error: io::Error) -> Error {
        let shown = self.dir.display();
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => {
                let message = format!("disk full under the local store {shown}");
                Error::new(Kind::Storage, message).hint("free some space there, or delete snapshots").because(error)
            }
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
                let message = format!("not permitted to {verb} the local store {shown}");
                Error::new(Kind::Permission, message).hint("run as root, or give a directory of your own").because(error)
            }
            _ => Error::new(Kind::Storage, format!("cannot {verb} the local store {shown}")).because(error),
        }
    }
}

fn check_format(text: &str, dir: &Path) -> Result<()> {
    let version: Option<u32> = text.strip_prefix("ebs-bake local store ").and_then(|version| version.trim_end().parse().ok());
    let shown = dir.display();
    match version {
        Some(version) if (1..=FORMAT).contains(&version) => Ok(()),
        Some(version) if version > FORMAT => {
            let message = format!("the local store {shown} has format {version}; this ebs-bake knows formats up to {FORMAT}");
            Err(Error::new(Kind::Usage, message).hint("use a newer ebs-bake, or another directory"))
        }
        _ => {
            Err(Error::new(Kind::Usage, format!("{shown} is not a local store: its file {FORMAT_FILE:?} is not one of ebs-bake")))
        }
    }
}

/// An exclusive lock on a directory that is at its place. The kernel releases it with the process.
#[derive(Debug)]
pub(super) struct DirLock {
    _lock: Flock<File>,
}

impl DirLock {
    /// `None`: somebody else holds it. `NotFound`: the directory is not, or no longer, at `path`.
    pub fn try_of(path: &Path) -> io::Result<Option<DirLock>> {
        let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)?;
        let lock = match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        // It may have been moved away between the opening and the locking.
        let (held, there) = (lock.metadata()?, fs::symlink_metadata(path)?);
        if (held.dev(), held.ino()) != (there.dev(), there.ino()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Some(DirLock { _lock: lock }))
    }
}

/// Opens a regular file for reading. Links are not followed, and no fifo or device makes this wait.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    open_file_with(path, OpenOptions::new().read(true))
}

/// [`open_file`] for reading and writing.
pub(super) fn open_file_writable(path: &Path) -> io::Result<File> {
    open_file_with(path, OpenOptions::new().read(true).write(true))
}

fn open_file_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a regular file", path.display())));
    }
    Ok(file)
}

/// Makes a file that was not there, for the owner alone.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Makes a file with this content, on disk when this returns.
pub(super) fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = create_file(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes a directory for the owner alone, unless it is there.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
}

/// Puts the names in a directory on disk.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
