//! An SSH agent is used when no key file is given. A file of its own: the agent is found through the environment.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/git_cli.rs"]
mod git_cli;
#[path = "support/ssh_server.rs"]
#[allow(dead_code)]
mod ssh_server;

use std::process::{Command, Stdio};
use std::time::Duration;

use ebs_bake::source::{Access, Wanted};
use git_cli::{bake, open_with};
use ssh_server::{Running, Server};

#[test]
fn the_agent_and_the_users_known_hosts_are_used() {
    let Some(server) = Server::start() else { return };
    let socket = server.scratch.path("agent");
    let mut agent = Command::new("ssh-agent");
    agent.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null());
    let _agent = Running(agent.spawn().unwrap());
    while !socket.exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut add = Command::new("ssh-add");
    add.arg("-q").arg(server.scratch.path("user")).env("SSH_AUTH_SOCK", &socket);
    assert!(add.status().unwrap().success());
    let home = server.scratch.path("home");
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    std::fs::copy(server.known_hosts("host"), home.join(".ssh/known_hosts")).unwrap();
    // SAFETY: this is the only test of this process, and it runs no thread that looks at the environment.
    unsafe {
        std::env::set_var("SSH_AUTH_SOCK", &socket);
        std::env::set_var("HOME", &home);
    }
    let source = open_with(&server.url("up"), &Access::default()).unwrap();
    let (resolved, _) = bake(&source, &Wanted::default(), &server.scratch.target("down")).unwrap();
    server.scratch.check("down", &resolved.commit.to_string(), false);
}
