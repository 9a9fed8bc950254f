//! The commit's content onto the volume: from a device that we have to ourselves to one that nobody holds any more.
//!
//! Everything here blocks and runs on a thread of its own.

use std::path::PathBuf;

use git2::Repository;

use crate::bake::decide::{self, FilesystemChoice};
use crate::bake::tree::{self, Filled, Ground};
use crate::bake::volume::Site;
use crate::bake::{Context, Target};
use crate::checkout::Stamp;
use crate::error::{Error, Kind, OrFail, Result};
use crate::host::filesystem::{self, Checked, Growth, State, Superblock};
use crate::host::lock::Exclusive;
use crate::host::mount::{Mount, MountPoint, Options};
use crate::host::scratch::Scratch;
use crate::key::GitDirMode;
use crate::report::{Change, Phase};
use crate::source::Fetched;

/// What came of it.
pub enum Placed {
    /// The content is on the volume.
    Done {
        /// Nobody else holds the device as long as this is kept.
        quiescent: Exclusive,
        /// The marks of the checks that the content passed.
        passed: Vec<String>,
    },
    /// Something that was written did not reach the volume: nothing on it can be trusted, however clean it looks.
    Spoiled(Error),
    /// The volume cannot be used and shall be made anew.
    Unusable {
        /// The reason.
        why: String,
        /// What had been fetched for it and was not used.
        staged: Option<Staged>,
    },
}

/// The commit's objects on this host, fetched while there is no volume yet to put them on.
pub struct Staged {
    repository: Repository,
    bytes: u64,
    _scratch: Scratch,
}

impl Staged {
    /// Fetches the commit.
    ///
    /// # Errors
    /// Those of the fetch.
    pub fn fetch(cx: &Context, target: &Target) -> Result<Staged> {
        let scratch = Scratch::new()?;
        let repository = Repository::init_bare(scratch.path().join("git")).or_fail(Kind::Git, || "cannot stage a repository")?;
        let phase = cx.report.phase(Phase::Fetch);
        let fetched = target.source.fetch(&target.resolved, &repository, &phase)?;
        phase.done(Change::Created, amount(&fetched));
        Ok(Staged { repository, bytes: fetched.bytes, _scratch: scratch })
    }

    /// The repository with the objects.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The bytes that the whole content takes on a filesystem: the files, and the git directory if it is included.
    fn footprint(&self, cx: &Context, target: &Target) -> Result<u64> {
        let empty = self._scratch.path().join("tree");
        std::fs::create_dir_all(&empty).or_fail(Kind::Device, || "cannot make a temporary directory")?;
        let files = tree::measure(cx, target, &empty, self)?;
        Ok(files + if cx.config.git_dir == GitDirMode::Include { self.bytes } else { 0 })
    }
}

/// `1,234 objects, 5.6 MB`, for the report.
pub fn amount(fetched: &Fetched) -> String {
    match fetched.objects {
        0 => "nothing new".to_owned(),
        objects => format!("{objects} objects, {:.1} MB", fetched.bytes as f64 / 1e6),
    }
}

/// Puts the commit onto the volume.
///
/// # Errors
/// Of the step that failed; nothing stays mounted.
pub fn place(cx: &Context, target: &Target, site: &Site, staged: Option<Staged>) -> Result<Placed> {
    let (filesystem, repaired) = match prepare_filesystem(cx, target, site, staged.as_ref())? {
        Prepared::Ready { filesystem, repaired } => (filesystem, repaired),
        Prepared::Unusable(why) => return Ok(Placed::Unusable { why, staged }),
    };
    let mut stamp = Stamp { repaired, previous: stamp(site, filesystem)?, current: None };
    loop {
        cx.cancel.check()?;
        let phase = cx.report.phase(Phase::Mount);
        let point = MountPoint::prepare(&cx.config.mount_point)?;
        let mount = Mount::new(&site.device.node()?, point, filesystem, Options { read_only: false })?;
        phase.done(Change::Created, format!("{filesystem} at {}", cx.config.mount_point.display()));
        stamp.current = self::stamp(site, filesystem)?;
        let ground = Ground { root: mount.path(), site, stamp: &stamp };
        let filled = fill_growing(cx, target, &ground, staged.as_ref());
        let phase = cx.report.phase(Phase::Unmount);
        if let Err(error) = mount.unmount() {
            return Ok(Placed::Spoiled(error));
        }
        match filled {
            Ok(Filled::Done(passed)) => {
                let quiescent = Exclusive::open(&site.device)?;
                phase.done(Change::Changed, "nobody holds the device");
                return Ok(Placed::Done { quiescent, passed });
            }
            Ok(Filled::NeedsRoom(bytes)) => {
                phase.done(Change::Changed, "unmounted");
                make_room(cx, site, State::Unmounted, bytes)?;
            }
            Err(error) => {
                phase.done(Change::Changed, "unmounted");
                return Err(error);
            }
        }
    }
}

/// Fills the volume, and while it lacks room and the kernel lets us grow it while it is mounted, does that.
fn fill_growing(cx: &Context, target: &Target, ground: &Ground<'_>, staged: Option<&Staged>) -> Result<Filled> {
    loop {
        let filled = tree::fill(cx, target, ground, staged)?;
        match filled {
            Filled::NeedsRoom(bytes) => match make_room(cx, ground.site, State::Mounted(ground.root), bytes)? {
                Growth::NeedsUnmount => return Ok(filled),
                Growth::Grown | Growth::Unchanged => {}
            },
            Filled::Done(_) => return Ok(filled),
        }
    }
}

/// Where the git directory is kept.
pub fn git_dir(cx: &Context, site: &Site, root: &std::path::Path) -> PathBuf {
    match cx.config.git_dir {
        GitDirMode::Include => root.join(".git"),
        GitDirMode::Exclude => cx.config.state_dir.join("git").join(site.volume.id.as_str()),
    }
}

enum Prepared {
    Ready { filesystem: &'static str, repaired: bool },
    Unusable(String),
}

fn prepare_filesystem(cx: &Context, target: &Target, site: &Site, staged: Option<&Staged>) -> Result<Prepared> {
    let phase = cx.report.phase(Phase::Filesystem);
    Exclusive::probe(&site.device)?;
    let probe = filesystem::probe(&site.device.node()?.open(false)?, site.device.size_bytes).map_err(|error| {
        Error::new(Kind::Device, format!("volume {} cannot be read", site.volume.id))
            .because(error)
            .hint("nothing was written to it: run again; if it stays so, delete it, and one is made from its last snapshot")
    })?;
    let ready = |filesystem, repaired| Ok(Prepared::Ready { filesystem, repaired });
    match decide::choose_filesystem(&probe, &site.volume)? {
        FilesystemChoice::Mount(kind) => {
            phase.done(Change::Unchanged, format!("{kind}, clean"));
            ready(kind, false)
        }
        FilesystemChoice::Make => {
            let footprint = staged.map(|staged| staged.footprint(cx, target)).transpose()?.unwrap_or(0);
            let size = match cx.config.after_checkout {
                // Nobody knows how much the command will write.
                Some(_) => site.device.size_bytes,
                None => filesystem::size_for(footprint),
            };
            require_room(site, footprint)?;
            let size = size.min(site.device.size_bytes);
            filesystem::make(&site.device, &cx.config.volume_name, size, &cx.cancel)?;
            phase.done(Change::Created, format!("ext4 of {} MiB", size >> 20));
            ready("ext4", false)
        }
        FilesystemChoice::Check => match filesystem::check(&site.device, &cx.cancel)? {
            Checked::Clean => {
                phase.done(Change::Unchanged, "ext4, was not unmounted cleanly, no damage found");
                ready("ext4", true)
            }
            Checked::Repaired => {
                cx.report
                    .warn(format!("the filesystem of {} was damaged and was repaired; every file is compared", site.volume.id));
                phase.done(Change::Changed, "ext4, repaired");
                ready("ext4", true)
            }
            Checked::Broken(why) if decide::made_by_us(&site.volume) => {
                phase.done(Change::Unchanged, "ext4, beyond repair");
                Ok(Prepared::Unusable(format!("its filesystem cannot be repaired ({why})")))
            }
            Checked::Broken(why) => {
                let message = format!("the filesystem of volume {} cannot be repaired", site.volume.id);
                Err(Error::new(Kind::Device, message).because(why).hint("run e2fsck on it by hand, or use another --volume-name"))
            }
        },
        FilesystemChoice::Remake(why) => {
            phase.done(Change::Unchanged, "unusable");
            Ok(Prepared::Unusable(why))
        }
    }
}

/// Identifies the last read-write mount; `None` for filesystems that do not count them.
fn stamp(site: &Site, filesystem: &str) -> Result<Option<String>> {
    if filesystem != "ext4" {
        return Ok(None);
    }
    Ok(Some(Superblock::read(&site.device.node()?.open(false)?)?.stamp()))
}

/// Grows the filesystem so that it has `bytes` more; refuses when the volume is too small for that.
fn make_room(cx: &Context, site: &Site, state: State<'_>, bytes: u64) -> Result<Growth> {
    let superblock = Superblock::read(&site.device.node()?.open(false)?).map_err(|error| {
        let mib = bytes.div_ceil(1 << 20);
        let message = format!("the filesystem of volume {} is full: {mib} MiB more are needed", site.volume.id);
        Error::new(Kind::Device, message).because(error).hint("it was not made by ebs-bake: grow it by hand")
    })?;
    let now = superblock.size_bytes();
    let size = (now + bytes).min(site.device.size_bytes);
    if size / u64::from(superblock.block_size) <= superblock.blocks {
        require_room(site, now + bytes)?;
    }
    let phase = cx.report.phase(Phase::Filesystem);
    let growth = filesystem::grow(&site.device, state, size, &cx.cancel)?;
    match growth {
        Growth::NeedsUnmount => phase.done(Change::Unchanged, "ext4 must be unmounted to grow"),
        Growth::Grown | Growth::Unchanged => {
            phase.done(Change::Changed, format!("ext4 grown from {} to {} MiB", now >> 20, size >> 20));
        }
    }
    Ok(growth)
}

fn require_room(site: &Site, size: u64) -> Result<()> {
    if size <= site.device.size_bytes {
        return Ok(());
    }
    let (have, need) = (site.volume.size_gib, size.div_ceil(1 << 30));
    let message = format!("volume {} is too small: it has {have} GiB, the content needs {need} GiB", site.volume.id);
    Err(Error::new(Kind::Device, message).hint(format!("run again with --volume-size {need}")))
}
