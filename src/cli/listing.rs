//! `list`: snapshots as a table or as JSON.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::key::tag;
use crate::report::console::short_ref;
use crate::report::escape;
use crate::report::table::{self, Column};
use crate::retention::usage::{Holder, Lookup, TemplateVersion, Usage, Users, VolumeUser};
use crate::storage::{Snapshot, SnapshotState};

/// The version of the JSON object; raised when a field changes its meaning or goes.
pub const VERSION: u32 = 1;
/// Longer refs are cut in the table.
const REF_WIDTH: usize = 20;
/// So much of the key tells two of them apart.
const KEY_WIDTH: usize = 8;
const COLUMNS: [Column; 8] = [
    Column::text("SNAPSHOT"),
    Column::text("COMMIT"),
    Column::text("REF").at_most(REF_WIDTH),
    Column::text("STATE"),
    Column::number("AGE"),
    Column::number("SIZE"),
    Column::text("KEY"),
    Column::text("USED BY"),
];
/// The table is no wider, if its last column has room.
pub(super) const WIDTH: usize = 120;

/// A table, newest first; what is wrong with damaged snapshots stands below it.
pub fn table(snapshots: &[Snapshot], usage: &Usage, now: Timestamp) -> String {
    if snapshots.is_empty() {
        return "no snapshots\n".to_owned();
    }
    let rows = snapshots.iter().rev().map(|snapshot| row(snapshot, usage, now)).collect();
    let mut text = table::table(&COLUMNS, rows, WIDTH);
    for snapshot in snapshots.iter().rev() {
        if let Some(why) = snapshot.state.trouble() {
            text += &format!("{}: {}\n", snapshot.id, escape::line(why));
        }
    }
    text
}

fn row(snapshot: &Snapshot, usage: &Usage, now: Timestamp) -> Vec<String> {
    let tag = |name: &str| snapshot.tags.get(name).map(String::as_str).unwrap_or("-");
    let state = match snapshot.state {
        SnapshotState::Pending(Some(percent)) => format!("pending {percent} %"),
        ref state => state.name().to_owned(),
    };
    vec![
        snapshot.id.to_string(),
        commit(snapshot),
        short_ref(tag(tag::REF)).to_owned(),
        state,
        age(snapshot.started, now),
        format!("{} GiB", snapshot.size_gib),
        tag(tag::KEY).chars().take(KEY_WIDTH).collect(),
        users(snapshot, usage),
    ]
}

/// Who refers to a snapshot; `-`: nobody, `?`: perhaps somebody else.
fn users(snapshot: &Snapshot, usage: &Usage) -> String {
    let users = usage.of(&snapshot.id);
    let mut words = [users.needs(), users.refers()].concat();
    if !usage.is_complete() {
        words.push("?".to_owned());
    }
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

/// The first digits of the commit's SHA.
pub(super) fn commit(snapshot: &Snapshot) -> String {
    snapshot.tags.get(tag::COMMIT).map_or("-", String::as_str).chars().take(12).collect()
}

/// `40s`, `12m`, `5h`, `3d`.
pub(super) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The JSON object: `version` and `snapshots`, oldest first.
pub fn json(snapshots: &[Snapshot], usage: &Usage) -> String {
    let entry = |snapshot: &Snapshot| -> Value {
        let tag = |name: &str| snapshot.tags.get(name);
        let percent = match &snapshot.state {
            SnapshotState::Pending(percent) => *percent,
            SnapshotState::Completed => Some(100),
            SnapshotState::Error(_) | SnapshotState::PutAway(_) => None,
        };
        let users = usage.of(&snapshot.id);
        let in_use = (usage.is_complete() || !users.needs().is_empty()).then(|| !users.needs().is_empty());
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
            "error": snapshot.state.trouble(),
            "started": snapshot.started.to_string(),
            "size-gib": snapshot.size_gib,
            "parent": snapshot.parent,
            "changed-blocks": snapshot.changed_blocks,
            "in-use": in_use,
            "used-by": used_by(&users, usage),
        })
    };
    let snapshots: Vec<Value> = snapshots.iter().map(entry).collect();
    escape::json(&format!("{:#}\n", json!({ "version": VERSION, "snapshots": snapshots })))
}

/// Everybody who refers to a snapshot, by kind; `null` for a kind that could not be looked for.
fn used_by(users: &Users, usage: &Usage) -> Value {
    let knows = |lookups: &[Lookup]| lookups.iter().all(|lookup| usage.knows(*lookup));
    let known = |lookups: &[Lookup], found: Value| if knows(lookups) { found } else { Value::Null };
    let version = |version: &TemplateVersion| {
        let TemplateVersion { template_id, template, number, default, latest, pinned } = version;
        json!({
            "template-id": template_id,
            "template": template,
            "version": number,
            "default": default,
            "latest": latest,
            "pinned": known(&[Lookup::Groups], json!(pinned)),
        })
    };
    let volume = |volume: &VolumeUser| {
        let holder = match &volume.holder {
            Holder::Nobody => None,
            Holder::Store => Some("store"),
            Holder::Here => Some("here"),
            Holder::Instance(id) => Some(id.as_str()),
        };
        json!({ "volume-id": volume.id, "held-by": holder })
    };
    json!({
        "template-versions": known(&[Lookup::Templates], users.templates.iter().map(version).collect()),
        "launch-configurations": known(&[Lookup::Configurations], json!(users.configurations)),
        "groups": known(&[Lookup::Groups, Lookup::Templates, Lookup::Configurations], json!(users.groups)),
        "instances": known(&[Lookup::Volumes], json!(users.instances())),
        "volumes": known(&[Lookup::Volumes], users.volumes.iter().map(volume).collect()),
        "images": known(&[Lookup::Images], json!(users.images)),
        "ssm-parameter": users.parameter,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};
    use crate::storage::{SnapshotId, Tags};

    fn snapshot(id: &str, started: i64, reference: &str, state: SnapshotState) -> Snapshot {
        let tags = [(tag::COMMIT, "0123456789abcdef0123456789abcdef01234567"), (tag::REF, reference), (tag::KEY, "0123abcdef")];
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

    fn id(number: u32) -> SnapshotId {
        format!("snap-{number:08x}").parse().unwrap()
    }

    /// The first is launched and held, the second was.
    fn used() -> Usage {
        let mut usage = Usage::default();
        let version = |number, latest| TemplateVersion {
            template_id: "lt-1".into(),
            template: "chef".into(),
            number,
            default: false,
            latest,
            pinned: false,
        };
        let volume = |number: u32, holder| VolumeUser { id: format!("vol-{number:08x}").parse().unwrap(), holder };
        let first = usage.entry(&id(1));
        first.templates.insert(version(12, true));
        first.groups.insert("web\n".into());
        first.volumes.extend((1..4).map(|number| volume(number, Holder::Instance(format!("i-{number}")))));
        first.volumes.insert(volume(4, Holder::Nobody));
        usage.entry(&id(2)).templates.insert(version(3, false));
        usage
    }

    fn denied(lookup: Lookup, mut usage: Usage) -> Usage {
        usage.add(lookup, Err::<(), _>(Error::new(Kind::Permission, "no")), |_, ()| {});
        usage
    }

    #[test]
    fn a_table_is_aligned_whatever_the_refs_are_and_fits() {
        let now = Timestamp::from_second(90_010).unwrap();
        let expected = "\
SNAPSHOT       COMMIT        REF                   STATE         AGE   SIZE  KEY       USED BY
snap-00000003  -             -                     pending 40 %  10s  8 GiB  -         -
snap-00000002  0123456789ab  \\u{202e}v1\\n\\u{1b}[…  error          1h  8 GiB  0123abcd  template chef v3 (old)
snap-00000001  0123456789ab  main                  completed      1d  8 GiB  0123abcd  template chef v12 (latest), group
                                                                                       web\\n, 3 instances, volume
                                                                                       vol-00000004 (free)
snap-00000002: truncated\\nimage
";
        assert_eq!(table(&several(), &used(), now), expected);
        assert_eq!(table(&[], &Usage::default(), Timestamp::UNIX_EPOCH), "no snapshots\n");
    }

    #[test]
    fn what_is_not_known_is_not_taken_for_unused() {
        let usage = denied(Lookup::Groups, used());
        let cells: Vec<String> = several().iter().map(|snapshot| users(snapshot, &usage)).collect();
        assert_eq!(cells[1..], ["template chef v3 (old), ?", "?"]);
        let value: Value = serde_json::from_str(&json(&several(), &usage)).unwrap();
        let used_by = |number: usize| &value["snapshots"][number]["used-by"];
        assert_eq!((&value["snapshots"][0]["in-use"], &value["snapshots"][1]["in-use"]), (&json!(true), &Value::Null));
        assert_eq!((&used_by(0)["groups"], &used_by(0)["template-versions"][0]["pinned"]), (&Value::Null, &Value::Null));
        assert_eq!((&used_by(2)["instances"], &used_by(2)["images"]), (&json!([]), &json!([])));
        let value: Value = serde_json::from_str(&json(&several(), &denied(Lookup::Volumes, Usage::default()))).unwrap();
        assert_eq!(value["snapshots"][0]["used-by"]["volumes"], Value::Null);
    }

    #[test]
    fn json_has_everything() {
        let value: Value = serde_json::from_str(&json(&several(), &used())).unwrap();
        assert_eq!(value["version"], 1);
        let (first, second) = (&value["snapshots"][0], &value["snapshots"][1]);
        assert_eq!(second["error"], "truncated\nimage");
        assert_eq!(second["started"], "1970-01-02T00:00:00Z");
        assert_eq!(value["snapshots"][2]["commit"], Value::Null);
        assert_eq!(value["snapshots"][2]["percent"], 40);
        assert_eq!((&first["in-use"], &second["in-use"]), (&json!(true), &json!(false)));
        let version = json!({
            "template-id": "lt-1", "template": "chef", "version": 12, "default": false, "latest": true, "pinned": false
        });
        assert_eq!(first["used-by"]["template-versions"], json!([version]));
        assert_eq!(first["used-by"]["instances"], json!(["i-1", "i-2", "i-3"]));
        assert_eq!(first["used-by"]["volumes"][3], json!({ "volume-id": "vol-00000004", "held-by": null }));
        assert_eq!(first["used-by"]["groups"], json!(["web\n"]));
    }
}
