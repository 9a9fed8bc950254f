//! A virtual machine with a kernel of its own, in which the bridge's volumes are NVMe disks that are plugged in and out while it runs.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::{Value, json};

use super::bridge::{Bridge, Host};
use super::ec2::Ended;
use super::tools::{made_from, run};

/// How long the machine may say nothing: it boots in seconds, and no step of the program is silent for long.
pub const SILENCE: Duration = Duration::from_secs(180);

/// Where QEMU's user network has this machine's loopback interface.
const OUTSIDE: &str = "10.0.2.2";

/// How many disks it takes.
const SLOTS: usize = 16;

/// A running machine. Dropped, its power is cut.
pub struct Machine {
    qemu: Child,
    line: BufReader<UnixStream>,
    said: String,
    directory: tempfile::TempDir,
}

impl Machine {
    /// Starts the instance, with the disks that are attached to it, and waits until it has booted.
    pub fn boot(bridge: &Bridge, host: &Host) -> Machine {
        let directory = tempfile::Builder::new().prefix("ebs-bake-machine-").tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut command = Command::new("qemu-system-x86_64");
        command.args(arguments(directory.path())).stdin(Stdio::null()).stderr(File::create(at("qemu")).unwrap());
        // SAFETY: one system call, which allocates nothing and takes no lock.
        unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?)) };
        let qemu = command.spawn().unwrap();
        let line = connect(&at("line"));
        line.set_read_timeout(Some(SILENCE)).unwrap();
        let mut machine = Machine { qemu, line: BufReader::new(line), said: String::new(), directory };
        drop(connect(&machine.directory.path().join("monitor")));
        let slots: Vec<String> = (0..SLOTS).map(slot).collect();
        let spec =
            json!({ "instance_id": host.instance_id, "monitor": machine.directory.path().join("monitor"), "slots": slots });
        let _: Value = bridge.control("POST", "machines", &spec);
        assert!(machine.until(|line| line == "ready"));
        machine.said.clear();
        machine
    }

    /// Lets the machine's shell carry this out.
    pub fn start(&mut self, command: &str) {
        assert!(!command.contains('\n'), "{command:?}");
        writeln!(self.line.get_ref(), "{command}").unwrap();
    }

    /// Reads what is said until there is such a line; `false`: the command ended without.
    #[track_caller]
    pub fn until(&mut self, wanted: impl Fn(&str) -> bool) -> bool {
        loop {
            let line = self.next();
            if wanted(&line) {
                return true;
            }
            if line.starts_with("ended: ") {
                return false;
            }
        }
    }

    #[track_caller]
    fn next(&mut self) -> String {
        let mut line = String::new();
        match self.line.read_line(&mut line) {
            Ok(length) if length > 0 => {}
            silent => panic!("the machine says no more ({silent:?}): {}\n{}", self.said, self.console()),
        }
        self.said += &line;
        line.trim_end().to_owned()
    }

    /// Waits for the end of the command.
    #[track_caller]
    pub fn end(&mut self) -> Ended {
        while !self.said.lines().next_back().is_some_and(|line| line.starts_with("ended: ")) {
            self.next();
        }
        let mut ended = Ended { code: 0, stdout: String::new(), stderr: String::new() };
        for line in std::mem::take(&mut self.said).lines() {
            match (line.strip_prefix("out: "), line.strip_prefix("ended: ")) {
                (Some(line), _) => ended.stdout += &format!("{line}\n"),
                (None, Some(code)) => ended.code = code.parse().unwrap(),
                (None, None) => ended.stderr += &format!("{line}\n"),
            }
        }
        ended
    }

    pub fn run(&mut self, command: &str) -> Ended {
        self.start(command);
        self.end()
    }

    /// What a command that must succeed says.
    #[track_caller]
    pub fn says(&mut self, command: &str) -> String {
        let ended = self.run(command);
        assert_eq!(ended.code, 0, "{command}: {ended:?}\n{}", self.console());
        ended.stdout.trim_end().to_owned()
    }

    /// The kernel has not complained of itself since it was started: no bug, no warning, no task that hangs.
    #[track_caller]
    pub fn kernel_is_well(&mut self) {
        self.kernel_never_said(&["BUG:", "WARNING:", "Oops", "blocked for more than", "Call Trace"]);
    }

    /// Nor of a filesystem: none was damaged when it was mounted, or unchecked.
    #[track_caller]
    pub fn filesystems_are_well(&mut self) {
        self.kernel_never_said(&["EXT4-fs error", "mounting unchecked fs", "mounting fs with errors"]);
    }

    #[track_caller]
    fn kernel_never_said(&mut self, complaints: &[&str]) {
        let log = self.says("dmesg");
        let complaint = log.lines().find(|line| complaints.iter().any(|words| line.contains(words)));
        assert_eq!(complaint, None, "{log}");
    }

    /// Cuts its power: what its kernel has not written is lost.
    pub fn cut(self) {}

    /// The kernel's messages and QEMU's.
    fn console(&self) -> String {
        let read = |name: &str| String::from_utf8_lossy(&fs::read(self.directory.path().join(name)).unwrap()).into_owned();
        read("console") + &read("qemu")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn slot(number: usize) -> String {
    format!("slot{number}")
}

/// QEMU's command line: nothing but what is needed, without acceleration, so that it runs everywhere.
fn arguments(directory: &Path) -> Vec<String> {
    let at = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let line = format!("socket,id=line,path={},server=on,wait=off", at("line"));
    let options = [
        ("machine", "q35"),
        ("cpu", "max"),
        ("accel", "tcg"),
        ("m", "512"),
        ("display", "none"),
        ("kernel", &text(kernel().join("vmlinuz"))),
        ("initrd", &text(initramfs())),
        ("append", "console=ttyS0 quiet panic=-1 oops=panic"),
        ("serial", &format!("file:{}", at("console"))),
        ("chardev", &line),
        ("serial", "chardev:line"),
        ("qmp", &format!("unix:{},server=on,wait=off", at("monitor"))),
        ("netdev", "user,id=net"),
        ("device", "virtio-net-pci,netdev=net,romfile="),
    ];
    let mut arguments: Vec<String> = ["-nodefaults", "-no-user-config", "-no-reboot", "-S"].map(str::to_owned).into();
    arguments.extend(options.iter().flat_map(|(name, value)| [format!("-{name}"), (*value).to_owned()]));
    for number in 0..SLOTS {
        // Eight to a place on the bus.
        let place = format!("addr={:#x}.{},multifunction=on", 0x10 + number / 8, number % 8);
        arguments
            .extend(["-device".into(), format!("pcie-root-port,id={},chassis={number},slot={number},{place}", slot(number))]);
    }
    arguments
}

/// QEMU makes its sockets a moment after it was started.
fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + SILENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{}: {error}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A URL of this machine as the virtual one has it.
pub fn from_inside(url: &str) -> String {
    url.replace("127.0.0.1", OUTSIDE)
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nitro").join(name)
}

/// A directory with `vmlinuz` and `modules`.
fn kernel() -> PathBuf {
    made_from("kernel", &[&source("kernel.sh")], |directory| {
        run(Command::new(source("kernel.sh")).arg(directory));
    })
}

/// What the machine boots from, in memory: its first process, a shell, the program, what that runs, and the libraries of all.
fn initramfs() -> PathBuf {
    static MADE: OnceLock<File> = OnceLock::new();
    let file = MADE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path());
        let file = File::from(memfd_create("initramfs", MFdFlags::MFD_CLOEXEC).unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", "find . | busybox cpio -o -H newc"]).current_dir(directory.path());
        assert!(command.stdout(file.try_clone().unwrap()).stderr(Stdio::null()).status().unwrap().success());
        file
    });
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

fn fill(root: &Path) {
    for name in ["bin", "proc", "sys", "dev", "tmp", "root", "modules"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    fs::copy(source("init"), root.join("init")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for module in fs::read_dir(kernel().join("modules")).unwrap() {
        let path = module.unwrap().path();
        fs::copy(&path, root.join("modules").join(path.file_name().unwrap())).unwrap();
    }
    // As in the image.
    copy(Path::new("/etc/ssl/certs/ca-certificates.crt"), root);
    let program = root.join("bin/ebs-bake");
    run(Command::new("strip").arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_ebs-bake")));
    copy_libraries(&program, root);
    for name in ["mkfs.ext4", "e2fsck", "resize2fs"] {
        let found = Path::new("/sbin").join(name);
        fs::copy(&found, root.join("bin").join(name)).unwrap();
        copy_libraries(&found, root);
    }
}

/// The shared libraries of a program, where its loader looks for them.
fn copy_libraries(program: &Path, root: &Path) {
    for word in run(Command::new("ldd").arg(program)).split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(word), root);
    }
}

/// To the same place below `root`.
fn copy(file: &Path, root: &Path) {
    let target = root.join(file.strip_prefix("/").unwrap());
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::copy(file, target).unwrap();
}
