//! Real loop devices, mount namespaces and helper processes for tests. Everything goes when its guard does.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ebs_bake::cancel::Cancel;
use ebs_bake::host::device::{Device, Locator, SysFs};
use ebs_bake::host::filesystem::{self, Superblock};
use ebs_bake::host::lock::Exclusive;
use ebs_bake::host::mount::{Mount, MountPoint, Options};
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_SET_FD: libc::Ioctl = 0x4C00;
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_SET_CAPACITY: libc::Ioctl = 0x4C07;

/// A loop device over a sparse file of its own.
pub struct Loop {
    node: Node,
    pub image: File,
    pub device: Device,
    pub locator: Locator,
    pub directory: Directory,
}

impl Loop {
    /// A blank device of this size.
    pub fn new(size: u64) -> Loop {
        let directory = Directory(tempfile::tempdir().unwrap());
        let image = OpenOptions::new().read(true).write(true).create_new(true).open(directory.path().join("image")).unwrap();
        image.set_len(size).unwrap();
        let node = Node::attach(&image);
        let metadata = image.metadata().unwrap();
        let locator = Locator::LoopBacking { device: metadata.dev(), inode: metadata.ino() };
        let device = SysFs::new("/sys").find(&locator).unwrap().expect("it was just attached");
        Loop { node, image, device, locator, directory }
    }

    /// Makes the image and the device larger.
    pub fn grow(&mut self, size: u64) {
        self.image.set_len(size).unwrap();
        self.reread_size();
        self.device = SysFs::new("/sys").find(&self.locator).unwrap().unwrap();
    }

    /// Writes to the device past every filesystem.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let node = self.device.node().unwrap().open(true).unwrap();
        node.write_all_at(bytes, offset).unwrap();
        node.sync_all().unwrap();
    }

    /// Tells the kernel that the image has another size.
    pub fn reread_size(&self) {
        control(&self.node.0, LOOP_SET_CAPACITY, 0).unwrap();
    }

    /// Detaches it and waits until it is: while anybody has the node open the kernel puts that off.
    pub fn detach(self) {
        let Loop { node, locator, directory: _directory, .. } = self;
        drop(node);
        let deadline = Instant::now() + Duration::from_secs(20);
        while SysFs::new("/sys").find(&locator).unwrap().is_some() {
            assert!(Instant::now() < deadline, "still attached");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn control(file: &File, request: libc::Ioctl, argument: libc::c_long) -> nix::Result<libc::c_int> {
    // SAFETY: these requests take an integer, or nothing.
    nix::errno::Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), request, argument) })
}

/// A temporary directory. What the thread has mounted in it is unmounted before it is removed, also when a test failed.
pub struct Directory(TempDir);

impl Directory {
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let points =
            mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| Path::new(point).starts_with(self.path()));
        for point in points.collect::<Vec<_>>().into_iter().rev() {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// An attached loop device, detached with the value.
pub struct Node(File);

impl Node {
    /// Attaches a file to a free loop device; others may be looking for one too.
    pub fn attach(image: &File) -> Node {
        let loop_control = File::open("/dev/loop-control").unwrap();
        loop {
            let number = control(&loop_control, LOOP_CTL_GET_FREE, 0).unwrap();
            let node = OpenOptions::new().read(true).write(true).open(format!("/dev/loop{number}")).unwrap();
            match control(&node, LOOP_SET_FD, image.as_raw_fd().into()) {
                Ok(_) => return Node(node),
                Err(nix::errno::Errno::EBUSY) => {}
                Err(errno) => panic!("cannot attach to loop{number}: {errno}"),
            }
        }
    }

    /// While something else has it open, the kernel detaches it as soon as that is closed.
    pub fn detach(&self) {
        let _ = control(&self.0, LOOP_CLR_FD, 0);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Gives the calling test's thread a mount namespace of its own, which ends with the thread.
pub fn private_mounts() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
}

/// Gives the calling test's thread the `/dev` of a container that was started before any disk was attached.
pub fn container_dev() {
    use nix::mount::{MsFlags, mount};
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    private_mounts();
    mount(Some("none"), "/dev", Some("tmpfs"), MsFlags::MS_NOSUID, None::<&str>).unwrap();
    mknod("/dev/null", SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
}

/// A process, killed with the value.
pub struct Helper {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Helper {
    /// Runs `sh -c script` with arguments and waits until it has written one line, which is returned.
    pub fn shell(script: &str, arguments: &[&Path]) -> (Helper, String) {
        let mut command = Command::new("sh");
        command.args(["-c", script, "helper"]).args(arguments);
        Self::start(command)
    }

    /// Runs the helper test `name` of this test program in a process of its own, with an environment variable.
    pub fn test(name: &str, variable: &str, value: &str) -> (Helper, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture", "--quiet"]).env(variable, value);
        Self::start(command)
    }

    fn start(mut command: Command) -> (Helper, String) {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut helper = Helper { child, output };
        let line = helper.line();
        (helper, line)
    }

    /// The next line with the word `ready` in it; the test harness writes others.
    fn line(&mut self) -> String {
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the helper ended");
        }
        line
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A cancellation that never comes.
pub fn never() -> Cancel {
    Cancel::new()
}

/// An empty directory for a mount.
pub fn mount_directory(parent: &Loop) -> PathBuf {
    let path = parent.directory.path().join("mnt");
    fs::create_dir_all(&path).unwrap();
    path.canonicalize().unwrap()
}

pub const READ_WRITE: Options = Options { read_only: false };
pub const READ_ONLY: Options = Options { read_only: true };

pub fn superblock(disk: &Loop) -> Superblock {
    Superblock::read(&disk.device.node().unwrap().open(false).unwrap()).unwrap()
}

/// A disk of 256 MiB with a filesystem of 32 MiB.
pub fn formatted() -> Loop {
    let disk = Loop::new(256 * MIB);
    filesystem::make(&disk.device, "chef", 32 * MIB, &never()).unwrap();
    disk
}

pub fn mount_as(disk: &Loop, fstype: &str, options: Options) -> Mount {
    let point = MountPoint::prepare(&mount_directory(disk)).unwrap();
    Mount::new(&disk.device.node().unwrap(), point, fstype, options).unwrap()
}

pub fn mount(disk: &Loop, options: Options) -> Mount {
    mount_as(disk, "ext4", options)
}

/// A namespace ends with its last process; the kernel may take a moment for its mounts.
pub fn wait_until_unused(disk: &Loop) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = Exclusive::probe(&disk.device) {
        assert!(Instant::now() < deadline, "{error}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
