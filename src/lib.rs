//! `ebs-bake` bakes a git commit into a block storage snapshot: see `docs/design.md`.
//!
//! The library never prints: it returns values and errors, and reports progress to a [`report::Observer`].

pub mod aws;
pub mod bake;
pub mod cancel;
pub mod checkout;
pub mod chef;
pub mod ci;
pub mod cli;
pub mod commands;
pub mod config;
pub mod doctor;
pub mod error;
pub mod fleet;
pub mod host;
pub mod key;
pub mod publish;
pub mod report;
pub mod restore;
pub mod retention;
pub mod source;
pub mod step;
pub mod storage;
pub mod wait;
