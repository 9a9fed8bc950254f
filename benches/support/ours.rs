//! Our own checkout as a process, to stand beside the processes of git: what a bake does between mounting and unmounting.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use ebs_bake::cancel::Cancel;
use ebs_bake::checkout::{Options, Stamp, WorkTree};
use ebs_bake::error::Result;
use ebs_bake::host::filesystem::Superblock;
use ebs_bake::report::{Phase, Report};
use ebs_bake::source::{self, Access, Location, Source, Wanted, maintain};
use git2::Oid;

use super::device::Filesystem;

/// Identifies the last read-write mount of a filesystem that is not mounted, or the current one.
pub fn stamp(filesystem: &Filesystem) -> String {
    let image = File::open(&filesystem.image).expect("an image");
    Superblock::read(&image).expect("it holds an ext4").stamp()
}

/// The command that brings the mounted filesystem to a commit. `previous` is its [`stamp`] before the mount.
pub fn command(filesystem: &Filesystem, url: &str, commit: &str, previous: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program's path"));
    command.args(["--child", "checkout", url, commit]).arg(&filesystem.mount).args([previous, &stamp(filesystem)]);
    command
}

/// The process that [`command`] starts.
pub fn checkout(arguments: &[String]) {
    let [url, commit, root, previous, current] = arguments else { panic!("wrong arguments") };
    let stamp = Stamp { previous: Some(previous.clone()), current: Some(current.clone()), repaired: false };
    let commit = Oid::from_str(commit).expect("a commit");
    if let Err(error) = check_out(url, commit, Path::new(root), stamp) {
        eprintln!("{error}: {:?}", error.causes());
        std::process::exit(1);
    }
}

fn check_out(url: &str, commit: Oid, root: &Path, stamp: Stamp) -> Result<()> {
    let (report, cancel) = (Report::silent(), Cancel::new());
    let (location, _) = Location::parse(url)?;
    let source = Source::open(&location, &Access::default(), &cancel)?;
    let resolved = source.resolve(&Wanted { commit: Some(commit), reference: Some("refs/heads/main".to_owned()) })?;
    let mut worktree = WorkTree::open(root, &root.join(".git"), stamp)?;
    source.fetch(&resolved, worktree.repository(), &report.phase(Phase::Fetch))?;
    let plan = worktree.plan(commit, &Options { clean: true, allow_lfs_pointers: true }, &cancel)?;
    worktree.apply(plan, &report.phase(Phase::Checkout), &cancel)?;
    source::keep(worktree.repository(), commit)?;
    maintain::maintain(worktree.repository(), commit, &cancel)?;
    worktree.finish(None, true).map(drop)
}
