//! Submodules: which ones a commit has and where they come from. Nothing that `.gitmodules` says is trusted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use git2::{Oid, Repository};

use super::libgit::git_error;
use super::{Access, Location, gitmodules, trees};
use crate::error::{Error, Kind, Result};

/// More than this is no list of submodules.
const LARGEST_LIST: usize = 1 << 20;

/// A repository inside the work tree of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submodule {
    /// Its name in `.gitmodules`; safe as a relative path below `.git/modules`.
    pub name: String,
    /// Where it goes: a relative path, below the root of the work tree, that passes through directories only.
    pub path: PathBuf,
    /// Where it comes from.
    pub location: Location,
    /// The commit that belongs there.
    pub commit: Oid,
}

/// The submodules of a commit, in the order of their paths. `parent` is where the commit's own repository comes from
/// (see [`super::Source::base`]): relative URLs start there.
///
/// Errors: a submodule without an entry in `.gitmodules`; a name, path or URL that git would refuse as well; a URL that
/// leads above the root of the parent's host; a path on this machine, unless the parent is one and it is relative to it.
pub fn submodules(repository: &Repository, commit: Oid, parent: &Location) -> Result<Vec<Submodule>> {
    let tree = repository.find_commit(commit).and_then(|commit| commit.tree());
    let tree = tree.map_err(git_error(format!("cannot read commit {commit}")))?;
    let links = links(repository, tree.id())?;
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let entries = match tree.get_name(".gitmodules") {
        Some(entry) => read_list(repository, &entry)?,
        None => BTreeMap::new(),
    };
    let mut by_path = BTreeMap::new();
    for (name, section) in &entries {
        if let Some(path) = section.get("path") {
            by_path.insert(path.as_str(), (name, section));
        }
    }
    let mut found = Vec::new();
    for (path, commit) in links {
        let (name, section) = by_path.get(path.as_str()).ok_or_else(|| {
            Error::new(Kind::Git, format!("the submodule at {path:?} is not in .gitmodules"))
                .hint("add it there, or bake without submodules")
        })?;
        if section.get("update").is_some_and(|update| update == "none") {
            continue;
        }
        let url = section.get("url").ok_or_else(|| Error::new(Kind::Git, format!("the submodule {name:?} has no URL")))?;
        check_path("name", name)?;
        check_path("path", &path)?;
        let location = locate(parent, url).map_err(|error| {
            Error::new(Kind::Git, format!("the URL of the submodule {name:?} is not acceptable")).because(error)
        })?;
        found.push(Submodule { name: (*name).clone(), path: path.into(), location, commit });
    }
    Ok(found)
}

/// What a submodule's host may see of the parent's credentials: all if it is the same host over a connection no less
/// safe, else nothing but the trusted host keys.
pub fn access_for(access: &Access, parent: &Location, child: &Location) -> Access {
    let same = parent.authority().is_some() && parent.authority() == child.authority();
    let safe = match (parent, child) {
        (Location::Remote(parent), Location::Remote(child)) => child.scheme() == parent.scheme() || child.scheme() != "http",
        _ => false,
    };
    if same && safe { access.clone() } else { Access { login: None, ssh_key: None, ..access.clone() } }
}

/// All submodules' commits in a tree, by path.
fn links(repository: &Repository, root: Oid) -> Result<BTreeMap<String, Oid>> {
    let odb = repository.odb().map_err(git_error("cannot open the object database"))?;
    let mut found = BTreeMap::new();
    let mut next = vec![(String::new(), root)];
    while let Some((prefix, id)) = next.pop() {
        let tree = odb.read(id).map_err(git_error(format!("cannot read tree {id}")))?;
        for entry in trees::entries(tree.data()) {
            let entry = entry?;
            if !entry.is_tree() && !entry.is_gitlink() {
                continue;
            }
            let path = format!("{prefix}{}", String::from_utf8_lossy(entry.name));
            if entry.is_tree() {
                next.push((path + "/", entry.id));
            } else {
                found.insert(path, entry.id);
            }
        }
    }
    Ok(found)
}

fn read_list(repository: &Repository, entry: &git2::TreeEntry<'_>) -> Result<BTreeMap<String, gitmodules::Section>> {
    const REGULAR: i32 = 0o100_000;
    let invalid = || Error::new(Kind::Git, ".gitmodules cannot be understood");
    if entry.filemode_raw() & 0o170_000 != REGULAR {
        return Err(Error::new(Kind::Git, ".gitmodules is not a regular file"));
    }
    let blob = repository.find_blob(entry.id()).map_err(git_error("cannot read .gitmodules"))?;
    if blob.size() > LARGEST_LIST {
        return Err(invalid());
    }
    std::str::from_utf8(blob.content()).ok().and_then(gitmodules::parse).ok_or_else(invalid)
}

/// Refuses what could lead out of the work tree, into a git directory, or be taken for an option.
pub(super) fn check_path(what: &str, text: &str) -> Result<()> {
    let fine = !text.is_empty()
        && !text.starts_with(['-', '/'])
        && !text.contains('\\')
        && !text.chars().any(char::is_control)
        && text.split('/').all(|part| !is_dangerous(part));
    if fine { Ok(()) } else { Err(Error::new(Kind::Git, format!("the {what} of the submodule {text:?} is not acceptable"))) }
}

/// Nothing, here, above, or what some filesystem takes for `.git`.
fn is_dangerous(part: &str) -> bool {
    let plain: String = part
        .chars()
        .filter(|c| !matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}'))
        .collect();
    let plain = plain.trim_end_matches(['.', ' ']).to_ascii_lowercase();
    let base = plain.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    base.is_empty() || base == ".git" || base == "git~1"
}

pub(super) fn locate(parent: &Location, url: &str) -> Result<Location> {
    if url.starts_with("./") || url.starts_with("../") {
        return relative(parent, url);
    }
    if url.starts_with('-') {
        return Err(Error::new(Kind::Git, "it looks like an option"));
    }
    match Location::parse(url)?.0 {
        remote @ Location::Remote(_) => Ok(remote),
        Location::Local(_) => Err(Error::new(Kind::Git, "a repository must not name paths of this machine")),
    }
}

fn relative(parent: &Location, url: &str) -> Result<Location> {
    let above = || Error::new(Kind::Git, "it leads above the root of the host");
    let mut path: Vec<String> = match parent {
        Location::Remote(parent) => segments(parent.path()),
        Location::Local(parent) => {
            let parent =
                std::path::absolute(parent).map_err(|error| Error::new(Kind::Git, "no current directory").because(error))?;
            segments(parent.to_str().ok_or_else(|| Error::new(Kind::Git, "the parent's path is not UTF-8"))?)
        }
    };
    let relative_to_home = matches!(parent, Location::Remote(_)) && path.first().is_some_and(|first| first == "~");
    for part in url.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                path.pop().ok_or_else(above)?;
            }
            part => path.push(part.to_owned()),
        }
    }
    if path.is_empty() || relative_to_home && (path.len() < 2 || path[0] != "~") {
        return Err(above());
    }
    let joined = format!("/{}", path.join("/"));
    match parent {
        Location::Remote(parent) => {
            let origin = &parent[..url::Position::BeforePath];
            // Through the parser again: what it refuses in a URL that a user gives is refused here too.
            Ok(Location::parse(&format!("{origin}{joined}"))?.0)
        }
        Location::Local(_) => Ok(Location::Local(Path::new(&joined).to_path_buf())),
    }
}

fn segments(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
