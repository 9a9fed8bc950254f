//! How to prove who we are to a git host, and how the git host proves it to us.

use std::path::PathBuf;
use std::time::Duration;

/// A user name and password (or token) for HTTPS. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user; git hosts that take a token have a fixed or no name here.
    pub user: String,
    /// The password or token.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(…)")
    }
}

/// Credentials and trust for git hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// For HTTPS; sent to the repository's own host only.
    pub login: Option<Login>,
    /// A private key file for SSH; else the agent.
    pub ssh_key: Option<PathBuf>,
    /// A known_hosts file beside the system's and the user's.
    pub known_hosts: Option<PathBuf>,
    /// How long a git host may stay silent; a minute if not set.
    pub silence: Option<Duration>,
}
