//! The program in a container of its image, beside `bake::Host`, whose directories it has under the same paths.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::bake::Run;
use super::engine::Engine;

/// The privileges that a bake needs and no more, as docs/container.md has them; device rules come beside them.
pub const LEAST: [&str; 16] = [
    "--cap-drop",
    "ALL",
    "--cap-add",
    "SYS_ADMIN",
    "--cap-add",
    "MKNOD",
    "--cap-add",
    "CHOWN",
    "--cap-add",
    "DAC_OVERRIDE",
    "--cap-add",
    "FOWNER",
    "--security-opt",
    "no-new-privileges",
    "--security-opt",
    "apparmor=unconfined",
];

/// Loop devices, and their control device: what the local store needs.
pub const LOOP_RULES: [&str; 4] = ["--device-cgroup-rule", "b 7:* rwm", "--device-cgroup-rule", "c 10:237 rwm"];

/// A container that a test has named; whatever is left of it goes with the value.
pub struct Container {
    engine: &'static Engine,
    pub name: String,
}

impl Container {
    pub fn new() -> Container {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ebs-bake-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Container { engine: Engine::shared(), name }
    }

    /// `docker run` of the image with these flags; the program's arguments are added to it. The image is there when it starts.
    pub fn run(&self, flags: &[&str]) -> Run {
        let image = self.engine.image();
        let mut command = self.engine.docker(&["run", "--rm", "--name", &self.name]);
        command.args(flags).arg(image);
        Run(command)
    }

    /// A command about this container, which must succeed.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> String {
        super::tools::run(self.engine.docker(arguments).arg(&self.name))
    }

    /// Starts `docker stop`.
    pub fn stop(&self) -> Child {
        let mut command = self.engine.docker(&["stop", "--time", "60", &self.name]);
        command.stdout(Stdio::null()).spawn().unwrap()
    }

    /// Its first process. The container was started a moment ago; `word` is a word of the program's arguments that no other
    /// container has.
    pub fn init(&self, word: &str) -> Init {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(pid) = first_process(word) {
                return Init(pid);
            }
            assert!(Instant::now() < deadline, "{} does not start", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn exists(&self) -> bool {
        let mut inspect = self.engine.docker(&["container", "inspect", &self.name]);
        inspect.output().unwrap().status.success()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.engine.docker(&["rm", "--force", &self.name]).output();
    }
}

/// Process 1 of a container, as seen from this machine.
pub struct Init(Pid);

impl Init {
    /// Holds it where it is, until [`Init::go_on`].
    pub fn hold(&self) {
        kill(self.0, Signal::SIGSTOP).unwrap();
    }

    /// Lets it go on as soon as it was sent SIGTERM, which it then finds.
    pub fn go_on_to_terminate(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.is_sent(Signal::SIGTERM) {
            assert!(Instant::now() < deadline, "no SIGTERM arrives");
            std::thread::sleep(Duration::from_millis(1));
        }
        kill(self.0, Signal::SIGCONT).unwrap();
    }

    fn is_sent(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        let pending = u64::from_str_radix(pending.unwrap_or("0").trim(), 16).unwrap();
        pending & (1 << (signal as i32 - 1)) != 0
    }
}

/// The process that is number 1 in a namespace of its own and has this word among its arguments.
fn first_process(word: &str) -> Option<Pid> {
    let is_first = |directory: &Path| {
        let read = |name: &str| fs::read(directory.join(name)).unwrap_or_default();
        let status = read("status");
        let numbers = String::from_utf8_lossy(&status).lines().find_map(|line| line.strip_prefix("NSpid:").map(str::to_owned));
        let inner: Vec<String> = numbers.unwrap_or_default().split_whitespace().skip(1).map(str::to_owned).collect();
        // Before it is the program it is runc, which has other arguments.
        inner.last().is_some_and(|number| number == "1")
            && read("cmdline").split(|byte| *byte == 0).any(|it| it == word.as_bytes())
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut processes = entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    processes.find(|(_, directory)| is_first(directory)).map(|(pid, _)| Pid::from_raw(pid))
}

/// Runs a command that must succeed in the container's image with its own entry point.
pub fn shell(script: &str) -> Command {
    let engine = Engine::shared();
    let image = engine.image();
    engine.docker(&["run", "--rm", "--entrypoint", "sh", image, "-c", script])
}
