//! What a bake needs of this machine, whatever the store.

use std::path::Path;

use nix::unistd::{AccessFlags, access, geteuid};

use super::Check;
use super::local::gib;
use crate::cancel::Cancel;
use crate::config::Doctor;
use crate::error::Result;
use crate::host::command::{self, Program};
use crate::host::filesystem::{self, Space};
use crate::host::mount::MountPoint;
use crate::host::scratch::Scratch;
use crate::host::{capabilities, lock, mount};
use crate::storage::local::preflight;

/// A first fetch goes to the temporary directory: a repository of some hundred MiB needs as much.
const TEMPORARY_BYTES: u64 = 512 << 20;
/// How each program tells its version. `resize2fs` tells it together with its usage.
const VERSION_ARGUMENTS: [(&str, &[&str]); 3] = [("mkfs.ext4", &["-V"]), ("e2fsck", &["-V"]), ("resize2fs", &[])];

/// What to skip without these capabilities, and why.
pub(super) const UNPRIVILEGED: &str = "needs the capabilities";

/// Whether this process may do what a bake does.
pub(super) fn is_privileged() -> bool {
    capabilities::require_for_bake().is_ok()
}

pub(super) fn checks(config: &Doctor) -> Vec<Check> {
    let may = capabilities::require_for_bake();
    let privileged = may.is_ok();
    let mut checks = vec![Check::of("capabilities", may.map(|()| format!("all that a bake needs (uid {})", geteuid())))];
    let mut probe = |name, probe: &dyn Fn() -> Result<String>| {
        checks.push(if privileged { Check::of(name, probe()) } else { Check::skipped(name, UNPRIVILEGED) });
    };
    probe("mount-namespace", &|| mount::probe().map(|()| "a private one can be had, and mounted in".into()));
    probe("devtmpfs", &|| mount::in_private_namespace(lock::probe_devtmpfs).map(Into::into));
    probe("mount-point", &|| MountPoint::prepare(&config.mount_point).map(|point| point.path().display().to_string()));
    checks.extend(VERSION_ARGUMENTS.map(|(name, arguments)| program(name, arguments)));
    checks.push(temporary_space());
    checks.push(state_directory(&config.state_dir));
    checks
}

fn program(name: &'static str, arguments: &[&str]) -> Check {
    let examined = command::require(&[name]).and_then(|()| Program::new(name).args(arguments).run(&Cancel::new()));
    Check::of(name, examined.map(|output| version(&output.tail)))
}

/// The version in what a program of e2fsprogs says of itself: `mke2fs 1.47.0 (5-Feb-2023)`.
fn version(said: &str) -> String {
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    said.split_whitespace().find(is_version).map_or("it does not tell its version".into(), |word| format!("version {word}"))
}

fn temporary_space() -> Check {
    let name = "temporary-space";
    let examined = Scratch::new().and_then(|scratch| filesystem::space(scratch.path()));
    match examined {
        Ok(space) => temporary(&std::env::temp_dir(), space),
        Err(error) => Check::of_error(name, &error),
    }
}

fn temporary(directory: &Path, space: Space) -> Check {
    let detail = format!("{} free in {}", gib(space.free_bytes), directory.display());
    if space.free_bytes >= TEMPORARY_BYTES {
        return Check::ok("temporary-space", detail);
    }
    let hint = "the first fetch of a repository goes there: make room, or set TMPDIR";
    Check::warning("temporary-space", detail, hint)
}

fn state_directory(directory: &Path) -> Check {
    let (name, place) = ("state-directory", preflight::place(directory));
    let shown = directory.display();
    if access(&place, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        let hint = "only --git-dir exclude needs it: name another one with --state-dir";
        return Check::warning(name, format!("{shown} cannot be written to"), hint);
    }
    Check::ok(name, if place == directory { shown.to_string() } else { format!("{shown}, made when it is needed") })
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn versions_are_found_in_what_the_programs_say() {
        let mke2fs = "mke2fs 1.47.0 (5-Feb-2023)\n\tUsing EXT2FS Library version 1.47.0";
        let resize2fs = "resize2fs 1.46.5 (30-Dec-2021)\nUsage: resize2fs [-d debug_flags] [-f] device [new_size]";
        assert_eq!((version(mke2fs), version(resize2fs)), ("version 1.47.0".into(), "version 1.46.5".into()));
        assert!(version("usage: mkfs.ext4 [-V]").contains("does not tell"));
    }

    #[test]
    fn every_program_that_a_bake_runs_is_looked_at() {
        assert_eq!(VERSION_ARGUMENTS.map(|(name, _)| name), filesystem::PROGRAMS);
    }

    #[test]
    fn little_room_is_worth_a_warning() {
        let space = |free_bytes| Space { bytes: 1 << 40, free_bytes, inodes: 1, free_inodes: 1 };
        let outcome = |free| temporary(Path::new("/tmp"), space(free)).outcome;
        assert_eq!((outcome(TEMPORARY_BYTES), outcome(TEMPORARY_BYTES - 1)), (Outcome::Ok, Outcome::Warning));
    }

    #[test]
    fn a_state_directory_may_be_missing() {
        let parent = tempfile::tempdir().unwrap();
        assert!(state_directory(&parent.path().join("a/b")).detail.contains("made when it is needed"));
        assert_eq!(state_directory(parent.path()).outcome, Outcome::Ok);
    }
}
