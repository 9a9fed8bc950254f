//! git's index on a volume.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| ebs_bake::checkout::fuzzing::index(body));
