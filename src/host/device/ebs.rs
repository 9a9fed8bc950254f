//! EBS volumes as the kernel shows them: NVMe devices on Nitro instances, Xen disks on older ones.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::error::{Error, Kind, OrFail, Result};

/// The model of an EBS volume's NVMe controller (Amazon EBS User Guide, "EBS volumes and NVMe"). Instance store has another.
const MODEL: &str = "Amazon Elastic Block Store";

/// The driver of Xen's disks (`drivers/block/xen-blkfront.c`).
const XEN_DRIVER: &str = "vbd";

/// Whether this directory of `/sys/block` is the volume with this serial number, which EC2 attached under this name.
///
/// # Errors
/// `Device` for an EBS device that does not tell which volume it is: it might be the one.
pub(super) fn is_volume(directory: &Path, serial: &str, name: &str) -> Result<bool> {
    let kernel_name = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if is_nvme_disk(&kernel_name) {
        return has_serial(directory, &kernel_name, serial);
    }
    if !names_of(name).contains(&kernel_name) {
        return Ok(false);
    }
    // Another driver's `sdk` is a disk of something else.
    Ok(is_xen_disk(directory))
}

/// Whether this directory of `/sys/block` is an EBS volume, whichever.
pub(super) fn is_ebs(directory: &Path) -> bool {
    is_xen_disk(directory) || attribute(directory, "model").is_ok_and(|model| model.as_deref() == Some(MODEL))
}

fn is_xen_disk(directory: &Path) -> bool {
    let driver = fs::read_link(directory.join("device/driver")).ok();
    driver.and_then(|driver| Some(driver.file_name()? == XEN_DRIVER)).unwrap_or(false)
}

fn has_serial(directory: &Path, kernel_name: &str, wanted: &str) -> Result<bool> {
    let cannot_tell = || format!("cannot tell which volume {kernel_name} is");
    let model = attribute(directory, "model").or_fail(Kind::Device, cannot_tell)?;
    match model.as_deref() {
        Some(MODEL) => {}
        Some(model) if !model.is_empty() => return Ok(false),
        _ => return Err(silent(cannot_tell(), "model")),
    }
    let serial = attribute(directory, "serial").or_fail(Kind::Device, cannot_tell)?;
    match serial.as_deref() {
        Some(serial) if serial.starts_with("vol") => Ok(serial.replacen("vol-", "vol", 1) == wanted),
        _ => Err(silent(cannot_tell(), "serial number")),
    }
}

fn silent(message: String, what: &str) -> Error {
    Error::new(Kind::Device, message)
        .because(format!("it has no {what} that an EBS volume would have"))
        .hint("detach that device, or use an instance type whose devices can be told apart")
}

/// `nvme1n1`, whatever the numbers; not the hidden path `nvme1c0n1` of a multipath device.
fn is_nvme_disk(kernel_name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let numbers = kernel_name.strip_prefix("nvme").and_then(|rest| rest.split_once('n'));
    numbers.is_some_and(|(controller, namespace)| number(controller) && number(namespace))
}

/// What the kernel may call the disk that EC2 attached as `/dev/sdk`: `xvdk`, with old kernels `sdk`.
fn names_of(name: &str) -> Vec<String> {
    let name = name.strip_prefix("/dev/").unwrap_or(name);
    let letters = name.strip_prefix("xvd").or_else(|| name.strip_prefix("sd"));
    letters.map_or_else(|| vec![name.to_owned()], |letters| vec![format!("xvd{letters}"), format!("sd{letters}")])
}

/// An attribute of the disk's parent device, without the padding; `None` if there is none.
fn attribute(directory: &Path, name: &str) -> io::Result<Option<String>> {
    match fs::read(directory.join("device").join(name)) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_matches([' ', '\n', '\0']).to_owned())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::device::{Locator, SysFs};

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Tree(tempfile::tempdir().unwrap());
            fs::create_dir(tree.0.path().join("block")).unwrap();
            tree
        }

        fn disk(&self, name: &str, size: &str, attributes: &[(&str, &str)]) {
            let directory = self.0.path().join("block").join(name);
            fs::create_dir_all(directory.join("device")).unwrap();
            fs::write(directory.join("dev"), "259:7\n").unwrap();
            fs::write(directory.join("size"), size).unwrap();
            for (attribute, value) in attributes {
                fs::write(directory.join("device").join(attribute), value).unwrap();
            }
        }

        fn ebs(&self, name: &str, serial: &str) {
            self.disk(name, "2048\n", &[("model", "Amazon Elastic Block Store              \n"), ("serial", serial)]);
        }

        fn driven_disk(&self, name: &str, driver: &str) {
            self.disk(name, "2048", &[]);
            std::os::unix::fs::symlink(driver, self.0.path().join("block").join(name).join("device/driver")).unwrap();
        }

        fn find(&self) -> Result<Option<String>> {
            let locator = Locator::Ebs { serial: "vol0123456789abcdef0".into(), name: "/dev/sdk".into() };
            Ok(SysFs::new(self.0.path()).find(&locator)?.map(|device| device.name))
        }
    }

    #[test]
    fn a_volume_is_found_by_its_serial_whatever_the_numbers_are() {
        let tree = Tree::new();
        tree.ebs("nvme0n1", "vol00000000000000001\n");
        tree.disk("nvme1n1", "2048", &[("model", "Amazon EC2 NVMe Instance Storage\n")]);
        tree.disk("loop0", "2048", &[]);
        tree.driven_disk("sdk", "../../bus/scsi/drivers/sd");
        assert_eq!(tree.find().unwrap(), None);
        tree.ebs("nvme12n2", "vol0123456789abcdef0 \n");
        assert_eq!(tree.find().unwrap().as_deref(), Some("nvme12n2"));
        tree.disk("nvme12c0n2", "2048", &[]);
        assert_eq!(tree.find().unwrap().as_deref(), Some("nvme12n2"), "the paths of a multipath device are not disks");
    }

    #[test]
    fn an_ebs_device_that_does_not_tell_which_volume_it_is_is_not_taken_for_another() {
        for silent in ["", "\n", "foreign0123"] {
            let tree = Tree::new();
            tree.ebs("nvme1n1", silent);
            let error = tree.find().unwrap_err();
            assert_eq!(error.kind(), Kind::Device);
            assert!(error.to_string().contains("nvme1n1"), "{error}");
            tree.ebs("nvme2n1", "vol0123456789abcdef0");
            assert_eq!(tree.find().unwrap().as_deref(), Some("nvme2n1"), "the one that tells is certain");
        }
        let tree = Tree::new();
        tree.disk("nvme1n1", "2048", &[]);
        assert!(tree.find().is_err(), "nor is one of an unknown model");
    }

    #[test]
    fn two_devices_with_one_serial_are_none() {
        let tree = Tree::new();
        tree.ebs("nvme1n1", "vol0123456789abcdef0");
        tree.ebs("nvme2n1", "vol0123456789abcdef0");
        assert!(tree.find().unwrap_err().to_string().contains("both are the volume"));
    }

    #[test]
    fn xen_disks_are_found_by_name_and_driver() {
        let tree = Tree::new();
        tree.driven_disk("xvda", "../../bus/xen/drivers/vbd");
        assert_eq!(tree.find().unwrap(), None);
        tree.driven_disk("xvdk", "../../bus/xen/drivers/vbd");
        assert_eq!(tree.find().unwrap().as_deref(), Some("xvdk"));
    }

    #[test]
    fn a_device_without_size_is_not_there_yet() {
        let tree = Tree::new();
        tree.disk("nvme1n1", "0\n", &[("model", MODEL), ("serial", "vol0123456789abcdef0")]);
        assert_eq!(tree.find().unwrap(), None);
    }

    #[test]
    fn names_are_translated_as_xen_does() {
        assert_eq!(names_of("/dev/sdk"), ["xvdk", "sdk"]);
        assert_eq!(names_of("/dev/xvdbb"), ["xvdbb", "sdbb"]);
        assert!(is_nvme_disk("nvme0n1") && is_nvme_disk("nvme26n12"));
        for other in ["nvme0", "nvme0n", "nvme0n1p1", "nvme0c0n1", "nvme", "xvdk"] {
            assert!(!is_nvme_disk(other), "{other}");
        }
    }
}
