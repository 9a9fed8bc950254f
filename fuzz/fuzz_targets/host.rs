//! What the kernel says: sysfs (attributes of a block device, separated by NUL), mounts, and the first bytes of a device.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use ebs_bake::host::device::{Locator, SysFs};
use ebs_bake::host::fuzzing::{mountinfo, superblock};
use libfuzzer_sys::fuzz_target;

static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = std::env::temp_dir().join(format!("ebs-bake-fuzz-{}", std::process::id()));
    fs::create_dir_all(root.join("block/nvme1n1/device")).expect("a directory");
    root
});

fuzz_target!(|data: &[u8]| {
    mountinfo(data);
    superblock(data);
    if data.len() > 512 {
        return;
    }
    let disk = ROOT.join("block/nvme1n1");
    let mut parts = data.split(|&byte| byte == 0);
    for name in ["dev", "size", "diskseq", "device/model", "device/serial"] {
        fs::write(disk.join(name), parts.next().unwrap_or_default()).expect("a file");
    }
    let locator = Locator::Ebs { serial: "vol0123456789abcdef0".to_owned(), name: "/dev/sdk".to_owned() };
    if let Ok(Some(device)) = SysFs::new(&*ROOT).find(&locator) {
        let serial = fs::read_to_string(disk.join("device/serial")).expect("a serial number that was understood");
        assert!(serial.contains("0123456789abcdef0"), "the device of another volume");
        assert!(device.size_bytes > 0);
    }
});
