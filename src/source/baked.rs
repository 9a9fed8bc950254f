//! What a repository of ours remembers: which commit it holds completely, and where its history is cut.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;

use git2::{ObjectType, Oid, Repository};

use super::libgit::git_error;
use super::refs::parse_oid;
use crate::error::{Kind, OrFail, Result};
use crate::step;

/// Points to the last commit whose objects are all there. Negotiation offers it to the git host, so it must never lie.
pub const BAKED: &str = "refs/ebs-bake/baked";

/// Remembers that everything of `commit` is in the repository. Call it once the work tree is written and HEAD points to
/// `commit`: history that is reachable from nothing any more is then forgotten in `.git/shallow` too.
pub fn keep(repository: &Repository, commit: Oid) -> Result<()> {
    if kept(repository) != Some(commit) {
        step::around("noting what was baked", || repository.reference(BAKED, commit, true, "ebs-bake").map(drop))
            .map_err(git_error(format!("cannot record in {} what was baked", repository.path().display())))?;
    }
    forget_unreachable_cuts(repository)
}

/// Whether every object that the commit's tree needs can be read. Reads them all: for when something was found missing.
pub fn is_whole(repository: &Repository, commit: Oid) -> bool {
    let all = || -> Result<bool> {
        let failed = || format!("cannot read commit {commit}");
        let odb = repository.odb().or_fail(Kind::Git, failed)?;
        let tree = repository.find_commit(commit).or_fail(Kind::Git, failed)?.tree_id();
        let objects = super::trees::difference(&odb, tree, None)?;
        Ok(objects.iter().all(|id| odb.read(*id).is_ok()))
    };
    all().unwrap_or(false)
}

/// The commit that [`keep`] was last called with, if it is still there.
pub fn kept(repository: &Repository) -> Option<Oid> {
    let commit = repository.refname_to_id(BAKED).ok()?;
    repository.find_commit(commit).and_then(|commit| commit.tree()).ok().map(|_| commit)
}

/// Where the history is cut: these commits are there, their parents are not.
pub(super) fn shallow(repository: &Repository) -> Result<BTreeSet<Oid>> {
    let path = repository.commondir().join("shallow");
    match fs::read(&path) {
        Ok(text) => Ok(text.split(|byte| *byte == b'\n').filter_map(parse_oid).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error).or_fail(Kind::Git, || format!("cannot read {}", path.display())),
    }
}

/// Replaces the list of cuts, by a rename; no file when there are none, as git has it.
pub(super) fn set_shallow(repository: &Repository, cuts: &BTreeSet<Oid>) -> Result<()> {
    let directory = repository.commondir();
    let path = directory.join("shallow");
    let failed = || format!("cannot write {}", path.display());
    if cuts.is_empty() {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).or_fail(Kind::Git, failed),
            _ => Ok(()),
        };
    }
    let readable = fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new()
        .prefix("tmp_shallow_")
        .permissions(readable)
        .tempfile_in(directory)
        .or_fail(Kind::Git, failed)?;
    for cut in cuts {
        writeln!(file, "{cut}").or_fail(Kind::Git, failed)?;
    }
    step::around("replacing the cuts", || file.persist(&path)).map(|_| ()).or_fail(Kind::Git, failed)
}

/// Cuts the history at `commit` if it has parents: with depth 1 they are not there.
pub(super) fn cut_at(repository: &Repository, commit: Oid) -> Result<()> {
    let parents = repository.find_commit(commit).map_err(git_error(format!("cannot read commit {commit}")))?.parent_count();
    let mut cuts = shallow(repository)?;
    if parents > 0 && cuts.insert(commit) {
        set_shallow(repository, &cuts)?;
    }
    Ok(())
}

/// Forgets the cuts whose parents have come in meanwhile. Read from the objects: to libgit2 a cut commit has no parents.
pub(super) fn forget_healed_cuts(repository: &Repository) -> Result<()> {
    let odb = repository.odb().map_err(git_error("cannot open the object database"))?;
    let mut cuts = shallow(repository)?;
    let before = cuts.len();
    cuts.retain(|cut| odb.read(*cut).is_ok_and(|commit| parents(commit.data()).any(|parent| !odb.exists(parent))));
    if cuts.len() == before { Ok(()) } else { set_shallow(repository, &cuts) }
}

/// The parents that a commit object names.
fn parents(commit: &[u8]) -> impl Iterator<Item = Oid> {
    let header = commit.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    header.filter_map(|line| line.strip_prefix(b"parent ")).filter_map(parse_oid)
}

fn forget_unreachable_cuts(repository: &Repository) -> Result<()> {
    let before = shallow(repository)?;
    if before.len() <= 1 {
        return Ok(());
    }
    let tips = tips(repository)?;
    let reachable = reachable_commits(repository, &tips, &before)?;
    let after: BTreeSet<Oid> = before.intersection(&reachable).copied().collect();
    if after == before { Ok(()) } else { set_shallow(repository, &after) }
}

/// Everything that a reference or HEAD points to, as it is (a commit, an annotated tag, …).
pub(super) fn tips(repository: &Repository) -> Result<BTreeSet<Oid>> {
    let failed = || git_error(format!("cannot read the references of {}", repository.path().display()));
    let mut tips = BTreeSet::new();
    for reference in repository.references().map_err(failed())? {
        tips.extend(reference.map_err(failed())?.target());
    }
    tips.extend(repository.head().ok().and_then(|head| head.target()));
    Ok(tips)
}

/// All commits that can be reached from `tips` without passing a cut.
pub(super) fn reachable_commits(repository: &Repository, tips: &BTreeSet<Oid>, cuts: &BTreeSet<Oid>) -> Result<BTreeSet<Oid>> {
    let mut found = BTreeSet::new();
    let mut next: Vec<Oid> = Vec::new();
    for tip in tips {
        let object = repository.find_object(*tip, None).map_err(git_error(format!("object {tip} is missing")))?;
        next.extend(object.peel(ObjectType::Commit).ok().map(|commit| commit.id()));
    }
    while let Some(id) = next.pop() {
        if found.insert(id) && !cuts.contains(&id) {
            let commit = repository.find_commit(id).map_err(git_error(format!("commit {id} is missing")))?;
            next.extend(commit.parent_ids());
        }
    }
    Ok(found)
}
