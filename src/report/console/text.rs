//! Lines for people.

use std::time::Duration;

use super::Progress;
use crate::error::Error;
use crate::report::finding::{Finding, Severity};
use crate::report::outputs::Outputs;
use crate::report::{Change, Event, Phase, PhaseRecord, Unit, escape};

/// SGR codes.
#[derive(Clone, Copy)]
enum Style {
    Green = 32,
    Yellow = 33,
    Cyan = 36,
    Red = 31,
    Dim = 2,
    Bold = 1,
}

fn paint(text: &str, style: Style, color: bool) -> String {
    if color { format!("\x1b[{}m{text}\x1b[0m", style as u8) } else { text.to_owned() }
}

/// The line of an event; empty for those that have none. On GitHub a warning is an annotation of the run.
pub fn event(event: &Event<'_>, color: bool, github: bool) -> String {
    match *event {
        Event::Started(phase) => format!("{} {}\n", paint(">", Style::Dim, color), phase.name()),
        Event::Finished { phase, change, detail, elapsed } => {
            let (mark, style) = match change {
                Change::Unchanged => ("=", Style::Dim),
                Change::Created => ("+", Style::Green),
                Change::Changed => ("~", Style::Cyan),
            };
            phase_line(&paint(mark, style, color), phase, elapsed, detail)
        }
        Event::Failed { phase, elapsed } => phase_line(&paint("x", Style::Red, color), phase, elapsed, "failed"),
        Event::Output { phase, line } => {
            // A program may redraw its line with carriage returns: what counts is what stands there in the end.
            let line = line.trim_end().rsplit('\r').next().unwrap_or_default();
            format!(
                "  {} {}\n",
                paint(&format!("{} |", phase.name()), Style::Dim, color),
                escape::line(&escape::without_colors(line))
            )
        }
        Event::Note(text) => format!("{} {}\n", paint("note:", Style::Bold, color), escape::line(text)),
        Event::Warning(text) if github => annotation("warning", "", &escape::line(text)),
        Event::Warning(text) => format!("{} {}\n", paint("warning:", Style::Yellow, color), escape::line(text)),
        Event::Finding(finding) => self::finding(finding, color, github),
        Event::Trace { level, target, text } => {
            format!("  {} {}\n", paint(&format!("{level} {target} |"), Style::Dim, color), escape::line(text))
        }
        Event::Progress { .. } => String::new(),
    }
}

fn phase_line(mark: &str, phase: Phase, elapsed: Duration, detail: &str) -> String {
    let line = format!("{mark} {:<14} {:>7}  {}", phase.name(), seconds(elapsed), escape::line(detail));
    line.trim_end().to_owned() + "\n"
}

/// That a phase goes on.
pub fn sign_of_life(phase: Phase, elapsed: Duration, progress: Option<Progress>) -> String {
    let far = progress.map_or_else(|| "goes on".to_owned(), self::progress);
    phase_line(".", phase, elapsed, &far)
}

/// How far a phase is: `1,234 of 50,000 files`.
pub fn progress(progress: Progress) -> String {
    let amount = |n: u64| match progress.unit {
        Unit::Bytes => indicatif::HumanBytes(n).to_string(),
        _ => indicatif::HumanCount(n).to_string(),
    };
    let unit = match progress.unit {
        Unit::Bytes => "",
        Unit::Files => " files",
        Unit::Objects => " objects",
        Unit::Percent => " %",
        Unit::Seconds => " s",
    };
    match progress.total {
        Some(_) if progress.unit == Unit::Percent => format!("{}{unit}", amount(progress.done)),
        Some(total) => format!("{} of {}{unit}", amount(progress.done), amount(total)),
        None => format!("{}{unit}", amount(progress.done)),
    }
}

/// A duration as people read it: `0.02s`, `12.3s`, `3m04s`, `1h02m`.
pub fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    match whole {
        0..10 => format!("{:.2}s", duration.as_secs_f64()),
        10..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

/// The phases with their times and their share of the whole.
pub fn table(phases: &[PhaseRecord]) -> String {
    let total: Duration = phases.iter().map(|record| record.elapsed).sum();
    let share = |elapsed: Duration| 100.0 * elapsed.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
    let rows = phases.iter().map(|record| {
        let result = record.change.map_or("failed", Change::name);
        format!("  {:<14} {:>7} {:>4.0} %  {result}\n", record.phase.name(), seconds(record.elapsed), share(record.elapsed))
    });
    rows.collect()
}

/// The last line of a run that went well.
pub fn result(outputs: &Outputs, color: bool) -> String {
    let verb = match (outputs.reused, &outputs.rollout) {
        (true, None) => "reused",
        (false, None) => "created",
        (true, Some(_)) => "rolled out",
        (false, Some(_)) => "created and rolled out",
    };
    let name = outputs.reference.as_deref().map(|name| format!(" ({})", escape::line(short_ref(name)))).unwrap_or_default();
    let blocks = match outputs.changed_blocks {
        Some(blocks) if !outputs.reused => format!(", {blocks} blocks of 512 KiB changed"),
        _ => String::new(),
    };
    let commit: String = outputs.commit.chars().take(12).collect();
    let id = paint(outputs.snapshot_id.as_str(), Style::Green, color);
    format!("{verb} {id} of {commit}{name} in {}{blocks}\n", seconds(outputs.duration))
}

/// A ref as people say it: without `refs/heads/` and `refs/tags/`.
pub fn short_ref(name: &str) -> &str {
    name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/")).unwrap_or(name)
}

/// An error: the first line is complete in itself.
pub fn error(error: &Error, color: bool, github: bool) -> String {
    let message = escape::line(&error.to_string());
    let mut text = format!("{} {message}\n", paint("error:", Style::Red, color));
    for cause in error.causes() {
        // Causes of several lines are other programs' output.
        for line in cause.lines().filter(|line| !line.trim().is_empty()) {
            text += &format!("  {} {}\n", paint("cause:", Style::Dim, color), escape::line(line));
        }
    }
    let hint = error.hint_text().map(escape::line);
    if let Some(hint) = &hint {
        text += &format!("  {} {hint}\n", paint("hint:", Style::Cyan, color));
    }
    if github {
        let annotation = hint.map_or_else(|| message.clone(), |hint| format!("{message}\n{hint}"));
        text += &self::annotation("error", "", &annotation);
    }
    text
}

/// A finding with its place; on GitHub it is shown beside that line of the file too.
fn finding(finding: &Finding, color: bool, github: bool) -> String {
    let message = escape::line(&format!("{}: {}", finding.place(), finding.message));
    if github {
        let line = finding.line.map_or(String::new(), |line| format!(",line={line}"));
        let place = format!(",file={}{line}", escape::workflow_property(&escape::line(&finding.file)));
        return annotation(finding.severity.name(), &place, &message);
    }
    let style = match finding.severity {
        Severity::Error => Style::Red,
        Severity::Warning => Style::Yellow,
    };
    format!("{} {message}\n", paint(&format!("{}:", finding.severity.name()), style, color))
}

/// What GitHub shows on the run's page, and in the log in a colour of its own.
fn annotation(level: &str, place: &str, text: &str) -> String {
    format!("::{level} title=ebs-bake{place}::{}\n", escape::workflow_command(text))
}
