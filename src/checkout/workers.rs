//! A few threads that work a shared list off; what they do may add to the list.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};

/// More threads than this gain nothing: the volume and the memory bus are shared.
const MOST_THREADS: usize = 4;

/// How many threads are worth starting for `items` pieces of work.
pub fn threads_for(items: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    cores.min(MOST_THREADS).min(items).max(1)
}

struct List<T> {
    waiting: Vec<T>,
    /// Items taken and not finished: each may still add to the list.
    running: usize,
    failure: Option<Error>,
}

/// Calls `work` for every item, on `threads` threads, and returns what the workers have gathered in their own states.
///
/// `start` makes a worker's state on its thread. The third argument of `work` takes further items. The first error
/// stops all; so does `cancel`.
pub fn work_off<T, W>(
    threads: usize,
    items: Vec<T>,
    cancel: &Cancel,
    start: impl Fn() -> Result<W> + Sync,
    work: impl Fn(&mut W, T, &mut Vec<T>) -> Result<()> + Sync,
) -> Result<Vec<W>>
where
    T: Send,
    W: Send,
{
    let list = Mutex::new(List { waiting: items, running: 0, failure: None });
    let changed = Condvar::new();
    let run = || {
        let mut state = start().map_err(|error| fail(&list, &changed, error)).ok()?;
        let mut more = Vec::new();
        while let Some(item) = take(&list, &changed) {
            let result = catch_unwind(AssertUnwindSafe(|| cancel.check().and_then(|()| work(&mut state, item, &mut more))));
            // The others must not wait for a thread that panics.
            match result {
                Ok(result) => finish(&list, &changed, &mut more, result),
                Err(payload) => {
                    finish(&list, &changed, &mut more, Err(Error::new(Kind::Git, "a worker panicked")));
                    resume_unwind(payload);
                }
            }
        }
        Some(state)
    };
    let states = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut states: Vec<Option<W>> = vec![run()];
        states.extend(others.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))));
        states
    });
    match list.into_inner().unwrap_or_else(PoisonError::into_inner).failure {
        Some(error) => Err(error),
        None => Ok(states.into_iter().flatten().collect()),
    }
}

fn take<T>(list: &Mutex<List<T>>, changed: &Condvar) -> Option<T> {
    let mut list = list.lock().expect("no holder panics");
    loop {
        if list.failure.is_some() {
            return None;
        }
        if let Some(item) = list.waiting.pop() {
            list.running += 1;
            return Some(item);
        }
        if list.running == 0 {
            return None;
        }
        list = changed.wait(list).expect("no holder panics");
    }
}

fn finish<T>(list: &Mutex<List<T>>, changed: &Condvar, more: &mut Vec<T>, result: Result<()>) {
    let mut list = list.lock().expect("no holder panics");
    list.waiting.append(more);
    list.running -= 1;
    if let Err(error) = result {
        list.failure.get_or_insert(error);
    }
    changed.notify_all();
}

fn fail<T>(list: &Mutex<List<T>>, changed: &Condvar, error: Error) {
    list.lock().expect("no holder panics").failure.get_or_insert(error);
    changed.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_added_while_working_are_worked_off_too() {
        let states = work_off(
            3,
            vec![4_u32],
            &Cancel::new(),
            || Ok(0_u32),
            |done, depth, more| {
                *done += 1;
                more.extend((0..2).filter(|_| depth > 0).map(|_| depth - 1));
                Ok(())
            },
        );
        assert_eq!(states.unwrap().iter().sum::<u32>(), 31);
    }

    #[test]
    fn the_first_error_ends_the_work() {
        let result = work_off(
            3,
            (0..1000).collect(),
            &Cancel::new(),
            || Ok(()),
            |(), item: u32, _| if item == 7 { Err(Error::new(Kind::Git, "seven")) } else { Ok(()) },
        );
        assert_eq!(result.unwrap_err().to_string(), "seven");
    }

    #[test]
    fn a_cancelled_run_does_no_work() {
        let cancel = Cancel::new();
        cancel.cancel(libc::SIGINT);
        let result = work_off(2, vec![1], &cancel, || Ok(()), |(), _, _| panic!("was told to stop"));
        assert_eq!(result.unwrap_err().kind(), Kind::Interrupted(libc::SIGINT));
    }

    #[test]
    fn a_worker_that_cannot_start_ends_the_work() {
        let result = work_off(3, vec![1, 2], &Cancel::new(), || Err::<(), _>(Error::new(Kind::Git, "no")), |(), _, _| Ok(()));
        assert_eq!(result.unwrap_err().to_string(), "no");
    }
}
