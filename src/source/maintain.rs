//! Keeps the git directory on the volume small: one big pack, few small ones, nothing that no commit needs.

use git2::{Oid, Repository};

use crate::error::Result;
use crate::report::Change;

/// Rewrites the packs when there are many, or when most of what they hold is not reachable from `commit` any more.
pub fn maintain(repository: &Repository, commit: Oid) -> Result<Change> {
    let _ = (repository, commit);
    todo!()
}
