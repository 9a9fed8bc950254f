//! Ends a read that waits for a git host as soon as the run is cancelled.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::cancel::Cancel;

/// How soon a cancelled run notices.
const LOOK_AT_CANCEL: Duration = Duration::from_millis(50);

/// A thread that looks at the cancellation until it is dropped.
pub(super) struct Watch {
    _stop: Sender<()>,
}

impl Watch {
    /// Calls `interrupt` once when the run is cancelled: it shuts down what another thread is reading from.
    pub fn over(cancel: &Cancel, interrupt: impl FnOnce() + Send + 'static) -> Watch {
        let (stop, stopped) = channel();
        let cancel = cancel.clone();
        std::thread::spawn(move || {
            while stopped.recv_timeout(LOOK_AT_CANCEL) == Err(RecvTimeoutError::Timeout) {
                if cancel.is_cancelled() {
                    return interrupt();
                }
            }
        });
        Watch { _stop: stop }
    }
}
