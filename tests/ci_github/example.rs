//! The example is executed as it stands: only where the container finds loop devices is added to it, and on the runner there are
//! stand-ins for AWS: a command `aws`, and the action that gets credentials.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_yaml::Value;

use crate::action::{EXAMPLE, text};
use crate::engine::Engine;
use crate::job::{Job, LOOP_DEVICES, copy_action, program};
use crate::needs::needs_root;
use crate::tools::run;

/// Says what it was told, and what the credentials are.
const AWS: &str = "#!/bin/sh
{ printf '%s\\n' \"$AWS_ACCESS_KEY_ID\" \"$@\"; echo; } >>\"$AWS_LOG\"
case $2 in create-launch-template-version) echo 7 ;; esac
";

/// Does what the action does that it stands for: the role's credentials are in the environment of the steps that follow.
const CREDENTIALS: &str = "
inputs: {role-to-assume: {required: true}, aws-region: {required: true}}
runs:
  using: composite
  steps:
    - run: |
        echo \"AWS_ACCESS_KEY_ID=key of $ROLE\" >>$GITHUB_ENV
        echo \"AWS_REGION=$REGION\" >>$GITHUB_ENV
      env: {ROLE: \"${{ inputs.role-to-assume }}\", REGION: \"${{ inputs.aws-region }}\"}
      shell: bash
";

/// `uses` of the steps of the example.
fn used() -> Vec<String> {
    let example: Value = serde_yaml::from_str(&text(EXAMPLE)).unwrap();
    let steps = example["jobs"].as_mapping().unwrap().values().flat_map(|job| job["steps"].as_sequence().unwrap());
    steps.filter_map(|step| Some(step.get("uses")?.as_str()?.to_owned())).collect()
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
    let job = Job::new();
    let mut example: Value = serde_yaml::from_str(&text(EXAMPLE)).unwrap();
    let bake = example["jobs"]["bake"]["steps"].as_sequence_mut().unwrap().last_mut().unwrap();
    bake["with"]["docker-options"] = LOOP_DEVICES.into();
    let commit = job.push(&serde_yaml::to_string(&example).unwrap());

    let (action, credentials, bin) = (job.host.path("action"), job.host.path("credentials"), job.host.path("bin"));
    for directory in [&action, &credentials, &bin] {
        fs::create_dir(directory).unwrap();
    }
    copy_action(&action);
    fs::write(credentials.join("action.yml"), CREDENTIALS).unwrap();
    program(&bin.join("aws"), AWS);
    let _image = OwnImage::of_action(&job, &action);
    let ran = job.run(|act| {
        for name in used() {
            let stand_in = if name.starts_with("ebs-bake/") { &action } else { &credentials };
            act.arg("--local-repository").arg(format!("{name}={}", stand_in.display()));
        }
        for (name, value) in [("BAKE_ROLE", "baker"), ("ROLLOUT_ROLE", "roller"), ("AWS_REGION", "eu-central-1")] {
            act.args(["--var", &format!("{name}={value}")]);
        }
        act.args(["--var", "LAUNCH_TEMPLATE=chef nodes", "--var", "AUTO_SCALING_GROUP=nodes"]);
        act.args(["--env", &format!("EBS_BAKE_LOCAL_DIR={}", job.host.text("store"))]);
        act.args(["--env", &format!("EBS_BAKE_STATE_DIR={}", job.host.text("state"))]);
        act.args(["--env", &format!("AWS_LOG={}", job.host.text("aws.log"))]);
        let path = act.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path?.to_str()).unwrap();
        let path = format!("{}:{path}", bin.display());
        act.env("PATH", path);
    });
    assert!(ran.success, "{ran:#?}");
    let [snapshot] = job.host.snapshots().try_into().unwrap();
    let id = snapshot["snapshot-id"].as_str().unwrap();
    assert_eq!(snapshot["commit"], commit.as_str());
    let expected = format!(
        "key of roller\nec2\ncreate-launch-template-version\n--launch-template-name\nchef nodes\n--source-version\n$Latest\n\
         --version-description\n{commit}\n--launch-template-data\n\
         BlockDeviceMappings=[{{DeviceName=/dev/sdk,Ebs={{SnapshotId={id},VolumeType=gp3,DeleteOnTermination=true}}}}]\n\
         --query\nLaunchTemplateVersion.VersionNumber\n--output\ntext\n\n\
         key of roller\nautoscaling\nstart-instance-refresh\n--auto-scaling-group-name\nnodes\n--desired-configuration\n\
         LaunchTemplate={{LaunchTemplateName=chef nodes,Version=7}}\n\n"
    );
    assert_eq!(fs::read_to_string(job.host.path("aws.log")).unwrap(), expected);
    job.host.assert_nothing_left(1);
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
