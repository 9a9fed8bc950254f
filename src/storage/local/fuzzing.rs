//! Ways for the fuzz targets (`fuzz/`) to what is private here; compiled with `--cfg fuzzing` alone.

use super::metadata::{MAX_BYTES, Record, SnapshotRecord, VolumeRecord, parse, render};

/// `volume.json` and `snapshot.json` of a store.
pub fn metadata(json: &[u8]) {
    record::<VolumeRecord>(json, "vol-0123456789abcdef0");
    record::<SnapshotRecord>(json, "snap-0123456789abcdef0");
}

fn record<R: Record + PartialEq>(json: &[u8], id: &str) {
    let id = id.parse().expect("an ID");
    let Ok(record) = parse::<R>(json, &id) else { return };
    assert_eq!(record.id().to_string(), id.to_string(), "the record of something else is taken");
    for bytes in [0, 1, 1 << 30, u64::MAX, 1 << 62] {
        let _ = record.check_len(bytes);
    }
    // Whitespace that is left out, or put in, may move it over the limit.
    let Ok(written) = render(&record) else { return };
    assert!(written.len() <= MAX_BYTES);
    assert_eq!(parse::<R>(&written, &id).as_ref(), Ok(&record));
}
