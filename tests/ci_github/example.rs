//! The example is executed as it stands, on the bridge's EC2: only where the container finds its disks is added to it, and the action
//! that gets credentials has a stand-in.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_yaml::Value;

use crate::action::{EXAMPLE, text};
use crate::engine::Engine;
use crate::fleet::Yard;
use crate::job::{Job, LOOP_DEVICES, copy_action, program};
use crate::store::needs_root;
use crate::tools::run;

/// Does what the action does that it stands for: the role's credentials are in the environment of the steps that follow.
const CREDENTIALS: &str = "
inputs: {role-to-assume: {required: true}, aws-region: {required: true}}
runs:
  using: composite
  steps:
    - run: |
        echo \"AWS_ACCESS_KEY_ID=$ROLE\" >>$GITHUB_ENV
        echo AWS_SECRET_ACCESS_KEY=not-checked >>$GITHUB_ENV
        echo \"AWS_REGION=$REGION\" >>$GITHUB_ENV
      env: {ROLE: \"${{ inputs.role-to-assume }}\", REGION: \"${{ inputs.aws-region }}\"}
      shell: bash
";

/// The repositories of other people's and our actions that the example uses, with their refs.
fn used() -> BTreeSet<String> {
    let example: Value = serde_yaml::from_str(&text(EXAMPLE)).unwrap();
    let steps = example["jobs"].as_mapping().unwrap().values().flat_map(|job| job["steps"].as_sequence().unwrap());
    let uses = steps.filter_map(|step| step.get("uses")?.as_str()?.split_once('@'));
    uses.map(|(path, at)| format!("{}@{at}", path.splitn(3, '/').take(2).collect::<Vec<_>>().join("/"))).collect()
}

/// The image that the action makes for itself, by its name, from what the tests have; the name goes with the value.
struct OwnImage(String);

impl OwnImage {
    fn of_action(job: &Job, action: &Path) -> OwnImage {
        let (output, docker) = (job.host.path("prepare"), job.host.path("docker"));
        fs::create_dir(&docker).unwrap();
        program(&docker.join("docker"), "#!/bin/sh\nexit 0\n");
        let path = format!("{}:{}", docker.display(), std::env::var("PATH").unwrap());
        let mut prepare = Command::new(action.join("scripts/github-action.sh"));
        run(prepare.arg("prepare").env("GITHUB_OUTPUT", &output).env("PATH", path));
        let outputs = fs::read_to_string(output).unwrap();
        let name = outputs.lines().find_map(|line| line.strip_prefix("image=")).unwrap().to_owned();
        let engine = Engine::shared();
        run(&mut engine.docker(&["tag", engine.image(), &name]));
        OwnImage(name)
    }
}

impl Drop for OwnImage {
    fn drop(&mut self) {
        let _ = Engine::shared().docker(&["image", "rm", &self.0]).output();
    }
}

#[test]
fn root_the_example_rolls_out_what_it_has_baked() {
    if !needs_root() {
        return;
    }
    let (job, yard) = (Job::new(), Yard::new().unwrap());
    yard.fleet();
    let instance = yard.cloud.bridge.host("us-east-1a");
    let sysfs = instance.sysfs.display();
    let mut example: Value = serde_yaml::from_str(&text(EXAMPLE)).unwrap();
    let bake = example["jobs"]["bake"]["steps"].as_sequence_mut().unwrap().last_mut().unwrap();
    bake["with"]["docker-options"] = format!("{LOOP_DEVICES}\n--volume={sysfs}:{sysfs}:ro").into();
    let commit = job.push(&serde_yaml::to_string(&example).unwrap());

    let (action, credentials) = (job.host.path("action"), job.host.path("credentials"));
    for directory in [&action, &credentials] {
        fs::create_dir(directory).unwrap();
    }
    copy_action(&action);
    fs::write(credentials.join("action.yml"), CREDENTIALS).unwrap();
    let _image = OwnImage::of_action(&job, &action);
    let ran = job.run(|act| {
        for name in used() {
            let stand_in = if name.starts_with("ebs-bake/") { &action } else { &credentials };
            act.arg("--local-repository").arg(format!("{name}={}", stand_in.display()));
        }
        let variables = [("BAKE_ROLE", "baker"), ("ROLLOUT_ROLE", "roller"), ("AWS_REGION", "us-east-1")];
        for (name, value) in variables.into_iter().chain([("LAUNCH_TEMPLATE", "chef"), ("AUTO_SCALING_GROUP", "chef")]) {
            act.args(["--var", &format!("{name}={value}")]);
        }
        let mut environment = yard.cloud.bridge.environment(&instance);
        environment.retain(|(name, _)| !name.contains("ACCESS_KEY"));
        environment.push(("EBS_BAKE_SYSFS_ROOT", sysfs.to_string()));
        environment.push(("EBS_BAKE_STATE_DIR", job.host.text("state")));
        for (name, value) in environment {
            act.args(["--env", &format!("{name}={value}")]);
        }
    });
    assert!(ran.success, "{ran:#?}");
    let calls = yard.cloud.bridge.calls().calls;
    let caller = |action: &str| calls.iter().filter(|call| call.action == action).map(|call| call.access_key.as_str()).collect();
    let callers: [Vec<&str>; 3] = ["CreateSnapshot", "CreateLaunchTemplateVersion", "StartInstanceRefresh"].map(caller);
    assert_eq!(callers, [["baker"], ["roller"], ["roller"]], "each job has its own role");
    let baked = ran.outputs(&["bake", "bake"]);
    assert_eq!(baked["commit"], commit);
    yard.assert_rolled_out(&baked["snapshot-id"]);
    let rolled_out = ran.outputs(&["rollout", "rollout"]);
    assert_eq!((&rolled_out["snapshot-id"], rolled_out["launch-template-version"].as_str()), (&baked["snapshot-id"], "2"));
    job.host.assert_nothing_left(0);
}

/// On a runner where it is not there yet the image is made, and from nothing but what the action has.
#[test]
fn the_image_is_made_from_the_source_of_the_action_once() {
    let directory = tempfile::tempdir().unwrap();
    let (action, log) = (directory.path().join("action"), directory.path().join("log"));
    fs::create_dir_all(action.join("bin")).unwrap();
    copy_action(&action);
    let docker = "#!/bin/sh\nprintf '%s ' \"$PWD\" \"$@\" >>\"$LOG\"; echo >>\"$LOG\"; [ \"$1\" = build ]\n";
    program(&action.join("bin/docker"), docker);
    let prepare = |image: &str| {
        let _ = fs::remove_file(&log);
        let output = directory.path().join("output");
        fs::write(&output, "").unwrap();
        let mut prepare = Command::new(action.join("scripts/github-action.sh"));
        let path = format!("{}:{}", action.join("bin").display(), std::env::var("PATH").unwrap());
        run(prepare.arg("prepare").env("GITHUB_OUTPUT", &output).env("IMAGE", image).env("LOG", &log).env("PATH", path));
        let outputs = fs::read_to_string(output).unwrap();
        let image = outputs.lines().find_map(|line| line.strip_prefix("image=").map(str::to_owned));
        (image, fs::read_to_string(&log).unwrap_or_default())
    };
    let (first, calls) = prepare("");
    let first = first.unwrap();
    let at = fs::canonicalize(&action).unwrap();
    assert_eq!(calls, format!("{0} image inspect {first} \n{0} build --tag {first} . \n", at.display()));
    fs::write(action.join("src/main.rs"), "// another version\n").unwrap();
    assert_ne!(prepare("").0.unwrap(), first, "another source is another image");
    assert_eq!(prepare("registry.example.com/ebs-bake:1"), (None, String::new()), "a named one is not made");
}
