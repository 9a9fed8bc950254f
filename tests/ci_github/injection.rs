//! Nothing that an input, a variable or the repository says is run, or is a command to the runner.

use std::fs;

use crate::action::{BAKE, described};
use crate::job::{Job, REPOSITORY};
use crate::store::needs_root;

/// What a shell would act on, what the runner would, and what would end the block of an output. `{}` stands for a file that must
/// not come to be.
const HOSTILE: [&str; 7] = [
    "main\n::set-output name=snapshot-id::snap-00000000\n::add-mask::main",
    "main\n##[add-mask]x",
    "$(touch {})",
    "`touch {}`",
    "'; touch {}; '\"; touch {}; \"",
    "main\nsnapshot-id=snap-00000000\nEOF",
    "--volume=/:/host",
];

/// Each hostile value in each of these inputs.
const INPUTS: [&str; 3] = ["ref", "repository", "output-json"];

fn workflow(job: &Job, canary: &str) -> String {
    let mut steps = String::from("      - uses: actions/checkout@v5\n");
    for (number, (input, value)) in INPUTS.iter().flat_map(|input| HOSTILE.map(|value| (input, value))).enumerate() {
        let value = value.replace("{}", canary);
        // A dry run, that a value which is fine makes no difference.
        let inputs = job.inputs(&[("dry-run", "true"), (input, &value)]);
        steps += &format!("      - id: s{number}\n        uses: ./\n        continue-on-error: true\n        with: {inputs}\n");
    }
    format!("on: push\njobs:\n  bake:\n    runs-on: self-hosted\n    steps:\n{steps}")
}

#[test]
fn root_hostile_inputs_do_nothing() {
    if !needs_root() {
        return;
    }
    let job = Job::new();
    let canary = job.host.text("canary");
    job.push(&workflow(&job, &canary));
    let ran = job.run(|_| {});
    assert!(ran.success, "every step may fail: {ran:#?}");
    assert!(!job.host.path("canary").exists(), "something was run");
    assert_eq!(ran.result(&["s0", "bake"]), "failure");
    for (command, argument) in ran.commands(None) {
        let is_ours = match command.as_str() {
            "error" => argument.starts_with("::error title=ebs-bake::"),
            "summary" => argument.starts_with("### Failed: "),
            "set-output" => argument.ends_with('=') || argument.starts_with("container=ebs-bake-"),
            _ => false,
        };
        assert!(is_ours, "the runner obeyed {command}: {argument}");
    }
    job.host.assert_nothing_left(0);
}

#[test]
fn root_what_a_repository_says_is_no_command() {
    if !needs_root() {
        return;
    }
    let job = Job::new();
    let canary = job.host.text("canary");
    // Names that git takes, of a branch, of files, and what a command of the repository writes.
    let branch = format!("a$(touch${{IFS}}{canary})`id`'\"::add-mask::x").replace(':', "");
    let said =
        "::set-output name=snapshot-id::snap-00000000\n::add-mask::ebs\n  ##[add-mask]bake\n::error::x\n::stop-commands::y\n";
    job.scratch.commit(REPOSITORY, &[("say", said), ("x\n::error title=a::b", "1\n"), ("$(touch canary)", "2\n")]);
    let inputs = job.inputs(&[("ref", &branch), ("after-checkout", "cat say; cat say >&2; ls"), ("verbose", "true")]);
    job.push(&format!(
        "on: push\njobs:\n  bake:\n    runs-on: self-hosted\n    steps:\n      - uses: actions/checkout@v5\n      \
         - id: bake\n        uses: ./\n        with: {inputs}\n"
    ));
    job.scratch.git(REPOSITORY, &["branch", &branch]);
    let ran = job.run(|_| {});
    assert!(ran.success, "{ran:#?}");
    assert!(!job.host.path("canary").exists(), "something was run");
    let outputs = ran.outputs(&["bake"]);
    assert_eq!(outputs["ref"], format!("refs/heads/{branch}"));
    assert_eq!(outputs["snapshot-id"], job.host.snapshots()[0]["snapshot-id"].as_str().unwrap());
    let ours: Vec<String> = described(BAKE, "outputs").into_iter().map(|(name, _)| name).collect();
    assert!(ran.outputs(&["bake", "bake"]).keys().all(|name| ours.contains(name)), "{ran:#?}");
    let obeyed: Vec<String> = ran.commands(None).into_iter().map(|(name, _)| name).collect();
    assert!(obeyed.iter().all(|name| matches!(name.as_str(), "set-output" | "summary" | "group" | "endgroup")), "{obeyed:?}");
    let log = ran.log();
    assert!(log.contains("after-checkout | ::set-output name=snapshot-id::snap-00000000\n"), "{log}");
    assert!(fs::read_to_string(job.repository().join("say")).unwrap() == said);
    job.host.assert_nothing_left(1);
}
