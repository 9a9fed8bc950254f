//! Reading the examples.

use std::fs;

use serde_yaml::{Mapping, Value};

use crate::ci_host::{Variables, example};

pub fn text(file: &str) -> String {
    fs::read_to_string(example("ci-examples").join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

pub fn load(file: &str) -> Value {
    serde_yaml::from_str(&text(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

pub fn string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => panic!("{other:?} is no text"),
    }
}

/// Names and values; nothing where there is no such mapping.
pub fn mapping(value: &Value) -> Variables {
    value.as_mapping().into_iter().flatten().map(|(name, value)| (string(name), string(value))).collect()
}

pub fn list(value: &Value) -> &[Value] {
    value.as_sequence().map_or(&[], Vec::as_slice)
}

/// The keys of a mapping are among these: what is not known here is not run as the system would.
#[track_caller]
pub fn only<'a>(value: &'a Value, keys: &[&str]) -> &'a Mapping {
    let mapping = value.as_mapping().unwrap();
    for key in mapping.keys() {
        assert!(keys.contains(&string(key).as_str()), "{key:?} is not understood here");
    }
    mapping
}

/// Replaces each `open NAME close` whose name is known, as systems do before a script is run.
pub fn replaced(text: &str, open: &str, close: &str, value_of: impl Fn(&str) -> Option<String>) -> String {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(open) {
        done.push_str(before);
        let found = after.split_once(close).and_then(|(name, after)| Some((value_of(name.trim())?, after)));
        match found {
            Some((value, after)) => {
                done.push_str(&value);
                rest = after;
            }
            None => {
                done.push_str(open);
                rest = after;
            }
        }
    }
    done + rest
}
