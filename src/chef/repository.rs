//! What is known of a chef-repo once its files are read: values to judge, nothing of the disk.

use std::collections::{BTreeMap, BTreeSet};

use super::version::{Constraint, Version};
use crate::report::finding::{Finding, Severity};

/// Run list entries and dependencies that are kept; a real repository has some thousands.
const MOST_ENTRIES: usize = 200_000;
/// Findings that are kept; the others are counted.
const MOST_FINDINGS: usize = 1_000;
/// Characters of a name that are kept: more than a file's name can have.
const LONGEST_NAME: usize = 260;

/// A name as it is written in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The name, cut if it is too long to be anything's.
    pub name: String,
    /// From 1.
    pub line: u32,
}

/// The run lists of a role, by environment.
pub type RunLists = BTreeMap<String, Vec<Named>>;

/// The directory that `chef export` puts cookbooks into.
pub const ARTIFACTS: &str = "cookbook_artifacts";

/// The environment whose run list counts where there is none of its own.
pub const DEFAULT: &str = "_default";

/// A file with run lists: a role, a node or a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists {
    /// From the root of the repository.
    pub file: String,
    /// Those that it says literally.
    pub lists: RunLists,
}

/// A cookbook that must be there, or in a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The cookbook, and where it is named.
    pub cookbook: Named,
    /// `None`: any version, or one that is not judged.
    pub constraint: Option<(String, Constraint)>,
}

/// An environment's constraints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// From the root of the repository.
    pub file: String,
    /// Only versions that these allow are used in it.
    pub pins: Vec<Need>,
}

/// A cookbook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cookbook {
    /// The directory, from the root of the repository.
    pub directory: String,
    /// The directory of its directory.
    pub path: String,
    /// `metadata.rb` or `metadata.json`, if there is one.
    pub file: Option<String>,
    /// What its metadata says that it is called.
    pub name: Option<String>,
    /// `None`: not known.
    pub version: Option<Version>,
    /// `None`: not known.
    pub recipes: Option<BTreeSet<String>>,
    /// What it depends on.
    pub needs: Vec<Need>,
}

impl Cookbook {
    /// The name of its directory.
    pub fn folder(&self) -> &str {
        self.directory.rsplit('/').next().unwrap_or_default()
    }

    /// Whether it is one of an exported policy, which may have several of one name.
    pub fn is_artifact(&self) -> bool {
        self.path.rsplit('/').next() == Some(ARTIFACTS)
    }

    /// The name that counts where names from metadata count.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.folder())
    }
}

/// Everything that was read.
#[derive(Debug, Default)]
pub struct Repository {
    /// By name: several files may define one.
    pub roles: BTreeMap<String, Vec<Lists>>,
    /// Some roles are where we cannot look.
    pub has_other_roles: bool,
    /// Nodes and policies.
    pub nodes: Vec<Lists>,
    /// The environments.
    pub environments: Vec<Environment>,
    /// The cookbooks, those of a path beside each other.
    pub cookbooks: Vec<Cookbook>,
    /// Some cookbooks are where we cannot look.
    pub has_other_cookbooks: bool,
    /// Directories of cookbooks that are empty.
    pub empty_directories: BTreeSet<String>,
    /// Whether there is anything that looks like a chef-repo.
    pub is_there: bool,
    /// Where a cookbook of a name is that Chef is not told of.
    pub other_cookbooks: BTreeMap<String, String>,
    /// How many items of data bags there are.
    pub items: usize,
    /// How many Ruby files were not understood.
    pub unread: usize,
}

/// What was found, and room for what is kept: both have an end, whatever is in the repository.
#[derive(Debug)]
pub struct Findings {
    kept: Vec<Finding>,
    errors: usize,
    warnings: usize,
    entries: usize,
}

impl Default for Findings {
    fn default() -> Self {
        Findings { kept: Vec::new(), errors: 0, warnings: 0, entries: MOST_ENTRIES }
    }
}

impl Findings {
    /// Adds something that does not work.
    pub fn error(&mut self, file: &str, line: Option<u32>, message: impl FnOnce() -> String) {
        self.errors += 1;
        self.keep(Severity::Error, file, line, message);
    }

    /// Adds something that was hardly meant.
    pub fn warning(&mut self, file: &str, line: Option<u32>, message: impl FnOnce() -> String) {
        self.warnings += 1;
        self.keep(Severity::Warning, file, line, message);
    }

    fn keep(&mut self, severity: Severity, file: &str, line: Option<u32>, message: impl FnOnce() -> String) {
        if self.kept.len() < MOST_FINDINGS {
            self.kept.push(Finding { severity, file: file.to_owned(), line, message: message() });
        }
    }

    /// A name to keep, unless there are too many already.
    pub fn named(&mut self, name: &str, line: u32) -> Option<Named> {
        self.entries = self.entries.checked_sub(1)?;
        Some(Named { name: shortened(name), line })
    }

    /// Whether some names were not kept, so that not everything was judged.
    pub fn is_full(&self) -> bool {
        self.entries == 0
    }

    /// How many errors there are, also those that were not kept.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many warnings there are, also those that were not kept.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// Those that were kept, in their order.
    pub fn into_sorted(mut self) -> Vec<Finding> {
        self.kept.sort();
        self.kept
    }
}

/// A name that fits into a message.
pub fn shortened(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}
