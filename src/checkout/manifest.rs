//! `.ebs-bake.json`, at the root of a baked volume: what was baked. Its format is an interface (`docs/reference.md`).
//!
//! It holds no times, so that equal commits give equal bytes.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::gitdir;
use crate::error::{Error, Kind, OrFail, Result};
use crate::report::Change;

/// The manifest's file name.
pub const FILE_NAME: &str = ".ebs-bake.json";
/// The format that this version writes. Newer ones add fields; they keep those that there are.
pub const FORMAT: u32 = 1;
/// No manifest is larger.
const LARGEST: u64 = 64 << 10;

/// What was baked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The manifest's format.
    pub format: u32,
    /// The canonical URL of the repository, without credentials.
    pub repository: String,
    /// The commit's SHA.
    pub commit: String,
    /// The full name of the reference that it was found by, if there was one.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// The SHA of the commit's tree.
    pub tree: String,
    /// The version of ebs-bake.
    pub version: String,
}

impl Manifest {
    /// The file's content: keys in a fixed order, a line each.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a struct of strings has a JSON form");
        text.push('\n');
        text
    }

    /// Reads a file's content. Unknown fields are from newer versions and are passed over; missing ones, and wrong types,
    /// are errors.
    pub fn parse(text: &str) -> Result<Manifest> {
        let damaged = || format!("{FILE_NAME} is not a manifest of ebs-bake");
        serde_json::from_str(text).or_fail(Kind::Git, damaged)
    }

    /// Reads the manifest of a baked volume.
    pub fn read(root: &Path) -> Result<Manifest> {
        let path = root.join(FILE_NAME);
        let shown = || format!("cannot read {}", path.display());
        if !path.symlink_metadata().or_fail(Kind::Git, shown)?.is_file() {
            return Err(Error::new(Kind::Git, format!("{} is not a file", path.display())));
        }
        let mut text = String::new();
        let file = std::fs::File::open(&path).or_fail(Kind::Git, shown)?;
        file.take(LARGEST + 1).read_to_string(&mut text).or_fail(Kind::Git, shown)?;
        if text.len() as u64 > LARGEST {
            return Err(Error::new(Kind::Git, format!("{} is too large for a manifest", path.display())));
        }
        Manifest::parse(&text)
    }

    /// Writes the manifest, unless it is there already.
    pub fn write(&self, root: &Path) -> Result<Change> {
        let path = root.join(FILE_NAME);
        let before = path.symlink_metadata().is_ok();
        let wrote = gitdir::write_if_other(&path, self.to_json().as_bytes());
        let wrote = wrote.or_fail(Kind::Device, || format!("cannot write {}", path.display()))?;
        Ok(match (wrote, before) {
            (false, _) => Change::Unchanged,
            (true, true) => Change::Changed,
            (true, false) => Change::Created,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            repository: "https://example.com/chef".into(),
            commit: "c".repeat(40),
            reference: Some("refs/heads/main".into()),
            tree: "7".repeat(40),
            version: "1.2.3".into(),
        }
    }

    #[test]
    fn the_format_is_stable() {
        let (commit, tree) = ("c".repeat(40), "7".repeat(40));
        let expected = format!(
            "{{\n  \"format\": 1,\n  \"repository\": \"https://example.com/chef\",\n  \"commit\": \"{commit}\",\n  \
             \"ref\": \"refs/heads/main\",\n  \"tree\": \"{tree}\",\n  \"version\": \"1.2.3\"\n}}\n"
        );
        assert_eq!(manifest().to_json(), expected);
        assert_eq!(Manifest::parse(&expected).unwrap(), manifest());
    }

    #[test]
    fn newer_fields_are_passed_over_and_wrong_types_are_not() {
        let newer = manifest().to_json().replace("\"format\": 1", "\"format\": 2, \"colour\": {}");
        assert_eq!(Manifest::parse(&newer).unwrap().format, 2);
        for (from, to) in [("\"format\": 1", "\"format\": \"1\""), ("\"1.2.3\"", "null"), ("\"tree\"", "\"tee\"")] {
            assert!(Manifest::parse(&manifest().to_json().replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn it_is_written_only_if_it_differs() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(manifest().write(root.path()).unwrap(), Change::Created);
        assert_eq!(manifest().write(root.path()).unwrap(), Change::Unchanged);
        let other = Manifest { reference: None, ..manifest() };
        assert_eq!(other.write(root.path()).unwrap(), Change::Changed);
        assert_eq!(Manifest::read(root.path()).unwrap(), other);
    }

    #[test]
    fn a_symlink_in_its_place_is_replaced_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join(FILE_NAME)).unwrap();
        assert!(Manifest::read(root.path()).is_err());
        manifest().write(root.path()).unwrap();
        assert_eq!(std::fs::read(outside.path()).unwrap(), b"");
        assert_eq!(Manifest::read(root.path()).unwrap(), manifest());
    }
}
