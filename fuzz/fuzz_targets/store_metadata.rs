//! What the embedded store says of its volumes and snapshots.
#![no_main]

libfuzzer_sys::fuzz_target!(|json: &[u8]| ebs_bake::storage::local::fuzzing::metadata(json));
