//! The manifest on a volume.
#![no_main]

use ebs_bake::checkout::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(manifest) = Manifest::parse(text) {
        assert_eq!(Manifest::parse(&manifest.to_json()).ok(), Some(manifest));
    }
});
