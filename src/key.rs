//! The identity of a baked snapshot, and the tags that carry it.
//!
//! Two bakes with the same key give the same bytes, so the second one is not made.

use std::fmt;

use git2::Oid;
use sha2::{Digest, Sha256};

use crate::storage::Tags;

/// Changes when what ebs-bake puts on a volume changes in a way that a reader could notice.
pub const FORMAT_VERSION: u32 = 1;

/// The names of the tags: an interface (`docs/reference.md`).
pub mod tag {
    /// On snapshots: the key.
    pub const KEY: &str = "ebs-bake:key";
    /// On volumes and snapshots: the volume's name.
    pub const VOLUME: &str = "ebs-bake:volume";
    /// On snapshots: the commit's SHA.
    pub const COMMIT: &str = "ebs-bake:commit";
    /// On snapshots: the ref that was asked for.
    pub const REF: &str = "ebs-bake:ref";
    /// On snapshots: the canonical repository URL.
    pub const REPOSITORY: &str = "ebs-bake:repository";
    /// On snapshots: the CI run that made it.
    pub const RUN_URL: &str = "ebs-bake:run-url";
    /// On snapshots: the version of the program.
    pub const VERSION: &str = "ebs-bake:version";
    /// On volumes that ebs-bake created: [`BLANK`], or the snapshot they were made from. Only such a volume is ever deleted.
    pub const ORIGIN: &str = "ebs-bake:origin";
    /// The origin of a volume that was made of nothing.
    pub const BLANK: &str = "blank";
    /// On volumes that `restore` made: the snapshot. Such a volume is never baked on.
    pub const RESTORED: &str = "ebs-bake:restored-from";
    /// On copies of snapshots: the region and the ID of what was copied.
    pub const COPIED_FROM: &str = "ebs-bake:copied-from";
    /// On volumes and snapshots of EC2: the call that made them, a random number. The store's own, not shown as a tag.
    pub const RUN: &str = "ebs-bake:run";
    /// On snapshots: the checks that were passed.
    pub const CHECKS: &str = "ebs-bake:checks";
    /// What consoles show as the name.
    pub const NAME: &str = "Name";
}

/// How the git directory is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum GitDirMode {
    /// As `.git` on the volume: what is baked is an ordinary repository.
    #[default]
    Include,
    /// Not on the volume; kept in the state directory of the host.
    Exclude,
}

/// Which submodules are checked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SubmoduleMode {
    /// None.
    #[default]
    No,
    /// Those of the repository.
    Yes,
    /// Those, and theirs.
    Recursive,
}

/// Everything that decides which bytes a bake puts into its snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The canonical repository URL, without credentials.
    pub repository: String,
    /// The commit that is checked out.
    pub commit: Oid,
    /// The volume's name, which is the filesystem's label.
    pub volume_name: String,
    /// Whether the git directory is on the volume.
    pub git_dir: GitDirMode,
    /// Which submodules are.
    pub submodules: SubmoduleMode,
    /// Whether untracked files are removed.
    pub clean: bool,
    /// The command run in the work tree, if any.
    pub after_checkout: Option<String>,
    /// The filesystem's type (`ext4`).
    pub filesystem: String,
}

/// The identity of a baked snapshot: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// SHA-256 over the fields, each with its name and length so that no two contents run into each other.
    pub fn of(content: &Content) -> Key {
        let Content { repository, commit, volume_name, git_dir, submodules, clean, after_checkout, filesystem } = content;
        let mut hash = Sha256::new();
        let mut field = |name: &str, value: &str| hash.update(format!("{name} {} {value}\n", value.len()));
        field("format", &FORMAT_VERSION.to_string());
        field("repository", repository);
        field("commit", &commit.to_string());
        field("volume", volume_name);
        field("git-dir", &format!("{git_dir:?}"));
        field("submodules", &format!("{submodules:?}"));
        field("clean", &clean.to_string());
        field("after-checkout", after_checkout.as_deref().unwrap_or_default());
        field("filesystem", filesystem);
        Key(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag that finds snapshots with this key.
    pub fn query(&self) -> Tags {
        Tags::from([(tag::KEY.to_owned(), self.0.clone())])
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        Content {
            repository: "https://example.com/chef".into(),
            commit: Oid::from_str("0123456789012345678901234567890123456789").unwrap(),
            volume_name: "chef".into(),
            git_dir: GitDirMode::Include,
            submodules: SubmoduleMode::No,
            clean: true,
            after_checkout: None,
            filesystem: "ext4".into(),
        }
    }

    #[test]
    fn key_is_stable_across_releases() {
        // Changing this value bakes every commit of every user once more: raise FORMAT_VERSION knowingly.
        assert_eq!(Key::of(&content()).as_str(), "383a41b9b821bfb390d3a586c503a157c0b2ae45c3eabd3ddef44fe79517ef1a");
    }

    #[test]
    fn every_field_changes_the_key() {
        let base = Key::of(&content());
        let changes: [fn(&mut Content); 8] = [
            |c| c.repository.push('x'),
            |c| c.commit = Oid::from_str("1123456789012345678901234567890123456789").unwrap(),
            |c| c.volume_name.push('x'),
            |c| c.git_dir = GitDirMode::Exclude,
            |c| c.submodules = SubmoduleMode::Recursive,
            |c| c.clean = false,
            |c| c.after_checkout = Some("true".into()),
            |c| c.filesystem = "xfs".into(),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut changed = content();
            change(&mut changed);
            assert_ne!(Key::of(&changed), base, "field {index}");
        }
    }
}
