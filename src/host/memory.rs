//! A bound on the memory that a piece of work may add to this process.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Runs `work`, which is told that there is no memory when it takes this much more than the process has now. Only for work that
/// survives being told so: C does, Rust ends the process. Meanwhile the bound is for all threads together.
pub fn bounded<T>(bytes: u64, work: impl FnOnce() -> T) -> T {
    // Without the figures there is no bound: the work is what was asked for.
    let before = getrlimit(Resource::RLIMIT_DATA).ok().zip(held());
    if let Some(((soft, hard), held)) = before {
        let _ = setrlimit(Resource::RLIMIT_DATA, soft.min(held + bytes), hard);
    }
    let result = work();
    if let Some(((soft, hard), _)) = before {
        let _ = setrlimit(Resource::RLIMIT_DATA, soft, hard);
    }
    result
}

/// What counts against the limit: private memory that can be written to.
fn held() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmData:"))?.trim().strip_suffix(" kB")?;
    kibibytes.parse::<u64>().ok()?.checked_mul(1024)
}
