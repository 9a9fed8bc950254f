//! The git command line, for tests: hermetic, with fixed dates; what our own code is compared with.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ebs_bake::cancel::Cancel;
use ebs_bake::report::{Phase, Report, RunningPhase};
use ebs_bake::source::{Access, Fetched, Location, Resolved, Source, Wanted, keep};
use git2::{Oid, Repository};

/// A directory for one test, removed at its end.
pub struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch { directory: tempfile::Builder::new().prefix("ebs-bake-test-").tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command of git in a directory of this scratch.
    pub fn command(&self, directory: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(self.path(directory)).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.directory.path());
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@example.com");
            command.env(format!("GIT_{who}_DATE"), "2026-01-01T00:00:00Z");
        }
        command
    }

    /// Runs git; its output without the final line feed.
    pub fn git(&self, directory: &str, arguments: &[&str]) -> String {
        let output = self.command(directory, arguments).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// A repository with one commit on `main`.
    pub fn repository(&self, name: &str) -> String {
        std::fs::create_dir_all(self.path(name)).unwrap();
        self.git(name, &["init", "-q", "-b", "main"]);
        self.commit(name, &[("README", "hello\n"), ("recipes/default.rb", "package 'x'\n"), ("bin/run", "#!/bin/sh\n")])
    }

    /// Writes files, commits everything, and returns the commit.
    pub fn commit(&self, name: &str, files: &[(&str, &str)]) -> String {
        for (file, content) in files {
            let path = self.path(name).join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        self.git(name, &["add", "-A"]);
        self.git(name, &["commit", "-q", "--allow-empty", "-m", "change"]);
        self.git(name, &["rev-parse", "HEAD"])
    }

    /// An empty repository for our own code to fill.
    pub fn target(&self, name: &str) -> Repository {
        ebs_bake::source::initialise();
        let repository = Repository::init(self.path(name)).unwrap();
        // As on the volume: a log that only grows would keep every commit alive.
        repository.config().unwrap().set_bool("core.logAllRefUpdates", false).unwrap();
        repository
    }

    /// What the git command line thinks of a repository that we filled: nothing is missing or damaged, and `commit` is
    /// there with its whole tree but, unless `history`, without what came before it.
    pub fn check(&self, name: &str, commit: &str, history: bool) {
        self.git(name, &["update-ref", "--no-deref", "HEAD", commit]);
        let output = self.command(name, &["fsck", "--full", "--strict", "--no-dangling"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(text(&output).trim(), "", "fsck has something to say");
        self.git(name, &["reset", "-q", "--hard"]);
        assert_eq!(self.git(name, &["status", "--porcelain"]), "");
        if !history {
            assert_eq!(self.git(name, &["rev-list", "--count", "HEAD"]), "1");
        }
        let git_dir = self.path(name).join(".git");
        assert!(!git_dir.join("FETCH_HEAD").exists(), "FETCH_HEAD was left behind");
        for file in git_dir.join("objects/pack").read_dir().into_iter().flatten() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(name.starts_with("pack-"), "{name} was left behind");
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub fn oid(text: &str) -> Oid {
    Oid::from_str(text).unwrap()
}

pub fn phase() -> RunningPhase {
    Report::silent().phase(Phase::Fetch)
}

pub fn open(location: &str) -> ebs_bake::error::Result<Source> {
    open_with(location, &Access::default())
}

pub fn open_with(location: &str, access: &Access) -> ebs_bake::error::Result<Source> {
    let (location, login) = Location::parse(location)?;
    let login = login.or_else(|| access.login.clone());
    Source::open(&location, &Access { login, ..access.clone() }, &Cancel::new())
}

pub fn wanted(name: &str) -> Wanted {
    Wanted { reference: Some(name.to_owned()), commit: None }
}

/// Opens, resolves, fetches and keeps: what one bake does.
pub fn bake(source: &Source, wanted: &Wanted, into: &Repository) -> ebs_bake::error::Result<(Resolved, Fetched)> {
    let resolved = source.resolve(wanted)?;
    let fetched = source.fetch(&resolved, into, &phase())?;
    into.set_head_detached(resolved.commit).unwrap();
    keep(into, resolved.commit)?;
    Ok((resolved, fetched))
}

/// Everything an error says.
pub fn all(error: &ebs_bake::error::Error) -> String {
    format!("{error}; {}; {}", error.hint_text().unwrap_or_default(), error.causes().join("; "))
}

/// The bytes of all files below a directory.
pub fn disk_use(directory: &Path) -> u64 {
    let mut total = 0;
    for entry in directory.read_dir().unwrap() {
        let entry = entry.unwrap();
        let data = entry.metadata().unwrap();
        total += if data.is_dir() { disk_use(&entry.path()) } else { data.len() };
    }
    total
}
