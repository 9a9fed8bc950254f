//! Checks as a table and as JSON.

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use super::Check;
use crate::report::escape;

/// The version of the JSON object; raised when a field changes its meaning or goes.
pub const VERSION: u32 = 1;
/// The table is no wider.
const WIDTH: usize = 100;
const HEADINGS: [&str; 3] = ["CHECK", "OUTCOME", "DETAIL"];

/// A line for each check, more where its detail is long, and its hint below.
pub fn table(checks: &[Check]) -> String {
    let names = checks.iter().map(|check| check.name.width()).chain([HEADINGS[0].width()]).max().unwrap_or(0);
    let outcomes = checks.iter().map(|check| check.outcome.name().width()).chain([HEADINGS[1].width()]).max().unwrap_or(0);
    let indent = names + 2 + outcomes + 2;
    let mut text = format!("{:names$}  {:outcomes$}  {}\n", HEADINGS[0], HEADINGS[1], HEADINGS[2]);
    for check in checks {
        let mut lines = wrapped(&escape::line(&check.detail), WIDTH - indent);
        if let Some(hint) = &check.hint {
            lines.extend(wrapped(&format!("hint: {}", escape::line(hint)), WIDTH - indent));
        }
        let first = if lines.is_empty() { String::new() } else { lines.remove(0) };
        text += format!("{:names$}  {:outcomes$}  {first}", check.name, check.outcome.name()).trim_end();
        text.push('\n');
        text.extend(lines.into_iter().map(|line| format!("{:indent$}{line}\n", "")));
    }
    text
}

/// Broken between words into lines of up to so many columns, and where a word is longer, in it.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
        while let Some(rest) = lines.last_mut().and_then(|line| cut(line, width)) {
            lines.push(rest);
        }
    }
    lines
}

/// Takes what is beyond the width off the line.
fn cut(line: &mut String, width: usize) -> Option<String> {
    if line.width() <= width {
        return None;
    }
    let ends = line.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| line[..*end].width() <= width).last().filter(|end| *end < line.len())?;
    Some(line.split_off(end))
}

/// The JSON object: `version` and `checks`, in the order of the table.
pub fn json(checks: &[Check]) -> String {
    let entry = |check: &Check| -> Value {
        let Check { name, outcome, detail, hint } = check;
        json!({ "name": name, "outcome": outcome.name(), "detail": detail, "hint": hint })
    };
    let checks: Vec<Value> = checks.iter().map(entry).collect();
    escape::json(&format!("{:#}\n", json!({ "version": VERSION, "checks": checks })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn some() -> Vec<Check> {
        let long =
            "cannot try CreateVolume: CreateVolume: UnauthorizedOperation: You are not authorized to perform this operation.";
        vec![
            Check::ok("mkfs.ext4", "version 1.47.0"),
            Check::failure("ec2:CreateVolume", Kind::Permission, long, "docs/iam-policy.json has the permissions"),
            Check::skipped("volume", "\u{1b}[2Jno\nzone"),
        ]
    }

    #[test]
    fn a_table_is_aligned_and_fits() {
        let expected = "\
CHECK             OUTCOME  DETAIL
mkfs.ext4         ok       version 1.47.0
ec2:CreateVolume  failure  cannot try CreateVolume: CreateVolume: UnauthorizedOperation: You are not
                           authorized to perform this operation.
                           hint: docs/iam-policy.json has the permissions
volume            skipped  \\u{1b}[2Jno\\nzone
";
        assert_eq!(table(&some()), expected);
        let arn = format!("arn:aws:sts::123456789012:assumed-role/{}", "日".repeat(100));
        let wide = table(&[Check::ok("credentials", &arn)]);
        assert!(wide.lines().all(|line| line.width() <= WIDTH), "{wide}");
        assert_eq!(wide.matches('日').count(), 100, "nothing is lost");
    }

    #[test]
    fn json_has_everything() {
        let value: Value = serde_json::from_str(&json(&some())).unwrap();
        assert_eq!(value["version"], 1);
        assert_eq!(value["checks"][1]["outcome"], "failure");
        assert_eq!(value["checks"][1]["hint"], "docs/iam-policy.json has the permissions");
        assert_eq!(
            value["checks"][2],
            json!({ "name": "volume", "outcome": "skipped", "detail": "\u{1b}[2Jno\nzone", "hint": null })
        );
    }
}
