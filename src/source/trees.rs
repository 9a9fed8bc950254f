//! Walking trees without libgit2's objects: which objects a tree needs that another does not have.

use std::collections::{HashMap, HashSet};

use git2::{ObjectType, Odb, Oid};

use super::libgit::git_error;
use crate::error::{Error, Kind, Result};

/// One line of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub mode: u32,
    pub name: &'a [u8],
    pub id: Oid,
}

const TYPE_MASK: u32 = 0o170_000;
const TREE: u32 = 0o040_000;
/// A submodule's commit: it lives in another repository.
pub(super) const GITLINK: u32 = 0o160_000;

impl Entry<'_> {
    pub fn is_tree(&self) -> bool {
        self.mode & TYPE_MASK == TREE
    }

    pub fn is_gitlink(&self) -> bool {
        self.mode & TYPE_MASK == GITLINK
    }
}

/// The entries of a tree object; the last item is an error if it is malformed.
pub(super) fn entries(mut data: &[u8]) -> impl Iterator<Item = Result<Entry<'_>>> {
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let entry = parse_entry(data);
        data = entry.map_or(&[], |(_, rest)| rest);
        Some(entry.map(|(entry, _)| entry).ok_or_else(|| Error::new(Kind::Git, "a tree object is malformed")))
    })
}

fn parse_entry(data: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let space = data.iter().take(8).position(|byte| *byte == b' ')?;
    let mode = u32::from_str_radix(std::str::from_utf8(&data[..space]).ok()?, 8).ok()?;
    let rest = &data[space + 1..];
    let end = rest.iter().position(|byte| *byte == 0)?;
    let (id, after) = rest[end + 1..].split_at_checked(20)?;
    Some((Entry { mode, name: &rest[..end], id: Oid::from_bytes(id).ok()? }, after))
}

/// The objects that the tree `root` consists of, itself included, but for what `known` (another tree) has at the same
/// place. Each once, trees before what is in them.
pub(super) fn difference(odb: &Odb<'_>, root: Oid, known: Option<(&Odb<'_>, Oid)>) -> Result<Vec<Oid>> {
    let mut walk = Walk { odb, known: known.map(|(odb, _)| odb), seen: HashSet::new(), found: Vec::new() };
    walk.tree(root, known.map(|(_, id)| id))?;
    Ok(walk.found)
}

struct Walk<'a> {
    odb: &'a Odb<'a>,
    known: Option<&'a Odb<'a>>,
    seen: HashSet<Oid>,
    found: Vec<Oid>,
}

impl Walk<'_> {
    fn tree(&mut self, id: Oid, known: Option<Oid>) -> Result<()> {
        // Not recursive: the depth of a tree is in the hands of whoever pushed it.
        let mut next = vec![(id, known)];
        while let Some((id, known)) = next.pop() {
            if known == Some(id) || !self.seen.insert(id) {
                continue;
            }
            self.found.push(id);
            let known = self.known_entries(known)?;
            let tree = read_tree(self.odb, id)?;
            for entry in entries(tree.data()) {
                let entry = entry?;
                let counterpart = known.get(entry.name).copied();
                if entry.is_gitlink() || counterpart == Some(entry.id) {
                    continue;
                }
                if entry.is_tree() {
                    next.push((entry.id, counterpart));
                } else if self.seen.insert(entry.id) {
                    self.found.push(entry.id);
                }
            }
        }
        Ok(())
    }

    /// What is known at this place; nothing when it is not a tree there.
    fn known_entries(&self, known: Option<Oid>) -> Result<HashMap<Vec<u8>, Oid>> {
        let (Some(odb), Some(id)) = (self.known, known) else { return Ok(HashMap::new()) };
        match odb.read(id) {
            Ok(object) if object.kind() == ObjectType::Tree => {
                entries(object.data()).map(|entry| entry.map(|entry| (entry.name.to_vec(), entry.id))).collect()
            }
            _ => Ok(HashMap::new()),
        }
    }
}

fn read_tree<'a>(odb: &'a Odb<'_>, id: Oid) -> Result<git2::OdbObject<'a>> {
    let object = odb.read(id).map_err(git_error(format!("cannot read tree {id}")))?;
    if object.kind() == ObjectType::Tree { Ok(object) } else { Err(Error::new(Kind::Git, format!("object {id} is not a tree"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use git2::Repository;

    fn tree(repository: &Repository, entries: &[(&str, Oid, i32)]) -> Oid {
        let mut builder = repository.treebuilder(None).unwrap();
        for (name, id, mode) in entries {
            builder.insert(name, *id, *mode).unwrap();
        }
        builder.write().unwrap()
    }

    #[test]
    fn only_what_differs_is_listed_and_each_object_once() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(directory.path()).unwrap();
        let odb = repository.odb().unwrap();
        let blob = |text: &str| repository.blob(text.as_bytes()).unwrap();
        let inner = tree(&repository, &[("same", blob("same"), 0o100_644), ("x", blob("old"), 0o100_644)]);
        let other = tree(&repository, &[("same", blob("same"), 0o100_644), ("x", blob("new"), 0o100_644)]);
        let link = Oid::from_str(&"1".repeat(40)).unwrap();
        let before = tree(&repository, &[("a", inner, 0o040_000), ("b", inner, 0o040_000), ("sub", link, 0o160_000)]);
        let after = tree(&repository, &[("a", inner, 0o040_000), ("b", other, 0o040_000), ("c", blob("new"), 0o100_755)]);
        let all = difference(&odb, before, None).unwrap();
        assert_eq!(all.iter().collect::<HashSet<_>>(), HashSet::from([&before, &inner, &blob("same"), &blob("old")]));
        assert_eq!(all.len(), 4);
        let new = difference(&odb, after, Some((&odb, before))).unwrap();
        assert_eq!(new.iter().collect::<HashSet<_>>(), HashSet::from([&after, &other, &blob("new")]));
        assert_eq!(difference(&odb, after, Some((&odb, after))).unwrap(), []);
        assert!(difference(&odb, blob("new"), None).is_err());
    }

    #[test]
    fn malformed_trees_are_errors() {
        for data in [&b"100644 a"[..], b"100644 a\0short", b"9 a\0aaaaaaaaaaaaaaaaaaaa", b"x", b"100644a\0"] {
            assert!(entries(data).any(|entry| entry.is_err()), "{data:?}");
        }
    }
}
