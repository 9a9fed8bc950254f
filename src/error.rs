//! What can go wrong, said in one line: a kind (which fixes the exit code), a message, a hint and the causes.

use std::error::Error as StdError;
use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The part of the work that failed. Each kind has one exit code; the table is an interface (`docs/reference.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An argument, an environment variable or the configuration file is wrong.
    Usage,
    /// Not permitted: capabilities, IAM, or no credentials.
    Permission,
    /// Somebody else has what is needed: the volume is attached elsewhere, or the lock was not had in time.
    Contended,
    /// The block storage refused or failed.
    Storage,
    /// A device, a filesystem or a mount.
    Device,
    /// git: repository, reference, host key, credentials, checkout.
    Git,
    /// The snapshot failed or did not complete in time.
    Snapshot,
    /// The machines that boot from a snapshot: launch template, launch configuration, Auto Scaling group, instance refresh.
    Fleet,
    /// The snapshot is good, but cleaning up failed.
    Cleanup,
    /// What is in the repository did not pass the checks that were asked for.
    Check,
    /// A signal ended the run (its number); what had been done was undone.
    Interrupted(i32),
}

impl Kind {
    /// The exit code of the process for an error of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Permission => 3,
            Kind::Contended => 4,
            Kind::Storage => 5,
            Kind::Device => 6,
            Kind::Git => 7,
            Kind::Snapshot => 8,
            Kind::Fleet => 9,
            Kind::Cleanup => 10,
            Kind::Check => 11,
            Kind::Interrupted(signal) => 128 + signal as u8,
        }
    }

    /// The kind's stable name in machine-readable output.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Usage => "usage",
            Kind::Permission => "permission",
            Kind::Contended => "contended",
            Kind::Storage => "storage",
            Kind::Device => "device",
            Kind::Git => "git",
            Kind::Snapshot => "snapshot",
            Kind::Fleet => "fleet",
            Kind::Cleanup => "cleanup",
            Kind::Check => "check",
            Kind::Interrupted(_) => "interrupted",
        }
    }
}

/// An error with a kind, a one-line message, an optional hint (what to do about it) and an optional cause.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// `message` is one sentence without a final stop that names the thing that failed.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, cause: None }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the error that led to this one.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Which part of the work failed.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the user can do about it, if that is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The messages of all causes, nearest first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

/// Turns a foreign error into ours: `read(path).or_fail(Kind::Usage, || format!("cannot read {path}"))?`.
pub trait OrFail<T> {
    /// Keeps the foreign error as the cause.
    fn or_fail<M: Into<String>>(self, kind: Kind, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> OrFail<T> for std::result::Result<T, E> {
    fn or_fail<M: Into<String>>(self, kind: Kind, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|cause| Error::new(kind, message()).because(cause))
    }
}
