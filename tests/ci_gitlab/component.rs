//! The example and the component as files: complete, valid, and nothing of a user's in a script.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_yaml::{Mapping, Value};

use crate::generated::{assert_generated, quoted};
use crate::options::{CommandOption, bake_options, options_of};
use crate::tools::python_tool;

const COMPONENT: &str = "templates/bake.yml";
const EXAMPLE: &str = "ci-examples/gitlab-ci.yml";
const PAGE: &str = "docs/gitlab.md";

/// Inputs that are no options of `bake`: they are about the job.
const ABOUT_THE_JOB: [&str; 11] = [
    "image",
    "job-name",
    "stage",
    "tags",
    "rules",
    "resource-group",
    "timeout",
    "script-timeout",
    "git-strategy",
    "aws-role-arn",
    "id-token-audience",
];
/// The only option that is set unless the user says so: without the file there is no ID for later jobs.
const OUTPUT_ENV: (&str, &str, &str) =
    ("output-env", "bake.env", "Write the result to this file as KEY=value; later jobs have it as variables");

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// `spec.inputs` and the job of the component.
pub fn component() -> (Mapping, Value) {
    let text = text(COMPONENT);
    let (header, body) = text.split_once("\n---\n").expect("a header and what it is for");
    let mut header: Value = serde_yaml::from_str(header).unwrap();
    let Value::Mapping(inputs) = std::mem::take(&mut header["spec"]["inputs"]) else { panic!("spec.inputs") };
    (inputs, serde_yaml::from_str(body).unwrap())
}

fn names(inputs: &Mapping) -> BTreeSet<&str> {
    inputs.keys().map(|name| name.as_str().unwrap()).collect()
}

/// The name in `$[[ inputs.NAME ]]`, if the text is that and nothing else.
fn whole_input(text: &str) -> Option<&str> {
    let name = text.strip_prefix("$[[ inputs.")?.strip_suffix(" ]]")?;
    (!name.contains(['$', ' ', '|'])).then_some(name)
}

/// As GitLab does it (`Gitlab::Ci::Config::Interpolation`): in the parsed document; what is a whole value keeps the input's type.
fn interpolated(value: &Value, inputs: &BTreeMap<&str, Value>) -> Value {
    match value {
        Value::String(text) => whole_input(text).map_or_else(|| value.clone(), |name| inputs[name].clone()),
        Value::Sequence(items) => items.iter().map(|item| interpolated(item, inputs)).collect(),
        Value::Mapping(pairs) => {
            let pair = |(key, value)| (interpolated(key, inputs), interpolated(value, inputs));
            Value::Mapping(pairs.iter().map(pair).collect())
        }
        other => other.clone(),
    }
}

/// The values that an option takes, if they are few.
fn allowed(name: &str) -> Vec<String> {
    let definition = ebs_bake::cli::definition();
    let bake = definition.find_subcommand("bake").unwrap();
    let mut arguments = bake.get_arguments().chain(definition.get_arguments());
    let argument = arguments.find(|argument| argument.get_long() == Some(name)).unwrap();
    let names: Vec<String> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    // Of the many ways to say yes and no the two that YAML has.
    if names.iter().any(|name| name == "yes") { vec!["true".into(), "false".into()] } else { names }
}

fn input(option: &CommandOption) -> String {
    let (default, help) = match option.name.as_str() {
        name if name == OUTPUT_ENV.0 => (OUTPUT_ENV.1, OUTPUT_ENV.2),
        _ => ("", option.help.as_str()),
    };
    let mut text = format!("    {}:\n      default: {}\n", option.name, quoted(default));
    let allowed = allowed(&option.name);
    if !allowed.is_empty() {
        let values: Vec<String> = std::iter::once("").chain(allowed.iter().map(String::as_str)).map(quoted).collect();
        writeln!(text, "      options: [{}]", values.join(", ")).unwrap();
    }
    text + &format!("      description: {}\n", quoted(help))
}

#[test]
fn the_components_inputs_are_the_options_of_bake() {
    let options = bake_options();
    let inputs: String = options.iter().map(input).collect();
    assert_generated(COMPONENT, "options", &inputs);
    let variable = |option: &CommandOption| {
        format!("    {}:\n      value: $[[ inputs.{} ]]\n      expand: false\n", option.variable, option.name)
    };
    let variables: String = options.iter().map(variable).collect();
    assert_generated(COMPONENT, "variables", &variables);

    let (inputs, _) = component();
    assert_generated(PAGE, "inputs", &table(&inputs));
    let expected: BTreeSet<&str> = options.iter().map(|option| option.name.as_str()).chain(ABOUT_THE_JOB).collect();
    assert_eq!(names(&inputs), expected);
    let required: Vec<&Value> = inputs.iter().filter(|(_, spec)| spec.get("default").is_none()).map(|(name, _)| name).collect();
    assert_eq!(required, ["image"], "all others have a default");
}

/// Inside of a longer text a value would be part of YAML's, the shell's or GitLab's own language.
#[test]
fn inputs_stand_alone_and_in_no_script() {
    fn visit<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::String(text) if text.contains("$[[") => {
                found.insert(whole_input(text).unwrap_or_else(|| panic!("{text:?}")));
            }
            Value::Sequence(items) => items.iter().for_each(|item| visit(item, found)),
            Value::Mapping(pairs) => pairs.iter().for_each(|(key, value)| {
                visit(key, found);
                visit(value, found);
            }),
            _ => {}
        }
    }
    let (inputs, body) = component();
    let mut used = BTreeSet::new();
    visit(&body, &mut used);
    assert_eq!(used, names(&inputs));
    for script in scripts(&body) {
        assert!(!script.contains("inputs."), "{script}");
    }
}

/// The shell code of all jobs: what runs before and in the script is one, and after it another.
pub fn scripts(document: &Value) -> Vec<String> {
    let lines = |job: &Value, keys: &[&str]| -> String {
        let found = keys.iter().filter_map(|key| job.get(key)?.as_sequence());
        found.flatten().map(|line| line.as_str().unwrap().trim_end().to_owned() + "\n").collect()
    };
    let jobs = document.as_mapping().unwrap().values().filter(|job| job.get("script").is_some());
    jobs.flat_map(|job| [lines(job, &["before_script", "script"]), lines(job, &["after_script"])]).collect()
}

#[track_caller]
fn accepted_by(mut command: Command, input: &str) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{input}");
}

#[track_caller]
fn is_a_pipeline(document: &Value) {
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    std::fs::write(file.path(), serde_yaml::to_string(document).unwrap()).unwrap();
    let mut checker = Command::new(python_tool("check-jsonschema"));
    checker.args(["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]).arg(file.path());
    accepted_by(checker, "");
}

#[test]
fn the_example_is_valid_and_so_is_its_shell() {
    let example: Value = serde_yaml::from_str(&text(EXAMPLE)).unwrap();
    is_a_pipeline(&example);
    check_shell(&example);
    for command in ["bake", "rollout"] {
        let variables = example[command]["variables"].as_mapping().unwrap().keys().map(|name| name.as_str().unwrap());
        let known: Vec<String> = options_of(command).into_iter().map(|option| option.variable).collect();
        for name in variables.filter(|name| name.starts_with("EBS_BAKE_")) {
            assert!(known.iter().any(|variable| variable == name), "{name} is no option of {command}");
        }
    }
}

fn check_shell(document: &Value) {
    for script in scripts(document) {
        let mut checker = Command::new(python_tool("shellcheck"));
        checker.args(["--norc", "--shell", "sh", "--severity", "warning", "-"]);
        accepted_by(checker, &script);
    }
}

#[test]
fn the_component_is_valid_with_its_defaults_and_with_anything() {
    let (inputs, body) = component();
    check_shell(&body);
    let default = |spec: &Value| spec.get("default").cloned().unwrap_or_else(|| "registry.example.com/ebs-bake".into());
    let mut values: BTreeMap<&str, Value> = inputs.iter().map(|(name, spec)| (name.as_str().unwrap(), default(spec))).collect();
    is_a_pipeline(&interpolated(&body, &values));
    for option in bake_options().iter().map(|option| names(&inputs).get(option.name.as_str()).copied().unwrap()) {
        values.insert(option, "a: 'b' # \"c\"\n- $(d) `e` $[[ inputs.ref ]]".into());
    }
    is_a_pipeline(&interpolated(&body, &values));
}

/// The inputs of the component, as a table.
fn table(inputs: &Mapping) -> String {
    let mut text = String::from("\n| Input | Default | What it does |\n|---|---|---|\n");
    for (name, spec) in inputs {
        let default = match spec.get("default") {
            None => "needed".to_owned(),
            Some(Value::String(default)) if default.is_empty() => String::new(),
            Some(Value::String(default)) => format!("`{default}`"),
            Some(other) => format!("`{}`", serde_json::to_string(other).unwrap()),
        };
        let description = spec["description"].as_str().unwrap().replace('<', "&lt;").replace('|', "\\|");
        writeln!(text, "| `{}` | {default} | {description} |", name.as_str().unwrap()).unwrap();
    }
    text + "\n"
}

/// What a reader copies from the page works: the YAML is valid, and every input in it is one.
#[test]
fn the_pages_snippets_are_valid() {
    let page = text(PAGE);
    let (inputs, _) = component();
    let snippets: Vec<&str> = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let mut includes = 0;
    for snippet in snippets {
        let document: Value = serde_yaml::from_str(snippet).unwrap_or_else(|error| panic!("{error}\n{snippet}"));
        is_a_pipeline(&document);
        check_shell(&document);
        for include in document.get("include").and_then(Value::as_sequence).into_iter().flatten() {
            let given = names(include["inputs"].as_mapping().unwrap());
            assert!(given.is_subset(&names(&inputs)) && given.contains("image"), "{given:?}");
            assert!(
                include["inputs"]
                    .as_mapping()
                    .unwrap()
                    .iter()
                    .all(|(name, value)| value.is_string() || *name == "tags" || *name == "rules")
            );
            includes += 1;
        }
    }
    assert!(includes > 0, "the page shows how the component is used");
}
