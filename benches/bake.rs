//! Measures ebs-bake beside the git command line and a shell script, and prints the tables of `docs/performance.md`.
//!
//!     sudo -E cargo bench --bench bake
//!
//! | Variable | Meaning |
//! |---|---|
//! | `BENCH_STORE` | `local`, or `ec2`: through the tests' EC2 (`tests/bridge`), beside the AWS command line (`local`) |
//! | `BENCH_FILES` | numbers of files of the generated repositories, with commas (`3000,50000`) |
//! | `BENCH_ROUNDS` | rounds of each comparison of checkouts (7) |
//! | `BENCH_COMMITS` | commits that are baked one after the other (20) |
//! | `BENCH_REPOSITORY` | a real repository to measure with too: a local path |
//! | `TMPDIR` | where the filesystems are put (about 10 GiB for 50,000 files) |
//!
//! Needs root. Everything it makes is in one temporary directory and one mount namespace, and goes when it ends, however it
//! ends: see `support/supervise.rs`.
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs, reason = "a program for developers that prints tables")]

use std::path::Path;

mod support;

use support::repository::Repository;
use support::{bakes, checkouts, ec2, ours, supervise, table};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--child", "checkout", ..] => ours::checkout(&arguments[2..]),
        ["--child", "generate", path, files, commits] => support::chef_repo::make(
            Path::new(path),
            files.parse().expect("a number of files"),
            commits.parse().expect("a number of commits"),
            1,
        )
        .iter()
        .for_each(|commit| println!("{commit}")),
        ["--child", "serve", root] => support::repository::serve(Path::new(root)),
        ["--worker", scratch] => measure(Path::new(scratch)),
        // `cargo test --benches` only wants to know that it starts.
        ref all if all.contains(&"--test") => {}
        _ => supervise::run(),
    }
}

fn measure(scratch: &Path) {
    supervise::unblock();
    ebs_bake::host::mount::enter_private_namespace().expect("root may make a mount namespace");
    println!("{}", table::machine(scratch));
    if table::setting("BENCH_STORE", "local") == "ec2" {
        let files = table::setting("BENCH_FILES", "3000").parse().expect("BENCH_FILES is a number");
        let repository = Repository::generate(scratch, files, 2 * rounds() + 1);
        println!("### {}\n\n{}", repository.title, table::render(&ec2::measure(&repository, rounds())));
        return;
    }
    for files in table::setting("BENCH_FILES", "3000,50000").split(',') {
        let files: usize = files.trim().parse().expect("BENCH_FILES has numbers");
        table_of(&Repository::generate(scratch, files, commits()));
    }
    if let Ok(path) = std::env::var("BENCH_REPOSITORY") {
        table_of(&Repository::copy(scratch, Path::new(&path), commits()));
    }
}

fn commits() -> usize {
    table::setting("BENCH_COMMITS", "20").parse().expect("BENCH_COMMITS is a number")
}

fn rounds() -> usize {
    table::setting("BENCH_ROUNDS", "7").parse().expect("BENCH_ROUNDS is a number")
}

fn table_of(repository: &Repository) {
    let mut rows = checkouts::measure(repository, rounds().min(repository.commits.len() - 1));
    rows.extend(bakes::measure(repository, rounds()));
    println!("### {}\n\n{}", repository.title, table::render(&rows));
}
