//! Being asked to stop.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::cancel::Cancel;
use crate::error::{Kind, OrFail, Result};
use crate::report::console::Console;

/// How long a run has to undo what it did: GitHub kills a cancelled step 7.5 s after its SIGINT.
const PATIENCE: Duration = Duration::from_millis(6300);
/// How long telling it may take, where nobody reads stderr or the machine is busy.
const LAST_WORD: Duration = Duration::from_millis(500);

/// From now on SIGINT, SIGTERM and SIGHUP cancel. A run that is still there when its time is up (a thread that hangs in the
/// kernel, say, or EC2 that does not answer) says so and ends by the signal's exit code: its mounts die with it, and the next run
/// repairs the rest.
///
/// # Errors
/// `Device` when the kernel lets no handler be installed.
pub fn watch(cancel: &Cancel, console: &Arc<Console>) -> Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut stream = signal(kind).or_fail(Kind::Device, || "cannot install a signal handler")?;
        let (cancel, console) = (cancel.clone(), console.clone());
        tokio::spawn(async move {
            if stream.recv().await.is_none() {
                return;
            }
            let number = kind.as_raw_value();
            cancel.cancel(number);
            // A thread of its own: it must not depend on what hangs.
            std::thread::spawn(move || {
                std::thread::sleep(PATIENCE);
                let (told, telling) = mpsc::channel();
                std::thread::spawn(move || {
                    let late = cancel.error().because("cleaning up took too long");
                    console.error(&late.hint("what is left the next run uses or repairs, and `ebs-bake cleanup` takes it away"));
                    let _ = told.send(());
                });
                let _ = telling.recv_timeout(LAST_WORD);
                std::process::exit(128 + number);
            });
        });
    }
    Ok(())
}
