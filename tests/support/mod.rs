//! What integration tests share.
#![allow(dead_code, unused_imports, reason = "each test program uses its own part")]

pub mod host;

mod needs;

pub use needs::{needs, needs_root};
