//! What others wrote, made up by a fuzzer: the targets of `fuzz/`, built with the stable compiler and run from their kept inputs.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/reliability.rs"]
mod reliability;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use reliability::{record, rounds};

/// Each target, and how many inputs are made up: as many as take a second or two on one core of a small machine.
const TARGETS: [(&str, u64); 16] = [
    ("attributes", 45_000),
    ("chef_json", 90_000),
    ("chef_ruby", 37_500),
    ("configuration", 60_000),
    ("fleet", 30_000),
    ("git_answer", 90_000),
    ("gitmodules", 45_000),
    ("host", 3_000),
    ("imds", 90_000),
    ("index", 90_000),
    ("known_hosts", 30_000),
    ("location", 37_500),
    ("manifest", 90_000),
    ("outputs", 4_500),
    ("store_metadata", 90_000),
    ("user_data", 3_000),
];
/// How many times as many a long run makes up.
const SOAK: u64 = 40;
const SEED: u32 = 1;
const MEMORY_MIB: u32 = 512;
const LONGEST_INPUT: u32 = 4096;
/// An input that takes seconds hangs: they take microseconds.
const PATIENCE_SECONDS: u32 = 60;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

#[test]
fn no_input_breaks_a_parser_or_what_it_promises() {
    check_that_none_is_forgotten();
    let programs = build();
    let scratch = tempfile::tempdir().unwrap();
    let (next, results) = (Mutex::new(TARGETS.iter()), Mutex::new(BTreeMap::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some((target, runs)) = { next.lock().unwrap().next() } {
                    let result = run(target, rounds(*runs, runs * SOAK), &programs[*target], scratch.path());
                    results.lock().unwrap().insert(*target, result);
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    let failures: Vec<&String> = results.values().filter_map(|result| result.as_ref().err()).collect();
    assert!(failures.is_empty(), "{}", failures.into_iter().cloned().collect::<Vec<_>>().join("\n"));
    let mut figures = format!(
        "libFuzzer, seed {SEED}, inputs of up to {LONGEST_INPUT} bytes, {MEMORY_MIB} MiB of memory, {PATIENCE_SECONDS} s for an input. Nothing \
         crashed, hung, took more memory, or broke a property.\n\n\
         | Target | Kept inputs | Made up | Edges reached |\n|---|--:|--:|--:|\n"
    );
    for (target, result) in &results {
        let Ran { kept, runs, edges } = result.as_ref().unwrap();
        writeln!(figures, "| `{target}` | {kept} | {runs} | {edges} |").unwrap();
    }
    record("fuzz", &figures);
}

/// Every target is run, and has inputs to begin with.
fn check_that_none_is_forgotten() {
    let names = |directory: &str| -> Vec<String> {
        let files = fs::read_dir(fuzz().join(directory)).unwrap().map(|file| file.unwrap().path());
        let mut names: Vec<String> = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort_unstable();
        names
    };
    let listed = TARGETS.map(|(target, _)| target);
    assert_eq!(names("fuzz_targets"), listed);
    assert_eq!(names("corpus"), listed);
}

/// The programs by their targets. What this workspace depends on is taken as `cargo test` has compiled it.
fn build() -> BTreeMap<String, PathBuf> {
    let target_directory = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).env("RUSTC_WORKSPACE_WRAPPER", fuzz().join("rustc.sh"));
    // Some build scripts run again when these change, and cargo has set them for this very test.
    for (name, _) in std::env::vars() {
        let of_this_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_"].iter().any(|prefix| name.starts_with(prefix));
        if of_this_package || ["CARGO", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "LD_LIBRARY_PATH"].contains(&&*name) {
            cargo.env_remove(name);
        }
    }
    // Both packages, for then cargo selects the features that the tests have.
    cargo.args(["test", "--locked", "--no-run", "--message-format", "json", "-p", "ebs-bake", "-p", "ebs-bake-fuzz"]);
    cargo.arg("--target-dir").arg(target_directory);
    for (target, _) in TARGETS {
        cargo.args(["--bin", target]);
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut programs = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = message["target"]["name"].as_str().unwrap_or_default();
        if name == "aws_sdk_ec2" {
            assert_eq!(message["fresh"], true, "the SDK was compiled again: features or profile are not those of the tests");
        }
        if let Some(program) = message["executable"].as_str() {
            programs.insert(name.to_owned(), program.into());
        }
    }
    programs
}

/// What came of a target.
struct Ran {
    kept: usize,
    runs: u64,
    edges: u64,
}

fn run(target: &str, runs: u64, program: &Path, scratch: &Path) -> Result<Ran, String> {
    let (found, kept) = (scratch.join(target), fuzz().join("corpus").join(target));
    let artifacts = fuzz().join("artifacts").join(target);
    fs::create_dir_all(&found).unwrap();
    fs::create_dir_all(&artifacts).unwrap();
    let mut command = Command::new(program);
    command.args([format!("-seed={SEED}"), format!("-runs={runs}"), "-reload=0".into(), "-print_final_stats=1".into()]);
    command.args([
        format!("-rss_limit_mb={MEMORY_MIB}"),
        format!("-max_len={LONGEST_INPUT}"),
        format!("-timeout={PATIENCE_SECONDS}"),
    ]);
    command.arg(format!("-artifact_prefix={}/", artifacts.display())).args([&found, &kept]);
    let output = command.env("TMPDIR", scratch).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(failure(target, &said));
    }
    fs::remove_dir(&artifacts).unwrap();
    let number = |before: &str| {
        let digits = said.rsplit_once(before).map_or("", |(_, after)| after.trim_start());
        digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap_or(0)
    };
    let (executed, edges) = (number("stat::number_of_executed_units:"), number(" cov:"));
    assert!(executed >= runs && edges > 100, "{target} is not instrumented, or did not run: {said}");
    Ok(Ran { kept: fs::read_dir(&kept).unwrap().count(), runs: executed, edges })
}

/// What went wrong, the input that did it, and how to see it again.
fn failure(target: &str, said: &str) -> String {
    let line = |begins: &str| said.lines().find(|line| line.trim_start().starts_with(begins)).unwrap_or_default();
    let panic =
        said.split_once("panicked at ").map_or("", |(_, after)| after.split("stack backtrace").next().unwrap_or_default());
    let panic: String = panic.chars().take(2000).collect();
    let artifact = said.rsplit_once("Test unit written to ").map_or("", |(_, path)| path.lines().next().unwrap_or_default());
    format!(
        "{target}: {}\n{panic}\ninput: {}\nonce more: cargo +nightly fuzz run {target} {artifact}\nor: the program of this target in the target \
         directory (deps/{target}-*) with that file as its argument\n",
        line("SUMMARY"),
        line("Base64:"),
    )
}
