//! One JSON object a line: `time` (UTC) and `event`, then what the event has. An interface (`docs/reference.md`).

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Progress;
use crate::error::Error;
use crate::report::finding::Finding;
use crate::report::outputs::{Outputs, rounded_seconds};
use crate::report::{Event, Phase, Unit, escape};

/// The line of an object: the time, the event's name, then `fields`.
fn line(name: &str, fields: Value) -> String {
    let mut object = Map::new();
    object.insert("time".into(), format!("{:.3}", Timestamp::now()).into());
    object.insert("event".into(), name.into());
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    escape::json(&Value::Object(object).to_string()) + "\n"
}

/// The line of an event.
pub fn event(event: &Event<'_>) -> String {
    match *event {
        Event::Started(phase) => line("started", json!({ "phase": phase })),
        Event::Progress { phase, done, total, unit } => progress(phase, None, Progress { done, total, unit }),
        Event::Finished { phase, change, detail, elapsed } => {
            let seconds = rounded_seconds(elapsed);
            line("finished", json!({ "phase": phase, "change": change, "detail": detail, "seconds": seconds }))
        }
        Event::Failed { phase, elapsed } => line("failed", json!({ "phase": phase, "seconds": rounded_seconds(elapsed) })),
        Event::Output { phase, line: text } => line("output", json!({ "phase": phase, "line": text })),
        Event::Note(text) => line("note", json!({ "message": text })),
        Event::Warning(text) => line("warning", json!({ "message": text })),
        Event::Finding(Finding { severity, file, line: at, message }) => {
            line("finding", json!({ "severity": severity.name(), "file": file, "line": at, "message": message }))
        }
        Event::Trace { level, target, text } => {
            line("trace", json!({ "level": level.to_ascii_lowercase(), "target": target, "message": text }))
        }
    }
}

/// That a phase goes on.
pub fn sign_of_life(phase: Phase, elapsed: Duration, far: Option<Progress>) -> String {
    match far {
        Some(far) => progress(phase, Some(elapsed), far),
        None => line("progress", json!({ "phase": phase, "seconds": rounded_seconds(elapsed) })),
    }
}

fn progress(phase: Phase, elapsed: Option<Duration>, far: Progress) -> String {
    let Progress { done, total, unit } = far;
    let unit = match unit {
        Unit::Bytes => "bytes",
        Unit::Files => "files",
        Unit::Objects => "objects",
        Unit::Percent => "percent",
        Unit::Seconds => "seconds",
    };
    let seconds = elapsed.map(rounded_seconds);
    line("progress", json!({ "phase": phase, "seconds": seconds, "done": done, "total": total, "unit": unit }))
}

/// The line of an error.
pub fn error(error: &Error) -> String {
    let fields = json!({
        "kind": error.kind().name(),
        "exit-code": error.kind().exit_code(),
        "message": error.to_string(),
        "causes": error.causes(),
        "hint": error.hint_text(),
    });
    line("error", fields)
}

/// The last line of a run that went well: the fields of `--output-json`.
pub fn result(outputs: &Outputs) -> String {
    line("result", outputs.to_value())
}
