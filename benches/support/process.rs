//! Running a program and measuring what it took.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a program took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// From its start to its end.
    pub time: Duration,
    /// The most memory that it, or one of its children, had resident.
    pub peak_kib: i64,
}

impl std::ops::Add for Spent {
    type Output = Spent;

    /// One after the other.
    fn add(self, next: Spent) -> Spent {
        Spent { time: self.time + next.time, peak_kib: self.peak_kib.max(next.peak_kib) }
    }
}

/// Runs it to its end; panics with what it said if it fails.
#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and tells what it took")]
pub fn spend(command: &mut Command) -> Spent {
    let mut said = tempfile::tempfile().expect("a temporary file");
    let errors: OwnedFd = said.try_clone().expect("a descriptor").into();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::from(errors));
    let began = Instant::now();
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both point to what the kernel writes there; the child is ours and nobody else waits for it.
    let waited = unsafe { libc::wait4(child.id().cast_signed(), &raw mut status, 0, usage.as_mut_ptr()) };
    let time = began.elapsed();
    let mut text = String::new();
    let _ = said.rewind().and_then(|()| said.read_to_string(&mut text));
    assert!(waited > 0 && status == 0, "{command:?} failed: {text}");
    // SAFETY: zeroed is a valid value, and the kernel has filled it.
    let usage = unsafe { usage.assume_init() };
    Spent { time, peak_kib: usage.ru_maxrss }
}

/// The middle one; the mean of the two middle ones of an even number.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// Milliseconds, the median of all runs.
pub fn milliseconds(runs: &[Spent]) -> f64 {
    median(runs.iter().map(|run| run.time.as_secs_f64() * 1000.0).collect())
}

pub fn mean(values: &[u64]) -> f64 {
    values.iter().sum::<u64>() as f64 / values.len() as f64
}
