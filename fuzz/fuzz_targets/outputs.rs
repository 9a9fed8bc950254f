//! Names and values that others chose, separated by NUL, in everything that is handed on or shown.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use ebs_bake::doctor::{Check, Outcome, table};
use ebs_bake::error::{Error, Kind};
use ebs_bake::report::outputs::Outputs;
use ebs_bake::report::{Change, Phase, PhaseRecord, escape, summary};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/support/dotenv.rs"]
mod dotenv;

fuzz_target!(|text: &str| {
    let mut parts = text.split('\0');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let outputs = outputs(&mut part);
    // Who reads the file of `--output-env` gets what was written, and runs or expands none of it.
    let variables = dotenv::strict(outputs.to_env().as_bytes());
    if let Some(value) = variables.get("REPOSITORY") {
        assert_eq!(dotenv::decoded(value), outputs.repository);
    }
    let json: serde_json::Value = serde_json::from_str(&outputs.to_json()).expect("JSON");
    assert_eq!(json["ref"].as_str(), outputs.reference.as_deref());
    let github = github(&outputs.to_github_output());
    assert_eq!(github.get("ref").map(String::as_str), outputs.reference.as_deref());
    assert_eq!(github.get("repository"), Some(&outputs.repository));
    page(&summary::markdown(&outputs));
    page(&summary::failure(&Error::new(Kind::Git, part()).hint(part()), &outputs.phases));
    lines(text, part());
});

fn outputs(part: &mut impl FnMut() -> String) -> Outputs {
    Outputs {
        snapshot_id: "snap-0123456789abcdef0".parse().expect("an ID"),
        volume_id: None,
        commit: part(),
        reference: Some(part()),
        repository: part(),
        key: part(),
        reused: false,
        store: part(),
        region: Some(part()),
        size_gib: 8,
        changed_blocks: Some(9),
        copies: Vec::new(),
        ssm_parameter: Some(part()),
        rollout: None,
        duration: Duration::from_millis(4250),
        phases: vec![PhaseRecord {
            phase: Phase::Checkout,
            started: Duration::ZERO,
            elapsed: Duration::from_secs(1),
            change: Some(Change::Created),
            detail: part(),
        }],
    }
}

/// The outputs of a step as GitHub reads them.
fn github(text: &str) -> BTreeMap<String, String> {
    let mut outputs = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (head, after) = rest.split_once('\n').expect("a line");
        let (name, delimiter) = head.split_once("<<").expect("a name and a delimiter");
        let end = format!("\n{delimiter}\n");
        let (value, after) = after.split_once(&end).expect("an end");
        assert_eq!(outputs.insert(name.to_owned(), value.to_owned()), None);
        rest = after;
    }
    outputs
}

/// No markup but our own: whatever was handed in stands in `<code>` with its punctuation written as numbers.
fn page(markdown: &str) {
    assert!(!markdown.chars().any(|c| c.is_control() && c != '\n'), "{markdown:?}");
    let tags = markdown.matches('<').count();
    assert_eq!(tags, markdown.matches("<code>").count() + markdown.matches("</code>").count(), "{markdown:?}");
    for line in markdown.lines().filter(|line| line.starts_with('|')) {
        assert!(line.matches('|').count() <= 5, "{line:?}");
    }
}

/// What is shown is one line.
fn lines(text: &str, hint: String) {
    let line = escape::line(text);
    assert!(!line.chars().any(char::is_control) && !line.contains("##["), "{line:?}");
    assert!(!escape::json(text).contains("##["));
    assert!(!escape::workflow_property(text).contains(['\n', '\r', ':', ',']));
    let check = Check { name: "volume", outcome: Outcome::Ok, detail: text.to_owned(), hint: Some(hint) };
    let table = table::table(&[check]);
    assert!(!table.chars().any(|c| c.is_control() && c != '\n'), "{table:?}");
}
