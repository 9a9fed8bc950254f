//! Being told to stop: one token that every step of a run looks at.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};

/// Tells every part of a run, blocking or not, that it shall stop and why. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    token: CancellationToken,
    signal: Arc<OnceLock<i32>>,
}

impl Cancel {
    /// A token that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to stop because of signal number `signal`; the first one counts.
    pub fn cancel(&self, signal: i32) {
        let _ = self.signal.set(signal);
        self.token.cancel();
    }

    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// `Err(Interrupted)` once cancelled: for loops that block.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(self.error()) } else { Ok(()) }
    }

    /// Completes when somebody asks: for `select!`.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// The error that an interrupted step returns.
    pub fn error(&self) -> Error {
        let signal = self.signal.get().copied().unwrap_or(libc::SIGTERM);
        let name = nix::sys::signal::Signal::try_from(signal).map_or("a signal", |s| s.as_str());
        Error::new(Kind::Interrupted(signal), format!("interrupted by {name}"))
    }
}
