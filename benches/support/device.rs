//! A scratch filesystem in a file, for one measurement.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program and panics with what it said if it fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A filesystem in a sparse file, mounted through a loop device; gone on drop.
pub struct Filesystem {
    pub image: PathBuf,
    pub mount: PathBuf,
}

impl Filesystem {
    /// `mkfs` is the program with its arguments.
    pub fn new(directory: &Path, name: &str, gib: u64, mkfs: &[&str]) -> Self {
        let (image, mount) = (directory.join(format!("{name}.img")), directory.join(name));
        File::create(&image).and_then(|file| file.set_len(gib << 30)).expect("a sparse file");
        std::fs::create_dir_all(&mount).expect("a mount point");
        let path = image.to_str().expect("UTF-8");
        run(mkfs[0], &[&mkfs[1..], &[path]].concat());
        let filesystem = Filesystem { image, mount };
        filesystem.mount("loop");
        filesystem
    }

    /// A default ext4, as a script would make it.
    pub fn ext4(directory: &Path, name: &str, gib: u64) -> Self {
        Self::new(directory, name, gib, &["mkfs.ext4", "-q", "-F"])
    }

    pub fn mount(&self, options: &str) {
        run("mount", &["-o", options, self.image.to_str().expect("UTF-8"), self.mount.to_str().expect("UTF-8")]);
    }

    pub fn unmount(&self) {
        run("umount", &[self.mount.to_str().expect("UTF-8")]);
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount).output();
        let _ = std::fs::remove_file(&self.image);
        let _ = std::fs::remove_dir(&self.mount);
    }
}
