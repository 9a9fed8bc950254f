//! Which snapshot is rolled out, and whether it can be.

use super::Survey;
use crate::bake::decide;
use crate::config::rollout::{Choice, Fleet};
use crate::error::{Error, Kind, Result};
use crate::key::tag;
use crate::storage::{BlockStorage, Snapshot, SnapshotId, SnapshotQuery, SnapshotState, Tags};

/// The snapshot that is rolled out: completed, in this region, and of the volume's name.
///
/// # Errors
/// `Storage` for one that is not there, `Snapshot` for one that is not completed, `Usage` for one of another volume.
pub async fn choose(
    store: &dyn BlockStorage,
    survey: &Survey,
    choice: &Choice,
    volume_name: &str,
    fleet: &Fleet,
) -> Result<Snapshot> {
    if let Choice::Id(id) = choice {
        let found = store.snapshots(&SnapshotQuery { id: Some(id.clone()), ..SnapshotQuery::default() }).await?.pop();
        let region = store.region().unwrap_or_default();
        return check(found.ok_or_else(|| unknown(id, &region))?, volume_name);
    }
    let tags = Tags::from([(tag::VOLUME.to_owned(), volume_name.to_owned())]);
    let mut snapshots = store.snapshots(&SnapshotQuery { tags, ..SnapshotQuery::default() }).await?;
    if *choice == Choice::Previous {
        let current = one(survey.snapshots(fleet))?;
        let position = |id: &String| snapshots.iter().position(|snapshot| snapshot.id.as_str() == id);
        let Some(launched) = position(&current) else {
            let message = format!("machines are launched with {current}, which is no snapshot of volume {volume_name:?}");
            return Err(Error::new(Kind::Storage, message).hint("give --snapshot-id: `ebs-bake list` shows what there is"));
        };
        // Of a refresh that did not end well, there are machines with a newer one than new machines get.
        let running = survey.snapshots_of_machines(fleet).iter().filter_map(position).max();
        snapshots.truncate(running.map_or(launched, |running| running.max(launched)));
    }
    decide::lineage(&snapshots).cloned().ok_or_else(|| {
        let older = if *choice == Choice::Previous { "older " } else { "" };
        let message = format!("there is no {older}completed snapshot of volume {volume_name:?} in this region");
        Error::new(Kind::Storage, message).hint("`ebs-bake list` shows what there is; see --volume-name and --region")
    })
}

fn unknown(id: &SnapshotId, region: &str) -> Error {
    let message = format!("this account has no snapshot {id} in {region}");
    Error::new(Kind::Storage, message).hint("machines boot from snapshots of their own region: see --region, and bake --copy-to")
}

fn check(snapshot: Snapshot, volume_name: &str) -> Result<Snapshot> {
    let id = &snapshot.id;
    match snapshot.tags.get(tag::VOLUME) {
        Some(name) if name == volume_name => {}
        Some(name) => {
            let message = format!("snapshot {id} is of volume {name:?}, not {volume_name:?}");
            return Err(Error::new(Kind::Usage, message).hint("give its name by --volume-name, if it is the one you mean"));
        }
        None => {
            let message = format!("snapshot {id} was not made by ebs-bake: it has no tag {}", tag::VOLUME);
            return Err(Error::new(Kind::Usage, message).hint("`ebs-bake list` shows the snapshots that can be rolled out"));
        }
    }
    let why = match &snapshot.state {
        SnapshotState::Completed => return Ok(snapshot),
        SnapshotState::Pending(Some(percent)) => format!("is pending at {percent} %"),
        SnapshotState::Pending(None) => "is pending".to_owned(),
        SnapshotState::Error(why) | SnapshotState::PutAway(why) => format!("is unusable: {why}"),
    };
    let error = Error::new(Kind::Snapshot, format!("snapshot {id} {why}"));
    Err(match snapshot.state {
        SnapshotState::Pending(_) => {
            error.hint("run again when it is completed; `ebs-bake bake` without --no-wait waits for that")
        }
        _ => error,
    })
}

/// The one snapshot that all of it has.
fn one(mut snapshots: Vec<Option<String>>) -> Result<String> {
    snapshots.sort();
    snapshots.dedup();
    match snapshots.as_slice() {
        [Some(id)] => Ok(id.clone()),
        several => {
            let shown: Vec<&str> = several.iter().map(|id| id.as_deref().unwrap_or("none")).collect();
            let message = format!("--previous: machines are launched with different snapshots: {}", shown.join(", "));
            Err(Error::new(Kind::Usage, message).hint("give --snapshot-id, or roll out to one group after the other"))
        }
    }
}
