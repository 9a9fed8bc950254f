//! TLS: which certificates are trusted. A file of its own: the trusted ones are named in the environment.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/git_cli.rs"]
mod git_cli;
#[path = "support/git_server.rs"]
#[allow(dead_code)]
mod git_server;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ebs_bake::source::{Access, Login, Wanted};
use git_cli::{Scratch, all, bake, open, open_with};
use git_server::GitServer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Puts TLS before a server; returns the port. Ends with the process.
fn terminate_tls(scratch: &Scratch, address: &str) -> u16 {
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test"]);
    openssl
        .args(["-days", "2", "-addext", names, "-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(scratch.path("key"))
        .arg("-out")
        .arg(scratch.path("cert"));
    assert!(openssl.stderr(Stdio::null()).status().unwrap().success());
    let certificate = CertificateDer::from_pem_file(scratch.path("cert")).unwrap();
    let key = PrivateKeyDer::from_pem_file(scratch.path("key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = address.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, address) = (config.clone(), address.clone());
            std::thread::spawn(move || relay(stream.unwrap(), &address, config));
        }
    });
    port
}

/// Both directions in one thread, by turns: requests and answers do not overlap here.
fn relay(client: TcpStream, address: &str, config: Arc<ServerConfig>) {
    client.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut server = TcpStream::connect(address).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut client = StreamOwned::new(ServerConnection::new(config).unwrap(), client);
    let mut buffer = vec![0; 1 << 16];
    loop {
        for to_server in [true, false] {
            let count = if to_server { client.read(&mut buffer) } else { server.read(&mut buffer) };
            let sent = match count {
                Ok(0) => return,
                Ok(count) if to_server => server.write_all(&buffer[..count]),
                Ok(count) => client.write_all(&buffer[..count]).and_then(|()| client.flush()),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => Ok(()),
                Err(_) => return,
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

#[test]
fn only_trusted_certificates_are_accepted_and_the_token_goes_along_at_once() {
    let scratch = Scratch::new();
    let commit = scratch.repository("up");
    let server = GitServer::start(&scratch.path(""));
    let port = terminate_tls(&scratch, &server.address);
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
