//! A repository on this machine as the source: its objects are read straight from its object database.

use std::path::{Path, PathBuf};

use git2::{ErrorCode, Oid, Repository};

use super::libgit::{git_error, open_repository};
use super::pack::{self, NewPack};
use super::refs::{Refs, Tip};
use super::{Fetched, Location, Resolved, baked, trees};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::report::{RunningPhase, Unit};

/// An open local repository.
pub(super) struct Local {
    path: PathBuf,
    repository: std::sync::Mutex<Repository>,
}

impl Local {
    /// Opens a work tree, a git directory or a bare repository, whoever owns it.
    pub fn open(path: &Path) -> Result<Local> {
        let repository = open_repository(path).map_err(|error| {
            let missing = error.code() == ErrorCode::NotFound;
            let error = Error::new(Kind::Git, format!("cannot open the repository {}", path.display())).because(error);
            if missing { error.hint("give the root of a work tree, a git directory or a bare repository") } else { error }
        })?;
        Ok(Local { path: repository.path().to_path_buf(), repository: std::sync::Mutex::new(repository) })
    }

    /// Where it was cloned from, so that a clone and its origin have one identity; else its own path.
    pub fn base(&self) -> Result<Location> {
        let repository = self.lock();
        let own = repository.workdir().unwrap_or(repository.path());
        let origin = repository.find_remote("origin").ok().and_then(|remote| remote.url().ok().map(str::to_owned));
        let origin = origin.and_then(|url| Some(Location::parse(&url).ok()?.0)).map(|location| match location {
            Location::Local(path) => Location::Local(own.join(path)),
            remote @ Location::Remote(_) => remote,
        });
        // An origin that is gone identifies nothing.
        Ok(origin.filter(|location| location.canonical().is_ok()).unwrap_or_else(|| Location::Local(own.to_path_buf())))
    }

    /// Its references.
    pub fn refs(&self) -> Result<Refs> {
        let repository = self.lock();
        let failed = || git_error(format!("cannot read the references of {}", self.path.display()));
        let mut refs = Refs::default();
        for reference in repository.references().map_err(failed())? {
            let reference = reference.map_err(failed())?;
            let (Ok(name), Ok(resolved)) = (reference.name(), reference.resolve()) else { continue };
            let Some(object) = resolved.target() else { continue };
            refs.add(name, object);
            // A commit and what it peels to are the same.
            if let Some(commit) = reference.peel_to_commit().ok().filter(|commit| commit.id() != object) {
                refs.add(&format!("{name}^{{}}"), commit.id());
            }
        }
        let head = repository.find_reference("HEAD").map_err(failed())?;
        refs.head_target = head.symbolic_target().ok().flatten().map(str::to_owned);
        refs.head = repository.head().ok().and_then(|head| head.target()).map(|object| Tip { object, peeled: None });
        Ok(refs)
    }

    /// Copies what the commit needs and `into` has not, as one pack.
    pub fn fetch(&self, resolved: &Resolved, into: &Repository, phase: &RunningPhase, cancel: &Cancel) -> Result<Fetched> {
        let source = self.lock();
        let commit = resolved.commit;
        let root = source.find_commit(commit).map_err(|error| self.no_commit(commit, error))?.tree_id();
        let odb = source.odb().map_err(git_error("cannot open the source's object database"))?;
        let target = into.odb().map_err(git_error("cannot open the object database"))?;
        let known = baked::kept(into).and_then(|known| Some(into.find_commit(known).ok()?.tree_id()));
        let mut objects = vec![commit];
        objects.extend(trees::difference(&odb, root, known.map(|tree| (&target, tree)))?);
        if known.is_some() {
            objects.retain(|id| !target.exists(*id));
        }
        let total = Some(objects.len() as u64);
        let directory = into.commondir().join("objects/pack");
        let pack = NewPack { source: &self.path, directory: &directory, objects: &objects, level: pack::FAST };
        let written = pack.write(cancel, |done| {
            if done % 256 == 0 || Some(done) == total {
                phase.progress(done, total, Unit::Objects);
            }
        })?;
        target.refresh().map_err(git_error("cannot read the new pack"))?;
        baked::cut_at(into, commit)?;
        Ok(written.fetched)
    }

    fn no_commit(&self, commit: Oid, cause: git2::Error) -> Error {
        let error = Error::new(Kind::Git, format!("commit {commit} is not in {}", self.path.display())).because(cause);
        let shallow = self.path.join("shallow").exists();
        error.hint(if shallow { "the clone is shallow: fetch that commit into it first" } else { "fetch it there first" })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Repository> {
        self.repository.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
