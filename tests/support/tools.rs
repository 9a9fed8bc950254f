//! Programs that others wrote and that tests run: from their package registries, in pinned versions, below `target/`.
//!
//! Each set is installed once, by the first test that needs it, and anew when its list changes.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A checker or runner of CI systems' files that comes from PyPI: `tests/tools/requirements.txt`.
pub fn python_tool(name: &str) -> PathBuf {
    python_environment(&lists().join("requirements.txt")).join("bin").join(name)
}

/// One that comes from the npm registry (`tests/tools/package.json`), ready to be run by the Node.js that comes with it.
pub fn node_tool(name: &str) -> Command {
    let modules = node_modules();
    let node = fs::read_dir(&modules).unwrap().flatten().map(|entry| entry.path().join("bin/node"));
    let mut command = Command::new(node.into_iter().find(|path| path.exists()).expect("package.json lists a Node.js"));
    command.arg(fs::canonicalize(modules.join(".bin").join(name)).unwrap());
    command
}

/// A virtual environment with these requirements.
pub fn python_environment(requirements: &Path) -> PathBuf {
    made_from("python", &[requirements], |directory| {
        run(Command::new("python3").args(["-m", "venv"]).arg(directory));
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
        run(Command::new(directory.join("bin/python")).args(install).arg(requirements));
    })
}

fn node_modules() -> PathBuf {
    let lists = ["package.json", "package-lock.json"].map(|name| lists().join(name));
    let directory = made_from("node", &lists.each_ref().map(PathBuf::as_path), |directory| {
        fs::create_dir(directory).unwrap();
        for list in &lists {
            fs::copy(list, directory.join(list.file_name().unwrap())).unwrap();
        }
        run(Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(directory));
    });
    directory.join("node_modules")
}

/// The directory that `make` made from these files, now or earlier. One at a time makes it.
pub fn made_from(kind: &str, files: &[&Path], make: impl FnOnce(&Path)) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    for file in files {
        fs::read(file).unwrap().hash(&mut hasher);
    }
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(parent).unwrap();
    let directory = parent.join(format!("{kind}-{:016x}", hasher.finish()));
    let lock = File::create(directory.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    // Written last: a directory without it is half made.
    let complete = directory.join("complete");
    if !complete.exists() {
        let _ = fs::remove_dir_all(&directory);
        make(&directory);
        File::create(&complete).unwrap();
    }
    directory
}

fn lists() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools")
}

/// Runs a program that must succeed; what it wrote to its standard output.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}{complained}");
    said.into_owned()
}
