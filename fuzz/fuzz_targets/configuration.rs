//! `ebs-bake.yml`, and the values of options.
#![no_main]

use ebs_bake::config::{file, values};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(layer) = file::parse(text, "ebs-bake.yml") else { return };
    let mut json = serde_json::Map::new();
    for entry in &layer.entries {
        let twice = json.insert(entry.key.clone(), entry.value.clone().into());
        assert_eq!(twice, None, "a key is there twice");
        value(&entry.value);
    }
    // JSON is YAML, but for some characters.
    let odd = |c: char| c.is_control() || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}' | '\u{2028}' | '\u{2029}');
    if !text.contains(odd) && !text.contains('\\') {
        let json = serde_json::Value::from(json).to_string();
        let again = file::parse(&json, "ebs-bake.yml").expect("JSON is YAML");
        let pairs = |layer: &ebs_bake::config::layers::Layer| -> Vec<(String, String)> {
            layer.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect()
        };
        assert_eq!(pairs(&again), pairs(&layer));
    }
});

fn value(text: &str) {
    let plain = |name: String| assert!(!name.chars().any(char::is_control), "{name:?}");
    values::text(text).map(plain).unwrap_or_default();
    values::volume_name(text).map(plain).unwrap_or_default();
    values::word(text).map(plain).unwrap_or_default();
    values::device(text).map(plain).unwrap_or_default();
    values::instance_id(text).map(plain).unwrap_or_default();
    values::launch_template(text).map(plain).unwrap_or_default();
    values::parameter(text).map(plain).unwrap_or_default();
    for (key, value) in values::tags(text).unwrap_or_default() {
        plain(key.clone() + &value);
        assert!(!key.is_empty() && !key.starts_with("aws:"), "{key:?}");
    }
    assert!(values::size_gib(text).is_ok_and(|size| size > 0) || values::size_gib(text).is_err());
    let _ = (values::duration(text), values::copies(text), values::accounts(text), values::names(text));
    let _ = (values::checkpoints(text), values::commit(text), values::submodules(text), values::command(text));
}
