use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;
use crate::report::{Change, Phase};
use dotenv::{decoded, strict};

#[path = "../../../tests/support/dotenv.rs"]
mod dotenv;

const HOSTILE: &str = "refs/heads/$(touch pwned)`id`'\"\\ #!\nEVIL=1\r\n::add-mask::x";

/// A result as a bake has it.
pub fn example() -> Outputs {
    let record = |phase, started, elapsed, change| PhaseRecord {
        phase,
        started: Duration::from_millis(started),
        elapsed: Duration::from_millis(elapsed),
        change: Some(change),
        detail: "a | <b>".into(),
    };
    Outputs {
        snapshot_id: "snap-0123456789abcdef0".parse().unwrap(),
        volume_id: Some("vol-0123456789abcdef0".parse().unwrap()),
        commit: "0123456789abcdef0123456789abcdef01234567".into(),
        reference: Some("refs/heads/main".into()),
        repository: "https://example.com/acme/chef".into(),
        key: "k".repeat(64),
        reused: false,
        store: "local".into(),
        region: None,
        size_gib: 8,
        changed_blocks: Some(9),
        copies: vec![("eu-west-1".into(), "snap-0fedcba9876543210".parse().unwrap())],
        ssm_parameter: Some("/chef/snapshot".into()),
        rollout: None,
        duration: Duration::from_millis(4250),
        phases: vec![record(Phase::Resolve, 0, 250, Change::Unchanged), record(Phase::Checkout, 250, 750, Change::Changed)],
    }
}

fn rolled_out() -> Outputs {
    let rollout = RolledOut {
        template: Some(("lt-0123456789abcdef0".into(), 7)),
        configurations: vec![("api".into(), "chef-0123456789ab-0123456789ab".into())],
        refreshes: vec![("web".into(), "08b91cf7".into()), ("web (eu)".into(), "dd7728d0".into())],
        previous: Some("snap-00000001".parse().unwrap()),
    };
    Outputs { rollout: Some(rollout), ..example() }
}

fn hostile() -> Outputs {
    Outputs { reference: Some(HOSTILE.into()), ..example() }
}

#[test]
fn json_is_versioned_and_ordered() {
    let text = hostile().to_json();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&value["version"], &value["ref"], &value["region"]), (&1.into(), &HOSTILE.into(), &Value::Null));
    assert_eq!(
        value["phases"][1],
        json!({
            "phase": "checkout", "started-seconds": 0.25, "seconds": 0.75, "change": "changed", "detail": "a | <b>",
        })
    );
    let names: Vec<&String> = value.as_object().unwrap().keys().collect();
    let expected = "version snapshot-id volume-id commit ref repository key reused store region size-gib changed-blocks \
                    copies ssm-parameter launch-template-id launch-template-version launch-configurations \
                    instance-refreshes previous-snapshot-id duration-seconds phases";
    assert_eq!(names, expected.split(' ').collect::<Vec<_>>());
}

#[test]
fn a_rollout_tells_where_the_snapshot_is() {
    let value = rolled_out().to_value();
    assert_eq!((&value["launch-template-version"], &value["previous-snapshot-id"]), (&7.into(), &"snap-00000001".into()));
    assert_eq!(value["launch-configurations"], json!({ "api": "chef-0123456789ab-0123456789ab" }));
    let env = strict(rolled_out().to_env().as_bytes());
    assert_eq!(env["LAUNCH_TEMPLATE_ID"], "lt-0123456789abcdef0");
    assert_eq!(env["INSTANCE_REFRESHES"], "web=08b91cf7%20web%20%28eu%29=dd7728d0");
    assert!(summary::markdown(&rolled_out()).starts_with("### Baked and rolled out "));
    assert!(summary::markdown(&Outputs { reused: true, ..rolled_out() }).starts_with("### Rolled out "));
}

/// What Java's `Properties.load` makes of it, for the part of the format that matters: `!` and `#` begin comments, `\`
/// escapes, the first `=`, `:` or space ends the name.
fn properties(text: &str) -> BTreeMap<String, String> {
    assert!(!text.contains('\\'));
    let lines = text.lines().filter(|line| !line.trim_start().is_empty() && !line.trim_start().starts_with(['#', '!']));
    let entry = |line: &str| {
        let end = line.find(['=', ':', ' ']).unwrap_or(line.len());
        (line[..end].to_owned(), line[end + 1..].trim_start().to_owned())
    };
    lines.map(entry).collect()
}

#[test]
fn the_env_file_means_the_same_to_all_its_readers_and_runs_nothing() {
    for outputs in [example(), hostile()] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("out.env");
        fs::write(&file, outputs.to_env()).unwrap();
        let dotenv = strict(outputs.to_env().as_bytes());
        assert_eq!(properties(&outputs.to_env()), dotenv);

        let script = format!(". ./out.env; for name in {}; do eval \"printf '%s=%s\\n' $name \\\"\\$$name\\\"\"; done", {
            dotenv.keys().cloned().collect::<Vec<_>>().join(" ")
        });
        let run = Command::new("sh").args(["-euc", &script]).current_dir(&directory).env_clear().output().unwrap();
        assert!(run.status.success() && run.stderr.is_empty(), "{run:?}");
        assert_eq!(strict(&run.stdout), dotenv);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "something was run");

        assert_eq!(dotenv["SNAPSHOT_ID"], "snap-0123456789abcdef0");
        assert_eq!((dotenv["REUSED"].as_str(), dotenv["SIZE_GIB"].as_str()), ("false", "8"));
        assert_eq!(dotenv["REPOSITORY"], "https://example.com/acme/chef", "ordinary values stay as they are");
        assert_eq!(decoded(&dotenv["REF"]), outputs.reference.unwrap());
        assert!(!dotenv.contains_key("REGION") && !dotenv.contains_key("EVIL"));
    }
}

#[test]
fn huge_values_do_not_push_the_others_out_of_gitlabs_limit() {
    let huge = Outputs { reference: Some("ä".repeat(3000)), repository: "x".repeat(1500), ..example() };
    let dotenv = strict(huge.to_env().as_bytes());
    assert!(dotenv.contains_key("SNAPSHOT_ID") && dotenv.contains_key("REPOSITORY") && !dotenv.contains_key("REF"));

    // One byte less than the limit is all there is room for.
    let of_length = |length| Outputs { repository: "x".repeat(length), ..example() };
    let room = 5 * 1024 - 1 - of_length(0).to_env().len();
    assert_eq!((of_length(room).to_env().len(), of_length(room + 1).to_env().contains("REPOSITORY")), (5119, false));

    let region = |number: usize| (format!("xx-somewhere-{number}"), "snap-0fedcba9876543210".parse().unwrap());
    let all = Outputs { copies: (0..40).map(region).collect(), ssm_parameter: Some("p".repeat(2000)), ..huge };
    assert_eq!(strict(all.to_env().as_bytes())["SNAPSHOT_ID"], "snap-0123456789abcdef0");
}

/// GitHub's runner: `name<<delimiter`, lines, `delimiter`.
fn github_outputs(text: &str) -> BTreeMap<String, String> {
    let mut outputs = BTreeMap::new();
    let mut lines = text.split('\n');
    while let Some(head) = lines.next().filter(|head| !head.is_empty()) {
        let (name, delimiter) = head.split_once("<<").unwrap();
        let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
        assert!(outputs.insert(name.to_owned(), value.join("\n")).is_none(), "{name} twice");
    }
    outputs
}

#[test]
fn github_outputs_cannot_be_injected() {
    let text = hostile().to_github_output();
    let outputs = github_outputs(&text);
    assert_eq!(outputs["ref"], HOSTILE);
    assert_eq!(outputs["snapshot-id"], "snap-0123456789abcdef0");
    assert_eq!(outputs.len(), 13, "all but the region");
    let delimiter = |text: &str| text.lines().next().unwrap().split_once("<<").unwrap().1.to_owned();
    assert_ne!(delimiter(&text), delimiter(&hostile().to_github_output()));
}

#[test]
fn no_value_breaks_out_of_its_place() {
    use proptest::prelude::{Strategy, any};
    let pieces = proptest::string::string_regex("([ -~]|[\\r\\n\\x00-\\x1f]|##\\[|::|\\PC){0,40}").unwrap();
    let values = (pieces, any::<String>()).prop_map(|(one, other)| one + &other);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let run = runner.run(&values, |value| {
        assert_eq!(decoded(&escape::env_value(&value)), value);
        let outputs = Outputs { reference: Some(value.clone()), ..example() };
        strict(outputs.to_env().as_bytes());
        assert_eq!(github_outputs(&outputs.to_github_output())["ref"], value);
        let line = escape::line(&value);
        assert!(!line.chars().any(char::is_control) && !line.contains("##["), "{line}");
        assert!(!escape::json(&outputs.to_json()).contains("##"));
        Ok(())
    });
    run.unwrap();
}

#[test]
fn the_step_summary_is_a_table_a_chart_and_nothing_of_others() {
    let page = summary::markdown(&hostile());
    assert!(page.starts_with("### Baked <code>snap-0123456789abcdef0</code>\n\n| | |\n|---|---|\n| snapshot-id | "), "{page}");
    assert!(!page.contains("EVIL=1\n") && !page.contains("\n::add-mask") && !page.contains("<b>"), "{page}");
    let chart =
        "```mermaid\ngantt\n    dateFormat x\n    axisFormat %M:%S\n    resolve :0, 250ms\n    checkout :250, 750ms\n```\n";
    assert!(page.ends_with(chart), "{page}");
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        assert_eq!(
            line.matches('|').count(),
            if line.contains("resolve") || line.contains("checkout") || line.contains("phase") { 5 } else { 3 },
            "{line}"
        );
    }
}

#[test]
fn the_summary_of_a_failed_run_says_what_and_how_far() {
    let directory = tempfile::tempdir().unwrap();
    let files = OutputFiles { step_summary: Some(directory.path().join("summary.md")), ..OutputFiles::default() };
    fs::write(files.step_summary.as_ref().unwrap(), "earlier\n").unwrap();
    let mut phases = example().phases;
    phases[1].change = None;
    let error = Error::new(Kind::Git, "cannot fetch <b>\n::add-mask::x").hint("look at *it*");
    files.write_failure(&error, &phases);
    let page = fs::read_to_string(files.step_summary.unwrap()).unwrap();
    let expected = "earlier\n### Failed: <code>cannot fetch &#60;b&#62;&#92;n&#58;&#58;add-mask&#58;&#58;x</code>\n\n<code>look at &#42;it&#42;</code>\n";
    assert!(page.starts_with(expected), "{page}");
    assert!(page.contains("| checkout | 0.75s | failed |") && page.contains("checkout :crit, 250, 750ms"), "{page}");
    assert!(summary::failure(&error, &[]).ends_with("</code>\n"), "no table of nothing");
}

fn files(directory: &Path) -> OutputFiles {
    OutputFiles {
        json: Some(directory.join("out.json")),
        env: Some(directory.join("out.env")),
        github_output: Some(directory.join("github-output")),
        step_summary: Some(directory.join("summary.md")),
    }
}

#[test]
fn files_are_replaced_or_appended_to_as_is_their_custom() {
    let directory = tempfile::tempdir().unwrap();
    let files = files(directory.path());
    fs::write(directory.path().join("real.json"), "old").unwrap();
    symlink("real.json", files.json.as_ref().unwrap()).unwrap();
    fs::write(files.github_output.as_ref().unwrap(), "earlier=1\n").unwrap();
    files.check_writable().unwrap();
    assert_eq!(fs::read(directory.path().join("real.json")).unwrap(), b"old", "a check changes nothing");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 3, "a check leaves nothing");

    let outputs = example();
    outputs.write(&files).unwrap();
    assert_eq!(fs::read_to_string(directory.path().join("real.json")).unwrap(), outputs.to_json());
    assert!(fs::symlink_metadata(files.json.as_ref().unwrap()).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(files.env.as_ref().unwrap()).unwrap(), outputs.to_env());
    let github = fs::read_to_string(files.github_output.as_ref().unwrap()).unwrap();
    assert!(github.starts_with("earlier=1\nsnapshot-id<<"), "{github}");
    let mode = fs::metadata(files.env.as_ref().unwrap()).unwrap().permissions().mode();
    let usual = File::create(directory.path().join("usual")).unwrap().metadata().unwrap().permissions().mode();
    assert_eq!(mode, usual, "as readable as any new file");
}

#[test]
fn what_cannot_be_written_is_known_before() {
    let directory = tempfile::tempdir().unwrap();
    let in_nowhere = OutputFiles { json: Some(directory.path().join("no/out.json")), ..OutputFiles::default() };
    let error = in_nowhere.check_writable().unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().starts_with("--output-json: ") && error.hint_text().is_some());
    let a_directory = OutputFiles { github_output: Some(directory.path().into()), ..OutputFiles::default() };
    assert!(a_directory.check_writable().unwrap_err().to_string().starts_with("$GITHUB_OUTPUT: "));
    assert!(OutputFiles::default().check_writable().is_ok());

    let error = example().write(&in_nowhere).unwrap_err();
    assert_eq!(error.kind(), Kind::Cleanup);
    assert!(error.to_string().starts_with("snapshot snap-0123456789abcdef0 is good"), "{error}");
}

#[test]
fn a_pipe_is_written_in_place_and_not_touched_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let files = OutputFiles { env: Some(path.clone()), ..OutputFiles::default() };
    // Nobody reads yet: opening the pipe would wait for ever.
    files.check_writable().unwrap();
    let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    example().write(&files).unwrap();
    let mut text = vec![0; example().to_env().len()];
    assert!(!fs::symlink_metadata(&path).unwrap().is_file(), "the pipe was replaced");
    reader.read_exact(&mut text).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), example().to_env());
}
