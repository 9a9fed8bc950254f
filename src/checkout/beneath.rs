//! File operations that cannot leave the work tree: paths are resolved by the kernel beneath the root's descriptor,
//! through no symbolic link and into no other mount.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use crate::cancel::Cancel;
use crate::error::{Error, Kind, OrFail, Result};

/// Permissions of a directory, whatever the umask.
const DIRECTORY: Mode = Mode::from_bits_truncate(0o755);

/// The root of a work tree.
pub struct Root(OwnedFd);

impl Root {
    /// Opens it. The path itself may lead through symbolic links: it is the caller's.
    pub fn open(path: &Path) -> Result<Root> {
        let open = nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        open.map(Root).or_fail(Kind::Device, || format!("cannot open the work tree {}", path.display()))
    }

    /// Opens a directory below it; an empty path is the root itself.
    pub fn directory(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        open(self.0.as_fd(), if path.is_empty() { b"." } else { path }, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
    }

    /// Opens what a path leads to, to read it: also through symbolic links, as long as they do not lead out of the root.
    pub fn follow(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV;
        let path = if path.is_empty() { b"." } else { path };
        openat2(&self.0, path, OpenHow::new().flags(flags).resolve(resolve))
    }

    /// The size of the filesystem's blocks in bytes.
    pub fn block_size(&self) -> u64 {
        fstatvfs(&self.0).map_or(4096, |stat| stat.fragment_size()).max(512)
    }
}

/// A path's directory (empty: the root) and its last component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// The error of an operation on a path of the work tree.
pub fn failed(what: &str, path: &[u8], cause: impl Into<io::Error>) -> Error {
    let cause = cause.into();
    let error = Error::new(Kind::Device, format!("cannot {what} {:?} in the work tree", String::from_utf8_lossy(path)));
    match cause.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT) => error.hint("the volume is full: make it larger, or remove what others put there"),
        Some(Errno::ELOOP | Errno::EXDEV | Errno::ENOTDIR) => {
            error.hint("a symbolic link, a file or a mount is in the way: is something else using the volume?")
        }
        _ => error,
    }
    .because(cause)
}

fn open(directory: BorrowedFd<'_>, path: &[u8], flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    openat2(directory, path, OpenHow::new().flags(flags).mode(mode).resolve(resolve))
}

/// Opens a file to read it.
pub fn read(directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<File> {
    open(directory, name, OFlag::O_RDONLY, Mode::empty()).map(File::from)
}

/// Makes a file that is not there yet.
pub fn create(directory: BorrowedFd<'_>, name: &[u8], mode: Mode) -> nix::Result<File> {
    open(directory, name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, mode).map(File::from)
}

/// Opens a file to write it anew, in place; its content is still there.
pub fn rewrite(directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<File> {
    open(directory, name, OFlag::O_WRONLY, Mode::empty()).map(File::from)
}

/// Gives a file exactly these permissions and tells what it is now.
pub fn seal(file: &File, mode: Mode) -> nix::Result<FileStat> {
    let stat = fstat(file)?;
    if permissions(&stat) == mode {
        return Ok(stat);
    }
    fchmod(file, mode)?;
    fstat(file)
}

/// Makes a directory, whatever the umask.
pub fn make_directory(parent: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
    mkdirat(parent, name, DIRECTORY)?;
    let made = open(parent, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?;
    fix_directory(made.as_fd())
}

/// Gives a directory its permissions; a set-group-ID bit that it has from its parent stays.
pub fn fix_directory(directory: BorrowedFd<'_>) -> nix::Result<()> {
    let stat = fstat(directory)?;
    if is_fine_directory(&stat) { Ok(()) } else { fchmod(directory, DIRECTORY | (permissions(&stat) & Mode::S_ISGID)) }
}

/// Whether a directory has the permissions that a checkout gives it.
pub fn is_fine_directory(stat: &FileStat) -> bool {
    permissions(stat) & !Mode::S_ISGID == DIRECTORY
}

/// Makes a symbolic link to `target`, which is not looked at.
pub fn make_symlink(directory: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> nix::Result<FileStat> {
    symlinkat(target, directory, name)?;
    status(directory, name)
}

/// What a symbolic link says.
pub fn read_symlink(directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<Vec<u8>> {
    readlinkat(directory, name).map(std::os::unix::ffi::OsStringExt::into_vec)
}

/// What is at `name`, not following a symbolic link.
pub fn status(directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<FileStat> {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// The kind of file.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// The permissions, with set-user-ID, set-group-ID and sticky bit.
pub fn permissions(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode & 0o7777)
}

/// The names in a directory.
pub fn list(directory: OwnedFd) -> nix::Result<Vec<Box<[u8]>>> {
    let mut names = Vec::new();
    for item in Dir::from_fd(directory)?.iter() {
        let item = item?;
        let name = item.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.into());
        }
    }
    Ok(names)
}

/// Removes whatever is at `name`, with all that is below; nothing there is no error. Returns how many files and
/// directories it removed.
pub fn remove_all(parent: BorrowedFd<'_>, name: &[u8], cancel: &Cancel) -> Result<usize> {
    cancel.check()?;
    let error = |cause: Errno| failed("remove", name, cause);
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) => return Ok(1),
        Err(Errno::ENOENT) => return Ok(0),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(cause) => return Err(error(cause)),
    }
    let directory = open(parent, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).map_err(error)?;
    let names = list(directory.try_clone().map_err(|cause| failed("read", name, cause))?).map_err(error)?;
    let mut removed = 1;
    for child in names {
        removed += remove_all(directory.as_fd(), &child, cancel)?;
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir).map_err(error)?;
    Ok(removed)
}

/// Removes a directory if it is empty; tells whether it is gone.
pub fn remove_if_empty(parent: BorrowedFd<'_>, name: &[u8]) -> nix::Result<bool> {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// What lies at `name` and below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// Files and directories.
    pub count: usize,
    /// Bytes of the filesystem that removing them frees.
    pub bytes: u64,
}

/// Adds up what [`remove_all`] would remove.
pub fn measure(parent: BorrowedFd<'_>, name: &[u8], cancel: &Cancel) -> Result<Extent> {
    cancel.check()?;
    let error = |cause: Errno| failed("look at", name, cause);
    let stat = status(parent, name).map_err(error)?;
    let is_last_name = kind(&stat) == SFlag::S_IFDIR || stat.st_nlink == 1;
    let mut extent = Extent { count: 1, bytes: if is_last_name { allocated(&stat) } else { 0 } };
    if kind(&stat) == SFlag::S_IFDIR {
        let directory = open(parent, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).map_err(error)?;
        let names = list(directory.try_clone().map_err(|cause| failed("read", name, cause))?).map_err(error)?;
        for child in names {
            let below = measure(directory.as_fd(), &child, cancel)?;
            extent = Extent { count: extent.count + below.count, bytes: extent.bytes + below.bytes };
        }
    }
    Ok(extent)
}

/// The bytes of the filesystem that a file takes.
pub fn allocated(stat: &FileStat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}
