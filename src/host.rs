//! This machine: its devices, filesystems, mounts, and what this process may do with them.

pub mod capabilities;
pub mod command;
pub mod device;
pub mod filesystem;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod identity;
pub mod lock;
pub mod memory;
pub mod mount;
mod mountinfo;
pub mod names;
mod processes;
pub mod scratch;
