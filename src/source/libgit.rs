//! libgit2's process-wide settings: nothing on this machine but a repository itself decides how it is read.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use git2::{ConfigLevel, ErrorCode, Repository, RepositoryOpenFlags};
use nix::fcntl::Flock;

use crate::error::{Error, Kind, OrFail, Result};
use crate::host::scratch;

/// What libgit2 keeps of objects it has read; trees are read once or twice, so more buys nothing.
const OBJECT_CACHE: isize = 8 << 20;
/// How much of a pack is mapped at once, and of all packs together: mapped pages count as memory of this process.
const PACK_WINDOW: usize = 4 << 20;
const PACK_WINDOWS: usize = 16 << 20;

/// The only place where libgit2 looks for configuration outside a repository. It exists only once a directory is trusted.
static HOME: OnceLock<PathBuf> = OnceLock::new();
/// Says that this process is alive: `ebs-bake cleanup` removes such a directory when nobody holds it.
static HELD: OnceLock<Flock<File>> = OnceLock::new();
static TRUSTED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Sets libgit2 up: call it before anything else of `git2`. Later calls do nothing.
///
/// Neither `~/.gitconfig` nor `/etc/gitconfig` is read. Objects are not hashed again when they are read: they have been
/// when they came in. Memory is kept low.
pub fn initialise() {
    HOME.get_or_init(|| {
        let home = scratch::unused_path();
        git2::opts::strict_hash_verification(false);
        for level in [ConfigLevel::ProgramData, ConfigLevel::System, ConfigLevel::XDG, ConfigLevel::Global] {
            // SAFETY: global state of libgit2, changed here only, once, before any other use of it in this crate.
            unsafe { git2::opts::set_search_path(level, &home) }.expect("a path without NUL is a search path");
        }
        // SAFETY: as above.
        unsafe {
            git2::opts::set_cache_max_size(OBJECT_CACHE).expect("a size is accepted");
            git2::opts::set_mwindow_size(PACK_WINDOW).expect("a multiple of the page size is accepted");
            git2::opts::set_mwindow_mapped_limit(PACK_WINDOWS).expect("a size is accepted");
        }
        home
    });
}

/// Opens the repository at exactly `path` (a work tree, a git directory or a bare repository), whoever owns it: naming a
/// directory to this program is to trust it, and nothing in it is ever executed.
pub fn open_repository(path: &Path) -> Result<Repository, git2::Error> {
    initialise();
    let open = || Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, &[] as &[&Path]);
    match open() {
        Err(error) if error.code() == ErrorCode::Owner => {
            trust(path).map_err(|error| git2::Error::from_str(&error.to_string()))?;
            open()
        }
        other => other,
    }
}

/// Permits libgit2 to open this one directory although another user owns it. Its ownership check stays on for all others.
fn trust(path: &Path) -> Result<()> {
    initialise();
    let home = HOME.get().expect("set by initialise");
    let path = path.canonicalize().or_fail(Kind::Git, || format!("cannot find {}", path.display()))?;
    let mut trusted = TRUSTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let failed = || "cannot note which repositories may be owned by others";
    if trusted.is_empty() {
        let _ = HELD.set(scratch::create(home).or_fail(Kind::Git, failed)?);
        // SAFETY: the handler only removes a directory of ours; it touches no state that has been torn down.
        unsafe { libc::atexit(remove_home) };
    }
    for directory in [Some(path.as_path()), path.parent().filter(|_| path.ends_with(".git"))].into_iter().flatten() {
        if !trusted.iter().any(|known| known == directory) {
            trusted.push(directory.to_path_buf());
        }
    }
    let new = home.join("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).or_fail(Kind::Git, failed)?;
    file.write_all(&safe_directories(&trusted)).or_fail(Kind::Git, failed)?;
    fs::rename(&new, home.join(".gitconfig")).or_fail(Kind::Git, failed)
}

fn safe_directories(paths: &[PathBuf]) -> Vec<u8> {
    let mut text = b"[safe]\n".to_vec();
    for path in paths {
        text.extend_from_slice(b"\tdirectory = \"");
        for byte in path.as_os_str().as_bytes() {
            match byte {
                b'\n' => text.extend_from_slice(b"\\n"),
                b'"' | b'\\' => text.extend_from_slice(&[b'\\', *byte]),
                byte => text.push(*byte),
            }
        }
        text.extend_from_slice(b"\"\n");
    }
    text
}

extern "C" fn remove_home() {
    if let Some(home) = HOME.get() {
        let _ = fs::remove_dir_all(home);
    }
}

/// What libgit2 says, as ours: its message names what failed, so it is the cause.
pub(super) fn git_error(message: impl Into<String>) -> impl FnOnce(git2::Error) -> Error {
    let message = message.into();
    move |error| Error::new(Kind::Git, message).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_directories_survive_the_configuration_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        let odd = PathBuf::from("/srv/a \"b\" \\c\nd;#");
        fs::write(&file, safe_directories(std::slice::from_ref(&odd))).unwrap();
        let config = git2::Config::open(&file).unwrap();
        assert_eq!(config.get_string("safe.directory").unwrap(), odd.to_str().unwrap());
    }

    #[test]
    fn a_foreign_repository_opens_and_only_that() {
        if !nix::unistd::geteuid().is_root() {
            return; // only root can give a directory away
        }
        initialise();
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        for path in [&one, &two] {
            Repository::init(path).unwrap();
            for entry in [path.clone(), path.join(".git")] {
                std::os::unix::fs::chown(entry, Some(12345), Some(12345)).unwrap();
            }
        }
        open_repository(&one).unwrap();
        assert_eq!(Repository::open(&two).map(|_| ()).unwrap_err().code(), ErrorCode::Owner);
        open_repository(&two.join(".git")).unwrap();
    }
}
