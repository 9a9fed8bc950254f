//! The page of a CI run: the result and where the time went, as Markdown.

use std::fmt::Write as _;

use super::console::{seconds, short_ref};
use super::outputs::Outputs;
use super::{PhaseRecord, escape};
use crate::error::Error;

/// The Markdown for `$GITHUB_STEP_SUMMARY` after a run that went well.
pub fn markdown(outputs: &Outputs) -> String {
    let verb = match (outputs.reused, &outputs.rollout) {
        (true, None) => "Reused",
        (false, None) => "Baked",
        (true, Some(_)) => "Rolled out",
        (false, Some(_)) => "Baked and rolled out",
    };
    let mut page = format!("### {verb} {}\n\n", escape::markdown(outputs.snapshot_id.as_str()));
    page += "| | |\n|---|---|\n";
    for (name, value) in outputs.texts() {
        let value = if name == "ref" { short_ref(&value).to_owned() } else { value };
        row(&mut page, name, &[&escape::markdown(&value)]);
    }
    page + &times(&outputs.phases)
}

/// The same after one that failed: what went wrong, and how far it came.
pub fn failure(error: &Error, phases: &[PhaseRecord]) -> String {
    let mut page = format!("### Failed: {}\n\n", escape::markdown(&error.to_string()));
    if let Some(hint) = error.hint_text() {
        page += &format!("{}\n", escape::markdown(hint));
    }
    page + &times(phases)
}

/// A table and a chart of the phases.
fn times(phases: &[PhaseRecord]) -> String {
    let mut page = String::new();
    if phases.is_empty() {
        return page;
    }
    page += "\n| phase | time | change | result |\n|---|--:|---|---|\n";
    for record in phases {
        let change = record.change.map_or("failed", |change| change.name());
        let detail = if record.detail.is_empty() { String::new() } else { escape::markdown(&record.detail) };
        row(&mut page, record.phase.name(), &[&seconds(record.elapsed), change, &detail]);
    }
    page + "\n" + &gantt(phases)
}

fn row(page: &mut String, name: &str, cells: &[&str]) {
    writeln!(page, "| {name} | {} |", cells.join(" | ")).expect("a string takes all");
}

/// A Mermaid chart. Times are milliseconds since the start; nothing but our own words and numbers goes in.
fn gantt(phases: &[PhaseRecord]) -> String {
    let mut chart = String::from("```mermaid\ngantt\n    dateFormat x\n    axisFormat %M:%S\n");
    for record in phases {
        let mark = if record.change.is_none() { "crit, " } else { "" };
        let length = record.elapsed.as_millis().max(1);
        writeln!(chart, "    {} :{mark}{}, {length}ms", record.phase.name(), record.started.as_millis())
            .expect("a string takes all");
    }
    chart + "```\n"
}
