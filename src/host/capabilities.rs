//! What this process may do, checked before anything is made.

use std::fs;

use crate::error::{Error, Kind, OrFail, Result};

/// A capability that some step needs (`capabilities(7)`), with its number of `include/uapi/linux/capability.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Give files another owner.
    Chown = 0,
    /// Read and write whatever the mode says.
    DacOverride = 1,
    /// Change modes and times of files of other owners.
    Fowner = 3,
    /// Mount, unmount, have a mount namespace.
    SysAdmin = 21,
    /// Grow a mounted ext4. Nice to have: without it, it is grown unmounted.
    SysResource = 24,
    /// Make device nodes.
    Mknod = 27,
}

impl Capability {
    /// All that a bake needs.
    pub const FOR_BAKE: [Capability; 5] =
        [Capability::SysAdmin, Capability::Mknod, Capability::Chown, Capability::DacOverride, Capability::Fowner];

    /// The name that the kernel's documentation uses, `CAP_SYS_ADMIN`.
    pub fn name(self) -> &'static str {
        match self {
            Capability::Chown => "CAP_CHOWN",
            Capability::DacOverride => "CAP_DAC_OVERRIDE",
            Capability::Fowner => "CAP_FOWNER",
            Capability::SysAdmin => "CAP_SYS_ADMIN",
            Capability::SysResource => "CAP_SYS_RESOURCE",
            Capability::Mknod => "CAP_MKNOD",
        }
    }
}

/// What a process needs that may not mount: a hint.
pub const MAY_MOUNT: &str =
    "run as root; a container needs --cap-add SYS_ADMIN, and --security-opt apparmor=unconfined where AppArmor is on";

/// The effective capabilities of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effective(u64);

impl Effective {
    /// Those of the calling thread.
    pub fn current() -> Result<Self> {
        let path = "/proc/thread-self/status";
        let status = fs::read_to_string(path).or_fail(Kind::Device, || format!("cannot read {path}"))?;
        Self::parse(&status).ok_or_else(|| Error::new(Kind::Device, format!("{path} does not tell the effective capabilities")))
    }

    /// Reads the line `CapEff:` of `/proc/<pid>/status`.
    pub fn parse(status: &str) -> Option<Self> {
        let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(digits.trim(), 16).ok().map(Effective)
    }

    /// Whether this one is among them.
    pub fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u32) != 0
    }

    /// The names of those that are not.
    pub fn missing(self, needed: &[Capability]) -> Vec<&'static str> {
        needed.iter().filter(|capability| !self.has(**capability)).map(|capability| capability.name()).collect()
    }
}

/// An error of kind `Permission` that names each missing capability, unless this process may do all that a bake needs.
pub fn require_for_bake() -> Result<()> {
    refuse(&Effective::current()?.missing(&Capability::FOR_BAKE))
}

fn refuse(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let flags: Vec<String> =
        missing.iter().map(|name| format!("--cap-add {}", name.strip_prefix("CAP_").unwrap_or(name))).collect();
    let message = format!("this process may not mount volumes: it lacks {}", missing.join(", "));
    Err(Error::new(Kind::Permission, message).hint(format!(
        "run as root (sudo), or start the container with: docker run {} (docs/container.md has all flags)",
        flags.join(" ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_read_from_the_effective_set() {
        let status = "Name:\tsh\nCapPrm:\tffffffffffffffff\nCapEff:\t0000000008200003\nCapBnd:\tffffffffffffffff\n";
        let held = Effective::parse(status).unwrap();
        assert!(held.has(Capability::SysAdmin) && held.has(Capability::Mknod));
        assert_eq!(held.missing(&Capability::FOR_BAKE), ["CAP_FOWNER"]);
        assert_eq!(held.missing(&[Capability::SysResource]), ["CAP_SYS_RESOURCE"]);
        assert_eq!(Effective::parse("CapEff:\tzz\n"), None);
        assert_eq!(Effective::parse("Name:\tsh\n"), None);
    }

    #[test]
    fn the_error_names_each_and_says_what_to_do() {
        let error = refuse(&["CAP_SYS_ADMIN", "CAP_MKNOD"]).unwrap_err();
        assert_eq!(error.kind(), Kind::Permission);
        assert_eq!(error.to_string(), "this process may not mount volumes: it lacks CAP_SYS_ADMIN, CAP_MKNOD");
        let hint = error.hint_text().unwrap();
        assert!(hint.contains("docker run --cap-add SYS_ADMIN --cap-add MKNOD "), "{hint}");
        assert!(refuse(&[]).is_ok());
    }
}
