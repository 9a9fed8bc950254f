//! TLS: which certificates are trusted. A file of its own: the trusted ones are named in the environment.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/git_cli.rs"]
mod git_cli;
#[path = "support/git_server.rs"]
mod git_server;
#[path = "support/tls.rs"]
mod tls;

use ebs_bake::source::{Access, Login, Wanted};
use git_cli::{Scratch, all, bake, open, open_with};
use git_server::GitServer;
use tls::terminate_tls;

#[test]
fn only_trusted_certificates_are_accepted_and_the_token_goes_along_at_once() {
    let scratch = Scratch::new();
    let commit = scratch.repository("up");
    let server = GitServer::start(&scratch.path(""));
    let port = terminate_tls(&scratch.path(""), &server.address);
    let url = format!("https://localhost:{port}/up");
    // SAFETY: this is the only test of this process; no other thread looks at the environment.
    unsafe {
        for name in ["GIT_SSL_CAINFO", "SSL_CERT_DIR", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            std::env::remove_var(name);
        }
    }
    if let Err(error) = open(&url) {
        assert!(all(&error).contains("SSL_CERT_FILE"), "{}", all(&error));
    } else {
        panic!("an unknown certificate was accepted");
    }
    assert!(server.requests().is_empty());
    // SAFETY: as above.
    unsafe { std::env::set_var("SSL_CERT_FILE", scratch.path("cert")) };
    server.require_login("ci:token");
    let access = Access { login: Some(Login { user: "ci".into(), password: "token".into() }), ..Access::default() };
    let source = open_with(&url, &access).unwrap();
    bake(&source, &Wanted::default(), &scratch.target("down")).unwrap();
    let requests = server.requests();
    assert_eq!(requests.iter().map(|request| request.method.as_str()).collect::<Vec<_>>(), ["GET", "POST"]);
    assert_eq!(requests[1].connection, requests[0].connection);
    scratch.check("down", &commit, false);
}
