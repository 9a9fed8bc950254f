//! What the store writes about a volume or a snapshot: JSON, parsed strictly, trusted for nothing but itself.
//!
//! The files are an interface: `docs/local-store.md`.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, OrFail, Result};
use crate::storage::{SnapshotId, Tags, VolumeId};

/// The version of the store's layout and of its records that this program writes; it reads this one and older ones.
pub(super) const FORMAT: u32 = 1;
/// No record is larger than this: EC2's limits (50 tags of 128 + 256 characters) fit, however they are escaped.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// The bytes of one GiB, the unit of all sizes.
pub(super) const GIB: u64 = 1 << 30;

/// What `volume.json` and `snapshot.json` have in common.
pub(super) trait Record: Serialize + DeserializeOwned + Debug {
    /// What names it.
    type Id: FromStr<Err = Error> + Display + Debug + Clone + Ord;
    /// What it is called in messages.
    const NOUN: &'static str;
    /// The directory in the store where all of them are.
    const FOLDER: &'static str;
    /// The name of the file.
    const FILE: &'static str;

    fn id(&self) -> &Self::Id;
    /// When the thing was made, for the order of lists.
    fn made(&self) -> Timestamp;
    /// Whether an image of this many bytes can belong to it; if not, why.
    fn check_len(&self, bytes: u64) -> Result<(), String>;
}

/// `volume.json`: written once; what changes later (size, attachment) is read from the image and the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VolumeRecord {
    pub format: u32,
    pub id: VolumeId,
    /// The size it was made with. It may have grown since: the image's length counts.
    pub size_gib: u32,
    #[serde(default)]
    pub tags: Tags,
    pub source: Option<SnapshotId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    pub created: Timestamp,
}

/// `snapshot.json`: written once, together with the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotRecord {
    pub format: u32,
    pub id: SnapshotId,
    pub volume: VolumeId,
    pub size_gib: u32,
    #[serde(default)]
    pub tags: Tags,
    #[serde(default)]
    pub description: String,
    pub started: Timestamp,
    pub parent: Option<SnapshotId>,
    pub changed_blocks: u64,
}

impl Record for VolumeRecord {
    type Id = VolumeId;
    const NOUN: &'static str = "volume";
    const FOLDER: &'static str = "volumes";
    const FILE: &'static str = "volume.json";

    fn id(&self) -> &VolumeId {
        &self.id
    }

    fn made(&self) -> Timestamp {
        self.created
    }

    fn check_len(&self, bytes: u64) -> Result<(), String> {
        if bytes == 0 || !bytes.is_multiple_of(GIB) || bytes < u64::from(self.size_gib) * GIB {
            return Err(format!("its image has {bytes} bytes, which is not {} GiB or a larger number of GiB", self.size_gib));
        }
        Ok(())
    }
}

impl Record for SnapshotRecord {
    type Id = SnapshotId;
    const NOUN: &'static str = "snapshot";
    const FOLDER: &'static str = "snapshots";
    const FILE: &'static str = "snapshot.json";

    fn id(&self) -> &SnapshotId {
        &self.id
    }

    fn made(&self) -> Timestamp {
        self.started
    }

    fn check_len(&self, bytes: u64) -> Result<(), String> {
        if bytes == 0 || bytes != u64::from(self.size_gib) * GIB {
            return Err(format!("its image has {bytes} bytes, which is not {} GiB", self.size_gib));
        }
        Ok(())
    }
}

/// Reads a record that must be the one of `id`; says what is wrong with it otherwise.
pub(super) fn parse<R: Record>(json: &[u8], id: &R::Id) -> Result<R, String> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    let file = R::FILE;
    if json.len() > MAX_BYTES {
        return Err(format!("{file} is larger than {MAX_BYTES} bytes"));
    }
    // The version first: a newer record need not look like ours.
    let Versioned { format } = serde_json::from_slice(json).map_err(|error| format!("{file} is not valid: {error}"))?;
    if format > FORMAT {
        return Err(format!("{file} has format {format}, written by a newer ebs-bake than this one"));
    }
    let record: R = serde_json::from_slice(json).map_err(|error| format!("{file} is not valid: {error}"))?;
    if record.id() != id {
        return Err(format!("{file} is that of {}", record.id()));
    }
    Ok(record)
}

/// The text of a record. Too many or too long tags are an error of kind `Usage`.
pub(super) fn render<R: Record>(record: &R) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(record).or_fail(Kind::Storage, || format!("cannot write {}", R::FILE))?;
    json.push(b'\n');
    if json.len() > MAX_BYTES {
        return Err(Error::new(Kind::Usage, format!("the tags of a {} take more than {MAX_BYTES} bytes", R::NOUN)));
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> VolumeRecord {
        VolumeRecord {
            format: FORMAT,
            id: "vol-0123456789abcdef0".parse().unwrap(),
            size_gib: 2,
            tags: Tags::from([("Name".into(), "chef \u{1F373}\n".into()), ("empty".into(), String::new())]),
            source: None,
            token: None,
            created: "2026-01-02T03:04:05.000000006Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_record_survives_being_written_and_read() {
        let record = volume();
        assert_eq!(parse::<VolumeRecord>(&render(&record).unwrap(), &record.id).unwrap(), record);
    }

    #[test]
    fn the_first_format_is_read_forever_and_unknown_fields_are_tolerated() {
        let json = br#"{"format":1,"id":"snap-0123456789abcdef0","volume":"vol-0123456789abcdef0","size_gib":1,"tags":{"a":"b"},
            "description":"d","started":"2026-01-02T03:04:05Z","parent":null,"changed_blocks":7,"later":[1]}"#;
        let record: SnapshotRecord = parse(json, &"snap-0123456789abcdef0".parse().unwrap()).unwrap();
        assert_eq!((record.changed_blocks, record.tags["a"].as_str()), (7, "b"));
    }

    #[test]
    fn what_is_wrong_with_a_record_is_said() {
        let record = volume();
        let good = String::from_utf8(render(&record).unwrap()).unwrap();
        for (json, reason) in [
            (String::new(), "not valid"),
            (good[..good.len() / 2].to_owned(), "not valid"),
            (good.replace("\"format\": 1", "\"format\": 2"), "newer ebs-bake"),
            ("{\"format\": 9}".to_owned(), "newer ebs-bake"),
            (good.replace("abcdef0", "abcdef1"), "is that of vol-0123456789abcdef1"),
            (good.replace("vol-0123456789abcdef0", "../../../etc"), "not an ID"),
            (good.replace("\"size_gib\": 2", "\"size_gib\": -1"), "not valid"),
            (format!("{good}{}", " ".repeat(MAX_BYTES)), "larger than"),
        ] {
            let error = parse::<VolumeRecord>(json.as_bytes(), &record.id).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn tags_beyond_reason_are_refused_before_they_are_written() {
        let mut record = volume();
        record.tags.insert("big".into(), "x".repeat(MAX_BYTES));
        assert_eq!(render(&record).unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn a_volume_may_have_grown_and_never_shrunk() {
        let record = volume();
        let fits = |bytes| record.check_len(bytes).is_ok();
        assert!(fits(2 * GIB) && fits(3 * GIB));
        assert!(!fits(0) && !fits(GIB) && !fits(2 * GIB + 512));
    }
}
