//! The action for GitHub: what it promises, what checkers say of it, and what happens when a runner runs it.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/bake.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod bake;
#[path = "support/bridge.rs"]
mod bridge;
#[path = "support/container.rs"]
mod container;
#[path = "support/ec2.rs"]
mod ec2;
#[path = "support/engine.rs"]
mod engine;
#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/generated.rs"]
mod generated;
#[path = "support/git_cli.rs"]
mod git_cli;
#[path = "support/git_server.rs"]
mod git_server;
#[path = "support/options.rs"]
mod options;
#[path = "support/store.rs"]
mod store;
#[path = "support/tools.rs"]
mod tools;

#[path = "ci_github/action.rs"]
mod action;
#[path = "ci_github/arguments.rs"]
mod arguments;
#[path = "ci_github/cancel.rs"]
mod cancel;
#[path = "ci_github/checkers.rs"]
mod checkers;
#[path = "ci_github/contract.rs"]
mod contract;
#[path = "ci_github/example.rs"]
mod example;
#[path = "ci_github/injection.rs"]
mod injection;
#[path = "ci_github/job.rs"]
mod job;
#[path = "ci_github/rollout.rs"]
mod rollout;
#[path = "ci_github/runner.rs"]
mod runner;
#[path = "ci_github/runs.rs"]
mod runs;
