//! A repository to measure with, and the places from which git and ebs-bake get it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::chef_repo::git;
use super::device::run;
use super::git_server::GitServer;

pub struct Repository {
    pub title: String,
    pub path: PathBuf,
    /// Oldest first; each is the one before with a few files changed.
    pub commits: Vec<String>,
    /// Everything that belongs to this repository's measurements.
    pub scratch: PathBuf,
    server: Server,
}

/// The git host: a process of its own, since what we have in memory counts as the peak of whatever we start.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(root: &Path) -> Server {
        let mut command = Command::new(std::env::current_exe().expect("this program's path"));
        command.args(["--child", "serve"]).arg(root).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("this program can be started again");
        let mut url = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut url).expect("it says where it is");
        Server { process, url: url.trim().to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process that [`Server::start`] starts: serves until its standard input ends.
pub fn serve(root: &Path) {
    let server = GitServer::start(root);
    println!("{}", server.url("repository.git"));
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

impl Repository {
    /// One like a chef-repo. Made by a child: the peak memory of what we start later counts ours at that time.
    pub fn generate(scratch: &Path, files: usize, commits: usize) -> Repository {
        eprintln!("making a repository of {files} files");
        let path = Self::directory(scratch, &files.to_string());
        let program = std::env::current_exe().expect("this program's path");
        let arguments = ["--child", "generate", text(&path), &files.to_string(), &commits.to_string()];
        let commits = run(text(&program), &arguments);
        Self::new(format!("Generated, {} files", grouped(files)), path, &commits)
    }

    /// A copy of a real one, with its last commits.
    pub fn copy(scratch: &Path, source: &Path, commits: usize) -> Repository {
        let path = Self::directory(scratch, "real");
        git(&["clone", "--quiet", "--bare", text(source), text(&path)], &[]);
        git(&["-C", text(&path), "config", "uploadpack.allowAnySHA1InWant", "true"], &[]);
        git(&["-C", text(&path), "update-server-info"], &[]);
        let count = format!("--max-count={}", commits + 1);
        let commits = git(&["-C", text(&path), "rev-list", "--first-parent", "--reverse", &count, "HEAD"], &[]);
        let last = commits.lines().last().expect("a commit").to_owned();
        let files = git(&["-C", text(&path), "ls-tree", "-r", "--name-only", &last], &[]).lines().count();
        let name = std::env::var("BENCH_NAME").unwrap_or_else(|_| "A real repository".to_owned());
        Self::new(format!("{name}, {} files", grouped(files)), path, &commits)
    }

    fn directory(scratch: &Path, name: &str) -> PathBuf {
        let scratch = scratch.join(name);
        std::fs::create_dir_all(&scratch).expect("a directory");
        scratch.join("repository.git")
    }

    fn new(title: String, path: PathBuf, commits: &str) -> Repository {
        let scratch = path.parent().expect("it has one").to_owned();
        let server = Server::start(&scratch);
        Repository { title, path, commits: commits.lines().map(str::to_owned).collect(), scratch, server }
    }

    /// From where it is got: what that is called, and the URL.
    pub fn sources(&self) -> [(&'static str, String); 2] {
        [("file", format!("file://{}", self.path.display())), ("HTTP", self.server.url.clone())]
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// `git -C directory …`
pub fn git_in(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(arguments);
    command
}

/// `50,000`
fn grouped(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}
