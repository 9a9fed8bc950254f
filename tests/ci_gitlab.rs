//! GitLab CI: the example and the component as files, executed by gitlab-ci-local, and what GitLab makes of our env file.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/bridge.rs"]
mod bridge;
#[path = "ci_gitlab/component.rs"]
mod component;
#[path = "support/dotenv.rs"]
mod dotenv;
#[path = "support/ec2.rs"]
mod ec2;
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
#[path = "ci_gitlab/outputs.rs"]
mod outputs;
#[path = "ci_gitlab/pipeline.rs"]
mod pipeline;
#[path = "support/store.rs"]
mod store;
#[path = "support/tools.rs"]
mod tools;
