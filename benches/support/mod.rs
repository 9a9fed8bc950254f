//! What the benchmark is made of.

pub mod bakes;
pub mod blocks;
#[allow(clippy::expect_used, missing_docs, reason = "the tests' EC2")]
#[path = "../../tests/support/bridge.rs"]
pub mod bridge;
pub mod checkouts;
pub mod chef_repo;
pub mod device;
pub mod ec2;
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "the tests' server")]
#[path = "../../tests/support/git_server.rs"]
pub mod git_server;
pub mod ours;
pub mod process;
pub mod repository;
pub mod supervise;
pub mod table;
#[allow(missing_docs, reason = "the tests' tools")]
#[path = "../../tests/support/tools.rs"]
pub mod tools;
