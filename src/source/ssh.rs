//! git over SSH, through libssh2.

use std::io::{Cursor, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ssh2::{Channel, ErrorCode, MethodType, Session};
use url::Url;

use super::Access;
use super::fetch::Connection;
use super::http_setup::Timeouts;
use super::known_hosts::{KnownHosts, Verdict};
use super::location::ssh_path;
use super::pktline::Packets;
use super::refs::{Refs, server_error};
use super::watch::Watch;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, OrFail, Result};

const DEFAULT_PORT: u16 = 22;
const SYSTEM_KNOWN_HOSTS: &str = "/etc/ssh/ssh_known_hosts";
/// In the order in which ssh tries them.
const DEFAULT_KEYS: [&str; 3] = ["id_rsa", "id_ecdsa", "id_ed25519"];
/// More of a server's complaint is not shown.
const COMPLAINT: u64 = 2000;

/// A repository behind SSH. One connection serves the references and the fetch.
pub(super) struct Ssh {
    url: Url,
    host: String,
    port: u16,
    access: Access,
    timeouts: Timeouts,
    cancel: Cancel,
    link: Mutex<Option<Link>>,
}

/// `git-upload-pack` running on the other side.
struct Link {
    channel: Channel,
    _session: Session,
    _watch: Watch,
}

impl Ssh {
    /// Prepares; nothing is sent yet.
    pub fn new(url: &Url, access: &Access, cancel: &Cancel) -> Ssh {
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        Ssh {
            host,
            port: url.port().unwrap_or(DEFAULT_PORT),
            url: url.clone(),
            access: access.clone(),
            timeouts: Timeouts::new(access.silence),
            cancel: cancel.clone(),
            link: Mutex::new(None),
        }
    }

    fn link(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, checks the host's key, proves who we are, and starts `git-upload-pack`.
    fn connect(&self) -> Result<Link> {
        self.cancel.check()?;
        let stream = self.connect_tcp()?;
        let interrupt = stream.try_clone().or_fail(Kind::Git, || format!("cannot talk to {}", self.host))?;
        let watch = Watch::over(&self.cancel, move || drop(interrupt.shutdown(Shutdown::Both)));
        let known = self.known_hosts()?;
        let mut session = Session::new().map_err(|error| self.failed(error))?;
        session.set_timeout(u32::try_from(self.timeouts.silence.as_millis()).unwrap_or(u32::MAX));
        let types = known.key_types(&self.host, self.port);
        if !types.is_empty() {
            session.method_pref(MethodType::HostKey, &host_key_methods(&types)).map_err(|error| self.failed(error))?;
        }
        session.set_tcp_stream(stream);
        session.handshake().map_err(|error| self.failed(error))?;
        let key = session.host_key().map(|(key, _)| key).unwrap_or_default();
        self.judge(known.check(&self.host, self.port, key), &session)?;
        self.authenticate(&session)?;
        let mut channel = session.channel_session().map_err(|error| self.failed(error))?;
        // The path has no quote in it: `Location::parse` saw to that.
        let command = format!("git-upload-pack '{}'", ssh_path(&self.url));
        channel.exec(&command).map_err(|error| self.failed(error))?;
        Ok(Link { channel, _session: session, _watch: watch })
    }

    fn connect_tcp(&self) -> Result<TcpStream> {
        let addresses =
            (self.host.as_str(), self.port).to_socket_addrs().or_fail(Kind::Git, || format!("there is no host {}", self.host));
        let mut last = None;
        for address in addresses.map_err(|error| error.hint("check the repository's URL, and DNS"))? {
            match TcpStream::connect_timeout(&address, self.timeouts.connect) {
                Ok(stream) => {
                    stream.set_nodelay(true).or_fail(Kind::Git, || format!("cannot talk to {}", self.host))?;
                    return Ok(stream);
                }
                Err(error) => last = Some(error),
            }
        }
        let error =
            Error::new(Kind::Git, format!("cannot connect to {} port {}", self.host, self.port)).hint("check the network");
        Err(match last {
            Some(cause) => error.because(cause),
            None => error,
        })
    }

    fn known_hosts(&self) -> Result<KnownHosts> {
        let mut known = KnownHosts::default();
        let user = home().map(|home| home.join(".ssh/known_hosts"));
        for path in [Some(PathBuf::from(SYSTEM_KNOWN_HOSTS)), user].into_iter().flatten() {
            // Neither file has to exist, nor to be readable for us: what is not read is not trusted.
            if let Ok(text) = std::fs::read(&path) {
                known.add(&String::from_utf8_lossy(&text));
            }
        }
        if let Some(path) = &self.access.known_hosts {
            let text = std::fs::read(path).or_fail(Kind::Usage, || format!("cannot read {}", path.display()))?;
            known.add(&String::from_utf8_lossy(&text));
        }
        Ok(known)
    }

    fn judge(&self, verdict: Verdict, session: &Session) -> Result<()> {
        let fingerprint = session.host_key_hash(ssh2::HashType::Sha256).map(|hash| {
            use base64::Engine;
            format!("SHA256:{}", base64::engine::general_purpose::STANDARD_NO_PAD.encode(hash))
        });
        let fingerprint = fingerprint.unwrap_or_default();
        let (host, port) = (&self.host, self.port);
        let scan = if port == DEFAULT_PORT { host.clone() } else { format!("-p {port} {host}") };
        match verdict {
            Verdict::Trusted => Ok(()),
            Verdict::Unknown => Err(Error::new(Kind::Git, format!("the host key of {host} is not known ({fingerprint})")).hint(
                format!("compare it with what the host publishes, then add the output of `ssh-keyscan {scan}` to known_hosts"),
            )),
            Verdict::Changed => {
                Err(Error::new(Kind::Git, format!("the host key of {host} is not the known one ({fingerprint})"))
                    .hint("somebody may be listening in; if the host has a new key, replace it in known_hosts"))
            }
            Verdict::Revoked => Err(Error::new(Kind::Git, format!("the host key of {host} is revoked ({fingerprint})"))
                .hint("known_hosts says not to trust it: do not connect")),
        }
    }

    fn authenticate(&self, session: &Session) -> Result<()> {
        let user = match self.url.username() {
            "" => nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map_or("git".to_owned(), |user| user.name),
            name => name.to_owned(),
        };
        let refused = |error: Error| error.hint("is the key right, and allowed to read the repository?");
        if let Some(key) = &self.access.ssh_key {
            std::fs::File::open(key).or_fail(Kind::Git, || format!("cannot read the SSH key {}", key.display()))?;
            return session.userauth_pubkey_file(&user, None, key, None).map_err(|cause| self.key_refused(key, cause));
        }
        if std::env::var_os("SSH_AUTH_SOCK").is_some() && session.userauth_agent(&user).is_ok() {
            return Ok(());
        }
        let keys = home().into_iter().flat_map(|home| DEFAULT_KEYS.map(|name| home.join(".ssh").join(name)));
        for key in keys.filter(|key| key.exists()) {
            if session.userauth_pubkey_file(&user, None, &key, None).is_ok() {
                return Ok(());
            }
        }
        self.cancel.check()?;
        Err(refused(Error::new(Kind::Git, format!("{} does not accept any SSH key for user {user}", self.host)))
            .hint("give a key file, or start ssh-agent and set SSH_AUTH_SOCK"))
    }

    fn key_refused(&self, key: &Path, cause: ssh2::Error) -> Error {
        let failed = self.failed(cause);
        if self.cancel.is_cancelled() {
            return failed;
        }
        Error::new(Kind::Git, format!("{} does not accept the SSH key {}", self.host, key.display()))
            .hint("is it allowed to read the repository? a key with a passphrase must be in an agent")
            .because(failed)
    }

    fn failed(&self, error: ssh2::Error) -> Error {
        if self.cancel.is_cancelled() {
            return self.cancel.error();
        }
        let timeout = error.code() == ErrorCode::Session(LIBSSH2_ERROR_TIMEOUT);
        let message = if timeout { format!("{} stopped answering", self.host) } else { format!("cannot talk to {}", self.host) };
        Error::new(Kind::Git, message).because(error)
    }

    fn read_refs(&self, link: &mut Link) -> Result<Refs> {
        let refs = Refs::read(&mut Packets::new(&mut link.channel));
        self.cancel.check()?;
        refs.map_err(|error| {
            let mut complaint = String::new();
            let _ = link.channel.stderr().take(COMPLAINT).read_to_string(&mut complaint);
            if complaint.trim().is_empty() { error } else { server_error(complaint.replace('\n', " ").as_bytes()) }
                .hint("check the repository's path, and that the key may read it")
        })
    }

    /// Sends a request; the first bytes of the answer show whether the connection was still alive.
    fn send(&self, mut link: Link, body: &[u8]) -> std::io::Result<Answer> {
        link.channel.write_all(body)?;
        link.channel.flush()?;
        let mut first = [0; 4];
        link.channel.read_exact(&mut first)?;
        Ok(Answer { first: Cursor::new(first), link })
    }
}

/// libssh2.h.
const LIBSSH2_ERROR_TIMEOUT: i32 = -9;

impl Connection for Ssh {
    fn refs(&self) -> Result<Refs> {
        let mut slot = self.link();
        *slot = None;
        let mut link = self.connect()?;
        let refs = self.read_refs(&mut link)?;
        *slot = Some(link);
        Ok(refs)
    }

    fn request(&self, body: &[u8]) -> Result<Box<dyn Read + '_>> {
        let idle = self.link().take();
        if let Some(answer) = idle.and_then(|link| self.send(link, body).ok()) {
            return Ok(Box::new(answer));
        }
        // The git host has closed the connection while we were busy with the volume: once more.
        let mut link = self.connect()?;
        self.read_refs(&mut link)?;
        let answer = self.send(link, body);
        self.cancel.check()?;
        Ok(Box::new(answer.or_fail(Kind::Git, || format!("{} closes the connection", self.host))?))
    }

    fn host(&self) -> &str {
        &self.host
    }
}

/// What `git-upload-pack` answers; the connection ends with it.
struct Answer {
    first: Cursor<[u8; 4]>,
    link: Link,
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.first.read(buffer)? {
            0 => self.link.channel.read(buffer),
            count => Ok(count),
        }
    }
}

/// An RSA key has signature methods of its own; the oldest, with SHA-1, is not wanted.
fn host_key_methods(types: &[&str]) -> String {
    let methods: Vec<&str> =
        types.iter().map(|kind| if *kind == "ssh-rsa" { "rsa-sha2-512,rsa-sha2-256" } else { kind }).collect();
    methods.join(",")
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}
