//! Docker's engine, and the image of ebs-bake on it, for tests. Call `needs_root()` first.
//!
//! ```ignore
//! let engine = Engine::shared();                                     // one for the test program, started by its first test
//! engine.docker(&["run", "--rm", engine.image(), "--version"])       // a Command of the docker client
//! engine.environment()                                               // for tools that call `docker` themselves, such as act
//! ```
//!
//! - The engine is the one that runs on this machine (`DOCKER_HOST`, or the default socket), else Debian's dockerd, started by
//!   `tests/image/engine.py` with directories of its own and ended with the test program, however that ends. It has no bridge: run
//!   with `--network host`, or without a network. `Engine::is_borrowed` tells which it is.
//! - The image is made by the `Dockerfile` from the program of `scripts/build-release.sh`, or from the one that
//!   `EBS_BAKE_TEST_PROGRAM` names, to spare the release build while developing. An own engine takes its base image from debootstrap; a
//!   borrowed one pulls it. Base and image are kept below `target/tmp`, so that only the first test program pays for them.
//! - Containers that a test leaves behind are removed with an own engine. With a borrowed one a test must do that: `--rm`, a name, a guard.
//! - Where this machine lacks a capability that `--privileged` grants, containers get all others; `Engine::shared` says so on stderr.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::tools::{made_from, run};

/// How long the engine may take to end before the test program does not wait for it any longer.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

static KEEPER: Mutex<Option<Child>> = Mutex::new(None);

/// A running engine.
pub struct Engine {
    ready: Ready,
    image: OnceLock<()>,
}

/// What `engine.py` prints.
#[derive(Deserialize)]
struct Ready {
    client: PathBuf,
    environment: BTreeMap<String, String>,
    image: String,
    borrowed: Option<String>,
    missing: Vec<String>,
}

impl Engine {
    /// The engine of this test program.
    pub fn shared() -> &'static Engine {
        static ENGINE: OnceLock<Engine> = OnceLock::new();
        ENGINE.get_or_init(|| Engine { ready: start(), image: OnceLock::new() })
    }

    /// Whether it is the machine's own and not ours: what tests leave in it stays.
    pub fn is_borrowed(&self) -> bool {
        self.ready.borrowed.is_some()
    }

    /// The capabilities that no container has here, `CAP_SYS_RESOURCE`.
    pub fn missing_capabilities(&self) -> &[String] {
        &self.ready.missing
    }

    /// A command of the docker client.
    pub fn docker<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(&self.ready.client);
        command.envs(self.environment()).args(arguments).stdin(Stdio::null());
        command
    }

    /// What a tool that calls `docker` needs to find this engine with the same client; `PATH` is among it.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ready.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The name of the image, which is made when this is first called.
    pub fn image(&self) -> &str {
        self.image.get_or_init(|| match self.is_borrowed() {
            true => self.build(&context(), &self.ready.image),
            false => {
                run(self.docker(&["load", "--input"]).arg(self.archive()));
            }
        });
        &self.ready.image
    }

    /// The image as `docker save` writes it.
    pub fn archive(&self) -> PathBuf {
        let (context, name) = (context(), &self.ready.image);
        let mut inputs = vec![dockerfile(), context.join("ebs-bake")];
        if !self.is_borrowed() {
            inputs.push(base_script());
        }
        let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
        let directory = made_from("image", &inputs, |directory| {
            fs::create_dir(directory).unwrap();
            if !self.is_borrowed() {
                run(self.docker(&["import"]).arg(base()).arg(base_name()));
            }
            self.build(&context, name);
            run(self.docker(&["save", name, "--output"]).arg(directory.join("image.tar")));
            forget_others(directory);
        });
        directory.join("image.tar")
    }

    fn build(&self, context: &Path, name: &str) {
        let mut build = self.docker(&["build", "--network", "host", "--build-arg", "BINARY=prebuilt", "--tag", name, "--file"]);
        run(build.env("DOCKER_BUILDKIT", "1").arg(dockerfile()).arg(context));
    }
}

/// Starts the process that keeps an engine for us until this one ends.
fn start() -> Ready {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/image/engine.py");
    let mut keeper = Command::new("python3").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
    *KEEPER.lock().unwrap() = Some(keeper);
    // SAFETY: `stop` takes and returns nothing, and lives as long as the process.
    assert_eq!(unsafe { libc::atexit(stop) }, 0);
    let ready: Ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("no engine: {error}: {line:?}"));
    if !ready.missing.is_empty() {
        let missing = ready.missing.join(", ");
        let _ = writeln!(std::io::stderr(), "this machine lacks {missing}: privileged containers of these tests do, too");
    }
    ready
}

/// Lets the engine end, and waits for it: so that whoever looks after the tests finds nothing.
extern "C" fn stop() {
    let Some(mut keeper) = KEEPER.lock().ok().and_then(|mut keeper| keeper.take()) else { return };
    drop(keeper.stdin.take());
    let deadline = Instant::now() + STOP_TIMEOUT;
    while let Ok(None) = keeper.try_wait() {
        if Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The program as it is shipped.
pub fn program() -> PathBuf {
    if let Some(given) = std::env::var_os("EBS_BAKE_TEST_PROGRAM") {
        return given.into();
    }
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build-release.sh"));
        // What cargo told this test would make it compile some packages anew.
        for (name, _) in std::env::vars_os() {
            let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
            if name.to_str().is_some_and(|name| told.iter().any(|prefix| name.starts_with(prefix))) {
                command.env_remove(name);
            }
        }
        let said = run(command.env_remove("CARGO").env_remove("LD_LIBRARY_PATH"));
        PathBuf::from(said.trim_end())
    };
    PROGRAM.get_or_init(build).clone()
}

/// The build context of an image whose program is there already.
fn context() -> PathBuf {
    let license = Path::new(env!("CARGO_MANIFEST_DIR")).join("LICENSE");
    let program = program();
    made_from("context", &[&license, &program], |directory| {
        fs::create_dir(directory).unwrap();
        fs::copy(&license, directory.join("LICENSE")).unwrap();
        fs::copy(&program, directory.join("ebs-bake")).unwrap();
        forget_others(directory);
    })
}

/// The base image as a tar of its files.
fn base() -> PathBuf {
    let script = base_script();
    let directory = made_from("base", &[&script], |directory| {
        fs::create_dir(directory).unwrap();
        run(Command::new(&script).arg(directory));
    });
    directory.join("base.tar")
}

fn base_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/image/base.sh")
}

/// The name under which the Dockerfile asks for it.
fn base_name() -> String {
    let dockerfile = fs::read_to_string(dockerfile()).unwrap();
    let name = dockerfile.lines().find_map(|line| line.strip_prefix("ARG DEBIAN_IMAGE="));
    name.expect("the Dockerfile has the name of the base image").to_owned()
}

fn dockerfile() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile")
}

/// Removes what was made from earlier inputs: each new program would leave an image behind.
fn forget_others(directory: &Path) {
    let name = directory.file_name().unwrap().to_str().unwrap();
    let kind = name.split_once('-').unwrap().0;
    for entry in fs::read_dir(directory.parent().unwrap()).unwrap().flatten() {
        let other = entry.file_name();
        if other.to_str().is_some_and(|other| other.starts_with(&format!("{kind}-")) && !other.starts_with(name)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
