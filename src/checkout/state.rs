//! What the last run left in the git directory: whether it ended, and at what.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Options, Stamp, gitdir};
use crate::error::{Kind, OrFail, Result};
use crate::step;

/// Changes when an older state must not be trusted.
const FORMAT: u32 = 1;
const FILE_NAME: &str = "ebs-bake-state";
/// A state is a few hundred bytes.
const LARGEST: u64 = 4096;

/// Where a run ended that ended well. Without one, everything on the volume is examined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    format: u32,
    /// The commit that the work tree is at.
    pub commit: String,
    /// Identifies the mount that it was written through.
    pub stamp: String,
    /// The checksum of the index.
    pub index: String,
    /// Whether untracked files were removed.
    pub clean: bool,
    /// Whether LFS pointers would have been let through.
    pub lfs_pointers: bool,
}

impl State {
    /// The state at the end of a run; none without a stamp, as nobody could tell later whether it still holds.
    pub fn new(commit: git2::Oid, stamp: &Stamp, index: String, options: &Options) -> Option<State> {
        let Options { clean, allow_lfs_pointers } = *options;
        let stamp = stamp.current.clone()?;
        Some(State { format: FORMAT, commit: commit.to_string(), stamp, index, clean, lfs_pointers: allow_lfs_pointers })
    }

    /// Whether the work tree must still be what the index says, so that nothing needs to be examined: nobody wrote since,
    /// the index is the same, and what was let stand then may stand now.
    pub fn vouches(&self, stamp: &Stamp, index: &str, options: &Options) -> bool {
        self.format == FORMAT
            && !stamp.repaired
            && stamp.previous.as_ref() == Some(&self.stamp)
            && self.index == index
            && (self.clean || !options.clean)
            && (!self.lfs_pointers || options.allow_lfs_pointers)
    }

    /// Reads it. One that is not there, or cannot be understood, is none.
    pub fn read(git_dir: &Path) -> Option<State> {
        let path = path(git_dir);
        let metadata = path.symlink_metadata().ok()?;
        if !metadata.is_file() || metadata.len() > LARGEST {
            return None;
        }
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Writes it.
    pub fn write(&self, git_dir: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).expect("a struct of strings has a JSON form");
        let wrote = gitdir::write_if_other(&path(git_dir), &text);
        wrote.or_fail(Kind::Git, || "cannot write the state of the checkout").map(|_| ())
    }

    /// Says that the work tree is being changed.
    pub fn remove(git_dir: &Path) -> Result<()> {
        match step::around("removing the state", || std::fs::remove_file(path(git_dir))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).or_fail(Kind::Git, || "cannot remove the state of the last checkout")
            }
            _ => Ok(()),
        }
    }
}

fn path(git_dir: &Path) -> PathBuf {
    git_dir.join(FILE_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(previous: &str, current: &str) -> Stamp {
        Stamp { previous: Some(previous.into()), current: Some(current.into()), repaired: false }
    }

    const STRICT: Options = Options { clean: true, allow_lfs_pointers: false };
    const LENIENT: Options = Options { clean: false, allow_lfs_pointers: true };

    fn state(options: &Options) -> State {
        State::new(git2::Oid::ZERO_SHA1, &stamp("1", "2"), "sum".into(), options).unwrap()
    }

    #[test]
    fn only_an_unbroken_chain_of_mounts_is_trusted() {
        assert!(state(&STRICT).vouches(&stamp("2", "3"), "sum", &STRICT));
        assert!(!state(&STRICT).vouches(&stamp("3", "4"), "sum", &STRICT), "somebody else mounted it");
        assert!(!state(&STRICT).vouches(&stamp("2", "3"), "other", &STRICT), "the index changed");
        assert!(!state(&STRICT).vouches(&Stamp { repaired: true, ..stamp("2", "3") }, "sum", &STRICT));
        assert!(!state(&STRICT).vouches(&Stamp::default(), "sum", &STRICT));
    }

    #[test]
    fn what_was_let_stand_is_examined_when_it_may_no_longer() {
        assert!(!state(&LENIENT).vouches(&stamp("2", "3"), "sum", &STRICT));
        assert!(state(&LENIENT).vouches(&stamp("2", "3"), "sum", &LENIENT));
        assert!(state(&STRICT).vouches(&stamp("2", "3"), "sum", &LENIENT));
    }

    #[test]
    fn without_a_stamp_there_is_no_state() {
        assert_eq!(State::new(git2::Oid::ZERO_SHA1, &Stamp::default(), String::new(), &STRICT), None);
    }
}
