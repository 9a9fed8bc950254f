//! What the tests of the local store need: root, filesystems of their own.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether this process is root. In CI it must be; elsewhere the test is reported as skipped.
pub fn needs_root() -> bool {
    available(nix::unistd::geteuid().is_root(), "root")
}

/// Whether something that a test needs is there. In CI it must be; elsewhere the test is reported as skipped.
fn available(is_there: bool, what: &str) -> bool {
    assert!(is_there || std::env::var_os("CI").is_none(), "this test needs {what}");
    if !is_there {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "SKIPPED: {} needs {what}", std::thread::current().name().unwrap_or("this test"));
    }
    is_there
}

/// Runs async code as the program does: on one thread.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A mounted filesystem that is gone when this is dropped.
pub struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn mount(dir: tempfile::TempDir, args: &[&str], source: &Path) -> Mounted {
        let mounted = Mounted { dir };
        std::fs::create_dir(mounted.path()).unwrap();
        run(Command::new("mount").args(args).arg(source).arg(mounted.path()));
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.path()).status();
        if !std::thread::panicking() {
            assert!(unmounted.unwrap().success(), "cannot unmount {}", self.path().display());
        }
    }
}

/// An XFS that can share extents, on a loop image.
pub fn xfs() -> Option<Mounted> {
    let found = Command::new("mkfs.xfs").arg("-V").output().is_ok_and(|output| output.status.success());
    if !available(found, "mkfs.xfs (package xfsprogs)") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("xfs");
    std::fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
    run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image));
    Some(Mounted::mount(dir, &["-o", "loop"], &image))
}

/// A tmpfs of so many MiB.
pub fn tmpfs(mib: u32) -> Mounted {
    let size = format!("size={mib}m");
    Mounted::mount(tempfile::tempdir().unwrap(), &["-t", "tmpfs", "-o", &size], Path::new("none"))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
