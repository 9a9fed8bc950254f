//! A job that bakes, in a container on this machine.

use std::fs;

use crate::action::{BAKE, described};
use crate::job::Job;
use crate::runner::Runner;
use crate::store::needs_root;

/// A job that bakes, and one that gets the result.
fn workflow(inputs: &str) -> String {
    format!(
        "
on: push
jobs:
  bake:
    runs-on: [self-hosted, ec2]
    outputs:
      id: ${{{{ steps.bake.outputs.snapshot-id }}}}
      reused: ${{{{ steps.bake.outputs.reused }}}}
    steps:
      - uses: actions/checkout@v5
      - id: bake
        uses: ./
        with: {inputs}
  later:
    needs: bake
    runs-on: [self-hosted]
    steps:
      - run: echo \"the later job got $ID, reused $REUSED\"
        env:
          ID: ${{{{ needs.bake.outputs.id }}}}
          REUSED: ${{{{ needs.bake.outputs.reused }}}}
"
    )
}

#[test]
fn root_a_job_bakes_its_commit_and_a_later_job_gets_the_id() {
    if !needs_root() {
        return;
    }
    let job = Job::new();
    let commit = job.push(&workflow(&job.inputs(&[("output-json", "bake.json"), ("snapshot-tag", "team=a b\ncost=1")])));
    let ran = job.run(|_| {});
    assert!(ran.success, "{ran:#?}");
    let outputs = ran.outputs(&["bake"]);
    let names: Vec<String> = described(BAKE, "outputs").into_iter().map(|(name, _)| name).collect();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(outputs.keys().collect::<Vec<_>>(), sorted.iter().collect::<Vec<_>>());
    let id = &outputs["snapshot-id"];
    assert!(ran.log().contains(&format!("the later job got {id}, reused false\n")), "{}", ran.log());
    assert_eq!((outputs["commit"].as_str(), outputs["ref"].as_str()), (commit.as_str(), "refs/heads/main"));
    assert_eq!(outputs["repository"], job.server.url("acme/chef"));
    job.host.assert_holds(id, &job.repository(), &commit);
    let summary = ran.commands(Some(&["bake", "bake"])).into_iter().find(|(name, _)| name == "summary").unwrap().1;
    assert!(summary.contains(id.as_str()) && summary.contains("```mermaid\ngantt\n"), "{summary}");

    let again = job.run(|_| {});
    assert!(again.log().contains(&format!("the later job got {id}, reused true\n")), "{}", again.log());
    assert_eq!(job.host.snapshots().len(), 1);
    job.host.assert_nothing_left(1);
}

#[test]
fn root_what_goes_wrong_is_an_annotation_and_in_the_summary() {
    if !needs_root() {
        return;
    }
    let job = Job::new();
    job.push(&workflow(&job.inputs(&[("ref", "no-such-branch")])));
    let ran = job.run(|_| {});
    assert!(!ran.success);
    assert_eq!(ran.result(&["bake", "bake"]), "failure");
    assert_eq!(ran.result(&["bake", "2"]), "success", "the clean-up runs all the same");
    let commands = ran.commands(Some(&["bake", "bake"]));
    let [(error, annotation), (summary, page)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!((error.as_str(), summary.as_str()), ("error", "summary"));
    assert!(annotation.starts_with("::error title=ebs-bake::") && annotation.contains("no-such-branch"), "{annotation}");
    assert!(page.starts_with("### Failed: ") && page.contains("| resolve | "), "{page}");
    assert!(!ran.log().contains("the later job"));
    job.host.assert_nothing_left(0);
}

#[test]
fn root_inputs_beat_the_jobs_variables_which_beat_the_file() {
    if !needs_root() {
        return;
    }
    let job = Job::new();
    fs::write(job.repository().join("ebs-bake.yml"), "volume-name: file\nvolume-size: 1\nno-clean: true\n").unwrap();
    let workflow = workflow(&job.inputs(&[("volume-size", "2"), ("dry-run", "true"), ("verbose", "true")]));
    let variables = "    env: {EBS_BAKE_VOLUME_NAME: variable, EBS_BAKE_VOLUME_SIZE: '3'}\n    steps:";
    job.push(&workflow.replacen("    steps:", variables, 1));
    let ran = job.run(|_| {});
    assert!(ran.success, "{ran:#?}");
    let plan = ran.log();
    assert!(plan.contains("variable") && plan.contains("2 GiB"), "{plan}");
    assert!(ran.outputs(&["bake"]).values().all(String::is_empty), "a dry run has no result");

    for (clean, exit) in [("true", true), ("false", true), ("maybe", false)] {
        let inputs = job.inputs(&[("clean", clean), ("dry-run", "true")]);
        job.push(&self::workflow(&inputs));
        let ran = job.run(|_| {});
        assert_eq!(ran.success, exit, "clean: {clean}: {ran:#?}");
    }
}

#[test]
fn root_keys_are_files_for_no_longer_than_the_job() {
    if !needs_root() {
        return;
    }
    let runner = Runner::new();
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----";
    let script = "cat \"$EBS_BAKE_SSH_KEY\" \"$EBS_BAKE_KNOWN_HOSTS\"; stat -c %a \"$EBS_BAKE_SSH_KEY\"";
    let hosts = "git.example.com ssh-ed25519 AAAA";
    let variables = [("EBS_BAKE_AFTER_CHECKOUT", script), ("EBS_BAKE_SSH_KEY", key), ("EBS_BAKE_KNOWN_HOSTS", hosts)];
    let baked = runner.bake(&variables).output().unwrap();
    let log = String::from_utf8_lossy(&baked.stderr);
    for line in [key.lines().nth(1).unwrap(), hosts, "600"] {
        assert!(log.contains(&format!("after-checkout | {line}\n")), "{log}");
    }
    assert!(baked.status.success() && runner.outputs().starts_with("snapshot-id<<"), "{log}");
    runner.clean_up("success");
    runner.assert_nothing_left(1);
}

#[test]
fn root_a_privileged_container_needs_no_other_options() {
    if !needs_root() {
        return;
    }
    let runner = Runner::new();
    let baked = runner.bake(&[("PRIVILEGED", "true"), ("DOCKER_OPTIONS", "")]).output().unwrap();
    assert!(baked.status.success(), "{}", String::from_utf8_lossy(&baked.stderr));
    runner.outputs();
    runner.assert_nothing_left(1);
}
