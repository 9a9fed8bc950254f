//! Fetching over SSH from a real sshd, judged by the git command line.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/git_cli.rs"]
mod git_cli;
#[path = "support/ssh_server.rs"]
mod ssh_server;

use ebs_bake::error::Kind;
use ebs_bake::source::{Access, Wanted};
use git_cli::{all, bake, open_with};
use ssh_server::{Server, keygen};

#[test]
fn a_bake_over_ssh_takes_one_connection() {
    let Some(server) = Server::start() else { return };
    let commit = server.scratch.commit("up", &[("README", "two\n")]);
    let source = open_with(&server.url("up"), &server.access("user", "host")).unwrap();
    let into = server.scratch.target("down");
    bake(&source, &Wanted::default(), &into).unwrap();
    server.scratch.check("down", &commit, false);
    assert_eq!(server.log().matches("Accepted publickey").count(), 1, "{}", server.log());
    let next = server.scratch.commit("up", &[("README", "three\n")]);
    let source = open_with(&server.url("up"), &server.access("user", "host")).unwrap();
    let (_, fetched) = bake(&source, &Wanted::default(), &into).unwrap();
    assert!(fetched.objects <= 3, "{fetched:?}");
    server.scratch.check("down", &next, false);
}

#[test]
fn a_second_fetch_and_an_older_commit_connect_anew() {
    let Some(server) = Server::start() else { return };
    let first = server.scratch.git("up", &["rev-parse", "HEAD"]);
    let second = server.scratch.commit("up", &[("README", "two\n")]);
    let source = open_with(&server.url("up"), &server.access("user", "host")).unwrap();
    // Over SSH git gives a commit by its name only if it is configured so: history is fetched instead.
    let older = Wanted { reference: Some("main".into()), commit: Some(git_cli::oid(&first)) };
    bake(&source, &older, &server.scratch.target("older")).unwrap();
    server.scratch.check("older", &first, true);
    bake(&source, &Wanted::default(), &server.scratch.target("down")).unwrap();
    server.scratch.check("down", &second, false);
    server.scratch.git("up", &["config", "uploadpack.allowReachableSHA1InWant", "true"]);
    bake(&source, &older, &server.scratch.target("exact")).unwrap();
    server.scratch.check("exact", &first, false);
}

#[test]
fn history_is_completed_without_hurting_what_is_cut_elsewhere() {
    let Some(server) = Server::start() else { return };
    let scratch = &server.scratch;
    let first = scratch.git("up", &["rev-parse", "HEAD"]);
    scratch.commit("up", &[("README", "lost\n")]);
    let lost = scratch.commit("up", &[("README", "lost, and so is its parent\n")]);
    let open = || open_with(&server.url("up"), &server.access("user", "host")).unwrap();
    let into = scratch.target("down");
    bake(&open(), &Wanted::default(), &into).unwrap();
    scratch.git("up", &["reset", "-q", "--hard", &first]);
    scratch.commit("up", &[("README", "second\n")]);
    let second = scratch.git("up", &["rev-parse", "HEAD"]);
    scratch.commit("up", &[("README", "third\n")]);
    scratch.git("up", &["reflog", "expire", "--expire=now", "--all"]);
    scratch.git("up", &["gc", "-q", "--prune=now"]);
    let older = Wanted { reference: Some("main".into()), commit: Some(git_cli::oid(&second)) };
    let source = open();
    source.fetch(&source.resolve(&older).unwrap(), &into, &git_cli::phase()).unwrap();
    // HEAD and our own reference still stand at the lost commit, whose parents nobody has sent.
    scratch.check("down", &lost, true);
    bake(&open(), &older, &into).unwrap();
    scratch.check("down", &second, true);
}

#[test]
fn unknown_and_changed_host_keys_are_refused() {
    let Some(server) = Server::start() else { return };
    let unknown = Access { known_hosts: None, ..server.access("user", "host") };
    let error = open_with(&server.url("up"), &unknown).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("is not known") && error.to_string().contains("SHA256:"), "{}", all(&error));
    assert!(error.hint_text().unwrap().contains(&format!("ssh-keyscan -p {}", server.port)), "{}", all(&error));
    let error = open_with(&server.url("up"), &server.access("user", "other-host")).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("is not the known one"), "{}", all(&error));
    assert_eq!((error.kind(), error.kind().exit_code()), (Kind::Git, 7));
    assert!(!server.log().contains("Accepted"), "nothing is proven to a host that is not trusted");
    let missing = Access { known_hosts: Some("/does/not/exist".into()), ..unknown };
    assert_eq!(open_with(&server.url("up"), &missing).map(|_| ()).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn keys_and_repositories_that_are_not_accepted_are_named() {
    let Some(server) = Server::start() else { return };
    let error = open_with(&server.url("up"), &server.access("stranger", "host")).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("does not accept the SSH key"), "{}", all(&error));
    let error = open_with(&server.url("up"), &server.access("no-such-key", "host")).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("cannot read the SSH key"), "{}", all(&error));
    let error = open_with(&server.url("nothing"), &server.access("user", "host")).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("the git host says") && error.to_string().contains("nothing"), "{}", all(&error));
    let none = Access { ssh_key: None, ..server.access("user", "host") };
    let error = open_with(&server.url("up"), &none).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("any SSH key") && all(&error).contains("SSH_AUTH_SOCK"), "{}", all(&error));
    let gone = open_with("ssh://git@127.0.0.1:1/x", &Access::default()).map(|_| ()).unwrap_err();
    assert!(gone.to_string().contains("cannot connect"), "{}", all(&gone));
}

#[test]
fn other_kinds_of_keys_are_accepted() {
    let Some(server) = Server::start() else { return };
    let mut authorized = String::new();
    for kind in ["rsa", "ecdsa"] {
        keygen(&server.scratch.path(kind), kind);
        authorized += &std::fs::read_to_string(server.scratch.path(&format!("{kind}.pub"))).unwrap();
    }
    std::fs::write(server.scratch.path("authorized"), authorized).unwrap();
    for kind in ["rsa", "ecdsa"] {
        open_with(&server.url("up"), &server.access(kind, "host")).unwrap();
    }
}
