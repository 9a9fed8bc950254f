//! The steps of a bake, by name: a pair of them around every effect on the world.
//!
//! Tests kill the program at each (`tests/reliability_kill_points.rs`). A kill from outside, timed by the log, would race with
//! what it is aimed at; so the process sends the signal to itself, which is exact: SIGKILL ends it before the next line, after
//! SIGTERM or SIGINT it goes on and its handler does the rest. Two variables say what to do:
//!
//! - `EBS_BAKE_TEST_STEPS=<file>`: append each step that is reached, a line each, so that no test has a list of them, and when the
//!   signal was sent (`signal at <milliseconds since 1970>`);
//! - `EBS_BAKE_TEST_SIGNAL_AT=<step>[:<nth>]=<signal>`: send the signal at the step, when it is reached for the nth time.
//!
//! All this is in builds with debug assertions, which are those that tests run. In a release a step is nothing at all, and the
//! variables are refused as any option that does not exist.

use std::fmt::Display;

/// The variables that there are in this build.
#[cfg(debug_assertions)]
pub const VARIABLES: &[&str] = &[hook::STEPS_VARIABLE, hook::SIGNAL_VARIABLE];
/// The variables that there are in this build.
#[cfg(not(debug_assertions))]
pub const VARIABLES: &[&str] = &[];

/// The effect is about to be had.
#[inline]
pub fn before(effect: impl Display) {
    reached("before", effect);
}

/// The effect was had, or it failed.
#[inline]
pub fn after(effect: impl Display) {
    reached("after", effect);
}

/// Has the effect, between the two.
#[inline]
pub fn around<T>(effect: impl Display + Copy, work: impl FnOnce() -> T) -> T {
    before(effect);
    let done = work();
    after(effect);
    done
}

#[cfg(not(debug_assertions))]
#[inline]
fn reached(_: &str, _: impl Display) {}

#[cfg(debug_assertions)]
fn reached(when: &str, effect: impl Display) {
    hook::reached(&format!("{when} {effect}"));
}

#[cfg(debug_assertions)]
mod hook {
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::SystemTime;

    use nix::sys::signal::{Signal, kill};

    pub const STEPS_VARIABLE: &str = "EBS_BAKE_TEST_STEPS";
    pub const SIGNAL_VARIABLE: &str = "EBS_BAKE_TEST_SIGNAL_AT";

    /// The file that steps are written to.
    static STEPS: LazyLock<Option<File>> = LazyLock::new(|| {
        let path = std::env::var_os(STEPS_VARIABLE)?;
        Some(OpenOptions::new().append(true).create(true).open(path).expect("EBS_BAKE_TEST_STEPS is a file"))
    });

    static AIM: LazyLock<Option<Aim>> = LazyLock::new(|| {
        let aim = std::env::var(SIGNAL_VARIABLE).ok()?;
        Some(Aim::parse(&aim).expect("EBS_BAKE_TEST_SIGNAL_AT is <step>[:<nth>]=<signal>"))
    });

    struct Aim {
        step: String,
        /// How often the step is still to be reached.
        left: AtomicUsize,
        signal: Signal,
    }

    impl Aim {
        fn parse(text: &str) -> Option<Aim> {
            let (place, signal) = text.rsplit_once('=')?;
            let (step, nth) = place.rsplit_once(':').unwrap_or((place, "1"));
            Some(Aim { step: step.to_owned(), left: AtomicUsize::new(nth.parse().ok()?), signal: signal.parse().ok()? })
        }
    }

    pub fn reached(step: &str) {
        note(step);
        let Some(aim) = AIM.as_ref() else { return };
        // Wraps long after the last one.
        if step == aim.step && aim.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            note(&format!("signal at {}", SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_millis())));
            let _ = kill(nix::unistd::getpid(), aim.signal);
        }
    }

    fn note(line: &str) {
        if let Some(mut file) = STEPS.as_ref() {
            // One call of write(2), so that lines of several threads stay whole.
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_step_is_aimed_at_with_or_without_a_number() {
            let parsed = |text| Aim::parse(text).map(|aim| (aim.step, aim.left.into_inner(), aim.signal));
            assert_eq!(parsed("after mount=SIGKILL"), Some(("after mount".to_owned(), 1, Signal::SIGKILL)));
            assert_eq!(parsed("before sync:3=SIGTERM"), Some(("before sync".to_owned(), 3, Signal::SIGTERM)));
            for wrong in ["", "after mount", "after mount=9", "after mount:x=SIGINT"] {
                assert_eq!(parsed(wrong), None, "{wrong}");
            }
        }
    }
}
