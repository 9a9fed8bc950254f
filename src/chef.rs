//! Checks of a chef-repo before it becomes a snapshot: would Chef find on it what its run lists and cookbooks ask for?
//!
//! `read` gathers what the files say, `judge` decides. Nothing is run: what a file says literally is judged, and what is computed or lies
//! outside of the work tree is not, so that there are no false alarms. `docs/chef-checks.md` has the rules.

use std::collections::BTreeSet;
use std::path::Path;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::report::finding::Finding;

use read::Place;
use repository::{Findings, Repository};
use tree::Tree;

mod cycles;
pub mod json;
pub mod judge;
pub mod objects;
pub mod read;
pub mod repository;
pub mod ruby;
pub mod run_list;
pub mod tree;
pub mod version;

/// What was found.
#[derive(Debug)]
pub struct Checked {
    /// The worst first; not more than a reader could want.
    pub findings: Vec<Finding>,
    /// How many things do not work, whether or not they are among the findings.
    pub errors: usize,
    /// How many things were hardly meant.
    pub warnings: usize,
    /// `12 roles, 40 cookbooks`
    pub extent: String,
}

/// Checks the chef-repo in a work tree.
///
/// # Errors
/// `Device` when it cannot be read, `Interrupted`. What is wrong in it is no error here.
pub fn check(root: &Path, place: &Place, cancel: &Cancel) -> Result<Checked> {
    let mut findings = Findings::default();
    let tree = Tree::open(root, cancel)?;
    let repository = read::repository(&tree, place, &mut findings)?;
    judge::judge(&repository, &mut findings);
    let here = if place.path.is_empty() { "." } else { &place.path };
    if !repository.is_there && !repository.has_other_roles && !repository.has_other_cookbooks {
        findings.error(here, None, || {
            "there are neither cookbooks nor roles nor anything else of Chef's: see --chef-path".to_owned()
        });
    }
    if findings.is_full() {
        findings.warning(here, None, || "there are too many run list entries and dependencies: not all were checked".to_owned());
    }
    let (errors, warnings) = (findings.errors(), findings.warnings());
    Ok(Checked { findings: findings.into_sorted(), errors, warnings, extent: extent(&repository) })
}

/// The names of the roles in a work tree; `None`: they are somewhere that we cannot look at.
///
/// # Errors
/// As for [`check`].
pub fn roles(root: &Path, place: &Place, cancel: &Cancel) -> Result<Option<BTreeSet<String>>> {
    read::role_names(&Tree::open(root, cancel)?, place)
}

fn extent(repository: &Repository) -> String {
    let counts = [
        (repository.cookbooks.len(), "cookbook"),
        (repository.roles.len(), "role"),
        (repository.environments.len(), "environment"),
        (repository.nodes.len(), "node"),
        (repository.items, "data bag item"),
    ];
    let counted = |(count, what): (usize, &str)| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let parts: Vec<String> = counts.into_iter().filter(|(count, _)| *count > 0).map(counted).collect();
    let parts = if parts.is_empty() { "nothing of Chef's".to_owned() } else { parts.join(", ") };
    let unread = match repository.unread {
        0 => String::new(),
        unread => format!(" ({unread} not understood)"),
    };
    parts + &unread
}
