//! Checks as a table and as JSON.

use serde_json::{Value, json};

use super::Check;
use crate::report::escape;
use crate::report::table::{self, Column};

/// The version of the JSON object; raised when a field changes its meaning or goes.
pub const VERSION: u32 = 1;
/// The table is no wider.
const WIDTH: usize = 100;
const COLUMNS: [Column; 3] = [Column::text("CHECK"), Column::text("OUTCOME"), Column::text("DETAIL")];

/// A line for each check, more where its detail is long, and its hint below.
pub fn table(checks: &[Check]) -> String {
    let row = |check: &Check| {
        let mut row = vec![check.name.to_owned(), check.outcome.name().to_owned(), check.detail.clone()];
        row.extend(check.hint.iter().map(|hint| format!("hint: {hint}")));
        row
    };
    table::table(&COLUMNS, checks.iter().map(row).collect(), WIDTH)
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
