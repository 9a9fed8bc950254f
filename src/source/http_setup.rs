//! The HTTP client: trust, proxies, time-outs, and what its errors mean.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Proxy};
use url::Url;

use crate::error::{Error, Kind, Result};

/// Longer than any reachable git host needs, shorter than a CI job's patience.
const CONNECT: Duration = Duration::from_secs(20);
/// git hosts send something every few seconds, also while they prepare a pack.
const SILENCE: Duration = Duration::from_secs(60);

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes.
    pub silence: Duration,
}

impl Timeouts {
    pub fn new(silence: Option<Duration>) -> Self {
        Timeouts { connect: CONNECT, silence: silence.unwrap_or(SILENCE) }
    }
}

/// A client for one host. The certificates of the system are read for https only: that takes a while.
pub(super) fn agent(url: &Url, timeouts: Timeouts) -> Result<Agent> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .no_delay(true)
        .user_agent(concat!("git/2 (ebs-bake ", env!("CARGO_PKG_VERSION"), ")"))
        .proxy(proxy(url.scheme(), |name| std::env::var(name).ok())?)
        .timeout_resolve(Some(timeouts.connect))
        .timeout_connect(Some(timeouts.connect))
        .timeout_per_read(Some(timeouts.silence))
        .timeout_per_write(Some(timeouts.silence));
    if url.scheme() == "https" {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(roots()?)
            .build();
        config = config.tls_config(tls);
    }
    Ok(config.build().new_agent())
}

/// The system's certificates, those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, or, as git has it, of `GIT_SSL_CAINFO`.
fn roots() -> Result<RootCerts> {
    let file = std::env::var_os("GIT_SSL_CAINFO").map(PathBuf::from);
    let found = match &file {
        Some(file) => rustls_native_certs::load_certs_from_paths(Some(file), None),
        None => rustls_native_certs::load_native_certs(),
    };
    if found.certs.is_empty() {
        let error = Error::new(Kind::Git, "there are no certificates to check a git host's with")
            .hint("install ca-certificates, or set SSL_CERT_FILE");
        return Err(match found.errors.into_iter().next() {
            Some(cause) => error.because(cause),
            None => error,
        });
    }
    let certificates: Vec<_> = found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    Ok(RootCerts::new_with_certs(&certificates))
}

/// The proxy for a scheme, from the variables that git and curl look at, in their order.
fn proxy(scheme: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Proxy>> {
    // Not HTTP_PROXY: a CGI program's caller could set it.
    let names: &[&str] = match scheme {
        "http" => &["http_proxy", "all_proxy", "ALL_PROXY"],
        _ => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
    };
    let set = |names: &[&str]| names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
    let Some(text) = set(names) else { return Ok(None) };
    let invalid = || Error::new(Kind::Usage, format!("the proxy in {} is not usable", names.join(", ")));
    // Without the cause: a proxy's URL may contain a password.
    let parsed = Proxy::new(&text).map_err(|_| invalid().hint("write http://host:port"))?;
    let no_proxy = set(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
    let mut builder = Proxy::builder(parsed.protocol()).host(parsed.host()).port(parsed.port());
    if let Some(user) = parsed.username() {
        builder = builder.username(user);
    }
    if let Some(password) = parsed.password() {
        builder = builder.password(password);
    }
    for host in no_proxy.split(',').map(str::trim).filter(|host| !host.is_empty()) {
        builder = builder.no_proxy(host);
        // To curl a name covers the hosts below it; to this client only when it begins with a dot.
        if !host.starts_with(['.', '*']) {
            builder = builder.no_proxy(&format!(".{host}"));
        }
    }
    builder.build().map(Some).map_err(|_| invalid())
}

/// What an error of the client means to a user. It never contains the request: no credentials.
pub(super) fn describe(host: &str, error: ureq::Error) -> Error {
    let (message, hint) = match &error {
        ureq::Error::HostNotFound => (format!("there is no host {host}"), "check the repository's URL, and DNS"),
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
            (format!("{host} cannot be reached in time"), "check the network and the proxy variables")
        }
        ureq::Error::Timeout(_) => (format!("{host} stopped answering"), "try again later"),
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => {
            (format!("no trusted connection to {host}"), "a private certificate authority is given by SSL_CERT_FILE")
        }
        ureq::Error::ConnectProxyFailed(_) => (format!("the proxy does not connect to {host}"), "check https_proxy and no_proxy"),
        ureq::Error::Io(cause) if is_tls(cause) => {
            (format!("no trusted connection to {host}"), "a private certificate authority is given by SSL_CERT_FILE")
        }
        ureq::Error::Io(_) | ureq::Error::ConnectionFailed => {
            (format!("cannot talk to {host}"), "check the network and the proxy variables")
        }
        _ => (format!("{host} does not answer as a git host"), "check the repository's URL"),
    };
    Error::new(Kind::Git, message).hint(hint).because(error)
}

/// Whether a read ended because the host was silent for too long.
pub(super) fn is_timeout(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    matches!(inner, Some(ureq::Error::Timeout(_)))
}

fn is_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(scheme: &str, variables: &[(&str, &str)]) -> Option<Proxy> {
        let look = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        proxy(scheme, look).unwrap()
    }

    #[test]
    fn proxies_are_chosen_as_curl_chooses_them() {
        let host = |scheme, variables: &[(&str, &str)]| chosen(scheme, variables).map(|proxy| proxy.host().to_owned());
        let all = [("http_proxy", "http://a:1"), ("https_proxy", "http://b:2"), ("ALL_PROXY", "http://c:3")];
        assert_eq!(host("http", &all).as_deref(), Some("a"));
        assert_eq!(host("https", &all).as_deref(), Some("b"));
        assert_eq!(host("https", &[("HTTPS_PROXY", "d:4")]).as_deref(), Some("d"));
        assert_eq!(host("https", &all[2..]).as_deref(), Some("c"));
        assert_eq!(host("http", &[("HTTP_PROXY", "http://x:1"), ("https_proxy", "http://x:1")]), None);
        assert_eq!(host("https", &[("https_proxy", "")]), None);
    }

    #[test]
    fn no_proxy_covers_hosts_and_their_domains() {
        let variables = [("https_proxy", "http://user:secret@p:1"), ("no_proxy", "example.com, .corp,localhost")];
        let proxy = chosen("https", &variables).unwrap();
        assert_eq!((proxy.username(), proxy.password()), (Some("user"), Some("secret")));
        let direct = |host: &str| proxy.is_no_proxy(&format!("https://{host}/").parse().unwrap());
        assert!(direct("example.com") && direct("git.example.com") && direct("git.corp") && direct("localhost"));
        assert!(!direct("notexample.com") && !direct("example.org"));
    }

    #[test]
    fn a_bad_proxy_is_an_error_without_its_text() {
        let error = proxy("https", |_| Some("gopher://user:hunter2@p".into())).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
