//! Inputs are the options of `bake`, outputs are what it gives out, and the documentation has them all.

use std::fmt::Write;

use crate::action::{described, outputs_of_the_reference, step, variables};
use crate::generated::{assert_generated, quoted};
use crate::options::{BakeOption, bake_options};

/// Inputs of the action itself.
const OWN: [&str; 5] = ["clean", "token", "image", "privileged", "docker-options"];
/// Options that are no input: `clean` says it as actions/checkout does.
const NO_INPUT: [&str; 1] = ["no-clean"];

fn inputs() -> Vec<BakeOption> {
    bake_options().into_iter().filter(|option| !NO_INPUT.contains(&option.name.as_str())).collect()
}

/// An input sets the option's variable; one that is not given leaves it as the job has it.
fn environment(options: &[BakeOption]) -> String {
    let line = |BakeOption { name, variable, .. }: &BakeOption| {
        format!("        {variable}: ${{{{ inputs.{name} || env.{variable} }}}}\n")
    };
    options.iter().map(line).collect()
}

/// The options that `cleanup` has too.
fn inputs_of_cleanup() -> Vec<BakeOption> {
    let definition = ebs_bake::cli::definition();
    let cleanup = definition.find_subcommand("cleanup").unwrap();
    let known: Vec<_> = cleanup.get_arguments().chain(definition.get_arguments()).filter_map(|it| it.get_long()).collect();
    inputs().into_iter().filter(|option| known.contains(&option.name.as_str())).collect()
}

fn table(heading: &str, rows: &[(String, String)]) -> String {
    let mut table = format!("\n| {heading} | |\n|---|---|\n");
    for (name, meaning) in rows {
        writeln!(table, "| `{name}` | {} |", meaning.replace('<', "&lt;")).unwrap();
    }
    table + "\n"
}

#[test]
fn every_option_is_an_input_and_the_documentation_has_them() {
    let description = |BakeOption { name, help, .. }: &BakeOption| format!("  {name}:\n    description: {}\n", quoted(help));
    assert_generated("action.yml", "inputs", &inputs().iter().map(description).collect::<String>());
    assert_generated("action.yml", "bake", &environment(&inputs()));
    assert_generated("action.yml", "cleanup", &environment(&inputs_of_cleanup()));
    let output = |(name, meaning): &(String, String)| {
        let meaning = meaning[..1].to_uppercase() + &meaning[1..];
        format!("  {name}:\n    description: {}\n    value: ${{{{ steps.bake.outputs.{name} }}}}\n", quoted(&meaning))
    };
    assert_generated("action.yml", "outputs", &outputs_of_the_reference().iter().map(output).collect::<String>());

    assert_generated("docs/github-actions.md", "inputs", &table("Input", &described("inputs")));
    assert_generated("docs/github-actions.md", "outputs", &table("Output", &described("outputs")));
    assert_generated("README.md", "outputs", &table("Output", &described("outputs")));
}

#[test]
fn inputs_of_the_action_itself_are_no_options() {
    let all = described("inputs");
    let own: Vec<&str> = all.iter().skip(inputs().len()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(own, OWN);
    let is_option = |name: &str| bake_options().iter().any(|option| option.name == name);
    assert_eq!(OWN.iter().find(|name| is_option(name)), None, "an option of this name means something else");
    assert!(NO_INPUT.iter().all(|name| is_option(name)), "not an option any more");
}

#[test]
fn every_variable_of_ours_is_one_that_the_program_reads() {
    let options = bake_options();
    for name in ["bake", "Clean up after ebs-bake"] {
        for (variable, expression) in variables(&step(name)) {
            let known = options.iter().find(|option| option.variable == variable);
            assert!(!variable.starts_with("EBS_BAKE_") || known.is_some() || variable == "EBS_BAKE_GIT_TOKEN", "{variable}");
            // The binary's defaults count: an input that is not given is an empty variable.
            assert!(expression.starts_with("${{ ") && expression.ends_with(" }}"), "{variable}: {expression}");
        }
    }
    let action = crate::action::yaml("action.yml");
    for (name, input) in action["inputs"].as_mapping().unwrap() {
        assert!(input.get("default").is_none() && input.get("required").is_none(), "{name:?} has a default of its own");
    }
}
