//! Waiting for something that only a look can tell: polls with growing pauses, a deadline, and an ear for being told to stop.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cancel::Cancel;
use crate::error::Result;

/// How often to look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// The pause after the first look.
    pub first: Duration,
    /// Each pause is this many times the one before.
    pub factor: f64,
    /// No pause is longer.
    pub longest: Duration,
}

impl Pace {
    /// A snapshot completes in seconds when few blocks changed and in many minutes when all did: looks that come a quarter
    /// late at most, and five seconds. EC2 grants an account 20 such calls a second (API reference, "Request throttling").
    pub const SNAPSHOT: Pace = Pace { first: Duration::from_secs(1), factor: 1.25, longest: Duration::from_secs(5) };

    /// For what EC2 does to volumes: an attachment takes two seconds or so, a volume from a snapshot somewhat more.
    pub const VOLUME: Pace = Pace { first: Duration::from_secs(1), factor: 1.8, longest: Duration::from_secs(15) };

    fn next(&self, pause: Duration) -> Duration {
        pause.mul_f64(self.factor).min(self.longest)
    }
}

/// The pauses between looks.
#[derive(Debug)]
pub struct Pauses {
    pace: Pace,
    pause: Duration,
    deadline: Instant,
}

impl Pauses {
    /// Pauses that end when `patience` has run out.
    pub fn new(pace: Pace, patience: Duration) -> Self {
        Pauses { pace, pause: pace.first, deadline: Instant::now() + patience }
    }

    /// Pauses, unless `early` completes before; `false` when patience has run out already.
    ///
    /// # Errors
    /// `Interrupted` once `cancel` was called.
    pub async fn pause(&mut self, cancel: &Cancel, early: impl Future<Output = ()>) -> Result<bool> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        tokio::select! {
            () = sleep(self.pause.min(left)) => {}
            () = early => {}
            () = cancel.cancelled() => return Err(cancel.error()),
        }
        self.pause = self.pace.next(self.pause);
        Ok(true)
    }
}

/// Looks until `look` gives a value; `Ok(None)` when `patience` ran out before. At least one look is taken.
///
/// Errors: those of `look`, and `Interrupted` once `cancel` was called.
pub async fn until<T, F>(pace: Pace, patience: Duration, cancel: &Cancel, mut look: impl FnMut() -> F) -> Result<Option<T>>
where
    F: Future<Output = Result<Option<T>>>,
{
    let mut pauses = Pauses::new(pace, patience);
    loop {
        cancel.check()?;
        if let Some(value) = look().await? {
            return Ok(Some(value));
        }
        if !pauses.pause(cancel, std::future::pending()).await? {
            return Ok(None);
        }
    }
}

/// Waits so long, or until somebody calls `cancel`.
///
/// Errors: `Interrupted`.
pub async fn pause(duration: Duration, cancel: &Cancel) -> Result<()> {
    tokio::select! {
        () = sleep(duration) => Ok(()),
        () = cancel.cancelled() => Err(cancel.error()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Kind;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_the_longest() {
        let began = Instant::now();
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            let done = looks.get() == 10;
            async move { Ok(done.then_some(())) }
        };
        assert_eq!(until(Pace::SNAPSHOT, MINUTE * 10, &Cancel::new(), look).await.unwrap(), Some(()));
        // 1 + 1.25 + … + 3.8 + 4.77 is the geometric sum of the first eight; then one of 5 s, which grew no more.
        assert_eq!(began.elapsed().as_secs(), 19 + 5);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_with_a_last_look() {
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            async { Ok(None::<()>) }
        };
        let began = Instant::now();
        assert_eq!(until(Pace::SNAPSHOT, Duration::from_secs(2), &Cancel::new(), look).await.unwrap(), None);
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        assert_eq!(looks.get(), 3, "at 0, 1 and 2 s");
    }

    #[tokio::test(start_paused = true)]
    async fn being_told_to_stop_ends_a_pause() {
        let cancel = Cancel::new();
        let waiting = until(Pace::SNAPSHOT, MINUTE, &cancel, || async { Ok(None::<()>) });
        let stop = async {
            sleep(Duration::from_millis(10)).await;
            cancel.cancel(libc::SIGINT);
        };
        let (waited, ()) = tokio::join!(waiting, stop);
        assert_eq!(waited.unwrap_err().kind(), Kind::Interrupted(libc::SIGINT));
    }
}
