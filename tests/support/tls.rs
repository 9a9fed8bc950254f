//! TLS for a server that has none.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Puts TLS before a server, with a certificate for localhost that is in `directory/cert`; returns the port. Ends with the process.
pub fn terminate_tls(directory: &Path, address: &str) -> u16 {
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test"]);
    openssl
        .args(["-days", "2", "-addext", names, "-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(directory.join("key"))
        .arg("-out")
        .arg(directory.join("cert"));
    assert!(openssl.stderr(Stdio::null()).status().unwrap().success());
    let certificate = CertificateDer::from_pem_file(directory.join("cert")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("key")).unwrap();
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
