//! Making and unmaking entries so that they are there wholly or not at all, whenever the power goes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::layout::{DirLock, Layout, create_file, make_dir, sync_dir, write_file};
use crate::error::Result;
use crate::step;

/// A directory in which an entry is made. Dropped unpublished, it is removed; left behind by a killed process, it is
/// known by its lock, which nobody holds, and removed by whoever makes the next one.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    _lock: DirLock,
    published: bool,
}

impl Staging {
    /// A new one; stale ones are removed first.
    pub fn new(layout: &Layout) -> Result<Staging> {
        for path in stale(layout)? {
            // It only takes space, and is reported by `leftovers` as long as it is there.
            if let Err(error) = remove_stale(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove what a killed run left");
            }
        }
        Self::make(layout).map_err(|error| layout.failed("write to", error))
    }

    fn make(layout: &Layout) -> io::Result<Staging> {
        loop {
            let path = layout.staging().join(random_hex()?);
            step::around("making a staging directory", || make_dir(&path))?;
            match DirLock::try_of(&path) {
                Ok(Some(lock)) => return Ok(Staging { path, _lock: lock, published: false }),
                // Another process took it for stale before it was locked.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it is; also a place for what only lives for a moment.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes an empty file in it.
    pub fn create(&self, name: &str) -> io::Result<File> {
        step::around(format_args!("making {name}"), || create_file(&self.path.join(name)))
    }

    /// Makes a file with this content in it.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        step::around(format_args!("writing {name}"), || write_file(&self.path.join(name), content))
    }

    /// Moves it, whose files are on disk, to its place, where nothing may be.
    pub fn publish(mut self, place: &Path) -> io::Result<()> {
        sync_dir(&self.path)?;
        step::around("publishing an entry", || fs::rename(&self.path, place))?;
        self.published = true;
        sync_dir(place.parent().unwrap_or(place))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove what was half made");
        }
    }
}

/// Removes an entry: out of its place at once, from the disk afterwards.
pub(super) fn discard(layout: &Layout, place: &Path) -> io::Result<()> {
    let grave = layout.staging().join(random_hex()?);
    match step::around("moving an entry away", || fs::rename(place, &grave)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    }
    sync_dir(place.parent().unwrap_or(place))?;
    step::around("removing an entry", || remove(&grave))
}

/// The staging directories whose makers are dead.
pub(super) fn stale(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    let entries = match fs::read_dir(layout.staging()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(stale),
        Err(error) => return Err(layout.failed("read", error)),
    };
    for entry in entries {
        let path = entry.map_err(|error| layout.failed("read", error))?.path();
        match DirLock::try_of(&path) {
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Something that no maker made is nobody's.
            Ok(Some(_)) | Err(_) => stale.push(path),
        }
    }
    stale.sort();
    Ok(stale)
}

/// Removes a staging directory that is still stale; returns whether it was.
pub(super) fn remove_stale(path: &Path) -> io::Result<bool> {
    match DirLock::try_of(path) {
        Ok(None) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Ok(Some(_lock)) => remove(path)?,
        Err(_) => fs::remove_file(path)?,
    }
    Ok(true)
}

/// Removes a directory that another process may be removing too. Links in it are removed, never followed.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// 17 random hexadecimal digits.
pub(super) fn random_hex() -> io::Result<String> {
    let mut bytes = [0; 9];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let mut hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(17);
    Ok(hex)
}
