//! JSON files of a chef-repo.
#![no_main]

use ebs_bake::chef::json;
use ebs_bake::chef::objects::{self, Source};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let mut told = 0;
    let read = json::read(text, &mut |path, _, line| {
        told += 1;
        assert!(path.len() <= 3 && line >= 1);
    });
    assert!(told <= text.len() + 1);
    // Chef takes more than is JSON, and nothing less.
    if serde_json::from_slice::<serde_json::Value>(text).is_ok() {
        assert_eq!(read, Ok(()), "JSON is refused");
    }
    let mut findings = Default::default();
    objects::role("roles/web.json", Source::Json(text), &mut findings);
    objects::environment("environments/prod.json", Source::Json(text), &mut findings);
    objects::node("nodes/a.json", text, &mut findings);
    objects::policy("policies/a.lock.json", text, &mut findings);
    objects::data_bag_item("data_bags/a/b.json", "b", text, &mut findings);
    objects::metadata("cookbooks/a/metadata.json", Source::Json(text), &mut findings);
});
