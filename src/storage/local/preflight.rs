//! What the embedded store would meet in a directory, found out without leaving anything there.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{image, loopdev};
use crate::error::{Kind, OrFail, Result};

/// What is written to a file that is then shared: one block of any filesystem.
const BLOCK: [u8; 4096] = [1; 4096];

/// The store's directory; if it is not there yet, the one in which it would be made.
pub fn place(directory: &Path) -> PathBuf {
    directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Whether files can be made in this directory, and whether they can share what they hold (`FICLONE`). The files have no
/// names, or lose them at once.
///
/// # Errors
/// `Storage` when none can be made.
pub fn reflinks(directory: &Path) -> Result<bool> {
    let tried = || -> io::Result<bool> {
        let (mut source, target) = (tempfile::tempfile_in(directory)?, tempfile::tempfile_in(directory)?);
        source.write_all(&BLOCK)?;
        image::reflink(&source, &target)
    };
    tried().or_fail(Kind::Storage, || format!("cannot write to {}", directory.display()))
}

/// The path of a loop device that could be had now: the control device and this one could be opened.
///
/// # Errors
/// `Device`, with a hint.
pub fn loop_device() -> Result<String> {
    let failed = || "no loop device can be had";
    let scratch = std::env::temp_dir();
    let number = loopdev::free(&scratch).or_fail(Kind::Device, failed).map_err(|error| error.hint(loopdev::MAY_ATTACH))?;
    Ok(format!("/dev/loop{number}"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_store_that_is_not_made_yet_is_tried_where_it_would_be() {
        let parent = tempfile::tempdir().unwrap();
        assert_eq!(place(&parent.path().join("a/b")), parent.path());
        assert_eq!(place(parent.path()), parent.path());
        File::create(parent.path().join("file")).unwrap();
        assert_eq!(place(&parent.path().join("file/b")), parent.path());
    }

    #[test]
    fn trying_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        reflinks(directory.path()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert_eq!(reflinks(&directory.path().join("none")).unwrap_err().kind(), Kind::Storage);
    }
}
