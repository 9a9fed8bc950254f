//! Where commits come from: a git host over HTTPS or SSH, or a repository on this machine.
//!
//! Everything here blocks; callers put it on a thread of its own.

use std::path::PathBuf;

use git2::{Oid, Repository};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::report::RunningPhase;

pub mod credentials;
pub mod maintain;
pub mod submodules;

pub use credentials::Access;

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `https://`, `http://` or `ssh://` (also written `user@host:path`), without credentials.
    Remote(url::Url),
    /// A directory on this machine (a path or a `file://` URL): a work tree, a git directory or a bare repository.
    Local(PathBuf),
}

impl Location {
    /// Reads what the user wrote. Never logs it: it may carry a password. Credentials in the URL come back beside the location.
    pub fn parse(text: &str) -> Result<(Location, Option<credentials::Login>)> {
        let _ = text;
        todo!()
    }
}

/// What to bake. Neither set: the default branch (for a local work tree, its HEAD).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A branch, a tag, a full ref name, or a commit's full SHA.
    pub reference: Option<String>,
    /// The exact commit; `reference` then only says by which name it was asked for (and where to look for it).
    pub commit: Option<Oid>,
}

/// A commit, and the name it was found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub commit: Oid,
    /// The full ref name (`refs/heads/main`), if there is one.
    pub reference: Option<String>,
}

/// What a fetch brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Zero when everything was there already.
    pub objects: usize,
    pub bytes: u64,
}

/// An open source: its refs are known (one round trip), its objects can be fetched.
pub struct Source {}

impl Source {
    /// Opens the repository and reads its refs.
    pub fn open(location: &Location, access: &Access, cancel: &Cancel) -> Result<Source> {
        let _ = (location, access, cancel);
        todo!()
    }

    /// The repository's identity: no credentials, equal for equal repositories. A local clone has the identity of its
    /// `origin`, so that a CI's workspace and the URL that it was cloned from give one key; without one, `file://` + path.
    pub fn canonical_url(&self) -> &str {
        todo!()
    }

    /// Which commit `wanted` means.
    pub fn resolve(&self, wanted: &Wanted) -> Result<Resolved> {
        let _ = wanted;
        todo!()
    }

    /// Brings everything that the commit's tree needs (depth 1, not its history) into `into`; only what is missing.
    pub fn fetch(&self, resolved: &Resolved, into: &Repository, phase: &RunningPhase) -> Result<Fetched> {
        let _ = (resolved, into, phase);
        todo!()
    }
}
