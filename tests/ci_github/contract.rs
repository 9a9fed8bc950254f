//! Inputs are the options of the commands, outputs are what these give out, and the documentation has them all.

use std::fmt::Write;

use crate::action::{BAKE, ROLLOUT, described, outputs_of_the_reference, step, variables, yaml};
use crate::generated::{assert_generated, quoted};
use crate::options::{CommandOption, bake_options, options_of};

/// An action, the command that it runs, and its inputs that are no options.
const ACTIONS: [(&str, &str, &[&str]); 2] = [
    (BAKE, "bake", &["clean", "token", "image", "privileged", "docker-options"]),
    (ROLLOUT, "rollout", &["image", "docker-options"]),
];
/// Options that are no input: `clean` says it as actions/checkout does.
const NO_INPUT: [&str; 1] = ["no-clean"];
/// Outputs that a rollout never has, or that are always the same.
const NO_OUTPUT_OF_ROLLOUT: [&str; 4] = ["reused", "changed-blocks", "copies", "ssm-parameter"];

fn inputs(command: &str) -> Vec<CommandOption> {
    options_of(command).into_iter().filter(|option| !NO_INPUT.contains(&option.name.as_str())).collect()
}

fn outputs(command: &str) -> Vec<(String, String)> {
    let mut outputs = outputs_of_the_reference();
    outputs.retain(|(name, _)| command == "bake" || !NO_OUTPUT_OF_ROLLOUT.contains(&name.as_str()));
    outputs
}

/// An input sets the option's variable; one that is not given leaves it as the job has it.
fn environment(options: &[CommandOption]) -> String {
    let line = |CommandOption { name, variable, .. }: &CommandOption| {
        format!("        {variable}: ${{{{ inputs.{name} || env.{variable} }}}}\n")
    };
    options.iter().map(line).collect()
}

/// The options that `cleanup` has too.
fn inputs_of_cleanup() -> Vec<CommandOption> {
    let known = options_of("cleanup");
    inputs("bake").into_iter().filter(|option| known.iter().any(|it| it.name == option.name)).collect()
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
    let description =
        |CommandOption { name, help, .. }: &CommandOption| format!("  {name}:\n    description: {}\n", quoted(help));
    for (action, command, _) in ACTIONS {
        let output = |(name, meaning): &(String, String)| {
            let meaning = quoted(&(meaning[..1].to_uppercase() + &meaning[1..]));
            format!("  {name}:\n    description: {meaning}\n    value: ${{{{ steps.{command}.outputs.{name} }}}}\n")
        };
        assert_generated(action, "inputs", &inputs(command).iter().map(description).collect::<String>());
        assert_generated(action, command, &environment(&inputs(command)));
        assert_generated(action, "outputs", &outputs(command).iter().map(output).collect::<String>());
    }
    assert_generated(BAKE, "cleanup", &environment(&inputs_of_cleanup()));

    assert_generated("docs/github-actions.md", "inputs", &table("Input", &described(BAKE, "inputs")));
    assert_generated("docs/github-actions.md", "outputs", &table("Output", &described(BAKE, "outputs")));
    assert_generated("README.md", "outputs", &table("Output", &described(BAKE, "outputs")));
}

#[test]
fn inputs_of_an_action_itself_are_no_options() {
    for (action, command, own) in ACTIONS {
        let all = described(action, "inputs");
        let others: Vec<&str> = all.iter().skip(inputs(command).len()).map(|(name, _)| name.as_str()).collect();
        assert_eq!(others, own);
        let is_option = |name: &str| options_of(command).iter().any(|option| option.name == name);
        assert_eq!(own.iter().find(|name| is_option(name)), None, "an option of this name means something else");
    }
    let is_option = |name: &&str| bake_options().iter().any(|option| option.name == *name);
    assert!(NO_INPUT.iter().all(is_option), "not an option any more");
    let known: Vec<String> = outputs_of_the_reference().into_iter().map(|(name, _)| name).collect();
    assert!(NO_OUTPUT_OF_ROLLOUT.iter().all(|name| known.iter().any(|it| it == name)), "not an output any more");
}

#[test]
fn every_variable_of_ours_is_one_that_the_program_reads() {
    for (action, name) in [(BAKE, "bake"), (BAKE, "Clean up after ebs-bake"), (ROLLOUT, "rollout")] {
        let options = options_of(if action == BAKE { "bake" } else { "rollout" });
        for (variable, expression) in variables(&step(action, name)) {
            let known = options.iter().find(|option| option.variable == variable);
            assert!(!variable.starts_with("EBS_BAKE_") || known.is_some() || variable == "EBS_BAKE_GIT_TOKEN", "{variable}");
            // The binary's defaults count: an input that is not given is an empty variable.
            assert!(expression.starts_with("${{ ") && expression.ends_with(" }}"), "{variable}: {expression}");
        }
    }
    for (action, ..) in ACTIONS {
        for (name, input) in yaml(action)["inputs"].as_mapping().unwrap() {
            assert!(input.get("default").is_none() && input.get("required").is_none(), "{name:?} has a default of its own");
        }
    }
}
