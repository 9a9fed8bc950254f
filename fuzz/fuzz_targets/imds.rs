//! The instance's identity as the metadata service tells it.
#![no_main]

use ebs_bake::host::identity::Document;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(Document { instance_id, availability_zone, region }) = Document::parse(text) {
        for word in [&instance_id, &availability_zone, &region] {
            assert!(word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && !word.is_empty(), "{word:?}");
        }
    }
});
