//! The example for Packer. Packer itself is in no package registry: what can be had is a parser of its language.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

#[path = "support/tools.rs"]
mod tools;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/packer").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(example(name)).unwrap()
}

fn checked(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The template as JSON.
fn template() -> Value {
    let parse = "import hcl2, json, sys; print(json.dumps(hcl2.load(open(sys.argv[1]))))";
    let parsed = Command::new(tools::python_tool("python")).args(["-c", parse]).arg(example("node.pkr.hcl")).output().unwrap();
    serde_json::from_str(&checked(parsed)).unwrap()
}

#[test]
fn the_template_is_complete_in_itself() {
    let template = template();
    // Of each kind of block a list, of each block an object with its labels, which keep their quotes.
    let blocks = |kind: &str| template[kind].as_array().unwrap_or_else(|| panic!("no {kind}: {template:#}")).clone();
    let labels = |kind: &str| -> Vec<String> {
        let names = blocks(kind).into_iter().flat_map(|block| block.as_object().unwrap().keys().cloned().collect::<Vec<_>>());
        names.map(|name| name.trim_matches('"').to_owned()).collect()
    };
    let source = text("node.pkr.hcl");
    let variables = labels("variable");
    assert!(variables.len() > 2, "{template:#}");
    for variable in &variables {
        assert!(source.contains(&format!("var.{variable}")), "the variable {variable} is not used");
    }
    let used = source.split("var.").skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap());
    for name in used {
        assert!(variables.iter().any(|variable| variable == name), "the variable {name} is not declared");
    }
    assert_eq!(labels("source"), ["amazon-ebs"]);
    assert!(source.contains("sources = [\"source.amazon-ebs.node\"]") && source.contains("source \"amazon-ebs\" \"node\""));
    assert!(source.contains("${path.root}/provision.sh"));
}

#[test]
fn the_image_has_the_line_that_the_program_prints() {
    let printed =
        Command::new(env!("CARGO_BIN_EXE_ebs-bake")).args(["user-data", "--fstab"]).env_clear().current_dir("/").output();
    let line = checked(printed.unwrap());
    assert!(text("provision.sh").contains(&format!("line='{}'\n", line.trim_end())), "{line}");
}

#[test]
fn shellcheck_has_nothing_to_say() {
    checked(Command::new(tools::python_tool("shellcheck")).arg(example("provision.sh")).output().unwrap());
}
