//! Fetch and checkout on a mounted filesystem: the processes of git beside one of ours.

use super::device::Filesystem;
use super::ours;
use super::process::{Spent, milliseconds, spend};
use super::repository::{Repository, git_in};
use super::table::Row;

/// The size of every volume here; the default of ebs-bake.
pub const VOLUME_GIB: u64 = 8;

pub fn measure(repository: &Repository, rounds: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for (how, url) in repository.sources() {
        rows.push(first(repository, how, &url, rounds));
        rows.extend(updates(repository, how, &url, rounds));
    }
    rows
}

fn first(repository: &Repository, how: &str, url: &str, rounds: usize) -> Row {
    let commit = repository.commits.last().expect("a commit");
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        eprintln!("{}, {how}: first checkout, round {round} of {rounds}", repository.title);
        let git = || {
            let filesystem = Filesystem::ext4(&repository.scratch, "git", VOLUME_GIB);
            // git clones into an empty directory only, and mkfs made lost+found.
            let target = filesystem.mount.join("work");
            spend(git_in(&filesystem.mount, &["clone", "--quiet", "--depth", "1", url]).arg(target))
        };
        let us = || {
            let filesystem = Filesystem::ext4(&repository.scratch, "ours", VOLUME_GIB);
            spend(&mut ours::command(&filesystem, url, commit, "none"))
        };
        let (one, other) = alternating(round, git, us);
        // The first round warms caches up.
        if round > 0 {
            theirs.push(one);
            ours.push(other);
        }
    }
    Row::times(format!("first checkout, {how}"), milliseconds(&theirs), milliseconds(&ours), 0.8)
}

/// Runs both, in turns the one or the other first.
pub fn alternating<A, B>(round: usize, one: impl FnOnce() -> A, other: impl FnOnce() -> B) -> (A, B) {
    if round.is_multiple_of(2) {
        let first = one();
        (first, other())
    } else {
        let first = other();
        (one(), first)
    }
}

fn updates(repository: &Repository, how: &str, url: &str, rounds: usize) -> [Row; 2] {
    let git = Filesystem::ext4(&repository.scratch, "git", VOLUME_GIB);
    let ours = Filesystem::ext4(&repository.scratch, "ours", VOLUME_GIB);
    spend(&mut git_in(&git.mount, &["init", "--quiet"]));
    spend(&mut git_in(&git.mount, &["remote", "add", "origin", url]));
    let mut runs: [[Vec<Spent>; 2]; 2] = Default::default();
    for (round, commit) in repository.commits.iter().take(rounds + 1).enumerate() {
        eprintln!("{}, {how}: update, round {round} of {rounds}", repository.title);
        // The second time there is nothing to do.
        for again in [0, 1] {
            let (theirs, mine) = alternating(round, || update_git(&git, commit), || update_ours(&ours, url, commit));
            if round > 0 {
                runs[again][0].push(theirs);
                runs[again][1].push(mine);
            }
        }
    }
    let row = |what, [theirs, ours]: &[Vec<Spent>; 2], limit| {
        Row::times(format!("{what}, {how}"), milliseconds(theirs), milliseconds(ours), limit)
    };
    [row("update by one commit", &runs[0], 0.35), row("nothing to do", &runs[1], 0.2)]
}

/// A volume is freshly mounted when a run begins.
fn update_git(filesystem: &Filesystem, commit: &str) -> Spent {
    filesystem.unmount();
    filesystem.mount("loop");
    // Kept under a name, as CI systems do: without one git offers nothing to the server, and fetches everything again.
    let kept = format!("+{commit}:refs/remotes/origin/main");
    spend(&mut git_in(&filesystem.mount, &["fetch", "--quiet", "--depth", "1", "origin", &kept]))
        + spend(&mut git_in(&filesystem.mount, &["checkout", "--quiet", "--detach", commit]))
}

fn update_ours(filesystem: &Filesystem, url: &str, commit: &str) -> Spent {
    filesystem.unmount();
    let previous = ours::stamp(filesystem);
    filesystem.mount("loop");
    spend(&mut ours::command(filesystem, url, commit, &previous))
}
