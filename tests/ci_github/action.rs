//! The two actions, read.

use std::fs;
use std::path::Path;

use serde_yaml::{Mapping, Value};

/// The action that bakes.
pub const BAKE: &str = "action.yml";
/// The action that rolls out.
pub const ROLLOUT: &str = "rollout/action.yml";
/// The workflow that users copy.
pub const EXAMPLE: &str = "ci-examples/github-actions.yml";

/// The root of this repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn text(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

pub fn yaml(file: &str) -> Value {
    serde_yaml::from_str(&text(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The inputs or outputs of an action: names and descriptions, in their order.
pub fn described(action: &str, what: &str) -> Vec<(String, String)> {
    let action = yaml(action);
    let entry = |(name, entry): (&Value, &Value)| (string(name), string(&entry["description"]));
    action[what].as_mapping().unwrap().iter().map(entry).collect()
}

/// A step of an action by its ID or, without one, its name.
pub fn step(action: &str, name: &str) -> Mapping {
    let action = yaml(action);
    let steps = action["runs"]["steps"].as_sequence().unwrap();
    let found = steps.iter().find(|step| step.get("id").unwrap_or(&step["name"]) == name);
    found.unwrap_or_else(|| panic!("no step is called {name}")).as_mapping().unwrap().clone()
}

/// The variables of a step, with the expressions that they are set from.
pub fn variables(step: &Mapping) -> Vec<(String, String)> {
    step["env"].as_mapping().unwrap().iter().map(|(name, value)| (string(name), string(value))).collect()
}

/// The rows of the table of outputs in docs/reference.md: name and meaning.
pub fn outputs_of_the_reference() -> Vec<(String, String)> {
    let page = text("docs/reference.md");
    let table =
        page.split("\n## Outputs\n").nth(1).unwrap().split("\n\n").find(|part| part.trim_start().starts_with('|')).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0].trim_matches('`').to_owned(), cells[2].to_owned())
    };
    table.trim().lines().skip(2).map(row).collect()
}

pub fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value:?} is no text")).to_owned()
}
