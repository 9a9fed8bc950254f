//! What others' checkers say of the examples, and what none of them sees: options that do not exist, privileges that differ, files that
//! the documentation forgets.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_yaml::Value;

use crate::ci_host::example;
use crate::tools::{python_environment, python_tool};
use crate::yaml::{list, load, string, text};

/// What a bake needs, and no more.
const PRIVILEGES: &str = "--cap-drop ALL --cap-add SYS_ADMIN --cap-add MKNOD --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER \
                          --device-cgroup-rule 'b 259:* rwm' --security-opt apparmor=unconfined --network host";
/// What a rollout needs: the metadata service, where credentials come from.
const PRIVILEGES_OF_ROLLOUT: &str = "--cap-drop ALL --network host";
/// Options of other programs that are mentioned.
const OPTIONS_OF_OTHERS: &str = "--rm --name --cap-drop --cap-add --device-cgroup-rule --security-opt --network --env --volume --mount \
     --entrypoint --user --query --output --instance-ids --instance-id --document-name --parameters --command-id \
     --http-put-response-hop-limit --arg --test";

fn documentation() -> String {
    fs::read_to_string(example("docs/ci.md")).unwrap()
}

fn names_in(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(example(directory)).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Everything that users copy, and this page: names and texts.
fn all_texts() -> Vec<(String, String)> {
    let files =
        ["ci-examples", "templates"].iter().flat_map(|it| names_in(it).into_iter().map(move |name| format!("{it}/{name}")));
    let files = files.chain(["docs/ci.md".to_owned()]);
    files.map(|file| (file.clone(), fs::read_to_string(example(&file)).unwrap())).collect()
}

/// The blocks of code in this language.
pub fn code_blocks(page: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    page.split(&begin).skip(1).map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// Writes a text to a file and runs a checker on it.
fn checked(mut checker: Command, name: &str, content: &str) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(name), content).unwrap();
    let output = checker.arg(name).current_dir(&directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

/// All scalars as texts, which is how Azure reads them and what its schema asks for.
fn as_texts(value: Value) -> Value {
    match value {
        Value::Bool(value) => value.to_string().into(),
        Value::Number(value) => value.to_string().into(),
        Value::Sequence(values) => values.into_iter().map(as_texts).collect(),
        Value::Mapping(values) => Value::Mapping(values.into_iter().map(|(name, value)| (name, as_texts(value))).collect()),
        other => other,
    }
}

#[test]
fn files_fit_their_schemas() {
    let azure = as_texts(load("azure-pipelines.yml"));
    let files = [("buildkite", "buildkite.yml"), ("circle-ci", "circleci.yml"), ("woodpecker-ci", "woodpecker.yml")];
    let files = files.into_iter().map(|(schema, file)| (schema, load(file))).chain([("azure-pipelines", azure)]);
    for (schema, content) in files {
        let mut checker = Command::new(python_tool("check-jsonschema"));
        checker.args(["--regex-variant", "nonunicode", "--builtin-schema", &format!("vendor.{schema}")]);
        checked(checker, "file.json", &serde_json::to_string(&content).unwrap());
    }
}

/// All scripts in the examples, with the shell that runs each.
fn scripts() -> Vec<(String, &'static str, String)> {
    let mut scripts = Vec::new();
    let mut add = |name: &str, shell, values: Vec<&Value>| {
        let found = values.into_iter().map(string).map(|script| script.replace("$$", "$"));
        let before = scripts.len();
        scripts.extend(found.enumerate().map(|(number, script)| (format!("{name}-{number}"), shell, script)));
        assert!(scripts.len() > before, "{name} has no script");
    };
    fn each<'a>(steps: &'a Value, key: &str) -> Vec<&'a Value> {
        list(steps).iter().filter_map(|step| step.get(key)).collect()
    }
    let azure = load("azure-pipelines.yml");
    add("azure", "bash", list(&azure["jobs"]).iter().flat_map(|job| each(&job["steps"], "bash")).collect());
    add("buildkite", "bash", each(&load("buildkite.yml")["steps"], "command"));
    let circleci = load("circleci.yml");
    let runs = ["bake", "rollout"].iter().flat_map(|job| each(&circleci["jobs"][job]["steps"], "run"));
    add("circleci", "bash", runs.map(|run| &run["command"]).collect());
    let codebuild = load("codebuild-buildspec.yml");
    let phases = codebuild["phases"].as_mapping().unwrap().values();
    add(
        "codebuild",
        "sh",
        phases.flat_map(|phase| [list(&phase["commands"]), list(&phase["finally"])].concat().leak().iter()).collect(),
    );
    for step in each(&load("woodpecker.yml")["steps"], "commands") {
        let script: Vec<_> = list(step).iter().map(string).collect();
        add("woodpecker", "sh", vec![&Value::from(script.join("\n"))]);
    }
    let jenkins: Vec<_> = text("Jenkinsfile").split("'''").skip(1).step_by(2).map(Value::from).collect();
    add("jenkins", "sh", jenkins.iter().collect());
    let documented: Vec<_> = code_blocks(&documentation(), "sh").into_iter().map(Value::from).collect();
    add("docs", "sh", documented.iter().collect());
    let files: Vec<_> =
        names_in("ci-examples").into_iter().filter(|name| name.ends_with(".sh")).map(|name| text(&name).into()).collect();
    add("file", "sh", files.iter().collect());
    scripts
}

#[test]
fn scripts_pass_shellcheck() {
    for (name, shell, script) in scripts() {
        let mut checker = Command::new(python_tool("shellcheck"));
        // snapshot.env comes at run time.
        checker.args(["--shell", shell, "--exclude", "SC1091"]);
        checked(checker, &name, &script);
    }
}

/// The words of a command, quotes taken away.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in command.chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// Each `docker run` in a text, from the first option to what comes after the image.
fn docker_runs(text: &str) -> Vec<Vec<String>> {
    let joined = text.replace("\\\n", " ");
    let commands = joined
        .lines()
        .filter(|line| !line.trim_start().starts_with(['#', '/']))
        .filter_map(|line| line.split_once("docker run --"));
    commands.map(|(_, command)| words(&format!("--{command}"))).collect()
}

/// What is left of a `docker run` without what says nothing about privileges.
fn privileges(run: &[String]) -> Vec<String> {
    let image =
        run.iter().position(|word| ["$IMAGE", "$$IMAGE", "ebs-bake", "$names"].contains(&word.as_str())).expect("an image");
    let mut privileges = Vec::new();
    let mut options = run[..image].iter();
    while let Some(option) = options.next() {
        match option.as_str() {
            "--rm" => {}
            "--name" | "--mount" | "--user" | "-e" | "-v" => drop(options.next()),
            _ => privileges.push(option.clone()),
        }
    }
    privileges
}

#[test]
fn containers_have_the_same_few_privileges_everywhere() {
    let (mut files, mut rollouts) = (BTreeSet::new(), BTreeSet::new());
    for (file, text) in all_texts() {
        for run in docker_runs(&text) {
            let attaches = !run.iter().any(|word| word == "rollout" || word == "--user");
            assert_eq!(privileges(&run), words(if attaches { PRIVILEGES } else { PRIVILEGES_OF_ROLLOUT }), "{file}");
            if attaches { &mut files } else { &mut rollouts }.insert(file.clone());
        }
    }
    let mine = [
        "Jenkinsfile",
        "azure-pipelines.yml",
        "buildkite-pre-exit.sh",
        "buildkite.yml",
        "circleci.yml",
        "codebuild-host.sh",
        "docker-run.sh",
    ];
    assert!(mine.iter().all(|name| files.contains(&format!("ci-examples/{name}"))), "{files:?}");
    let who_rolls_out =
        ["Jenkinsfile", "azure-pipelines.yml", "buildkite.yml", "circleci.yml", "codebuild-buildspec.yml", "docker-run.sh"];
    assert_eq!(rollouts, who_rolls_out.iter().map(|name| format!("ci-examples/{name}")).collect());
    let page = documentation().replace('\n', " ");
    assert!(page.contains(&format!("`{PRIVILEGES}`")), "docs/ci.md says what they are");
}

/// Words of a text that begin like this and go on with these characters.
fn named(text: &str, start: &str, goes_on: fn(char) -> bool) -> BTreeSet<String> {
    let found = text.split(start).skip(1).map(|rest| rest.split(|c| !goes_on(c)).next().unwrap());
    found.filter(|rest| !rest.is_empty()).map(|rest| format!("{start}{rest}")).collect()
}

#[test]
fn options_and_variables_exist() {
    let mut options: BTreeSet<String> = ebs_bake::cli::option_names().iter().map(|name| format!("--{name}")).collect();
    let mut variables: BTreeSet<String> =
        ebs_bake::cli::option_names().iter().map(|name| ebs_bake::config::layers::variable(name)).collect();
    variables.insert(ebs_bake::config::layers::TOKEN_VARIABLE.to_owned());
    options.extend(OPTIONS_OF_OTHERS.split_whitespace().map(str::to_owned));
    for (file, text) in all_texts() {
        let unknown: Vec<_> =
            named(&text, "EBS_BAKE_", |c| c == '_' || c.is_ascii_uppercase()).difference(&variables).cloned().collect();
        assert_eq!(unknown, Vec::<String>::new(), "{file}");
        let text = text.replace(['`', '"'], " ");
        let unknown: Vec<_> = named(&text, " --", |c| c == '-' || c.is_ascii_lowercase())
            .iter()
            .map(|name| name.trim().to_owned())
            .filter(|name| !options.contains(name))
            .collect();
        assert_eq!(unknown, Vec::<String>::new(), "{file}");
    }
}

#[test]
fn variables_that_are_read_are_handed_on() {
    let source = fs::read_to_string(example("src/ci.rs")).unwrap();
    let quoted = source.split('"').skip(1).step_by(2).filter(|word| word.contains('_') && word.to_uppercase() == *word);
    let read: BTreeSet<_> = quoted.collect();
    let systems: [(&[&str], &str); 5] = [
        (&["BUILD_REPOSITORY", "BUILD_SOURCE", "BUILD_BUILDID", "SYSTEM_", "TF_BUILD"], "azure-pipelines.yml"),
        (&["BUILDKITE"], "buildkite.yml"),
        (&["CIRCLE"], "circleci.yml"),
        (&["CODEBUILD"], "codebuild-host.sh"),
        (&["JENKINS_URL", "GIT_", "BUILD_URL", "BRANCH_NAME", "TAG_NAME", "CHANGE_ID"], "Jenkinsfile"),
    ];
    for (prefixes, file) in systems {
        let handed_on: Vec<_> =
            docker_runs(&text(file)).into_iter().find(|run| run.iter().any(|word| word.trim_end_matches(')') == "bake")).unwrap();
        let wanted: Vec<_> = read.iter().filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))).collect();
        assert!(wanted.len() > 4, "{file}: {wanted:?}");
        // Only of builds that everybody can see.
        let missing: Vec<_> = wanted
            .into_iter()
            .filter(|name| **name != "CODEBUILD_PUBLIC_BUILD_URL" && !handed_on.iter().any(|word| word == *name))
            .collect();
        assert_eq!(missing, Vec::<&&str>::new(), "{file}");
    }
}

#[test]
fn every_example_is_in_the_table_and_the_table_names_no_other() {
    let page = documentation();
    let table: String = page.lines().filter(|line| line.starts_with('|')).collect();
    let linked = table.split("](../ci-examples/").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned());
    let linked: BTreeSet<_> = linked.collect();
    assert_eq!(linked, names_in("ci-examples").into_iter().collect());
}

/// The AWS command line itself checks the parameters, before it finds that there is nobody to talk to.
#[test]
fn calls_of_aws_have_the_right_parameters() {
    let aws = python_environment(&example("benches/support/aws-requirements.txt")).join("bin/aws");
    let send = "ssm send-command --instance-ids i-0123456789abcdef0 --document-name AWS-RunShellScript \
                --parameters {\"commands\":[\"true\"],\"executionTimeout\":[\"7200\"]} --query Command.CommandId --output text";
    let look = "ssm get-command-invocation --instance-id i-0123456789abcdef0 --command-id 00000000-0000-0000-0000-000000000001 \
                --query StandardOutputContent --output text";
    let calls = [send, look].map(|call| call.split_whitespace().collect::<Vec<_>>());
    for call in calls {
        let mut command = Command::new(&aws);
        command.args(&call).args(["--endpoint-url", "http://127.0.0.1:1", "--region", "us-east-1"]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("AWS_MAX_ATTEMPTS", "1");
        command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b");
        let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
        assert!(said.contains("Could not connect to the endpoint"), "{call:?}: {said}");
    }
}
