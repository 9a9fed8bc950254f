//! git's smart HTTP protocol.

use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};
use url::Url;

use super::fetch::Connection;
use super::http_setup::{self, Timeouts};
use super::pktline::Packets;
use super::refs::{self, Refs};
use super::watch::Watch;
use super::{Access, Location, Login};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, OrFail, Result};

/// As many redirects as git follows.
const MOST_REDIRECTS: usize = 20;
/// What may follow the end of an answer and is worth reading, so that the connection can be used again.
const LEFT_OVER: u64 = 1 << 12;

/// A repository behind HTTP; one connection, kept alive.
pub(super) struct Http {
    state: Mutex<State>,
    host: String,
    login: Option<Login>,
    timeouts: Timeouts,
    cancel: Cancel,
}

struct State {
    /// Where the repository is, after redirects; without a slash at its end.
    base: Url,
    agent: Agent,
    /// Whether credentials go along unasked.
    send_login: bool,
    _watch: Watch,
}

impl Http {
    /// Prepares; nothing is sent yet.
    pub fn new(url: &Url, access: &Access, cancel: &Cancel) -> Result<Http> {
        let timeouts = Timeouts::new(access.silence);
        let mut base = url.clone();
        base.set_path(url.path().trim_end_matches('/'));
        let host = base.host_str().unwrap_or_default().to_owned();
        let agent = http_setup::agent(&base, timeouts)?;
        let watch = watch(&agent, cancel);
        // In clear text a password travels only when it is asked for.
        let send_login = base.scheme() == "https";
        let state = Mutex::new(State { base, agent, send_login, _watch: watch });
        Ok(Http { state, host, login: access.login.clone(), timeouts, cancel: cancel.clone() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authorization(&self, state: &State) -> Option<String> {
        let login = self.login.as_ref().filter(|_| state.send_login)?;
        let pair = format!("{}:{}", login.user, login.password);
        Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
    }

    /// The GET that begins everything; follows redirects, sends the credentials when they are asked for.
    fn get_refs(&self) -> Result<Response<Body>> {
        let mut state = self.state();
        for _ in 0..MOST_REDIRECTS {
            let url = format!("{}/info/refs?service=git-upload-pack", state.base);
            let mut request = state.agent.get(&url).header(header::PRAGMA, "no-cache");
            let authorization = self.authorization(&state);
            if let Some(value) = &authorization {
                request = request.header(header::AUTHORIZATION, value);
            }
            let response = request.call().map_err(|error| self.failed(error))?;
            let status = response.status();
            tracing::debug!(credentials = authorization.is_some(), "GET {url}: {status}");
            if status.is_redirection() {
                self.follow(&mut state, &response)?;
            } else if status == StatusCode::UNAUTHORIZED && self.login.is_some() && authorization.is_none() {
                state.send_login = true;
            } else {
                self.check_status(status)?;
                return Ok(response);
            }
        }
        Err(Error::new(Kind::Git, format!("{} redirects without end", self.host)))
    }

    fn follow(&self, state: &mut State, response: &Response<Body>) -> Result<()> {
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let base = redirected(&state.base, location)?;
        if base.scheme() != state.base.scheme() {
            state.agent = http_setup::agent(&base, self.timeouts)?;
            state._watch = watch(&state.agent, &self.cancel);
            state.send_login = true;
        }
        state.base = base;
        Ok(())
    }

    fn check_status(&self, status: StatusCode) -> Result<()> {
        let host = &self.host;
        let with_login = self.login.is_some();
        let error = |message: String| Err(Error::new(Kind::Git, message));
        match status.as_u16() {
            200 => Ok(()),
            401 if with_login => error(format!("{host} refuses the user name, password or token"))
                .map_err(|error| error.hint("is the token right, not expired, and allowed to read this repository?")),
            401 => error(format!("{host} asks for credentials"))
                .map_err(|error| error.hint("set EBS_BAKE_GIT_TOKEN; is the repository's name right?")),
            403 => error(format!("{host} does not permit access to the repository"))
                .map_err(|error| error.hint("is the token allowed to read this repository?")),
            404 | 410 if with_login => error(format!("{host} has no such repository, or the token may not see it"))
                .map_err(|error| error.hint("check the repository's URL and the token's permissions")),
            404 | 410 => error(format!("{host} has no such repository, or it is private"))
                .map_err(|error| error.hint("check the repository's URL; a private one needs EBS_BAKE_GIT_TOKEN")),
            407 => error("the proxy asks for credentials".into())
                .map_err(|error| error.hint("put them into the proxy's URL, in https_proxy")),
            429 | 500..=599 => error(format!("{host} answers with HTTP status {}", status.as_u16()))
                .map_err(|error| error.hint("the git host has a problem: try again later")),
            code => error(format!("{host} answers with HTTP status {code}")),
        }
    }

    fn failed(&self, error: ureq::Error) -> Error {
        if self.cancel.is_cancelled() {
            return self.cancel.error();
        }
        http_setup::describe(&self.host, error)
    }

    fn check_type(&self, response: &Response<Body>, kind: &str) -> Result<()> {
        let found = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if found.split(';').next().is_some_and(|found| found.trim().eq_ignore_ascii_case(kind)) {
            return Ok(());
        }
        Err(Error::new(Kind::Git, format!("{} does not answer as a git repository", self.host))
            .hint("is this the URL that git clone takes? only the smart HTTP protocol is supported"))
    }
}

impl Connection for Http {
    fn refs(&self) -> Result<Refs> {
        let response = self.get_refs()?;
        self.check_type(&response, "application/x-git-upload-pack-advertisement")?;
        let mut body = response.into_body().into_reader();
        let mut packets = Packets::new(&mut body);
        let refs = refs::skip_service_line(&mut packets)
            .or_fail(Kind::Git, || format!("{} does not answer as a git repository", self.host))
            .and_then(|()| Refs::read(&mut packets));
        self.cancel.check()?;
        let refs = refs?;
        // Only a connection whose answer was read to its end is kept alive.
        let _ = std::io::copy(&mut body.take(LEFT_OVER), &mut std::io::sink());
        Ok(refs)
    }

    fn request(&self, body: &[u8]) -> Result<Box<dyn Read + '_>> {
        let state = self.state();
        let url = format!("{}/git-upload-pack", state.base);
        let mut request = state
            .agent
            .post(&url)
            .header(header::CONTENT_TYPE, "application/x-git-upload-pack-request")
            .header(header::ACCEPT, "application/x-git-upload-pack-result");
        if let Some(value) = self.authorization(&state) {
            request = request.header(header::AUTHORIZATION, value);
        }
        let response = request.send(body).map_err(|error| self.failed(error))?;
        tracing::debug!("POST {url}: {}", response.status());
        self.check_status(response.status())?;
        self.check_type(&response, "application/x-git-upload-pack-result")?;
        Ok(Box::new(response.into_body().into_reader()))
    }

    fn host(&self) -> &str {
        &self.host
    }
}

/// Where the repository is after a redirect of its first request: on the same host, not less safe, and the same kind of
/// address. Credentials must never reach anybody else.
fn redirected(base: &Url, location: &str) -> Result<Url> {
    let from = Location::Remote(base.clone());
    let refuse = |message: String| Err(Error::new(Kind::Git, message).hint("if you trust it, give that URL as the repository"));
    let asked = Url::parse(&format!("{base}/info/refs"));
    let Ok(mut to) =
        asked.and_then(|asked| if location.is_empty() { Err(url::ParseError::EmptyHost) } else { asked.join(location) })
    else {
        return refuse(format!("{} redirects to an address that cannot be understood", base.host_str().unwrap_or_default()));
    };
    let host = to.host_str().unwrap_or_default().to_owned();
    if !matches!((base.scheme(), to.scheme()), ("http", "http" | "https") | ("https", "https")) {
        return refuse(format!("the repository redirects from {} to {}:// on {host}", base.scheme(), to.scheme()));
    }
    let port = |url: &Url| if url.scheme() == base.scheme() { url.port_or_known_default() } else { url.port() };
    let same_port = if to.scheme() == base.scheme() { port(&to) == port(base) } else { base.port() == to.port() };
    if from.authority().map(|(host, _)| host) != Some(host.to_ascii_lowercase()) || !same_port {
        let port = to.port().map(|port| format!(":{port}")).unwrap_or_default();
        return refuse(format!("the repository redirects to another host, {host}{port}"));
    }
    let Some(path) = to.path().strip_suffix("/info/refs").map(str::to_owned) else {
        return refuse(format!("{host} redirects to a page that is not a git repository"));
    };
    to.set_path(&path);
    to.set_query(None);
    to.set_fragment(None);
    to.set_username("").and_then(|()| to.set_password(None)).expect("an http URL has a host");
    Ok(to)
}

fn watch(agent: &Agent, cancel: &Cancel) -> Watch {
    let agent = agent.clone();
    Watch::over(cancel, || agent.shutdown())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(base: &str, location: &str) -> Result<String> {
        redirected(&Url::parse(base).unwrap(), location).map(String::from)
    }

    #[test]
    fn redirects_stay_on_the_host() {
        let query = "/info/refs?service=git-upload-pack";
        let ok = |base: &str, to: &str| follow(base, &format!("{to}{query}")).unwrap();
        assert_eq!(ok("http://h/r", "http://h/r.git"), "http://h/r.git");
        assert_eq!(ok("http://h/r", "https://h/r"), "https://h/r");
        assert_eq!(ok("https://h/r", "/new"), "https://h/new");
        assert_eq!(ok("https://h/r", "https://user:x@H:443/new"), "https://h/new");
        for (base, to, names) in [
            ("https://h/r", "https://evil/r", "evil"),
            ("https://h/r", "//evil/r", "evil"),
            ("https://h/r", "https://h.evil/r", "h.evil"),
            ("https://h/r", "https://h:8443/r", "8443"),
            ("http://h:8080/r", "https://h/r", "h"),
            ("https://h/r", "http://h/r", "http://"),
            ("https://h/r", "file:///etc/passwd", "file://"),
        ] {
            let error = follow(base, &format!("{to}{query}")).unwrap_err();
            assert!(error.to_string().contains(names), "{base} -> {to}: {error}");
        }
        assert!(follow("https://h/r", "https://h/login").is_err());
        assert!(follow("https://h/r", "").is_err());
    }
}
