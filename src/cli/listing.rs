//! `list`: snapshots as a table or as JSON.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::key::tag;
use crate::report::console::short_ref;
use crate::report::escape;
use crate::report::table::{self, Column};
use crate::storage::{Snapshot, SnapshotState};

/// The version of the JSON object; raised when a field changes its meaning or goes.
pub const VERSION: u32 = 1;
/// Longer refs are cut in the table.
const REF_WIDTH: usize = 40;
const COLUMNS: [Column; 7] = [
    Column::text("COMMIT"),
    Column::text("REF").at_most(REF_WIDTH),
    Column::text("STATE"),
    Column::number("AGE"),
    Column::number("SIZE"),
    Column::number("CHANGED"),
    Column::text("SNAPSHOT"),
];
/// The table is no wider.
const WIDTH: usize = 120;

/// A table, newest first; what is wrong with damaged snapshots stands below it.
pub fn table(snapshots: &[Snapshot], now: Timestamp) -> String {
    if snapshots.is_empty() {
        return "no snapshots\n".to_owned();
    }
    let rows = snapshots.iter().rev().map(|snapshot| row(snapshot, now)).collect();
    let mut text = table::table(&COLUMNS, rows, WIDTH);
    for snapshot in snapshots.iter().rev() {
        if let SnapshotState::Error(why) = &snapshot.state {
            text += &format!("{}: {}\n", snapshot.id, escape::line(why));
        }
    }
    text
}

fn row(snapshot: &Snapshot, now: Timestamp) -> Vec<String> {
    let tag = |name: &str| snapshot.tags.get(name).map(String::as_str).unwrap_or("-");
    let state = match snapshot.state {
        SnapshotState::Pending(Some(percent)) => format!("pending {percent} %"),
        ref state => state.name().to_owned(),
    };
    vec![
        tag(tag::COMMIT).chars().take(12).collect(),
        short_ref(tag(tag::REF)).to_owned(),
        state,
        age(snapshot.started, now),
        format!("{} GiB", snapshot.size_gib),
        snapshot.changed_blocks.map_or("-".to_owned(), |blocks| blocks.to_string()),
        snapshot.id.to_string(),
    ]
}

/// `40s`, `12m`, `5h`, `3d`.
fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The JSON object: `version` and `snapshots`, oldest first.
pub fn json(snapshots: &[Snapshot]) -> String {
    let entry = |snapshot: &Snapshot| -> Value {
        let tag = |name: &str| snapshot.tags.get(name);
        let (percent, error) = match &snapshot.state {
            SnapshotState::Pending(percent) => (*percent, None),
            SnapshotState::Completed => (Some(100), None),
            SnapshotState::Error(why) => (None, Some(why)),
        };
        json!({
            "snapshot-id": snapshot.id,
            "volume-id": snapshot.volume,
            "volume-name": tag(tag::VOLUME),
            "commit": tag(tag::COMMIT),
            "ref": tag(tag::REF),
            "repository": tag(tag::REPOSITORY),
            "key": tag(tag::KEY),
            "run-url": tag(tag::RUN_URL),
            "state": snapshot.state.name(),
            "percent": percent,
            "error": error,
            "started": snapshot.started.to_string(),
            "size-gib": snapshot.size_gib,
            "parent": snapshot.parent,
            "changed-blocks": snapshot.changed_blocks,
        })
    };
    let snapshots: Vec<Value> = snapshots.iter().map(entry).collect();
    escape::json(&format!("{:#}\n", json!({ "version": VERSION, "snapshots": snapshots })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Tags;

    fn snapshot(id: &str, started: i64, reference: &str, state: SnapshotState) -> Snapshot {
        let tags = [(tag::COMMIT, "0123456789abcdef0123456789abcdef01234567"), (tag::REF, reference)];
        Snapshot {
            id: id.parse().unwrap(),
            state,
            volume: None,
            size_gib: 8,
            tags: tags.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect(),
            description: String::new(),
            started: Timestamp::from_second(started).unwrap(),
            parent: None,
            changed_blocks: Some(u64::from(reference.len() as u32)),
        }
    }

    fn several() -> Vec<Snapshot> {
        let mut foreign = snapshot("snap-00000003", 90_000, "", SnapshotState::Pending(Some(40)));
        (foreign.tags, foreign.changed_blocks) = (Tags::new(), None);
        vec![
            snapshot("snap-00000001", 0, "refs/heads/main", SnapshotState::Completed),
            snapshot(
                "snap-00000002",
                86_400,
                "refs/tags/\u{202e}v1\n\u{1b}[2J日本",
                SnapshotState::Error("truncated\nimage".into()),
            ),
            foreign,
        ]
    }

    #[test]
    fn a_table_is_aligned_whatever_the_refs_are() {
        let expected = "\
COMMIT        REF                        STATE         AGE   SIZE  CHANGED  SNAPSHOT
-             -                          pending 40 %  10s  8 GiB        -  snap-00000003
0123456789ab  \\u{202e}v1\\n\\u{1b}[2J日本  error          1h  8 GiB       26  snap-00000002
0123456789ab  main                       completed      1d  8 GiB       15  snap-00000001
snap-00000002: truncated\\nimage
";
        assert_eq!(table(&several(), Timestamp::from_second(90_010).unwrap()), expected);
        assert_eq!(table(&[], Timestamp::UNIX_EPOCH), "no snapshots\n");
    }

    #[test]
    fn json_has_everything() {
        let value: Value = serde_json::from_str(&json(&several())).unwrap();
        assert_eq!(value["version"], 1);
        let second = &value["snapshots"][1];
        assert_eq!(second["error"], "truncated\nimage");
        assert_eq!(second["started"], "1970-01-02T00:00:00Z");
        assert_eq!(value["snapshots"][2]["commit"], Value::Null);
        assert_eq!(value["snapshots"][2]["percent"], 40);
    }
}
