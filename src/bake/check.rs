//! The checks before a snapshot: what is on the volume, as it will be in the snapshot.

use std::collections::BTreeSet;
use std::path::Path;

use crate::bake::Context;
use crate::chef::{self, Checked, judge};
use crate::config::checks::OnFindings;
use crate::error::{Error, Kind, Result};
use crate::key::tag;
use crate::report::finding::{Finding, Severity};
use crate::report::{Change, Phase};
use crate::storage::Snapshot;

/// Findings that are told; the others are counted.
const TOLD: usize = 50;
/// Roles that a hint names.
const NAMED: usize = 12;

/// Checks the work tree. Returns the marks of what passed.
///
/// # Errors
/// `Check` for what does not pass, `Device` when the work tree cannot be read.
pub fn check(cx: &Context, root: &Path) -> Result<Vec<String>> {
    let checks = &cx.config.checks;
    let mut passed = checks.marks();
    if passed.is_empty() {
        return Ok(passed);
    }
    let phase = cx.report.phase(Phase::Check);
    let mut detail = "the roles are there".to_owned();
    if checks.chef {
        let checked = chef::check(root, &checks.place, &cx.cancel)?;
        tell(cx, &checked);
        if checked.errors > 0 && checks.on_findings == OnFindings::Fail {
            let message = format!("the checks found {} in the repository", count(checked.errors, "error"));
            return Err(Error::new(Kind::Check, message).hint("they are above; --on-findings warn bakes all the same"));
        }
        if checked.errors > 0 {
            passed.retain(|mark| mark != "chef");
        }
        let found = [count(checked.errors, "error"), count(checked.warnings, "warning")].join(", ");
        detail = format!("{}: {found}", checked.extent);
    }
    if !checks.required_roles.is_empty() {
        require_roles(&checks.required_roles, chef::roles(root, &checks.place, &cx.cancel)?)?;
    }
    phase.done(Change::Unchanged, detail);
    Ok(passed)
}

fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// With `--on-findings warn` an error is a warning.
fn tell(cx: &Context, checked: &Checked) {
    for finding in checked.findings.iter().take(TOLD) {
        let severity = match cx.config.checks.on_findings {
            OnFindings::Fail => finding.severity,
            OnFindings::Warn => Severity::Warning,
        };
        cx.report.finding(&Finding { severity, ..finding.clone() });
    }
    let more = (checked.errors + checked.warnings).saturating_sub(TOLD);
    if more > 0 {
        cx.report.warn(format!("there are {more} more findings"));
    }
}

/// `there`: the roles that are; `None`: nobody can tell.
fn require_roles(required: &[String], there: Option<BTreeSet<String>>) -> Result<()> {
    let Some(there) = there else {
        let message = "--require-role: the roles are behind a symbolic link that leads out of the repository";
        return Err(Error::new(Kind::Check, message).hint("have the roles in the repository, see --chef-path"));
    };
    let Some(missing) = required.iter().find(|role| !there.contains(*role)) else { return Ok(()) };
    let suggestion = judge::suggestion(missing, there.iter().map(String::as_str));
    let mut names: Vec<&str> = there.iter().take(NAMED).map(String::as_str).collect();
    if there.len() > NAMED {
        names.push("…");
    }
    let hint = match names.as_slice() {
        [] => "there are no roles at all: see --chef-path".to_owned(),
        names => format!("the roles are: {}", names.join(", ")),
    };
    Err(Error::new(Kind::Check, format!("--require-role: there is no role {missing:?}{suggestion}")).hint(hint))
}

/// A snapshot that was there already is not looked into again: what it passed when it was made is in its tag.
pub fn tell_if_unchecked(cx: &Context, snapshot: &Snapshot) {
    let passed: Vec<&str> = snapshot.tags.get(tag::CHECKS).map(|marks| marks.split(' ').collect()).unwrap_or_default();
    let missing: Vec<String> = cx.config.checks.marks().into_iter().filter(|mark| !passed.contains(&mark.as_str())).collect();
    if !missing.is_empty() {
        let what = missing.join(", ");
        cx.report.warn(format!(
            "snapshot {} was there already and is used unchecked: it did not pass {what} when it was made",
            snapshot.id
        ));
    }
}

/// The value of the tag: as many marks as fit.
pub fn tag_value(passed: &[String], longest: usize) -> Option<String> {
    let mut value = String::new();
    for mark in passed {
        if value.len() + 1 + mark.len() > longest {
            break;
        }
        value += if value.is_empty() { "" } else { " " };
        value += mark;
    }
    (!value.is_empty()).then_some(value)
}
