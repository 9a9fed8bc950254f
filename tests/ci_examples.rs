//! The examples for CI systems other than those that have a test program of their own: run as the system runs them, and checked.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "ci_examples/azure.rs"]
mod azure;
#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/bridge.rs"]
mod bridge;
#[path = "ci_examples/buildkite.rs"]
mod buildkite;
#[path = "ci_examples/checks.rs"]
mod checks;
#[path = "support/ci_host.rs"]
mod ci_host;
#[path = "ci_examples/circleci.rs"]
mod circleci;
#[path = "ci_examples/codebuild.rs"]
mod codebuild;
#[path = "ci_examples/docker_run.rs"]
mod docker_run;
#[path = "support/ec2.rs"]
mod ec2;
#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/git_cli.rs"]
mod git_cli;
#[path = "support/git_server.rs"]
mod git_server;
#[path = "support/store.rs"]
mod store;
#[path = "ci_examples/tekton.rs"]
mod tekton;
#[path = "support/tools.rs"]
mod tools;
#[path = "ci_examples/woodpecker.rs"]
mod woodpecker;
#[path = "ci_examples/yaml.rs"]
mod yaml;
