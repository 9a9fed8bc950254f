//! Azure Pipelines. How its agent runs scripts, reads what they print and cancels: `Bash@3` of microsoft/azure-pipelines-tasks,
//! `Command.cs` and `ProcessInvoker.cs` of microsoft/azure-pipelines-agent.

use nix::sys::signal::Signal;
use serde_yaml::Value;

use crate::ci_host::{BRANCH, CiHost, MESSAGE, Ran, Step, TOKEN, Variables, variables};
use crate::store::needs_root;
use crate::yaml::{list, load, mapping, only, replaced, string};

/// What the agent says in a job, by the names that macros use.
fn predefined(ci: &CiHost) -> Variables {
    let mut predefined = variables([
        ("TF_BUILD", "True"),
        ("Build.Repository.Uri", &ci.url().replace("//", "//acme@")),
        ("Build.SourceVersion", &ci.commit),
        ("Build.SourceBranch", &format!("refs/heads/{BRANCH}")),
        ("Build.SourceBranchName", BRANCH),
        ("Build.SourceVersionMessage", MESSAGE),
        ("Build.BuildId", "42"),
        ("System.CollectionUri", "https://ci.example.com/acme/"),
        ("System.TeamProject", "chef"),
        ("Agent.TempDirectory", &ci.host.text("root")),
    ]);
    predefined.extend(mapping(&load("azure-pipelines.yml")["variables"]));
    predefined
}

/// The steps of a job; `outputs` are those of the job that it depends on.
fn job(ci: &CiHost, name: &str, outputs: &Variables) -> Vec<Step> {
    let pipeline = load("azure-pipelines.yml");
    let job = list(&pipeline["jobs"]).iter().find(|job| job["job"] == name).unwrap();
    let mut known = predefined(ci);
    for (name, value) in mapping(&job["variables"]) {
        let depends_on = format!("$[ dependencies.{}.outputs['", string(&job["dependsOn"]));
        let output = value.strip_prefix(&depends_on).and_then(|rest| rest.strip_suffix("'] ]"));
        known.insert(name, output.map_or(value.clone(), |output| outputs[output].clone()));
    }
    let steps = list(&job["steps"]).iter().filter(|step| step.get("checkout") != Some(&Value::from("none")));
    steps.map(|step| script(step, &known)).collect()
}

fn script(step: &Value, known: &Variables) -> Step {
    only(step, &["bash", "name", "displayName", "env", "condition"]);
    let secret = |name: &str| (name == "System.AccessToken").then(|| TOKEN.to_owned());
    let expand = |text: &str| replaced(text, "$(", ")", |name| known.get(name).cloned().or_else(|| secret(name)));
    let in_environment = |(name, value): (&String, &String)| (name.to_uppercase().replace('.', "_"), value.clone());
    let mut variables: Variables = known.iter().map(in_environment).collect();
    variables.extend(mapping(&step["env"]).into_iter().map(|(name, value)| (name, expand(&value))));
    let on_failure = match step.get("condition").map(string).as_deref() {
        None => false,
        Some("or(failed(), canceled())") => true,
        Some(other) => panic!("condition {other:?} is not understood here"),
    };
    Step { shell: vec!["bash".into(), "-c".into()], script: expand(&string(&step["bash"])), variables, on_failure }
}

/// The output variables that a job set, `step.variable`. Whatever it printed may be a command.
fn outputs(ran: &[Ran]) -> Variables {
    let printed: String = ran.iter().flat_map(|ran| [ran.stdout.as_str(), ran.stderr.as_str()]).collect();
    let commands = printed.lines().filter_map(|line| line.split_once("##vso[")?.1.split_once(']'));
    let output = |(command, value): (&str, &str)| {
        let (name, properties) = command.split_once(' ').unwrap();
        assert_eq!(name, "task.setvariable");
        let mut properties: Vec<_> = properties.split(';').map(|property| property.split_once('=').unwrap()).collect();
        properties.sort_unstable();
        let [("isOutput", "true"), ("variable", variable)] = properties[..] else { panic!("{properties:?}") };
        (format!("snapshot.{variable}"), value.to_owned())
    };
    let outputs: Vec<_> = commands.map(output).collect();
    assert!(outputs.len() <= 1, "one variable is set, and once: {outputs:?}");
    outputs.into_iter().collect()
}

#[test]
fn root_azure_bakes_and_rolls_out() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::on_ec2();
    let ran = ci.job(&job(&ci, "bake", &Variables::new()));
    assert!(ran.iter().all(|ran| ran.code == 0), "{ran:#?}");
    ci.succeeds(&job(&ci, "rollout", &outputs(&ran)));
    ci.assert_rolled_out(&ci.url(), "https://ci.example.com/acme/chef/_build/results?buildId=42");
}

#[test]
fn root_azure_cleans_up_after_a_failure_and_hands_nothing_on() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    ci.containers_have(&[("EBS_BAKE_AFTER_CHECKOUT", "false")]);
    let ran = ci.job(&job(&ci, "bake", &Variables::new()));
    assert_eq!(ran.iter().map(|ran| ran.code).collect::<Vec<_>>(), [7, 0], "{ran:#?}");
    assert_eq!(outputs(&ran), Variables::new());
    ci.assert_cleaned_up();
    ci.assert_nothing_left(0);
}

/// The task gets SIGINT and sends SIGTERM to bash alone.
#[test]
fn root_azure_when_cancelled_leaves_nothing() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    ci.bakes_hang();
    let steps = job(&ci, "bake", &Variables::new());
    let ran = ci.cancelled(&steps[0], Signal::SIGTERM, false);
    assert_eq!((ran.code, ran.stdout.as_str()), (143, ""), "{ran:?}");
    ci.assert_nothing_left(0);
}

/// After ten seconds the client is killed. The step that runs always stops the container.
#[test]
fn root_azure_when_its_client_is_killed_stops_the_container() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    ci.bakes_hang();
    let steps = job(&ci, "bake", &Variables::new());
    assert_eq!(ci.cancelled(&steps[0], Signal::SIGKILL, false).code, -9);
    assert!(!ci.host.loop_devices().is_empty(), "the container goes on without its client");
    let last = steps.last().unwrap();
    assert!(last.on_failure);
    assert_eq!(ci.run(last).code, 0);
    ci.assert_cleaned_up();
    ci.assert_nothing_left(0);
}
