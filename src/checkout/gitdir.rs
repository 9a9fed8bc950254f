//! The git directory: made by hand, so that it holds nothing of this machine or its user, and mended when it is opened.
//!
//! Everything in it is derived from the source repository. What cannot be used is thrown away.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use git2::Repository;

use super::index::is_intact;
use crate::error::{Kind, OrFail, Result};
use crate::step;

/// Ours and nobody else's: what a user, or a command that ran in the work tree, configured is taken back.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = false\n";
/// Keeps the manifest out of `git status`.
const EXCLUDE: &str = "/.ebs-bake.json\n";
const FIRST_HEAD: &str = "ref: refs/heads/main\n";
const DIRECTORIES: [&str; 7] = ["objects", "objects/info", "objects/pack", "refs", "refs/heads", "refs/tags", "info"];
/// Files that change what git does with the work tree or the objects, and that we never write.
const FOREIGN: [&str; 6] =
    ["config.worktree", "commondir", "info/attributes", "info/grafts", "info/sparse-checkout", "objects/info/alternates"];

/// Opens the repository, made or mended as needed. It is opened as bare: the work tree is written by us alone, and
/// libgit2 asks a bare repository that is opened by its path neither for its owner nor for the work tree's.
pub fn open(git_dir: &Path) -> Result<Repository> {
    if !is_usable(git_dir) {
        remove(git_dir)?;
    }
    let failed = || format!("cannot prepare the git directory {}", git_dir.display());
    step::around("preparing the git directory", || prepare(git_dir)).or_fail(Kind::Git, failed)?;
    step::around("sweeping the git directory", || sweep(git_dir)).or_fail(Kind::Git, failed)?;
    // git itself would stumble over it, in a fetch already.
    if fs::read(git_dir.join("index")).is_ok_and(|index| !is_intact(&index)) {
        remove(&git_dir.join("index"))?;
    }
    Repository::open_bare(git_dir).or_fail(Kind::Git, || format!("cannot open the git directory {}", git_dir.display()))
}

/// Tells git which submodules are checked out, as `git submodule init` does: (name, URL), without credentials.
pub fn register_submodules(git_dir: &Path, submodules: &[(String, String)]) -> Result<()> {
    let mut config = CONFIG.to_owned();
    for (name, url) in submodules {
        let [name, url] = [name, url].map(|text| text.replace('\\', "\\\\").replace('"', "\\\""));
        config += &format!("[submodule \"{name}\"]\n\tactive = true\n\turl = \"{url}\"\n");
    }
    let wrote = write_if_other(&git_dir.join("config"), config.as_bytes());
    wrote.or_fail(Kind::Git, || format!("cannot configure {}", git_dir.display())).map(drop)
}

/// Removes the git directory, or whatever else is in its place.
pub fn remove(git_dir: &Path) -> Result<()> {
    let removed = match git_dir.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(git_dir),
        Ok(_) => fs::remove_file(git_dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.or_fail(Kind::Git, || format!("cannot remove the damaged git directory {}", git_dir.display()))
}

/// Whether there is something worth keeping: real directories where git has directories, a HEAD that can be read, and
/// objects of its own.
fn is_usable(git_dir: &Path) -> bool {
    let is_directory = |path: &Path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    let is_absent = |path: &Path| path.symlink_metadata().is_err();
    is_directory(git_dir)
        && ["objects", "refs"].iter().all(|name| is_directory(&git_dir.join(name)))
        && DIRECTORIES.iter().all(|name| is_absent(&git_dir.join(name)) || is_directory(&git_dir.join(name)))
        && fs::read(git_dir.join("HEAD")).is_ok_and(|head| is_head(&head))
        && FOREIGN.iter().all(|name| is_absent(&git_dir.join(name)))
}

fn is_head(content: &[u8]) -> bool {
    let line = content.strip_suffix(b"\n").unwrap_or(content);
    line.starts_with(b"ref: refs/") || (line.len() == 40 && line.iter().all(u8::is_ascii_hexdigit))
}

fn prepare(git_dir: &Path) -> io::Result<()> {
    for name in DIRECTORIES {
        fs::create_dir_all(git_dir.join(name))?;
    }
    let hooks = git_dir.join("hooks");
    if fs::read_dir(&hooks).map_or(true, |mut hooks| hooks.next().is_some()) {
        remove(&hooks).map_err(io::Error::other)?;
        fs::create_dir(&hooks)?;
    }
    if git_dir.join("HEAD").symlink_metadata().is_err() {
        write_if_other(&git_dir.join("HEAD"), FIRST_HEAD.as_bytes())?;
    }
    write_if_other(&git_dir.join("config"), CONFIG.as_bytes())?;
    write_if_other(&git_dir.join("info/exclude"), EXCLUDE.as_bytes())?;
    Ok(())
}

/// Writes a file in place (a new one would change more blocks of the volume) unless it has this content; tells whether
/// it wrote. Anything but a file with one name is replaced.
pub fn write_if_other(path: &Path, content: &[u8]) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() && metadata.nlink() == 1 => {
            if metadata.len() == content.len() as u64 && fs::read(path)? == content {
                return Ok(false);
            }
        }
        Ok(_) => remove(path).map_err(io::Error::other)?,
        Err(_) => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    // The file is empty now.
    let name = path.file_name().unwrap_or_default().display();
    step::around(format_args!("writing {name}"), || file.write_all(content))?;
    Ok(true)
}

/// Removes what a killed run (ours, or git's) left half done.
fn sweep(git_dir: &Path) -> io::Result<()> {
    sweep_directory(git_dir, is_lock)?;
    sweep_directory(&git_dir.join("info"), is_lock)?;
    sweep_below(&git_dir.join("refs"), 0)?;
    sweep_directory(&git_dir.join("objects/pack"), is_temporary)?;
    let objects = git_dir.join("objects");
    sweep_directory(&objects, is_temporary)?;
    for item in fs::read_dir(&objects)? {
        let item = item?;
        if item.file_name().len() == 2 && item.file_type()?.is_dir() {
            sweep_directory(&item.path(), is_temporary)?;
        }
    }
    Ok(())
}

fn sweep_below(directory: &Path, depth: usize) -> io::Result<()> {
    sweep_directory(directory, is_lock)?;
    for item in fs::read_dir(directory)? {
        let item = item?;
        if depth < 16 && item.file_type()?.is_dir() {
            sweep_below(&item.path(), depth + 1)?;
        }
    }
    Ok(())
}

fn sweep_directory(directory: &Path, is_litter: fn(&[u8]) -> bool) -> io::Result<()> {
    for item in fs::read_dir(directory)? {
        let item = item?;
        if is_litter(item.file_name().as_encoded_bytes()) && !item.file_type()?.is_dir() {
            fs::remove_file(item.path())?;
        }
    }
    Ok(())
}

fn is_lock(name: &[u8]) -> bool {
    name.ends_with(b".lock")
}

/// The names that git (`tmp_pack_`, `tmp_idx_`, `tmp_obj_`, …) and libgit2 (`pack_git2_`, `tmp_object_git2_`) give to
/// what they have not finished.
fn is_temporary(name: &[u8]) -> bool {
    name.starts_with(b"tmp_") || name.starts_with(b".tmp-") || name.starts_with(b"pack_git2_") || name.ends_with(b".lock")
}
