//! A real sshd for tests: its own configuration, port and keys in a scratch directory. Needs Debian's openssh-server.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use ebs_bake::source::Access;

use crate::git_cli::Scratch;

const SSHD: &str = "/usr/sbin/sshd";

/// No key, agent or known host of whoever runs the tests may play a part.
fn hermetic() {
    static ONCE: Once = Once::new();
    // SAFETY: every test of these files begins here and waits for it; nothing else has looked at the environment.
    ONCE.call_once(|| unsafe {
        std::env::set_var("HOME", "/nonexistent");
        std::env::remove_var("SSH_AUTH_SOCK");
    });
}

/// A process that ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Server {
    pub scratch: Scratch,
    pub port: u16,
    _sshd: Running,
}

impl Server {
    /// `None`, and says so, where there is no sshd; an error in CI.
    pub fn start() -> Option<Server> {
        hermetic();
        if !Path::new(SSHD).exists() {
            assert!(std::env::var_os("CI").is_none(), "{SSHD} is missing");
            #[allow(clippy::print_stderr)] // how a skipped test says so
            {
                eprintln!("skipped: {SSHD} is missing (apt-get install openssh-server)");
            }
            return None;
        }
        let scratch = Scratch::new();
        for name in ["host", "other-host", "user", "stranger"] {
            keygen(&scratch.path(name), "ed25519");
        }
        std::fs::copy(scratch.path("user.pub"), scratch.path("authorized")).unwrap();
        // Where sshd, started by root, wants to drop its privileges to.
        let _ = std::fs::create_dir("/run/sshd");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\nSetEnv PATH={}\n",
            scratch.path("host").display(),
            scratch.path("authorized").display(),
            std::env::var("PATH").unwrap(),
        );
        std::fs::write(scratch.path("config"), config).unwrap();
        let log = std::fs::File::create(scratch.path("log")).unwrap();
        let mut sshd = Command::new(SSHD);
        sshd.args(["-D", "-e", "-f"]).arg(scratch.path("config")).stderr(log).stdin(Stdio::null());
        let server = Server { port, _sshd: Running(sshd.spawn().unwrap()), scratch };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        server.scratch.repository("up");
        Some(server)
    }

    pub fn url(&self, repository: &str) -> String {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
        format!("ssh://{user}@127.0.0.1:{}{}", self.port, self.scratch.path(repository).display())
    }

    /// A known_hosts file that gives this key to the server.
    pub fn known_hosts(&self, key: &str) -> PathBuf {
        let public = std::fs::read_to_string(self.scratch.path(&format!("{key}.pub"))).unwrap();
        let path = self.scratch.path(&format!("known-{key}"));
        std::fs::write(&path, format!("[127.0.0.1]:{} {public}", self.port)).unwrap();
        path
    }

    pub fn access(&self, key: &str, host: &str) -> Access {
        Access { ssh_key: Some(self.scratch.path(key)), known_hosts: Some(self.known_hosts(host)), ..Access::default() }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path("log")).unwrap()
    }
}

pub fn keygen(path: &Path, kind: &str) {
    let status = Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-f"]).arg(path).status().unwrap();
    assert!(status.success());
}
