//! What others' checkers say of the files that GitHub reads.

use std::path::Path;
use std::process::Command;

use crate::action::{BAKE, EXAMPLE, ROLLOUT, root, string};
use crate::tools::python_tool;

#[track_caller]
fn passes(tool: &str, arguments: &[&str], files: &[&Path]) {
    let output = Command::new(python_tool(tool)).args(arguments).args(files).current_dir(root()).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{tool} {arguments:?} {files:?}: {said}");
}

#[test]
fn the_schemas_of_github_are_met() {
    passes("check-jsonschema", &["--builtin-schema", "vendor.github-actions"], &[BAKE.as_ref(), ROLLOUT.as_ref()]);
    passes("check-jsonschema", &["--builtin-schema", "vendor.github-workflows"], &[EXAMPLE.as_ref()]);
}

#[test]
fn zizmor_finds_nothing() {
    let files = [BAKE, ROLLOUT, EXAMPLE].map(Path::new);
    passes("zizmor", &["--offline", "--pedantic", "--min-severity", "low"], &files);
}

/// Every script in the files, as a file with the shell that it is for, and the one that they call.
#[test]
fn shellcheck_finds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut count = 0;
    let mut scripts = |value: &serde_yaml::Value| {
        for step in value.as_sequence().unwrap() {
            let Some(script) = step.get("run") else { continue };
            let script = string(script);
            assert_eq!(string(&step["shell"]), "bash");
            // An expression would be pasted in before the shell reads it: zizmor looks at those that it knows to be dangerous.
            assert!(!script.contains("${{"), "{script}");
            std::fs::write(directory.path().join(format!("{count}.sh")), format!("#!/bin/bash\n{script}\n")).unwrap();
            count += 1;
        }
    };
    for action in [BAKE, ROLLOUT] {
        scripts(&crate::action::yaml(action)["runs"]["steps"]);
    }
    for job in crate::action::yaml(EXAMPLE)["jobs"].as_mapping().unwrap().values() {
        scripts(&job["steps"]);
    }
    assert_eq!(count, 6);
    let extracted: Vec<_> = (0..count).map(|number| directory.path().join(format!("{number}.sh"))).collect();
    let files: Vec<&Path> = extracted.iter().map(|path| path.as_path()).chain([Path::new("scripts/github-action.sh")]).collect();
    passes("shellcheck", &[], &files);
}
