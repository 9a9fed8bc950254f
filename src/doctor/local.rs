//! What a bake would meet in the embedded store.

use std::path::Path;

use super::Check;
use super::host::{UNPRIVILEGED, is_privileged};
use crate::error::Result;
use crate::host::filesystem;
use crate::storage::local::{LocalStore, preflight};

/// Less than this holds few volumes and snapshots of a repository of some hundred MiB.
const ROOM_BYTES: u64 = 2 << 30;

pub(super) fn checks(directory: &Path) -> Vec<Check> {
    let place = preflight::place(directory);
    let shares = LocalStore::open(directory).and_then(|_| preflight::reflinks(&place));
    vec![
        store_directory(directory, place == directory, &shares),
        match filesystem::space(&place) {
            Ok(space) => room(space.free_bytes),
            Err(error) => Check::of_error("store-space", &error),
        },
        reflinks(shares.ok()),
        match is_privileged() {
            true => Check::of("loop-device", preflight::loop_device().map(|path| format!("{path} is free"))),
            false => Check::skipped("loop-device", UNPRIVILEGED),
        },
    ]
}

fn store_directory(directory: &Path, is_there: bool, tried: &Result<bool>) -> Check {
    let shown = directory.display();
    match tried {
        Err(error) => Check::of_error("store-directory", error),
        Ok(_) if is_there => Check::ok("store-directory", shown.to_string()),
        Ok(_) => Check::ok("store-directory", format!("{shown}, made when it is needed")),
    }
}

fn room(free_bytes: u64) -> Check {
    let detail = format!("{} free", gib(free_bytes));
    match free_bytes >= ROOM_BYTES {
        true => Check::ok("store-space", detail),
        false => Check::warning("store-space", detail, "make room, delete snapshots, or name another --local-dir"),
    }
}

/// `None`: it could not be tried.
fn reflinks(shared: Option<bool>) -> Check {
    let name = "reflinks";
    match shared {
        Some(true) => Check::ok(name, "volumes and snapshots share what they have in common"),
        Some(false) => {
            let detail = "this filesystem has none: every snapshot takes the time and the space of a copy of the volume's data";
            Check::warning(name, detail, "put --local-dir on XFS or btrfs")
        }
        None => Check::skipped(name, "nothing can be written to the store's directory"),
    }
}

/// `12.3 GiB`.
pub(super) fn gib(bytes: u64) -> String {
    let tenths = bytes / ((1 << 30) / 10);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::error::{Error, Kind};

    #[test]
    fn a_store_without_reflinks_works_at_a_price() {
        assert_eq!(reflinks(Some(true)).outcome, Outcome::Ok);
        let without = reflinks(Some(false));
        assert_eq!(without.outcome, Outcome::Warning);
        assert!(without.hint.unwrap().contains("XFS"));
        assert_eq!(reflinks(None).outcome, Outcome::Skipped);
    }

    #[test]
    fn a_directory_that_is_no_store_fails_as_a_bake_would() {
        let at = Path::new("/var/lib/ebs-bake");
        assert!(store_directory(at, false, &Ok(true)).detail.ends_with("made when it is needed"));
        let foreign = Err(Error::new(Kind::Usage, "not empty"));
        assert_eq!(store_directory(at, true, &foreign).outcome, Outcome::Failure(Kind::Usage));
    }

    #[test]
    fn room_is_counted_in_tenths() {
        assert_eq!((gib(0), gib(3 << 29), gib(10 << 30)), ("0.0 GiB".into(), "1.5 GiB".into(), "10.0 GiB".into()));
        assert_eq!((room(ROOM_BYTES).outcome, room(1).outcome), (Outcome::Ok, Outcome::Warning));
    }
}
