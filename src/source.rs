//! Where commits come from: a git host over HTTPS or SSH, or a repository on this machine.
//!
//! Everything here blocks; callers put it on a thread of its own.

use git2::{Oid, Repository};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::report::RunningPhase;

mod adopt;
mod baked;
pub mod credentials;
mod fetch;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gitmodules;
mod http;
mod http_setup;
mod known_hosts;
mod large;
mod libgit;
mod local;
mod location;
pub mod maintain;
mod pack;
mod pack_index;
mod packed;
mod pktline;
mod refs;
mod sideband;
mod ssh;
pub mod submodules;
mod trees;
mod watch;

pub use adopt::adopt;
pub use baked::{BAKED, is_whole, keep, kept};
pub use credentials::{Access, Login};
pub use large::stream_object;
pub use libgit::{initialise, open_repository};
pub use location::Location;

use fetch::{Connection, Fetch};
use local::Local;
use refs::Refs;

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
    /// The commit. A SHA that the user gave is not known to exist before it is fetched.
    pub commit: Oid,
    /// The full ref name (`refs/heads/main`), if there is one.
    pub reference: Option<String>,
}

/// What a fetch brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Zero when everything was there already.
    pub objects: usize,
    /// The size of the packs.
    pub bytes: u64,
}

/// An open source: its refs are known (one round trip), its objects can be fetched.
pub struct Source {
    canonical_url: String,
    base: Location,
    refs: Refs,
    place: Place,
    cancel: Cancel,
}

enum Place {
    Local(Local),
    Remote(Box<dyn Connection>),
}

impl Source {
    /// Opens the repository and reads its refs. What follows looks at the same `cancel`.
    pub fn open(location: &Location, access: &Access, cancel: &Cancel) -> Result<Source> {
        initialise();
        cancel.check()?;
        let (base, refs, place) = match location {
            Location::Local(path) => {
                let local = Local::open(path)?;
                (local.base()?, local.refs()?, Place::Local(local))
            }
            Location::Remote(url) => {
                let connection: Box<dyn Connection> = match url.scheme() {
                    "ssh" => Box::new(ssh::Ssh::new(url, access, cancel)),
                    _ => Box::new(http::Http::new(url, access, cancel)?),
                };
                (location.clone(), connection.refs()?, Place::Remote(connection))
            }
        };
        Ok(Source { canonical_url: base.canonical()?, base, refs, place, cancel: cancel.clone() })
    }

    /// The repository's identity: no credentials, equal for equal repositories. A local clone has the identity of its
    /// `origin`, so that a CI's workspace and the URL that it was cloned from give one key; without one, `file://` + path.
    pub fn canonical_url(&self) -> &str {
        &self.canonical_url
    }

    /// Where relative URLs of submodules start: the repository, or what a local one was cloned from.
    pub fn base(&self) -> &Location {
        &self.base
    }

    /// Which commit `wanted` means. Asks nobody: the refs are those that were read when the source was opened.
    pub fn resolve(&self, wanted: &Wanted) -> Result<Resolved> {
        self.refs.resolve(wanted)
    }

    /// Brings everything that the commit's tree needs (depth 1, not its history) into `into`; only what is missing there.
    /// Leaves no `FETCH_HEAD` and no reference; `.git/shallow` says where the history ends. Call [`keep`] later.
    pub fn fetch(&self, resolved: &Resolved, into: &Repository, phase: &RunningPhase) -> Result<Fetched> {
        let known = kept(into);
        if fetch::is_complete(into, resolved.commit, known) {
            // Perhaps nobody noted that its history is not there: a run was killed before, or went on to another commit.
            baked::cut_at(into, resolved.commit)?;
            return Ok(Fetched::default());
        }
        match &self.place {
            Place::Local(local) => local.fetch(resolved, into, phase, &self.cancel),
            Place::Remote(connection) => {
                Fetch { connection: connection.as_ref(), into, phase, cancel: &self.cancel }.run(&self.refs, resolved)
            }
        }
    }
}
