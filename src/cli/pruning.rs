//! `prune`: what became of snapshots, as a table or as JSON.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::listing::{WIDTH, age, commit};
use crate::key::tag;
use crate::report::escape;
use crate::report::table::{self, Column};
use crate::retention::prune::{Row, Wish};

/// The version of the JSON object; raised when a field changes its meaning or goes.
pub const VERSION: u32 = 1;
const COLUMNS: [Column; 5] =
    [Column::text("SNAPSHOT"), Column::text("COMMIT"), Column::number("AGE"), Column::text("ACTION"), Column::text("WHY")];

/// A line for each snapshot, more where there is much to say.
pub fn table(rows: &[Row], now: Timestamp) -> String {
    if rows.is_empty() {
        return "no snapshots\n".to_owned();
    }
    let row = |row: &Row| {
        let Row { snapshot, action, why } = row;
        let age = age(snapshot.started, now);
        vec![snapshot.id.to_string(), commit(snapshot), age, action.name().to_owned(), why.join("; ")]
    };
    table::table(&COLUMNS, rows.iter().map(row).collect(), WIDTH)
}

/// The JSON object: `version`, what was wished, and `snapshots` in the order of the table.
pub fn json(rows: &[Row], wish: &Wish) -> String {
    let entry = |row: &Row| -> Value {
        let Row { snapshot, action, why } = row;
        let tag = |name: &str| snapshot.tags.get(name);
        json!({
            "snapshot-id": snapshot.id,
            "volume-name": tag(tag::VOLUME),
            "commit": tag(tag::COMMIT),
            "ref": tag(tag::REF),
            "started": snapshot.started.to_string(),
            "action": action.name(),
            "why": why,
        })
    };
    let snapshots: Vec<Value> = rows.iter().map(entry).collect();
    let object = json!({
        "version": VERSION,
        "dry-run": wish.dry_run,
        "keep": wish.policy.keep,
        "keep-days": wish.policy.keep_days,
        "snapshots": snapshots,
    });
    escape::json(&format!("{object:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::plan::Policy;
    use crate::retention::prune::Action;
    use crate::storage::{Snapshot, SnapshotState};

    fn row(number: u32, action: Action, why: &[&str]) -> Row {
        let tags = [(tag::COMMIT, "0123456789abcdef0123456789abcdef01234567"), (tag::VOLUME, "chef")];
        let snapshot = Snapshot {
            id: format!("snap-{number:08x}").parse().unwrap(),
            state: SnapshotState::Completed,
            volume: None,
            size_gib: 8,
            tags: tags.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect(),
            description: String::new(),
            started: Timestamp::UNIX_EPOCH,
            parent: None,
            changed_blocks: None,
        };
        Row { snapshot, action, why: why.iter().map(|why| (*why).to_owned()).collect() }
    }

    fn rows() -> Vec<Row> {
        let why = [
            "older than 30 days",
            "not one of the newest 10 of chef",
            "not needed by template chef v3 (old), template\u{1b}[2J v4 (old)",
        ];
        vec![row(2, Action::Kept, &["used by group web"]), row(1, Action::Deleted, &why)]
    }

    #[test]
    fn the_table_fits() {
        let now = Timestamp::from_second(40 * 86_400).unwrap();
        let expected = "\
SNAPSHOT       COMMIT        AGE  ACTION   WHY
snap-00000002  0123456789ab  40d  kept     used by group web
snap-00000001  0123456789ab  40d  deleted  older than 30 days; not one of the newest 10 of chef; not needed by template
                                           chef v3 (old), template\\u{1b}[2J v4 (old)
";
        assert_eq!(table(&rows(), now), expected);
        assert_eq!(table(&[], now), "no snapshots\n");
    }

    #[test]
    fn json_has_everything() {
        let policy = Policy { keep: 10, keep_days: 30, include_shared: false };
        let wish = Wish { policy, volume_name: None, parameter: None, dry_run: true };
        let value: Value = serde_json::from_str(&json(&rows(), &wish)).unwrap();
        assert_eq!((&value["version"], &value["dry-run"], &value["keep-days"]), (&json!(1), &json!(true), &json!(30)));
        let second = &value["snapshots"][1];
        assert_eq!((&second["snapshot-id"], &second["action"]), (&json!("snap-00000001"), &json!("deleted")));
        assert_eq!((&second["volume-name"], &second["why"][0]), (&json!("chef"), &json!("older than 30 days")));
    }
}
