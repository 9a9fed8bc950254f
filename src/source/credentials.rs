//! How to prove who we are to a git host, and how the git host proves it to us.

use std::path::PathBuf;

/// A user name and password (or token) for HTTPS. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(…)")
    }
}

/// Credentials and trust for git hosts.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// For HTTPS; sent to the repository's own host only.
    pub login: Option<Login>,
    /// A private key file for SSH; else the agent.
    pub ssh_key: Option<PathBuf>,
    /// A known_hosts file beside the system's and the user's.
    pub known_hosts: Option<PathBuf>,
}
