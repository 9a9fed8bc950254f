//! `ebs-bake.yml`: one flat mapping from option names to values. The only place that knows YAML.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::layers::{Entry, Layer, Origin};
use crate::error::{Error, Kind, OrFail, Result};

/// The file that is read when none is named.
pub const DEFAULT_NAME: &str = "ebs-bake.yml";
/// Larger than any sensible configuration; keeps a wrong path (a disk, a log) from being read whole.
const MAX_BYTES: u64 = 64 * 1024;

/// Reads the file that was named, else `ebs-bake.yml` in `directory` if there is one.
pub fn load(named: Option<&Path>, directory: &Path) -> Result<Layer> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => match find(directory)? {
            Some(path) => path,
            None => return Ok(Layer::default()),
        },
    };
    let shown = if named.is_some() { path.display().to_string() } else { DEFAULT_NAME.to_owned() };
    parse(&read(&path, &shown)?, &shown)
}

fn find(directory: &Path) -> Result<Option<PathBuf>> {
    let path = directory.join(DEFAULT_NAME);
    if path.exists() {
        return Ok(Some(path));
    }
    let other = directory.join("ebs-bake.yaml");
    if other.exists() {
        let error = Error::new(Kind::Usage, "ebs-bake.yaml is not read: the file's name is ebs-bake.yml");
        return Err(error.hint("rename it, or name it with --config"));
    }
    Ok(None)
}

fn read(path: &Path, shown: &str) -> Result<String> {
    let cannot = || format!("cannot read the configuration file {shown}");
    let mut file = std::fs::File::open(path).or_fail(Kind::Usage, cannot)?;
    let mut text = String::new();
    let read = file.by_ref().take(MAX_BYTES + 1).read_to_string(&mut text).or_fail(Kind::Usage, cannot)?;
    if read as u64 > MAX_BYTES {
        return Err(Error::new(Kind::Usage, format!("{shown} is larger than {} KiB", MAX_BYTES / 1024)));
    }
    Ok(text)
}

/// Parses the text of a file that messages call `shown`. Names and values are not judged here.
pub fn parse(text: &str, shown: &str) -> Result<Layer> {
    // A file with nothing but comments is an empty document, not a mapping.
    let document: Option<Document> = serde_yaml::from_str(text).map_err(|cause| {
        let line = cause.location().map_or(String::new(), |at| format!(":{}", at.line()));
        let message = cause.to_string();
        let what = message.split(" at line ").next().unwrap_or_default();
        Error::new(Kind::Usage, format!("{shown}{line}: {what}"))
            .hint("the file has lines of the form 'option: value', see docs/configuration.md")
    })?;
    let entries = document.map(|document| document.0).unwrap_or_default();
    let entries = entries.into_iter().map(|(key, value)| {
        let origin = Origin::File { file: shown.to_owned(), line: line_of(text, &key) };
        Entry { origin, key, value: value.unwrap_or_default() }
    });
    Ok(Layer { entries: entries.collect() })
}

/// The line (from 1) on which a key of a block mapping stands; for messages only.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let is_key = |line: &str| {
        let line = line.trim_start_matches(['"', '\'']);
        let rest = line.strip_prefix(key).map(|rest| rest.trim_start_matches(['"', '\'']));
        rest.is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    text.lines().position(is_key).map(|index| index + 1)
}

/// The mapping as it was written: scalars keep their text (`commit: 0123…` is no number), duplicates are refused.
struct Document(Vec<(String, Option<String>)>);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping from option names to values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut entries: Vec<(String, Option<String>)> = Vec::new();
        while let Some(Scalar(key)) = map.next_key()? {
            let key = key.unwrap_or_default();
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format!("the key {key:?} is there twice")));
            }
            let Scalar(value) = map.next_value()?;
            entries.push((key, value));
        }
        Ok(Document(entries))
    }
}

/// A single value as text; `None` for nothing (`key:`, `key: ~`).
struct Scalar(Option<String>);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_option(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a single value")
    }

    fn visit_none<E>(self) -> Result<Scalar, E> {
        Ok(Scalar(None))
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar(None))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_str(self)
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar(Some(text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(String, String)> {
        let layer = parse(text, "ebs-bake.yml").unwrap();
        layer.entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
    }

    fn refused(text: &str) -> String {
        parse(text, "ebs-bake.yml").unwrap_err().to_string()
    }

    #[test]
    fn scalars_keep_their_text() {
        let sha = "0123456789012345678901234567890123456789";
        let text = format!("commit: {sha}\nvolume-size: 8\nno-wait: yes\nref: '1.10'\nlock-timeout: 1_0\n");
        let expected = [("commit", sha), ("volume-size", "8"), ("no-wait", "yes"), ("ref", "1.10"), ("lock-timeout", "1_0")];
        assert_eq!(entries(&text), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(entries(""), []);
        assert_eq!(entries("# only a comment\n"), []);
        assert_eq!(entries("ref:\ncommit: ~\n"), [("ref".into(), String::new()), ("commit".into(), String::new())]);
    }

    #[test]
    fn other_shapes_name_the_key_the_line_and_what_is_expected() {
        let message = refused("ref: main\nvolume-size: [1, 2]\n");
        assert!(message.starts_with("ebs-bake.yml:2: volume-size: "), "{message}");
        assert!(message.contains("expected a single value"), "{message}");
        assert!(refused("- a\n- b\n").contains("expected a mapping"));
        assert!(refused("ref: main\nref: other\n").contains("\"ref\" is there twice"));
        assert!(refused("ref: [unclosed\n").starts_with("ebs-bake.yml:"));
        assert!(refused("ref: a\n---\nref: b\n").contains("document"));
    }

    #[test]
    fn an_alias_bomb_is_refused_at_its_first_list() {
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (next, last) in ('b'..='z').zip('a'..='y') {
            bomb += &format!("{next}: &{next} [{}]\n", vec![format!("*{last}"); 10].join(", "));
        }
        assert!(refused(&bomb).starts_with("ebs-bake.yml:1: a: "));
    }

    #[test]
    fn lines_are_found_for_messages() {
        assert_eq!(line_of("# x\nvolume-name: a\n\"volume\": b\n", "volume"), Some(3));
        assert_eq!(line_of("{ref: main}", "ref"), None);
    }

    #[test]
    fn a_large_file_is_not_read_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DEFAULT_NAME);
        std::fs::write(&path, "#".repeat(MAX_BYTES as usize + 1)).unwrap();
        let message = load(None, directory.path()).unwrap_err().to_string();
        assert_eq!(message, "ebs-bake.yml is larger than 64 KiB");
    }

    #[test]
    fn the_other_extension_is_not_silently_ignored() {
        let directory = tempfile::tempdir().unwrap();
        assert!(load(None, directory.path()).unwrap().entries.is_empty());
        std::fs::write(directory.path().join("ebs-bake.yaml"), "ref: main\n").unwrap();
        assert!(load(None, directory.path()).is_err());
    }
}
