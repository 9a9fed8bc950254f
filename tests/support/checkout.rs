//! A source repository, a work tree on a pretended volume, and the git command line to compare with.

#[path = "needs.rs"]
mod needs;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ebs_bake::cancel::Cancel;
use ebs_bake::checkout::{Manifest, Options, Stamp, Summary, WorkTree, manifest};
use ebs_bake::error::Result;
use ebs_bake::report::{Phase, Report, RunningPhase};
use git2::Oid;

pub use needs::needs_root;

/// What a commit has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    File(Vec<u8>),
    Executable(Vec<u8>),
    Symlink(Vec<u8>),
    Submodule,
}

/// Path → what is there.
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// A tree of text files.
pub fn files(files: &[(&str, &str)]) -> Tree {
    files.iter().map(|(path, content)| (path.as_bytes().to_vec(), Node::File(content.as_bytes().to_vec()))).collect()
}

pub const STRICT: Options = Options { clean: true, allow_lfs_pointers: false };

/// A source and a volume; gone when dropped.
pub struct Bed {
    directory: tempfile::TempDir,
    /// Where the volume is mounted.
    pub root: PathBuf,
    /// `.git` on the volume, or elsewhere.
    pub git_dir: PathBuf,
    /// How often the volume has been mounted.
    mounts: u64,
}

/// What a run did.
#[derive(Debug)]
pub struct Run {
    pub summary: Summary,
    pub write: usize,
    pub bytes_needed: u64,
}

impl Bed {
    pub fn new() -> Bed {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("volume");
        fs::create_dir(&root).unwrap();
        Bed::at(directory, root)
    }

    /// With the volume mounted at `root`.
    pub fn at(directory: tempfile::TempDir, root: PathBuf) -> Bed {
        let bed = Bed { git_dir: root.join(".git"), root, directory, mounts: 0 };
        bed.git(&["init", "--quiet", "--bare", "--initial-branch=main", bed.source().to_str().unwrap()]);
        bed
    }

    pub fn source(&self) -> PathBuf {
        self.directory.path().join("source.git")
    }

    /// A directory beside the volume.
    pub fn outside(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(self.directory.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.directory.path());
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("LC_ALL", "C");
        command
    }

    /// Runs git, which must succeed.
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        text(arguments, output)
    }

    /// Runs git in the source with this on its standard input.
    pub fn source_git(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = self.command(arguments);
        command.env("GIT_DIR", self.source()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        text(arguments, child.wait_with_output().unwrap())
    }

    /// Runs git on the volume.
    pub fn volume_git(&self, arguments: &[&str]) -> String {
        let mut command = self.command(arguments);
        text(
            arguments,
            command.env("GIT_DIR", &self.git_dir).env("GIT_WORK_TREE", &self.root).current_dir(&self.root).output().unwrap(),
        )
    }

    /// Commits a tree on top of nothing.
    pub fn commit(&self, tree: &Tree) -> Oid {
        let mut script = b"commit refs/heads/main\ncommitter T <t@example.com> 0 +0000\ndata 0\ndeleteall\n".to_vec();
        for (path, node) in tree {
            let (mode, content) = match node {
                Node::File(content) => ("100644", content),
                Node::Executable(content) => ("100755", content),
                Node::Symlink(target) => ("120000", target),
                Node::Submodule => {
                    script.extend_from_slice(format!("M 160000 {} ", "12".repeat(20)).as_bytes());
                    quote(&mut script, path);
                    continue;
                }
            };
            script.extend_from_slice(format!("M {mode} inline ").as_bytes());
            quote(&mut script, path);
            script.extend_from_slice(format!("data {}\n", content.len()).as_bytes());
            script.extend_from_slice(content);
            script.push(b'\n');
        }
        self.source_git(&["fast-import", "--quiet", "--force"], &script);
        Oid::from_str(&self.source_git(&["rev-parse", "refs/heads/main"], b"")).unwrap()
    }

    /// Commits the tree object `tree`, whatever is in it.
    pub fn commit_object(&self, tree: &str) -> Oid {
        let commit = format!("tree {tree}\nauthor T <t@e> 0 +0000\ncommitter T <t@e> 0 +0000\n\nx\n");
        Oid::from_str(&self.source_git(&["hash-object", "-t", "commit", "-w", "--stdin"], commit.as_bytes())).unwrap()
    }

    /// Opens the volume, as mounted once more since the last time.
    pub fn open(&mut self) -> WorkTree {
        let previous = (self.mounts > 0).then(|| self.mounts.to_string());
        self.mounts += 1;
        let stamp = Stamp { previous, current: Some(self.mounts.to_string()), repaired: false };
        WorkTree::open(&self.root, &self.git_dir, stamp).unwrap()
    }

    /// Lets somebody else mount the volume.
    pub fn mount_elsewhere(&mut self) {
        self.mounts += 1;
    }

    /// Lets the next run be in the same mount as the last.
    pub fn same_mount_again(&mut self) {
        self.mounts -= 1;
    }

    /// Brings the commit's objects onto the volume.
    pub fn fetch(&self, commit: Oid) {
        let source = self.source();
        let (git_dir, commit) = (self.git_dir.to_str().unwrap(), commit.to_string());
        let no_clean_up = ["-c", "gc.auto=0", "-c", "maintenance.auto=false", "--git-dir", git_dir];
        self.git(&[&no_clean_up[..], &["fetch", "--quiet", "--no-write-fetch-head", source.to_str().unwrap(), &commit]].concat());
    }

    /// A whole run.
    pub fn check_out(&mut self, commit: Oid, options: &Options) -> Result<Run> {
        let mut work_tree = self.open();
        self.fetch(commit);
        let plan = work_tree.plan(commit, options, &Cancel::new())?;
        let (write, bytes_needed) = (plan.write, plan.bytes_needed);
        let summary = work_tree.apply(plan, &phase(), &Cancel::new())?;
        work_tree.finish(Some(&some_manifest(commit)), true)?;
        Ok(Run { summary, write, bytes_needed })
    }

    /// What the git command line checks out for a commit.
    pub fn expected(&self, commit: Oid) -> Listing {
        let work_tree = tempfile::tempdir_in(self.directory.path()).unwrap();
        let index = tempfile::tempdir_in(self.directory.path()).unwrap();
        let mut command = self.command(&["read-tree", "-u", "--reset", &commit.to_string()]);
        command
            .env("GIT_DIR", self.source())
            .env("GIT_WORK_TREE", work_tree.path())
            .env("GIT_INDEX_FILE", index.path().join("index"));
        text(&["read-tree"], command.output().unwrap());
        listing(work_tree.path())
    }

    /// What is on the volume, without what is ours.
    pub fn listing(&self) -> Listing {
        listing(&self.root)
    }

    /// That git, trusting the stat data in the index, finds nothing to complain about.
    pub fn assert_clean(&self) {
        // git re-reads what was written in the second of the index; a later index makes it rely on the stat data.
        let index = fs::File::options().write(true).open(self.git_dir.join("index")).unwrap();
        let written = index.metadata().unwrap().modified().unwrap();
        index.set_modified(written + std::time::Duration::from_secs(10)).unwrap();
        assert_eq!(
            self.volume_git(&["-c", "status.showUntrackedFiles=all", "status", "--porcelain", "--ignore-submodules=none"]),
            ""
        );
        self.volume_git(&["diff-files", "--quiet", "--ignore-submodules=all"]);
        self.volume_git(&["diff-index", "--cached", "--quiet", "HEAD"]);
        self.volume_git(&["fsck", "--no-dangling", "--no-progress"]);
        index.set_modified(written).unwrap();
    }
}

pub fn phase() -> RunningPhase {
    Report::silent().phase(Phase::Checkout)
}

pub fn some_manifest(commit: Oid) -> Manifest {
    Manifest {
        format: manifest::FORMAT,
        repository: "https://example.com/chef".into(),
        commit: commit.to_string(),
        reference: None,
        tree: commit.to_string(),
        version: "0".into(),
    }
}

/// Path → kind and permissions, and content.
pub type Listing = BTreeMap<Vec<u8>, (u32, Vec<u8>)>;

/// Everything below a directory but `.git` and the manifest.
pub fn listing(root: &Path) -> Listing {
    let mut all = Listing::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for item in fs::read_dir(directory).unwrap() {
            let path = item.unwrap().path();
            let relative = path.strip_prefix(root).unwrap();
            if relative == OsStr::new(".git")
                || relative == OsStr::new(manifest::FILE_NAME)
                || relative == OsStr::new("lost+found")
            {
                continue;
            }
            let metadata = path.symlink_metadata().unwrap();
            let content = match metadata.file_type() {
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().as_bytes().to_vec(),
                kind if kind.is_file() => fs::read(&path).unwrap(),
                _ => Vec::new(),
            };
            all.insert(relative.as_os_str().as_bytes().to_vec(), (metadata.mode(), content));
            if metadata.is_dir() {
                directories.push(path);
            }
        }
    }
    all
}

/// Sets a file's modification time back to what it was.
pub fn restore_mtime(path: &Path, mtime: std::time::SystemTime) {
    fs::File::options().write(true).open(path).unwrap().set_modified(mtime).unwrap();
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn text(arguments: &[&str], output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {errors}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Quotes a path as fast-import reads it.
fn quote(script: &mut Vec<u8>, path: &[u8]) {
    script.push(b'"');
    for &byte in path {
        match byte {
            b'"' | b'\\' | b'\n' => script.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            byte => script.push(byte),
        }
    }
    script.extend_from_slice(b"\"\n");
}
