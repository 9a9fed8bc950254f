//! `list`: snapshots as a table or as JSON.

use jiff::Timestamp;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use crate::key::tag;
use crate::report::console::short_ref;
use crate::report::escape;
use crate::storage::{Snapshot, SnapshotState};

/// The version of the JSON object; raised when a field changes its meaning or goes.
pub const VERSION: u32 = 1;
/// Longer refs are cut in the table.
const REF_WIDTH: usize = 40;

const HEADINGS: [&str; 7] = ["COMMIT", "REF", "STATE", "AGE", "SIZE", "CHANGED", "SNAPSHOT"];
/// Which columns are numbers.
const RIGHT: [bool; 7] = [false, false, false, true, true, true, false];

/// A table, newest first; what is wrong with damaged snapshots stands below it.
pub fn table(snapshots: &[Snapshot], now: Timestamp) -> String {
    if snapshots.is_empty() {
        return "no snapshots\n".to_owned();
    }
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(snapshots.iter().rev().map(|snapshot| row(snapshot, now)));
    let width = |column: usize| rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text: String = rows.iter().map(|row| aligned(row, &widths)).collect();
    for snapshot in snapshots.iter().rev() {
        if let SnapshotState::Error(why) = &snapshot.state {
            text += &format!("{}: {}\n", snapshot.id, escape::line(why));
        }
    }
    text
}

fn row(snapshot: &Snapshot, now: Timestamp) -> [String; 7] {
    let tag = |name: &str| snapshot.tags.get(name).map(String::as_str).unwrap_or("-");
    let commit: String = tag(tag::COMMIT).chars().take(12).collect();
    let state = match snapshot.state {
        SnapshotState::Pending(Some(percent)) => format!("pending {percent} %"),
        ref state => state.name().to_owned(),
    };
    [
        escape::line(&commit),
        cut(&escape::line(short_ref(tag(tag::REF)))),
        state,
        age(snapshot.started, now),
        format!("{} GiB", snapshot.size_gib),
        snapshot.changed_blocks.map_or("-".to_owned(), |blocks| blocks.to_string()),
        snapshot.id.to_string(),
    ]
}

fn aligned(row: &[String; 7], widths: &[usize; 7]) -> String {
    let cells = row.iter().zip(widths).zip(RIGHT).map(|((cell, width), right)| {
        let padding = " ".repeat(width.saturating_sub(cell.width()));
        if right { padding + cell } else { cell.clone() + &padding }
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
}

/// At most `REF_WIDTH` columns.
fn cut(text: &str) -> String {
    if text.width() <= REF_WIDTH {
        return text.to_owned();
    }
    let mut short = String::new();
    for c in text.chars() {
        short.push(c);
        if short.width() >= REF_WIDTH {
            short.pop();
            break;
        }
    }
    short + "…"
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
