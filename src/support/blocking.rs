//! Threads for work that blocks: bounded in number, reused, and gone when nobody needs them.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::LimitUsage;
use crate::support::{OwnedPermit, ResizableSemaphore};

/// How long an idle thread stays before it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// A bounded pool of threads for blocking work.
///
/// Tokio's own blocking pool is shared by the whole process, queues without bound and is waited for when the
/// runtime ends; this one belongs to one component. Threads start when they are needed, at most as many as
/// the pool has slots, and end after ten idle seconds or when the pool is dropped. Work that has begun cannot
/// be interrupted: its thread and its slot stay in use until it returns.
pub struct BlockingPool {
    slots: ResizableSemaphore,
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
    closed: bool,
}

impl BlockingPool {
    /// A pool of at most `max_threads` threads, reported as the bound `name`. Starts none yet.
    #[must_use]
    pub fn new(name: &'static str, max_threads: usize) -> Self {
        Self {
            slots: ResizableSemaphore::new(name, "threads", max_threads),
            shared: Arc::new(Shared { name, state: Mutex::default(), wake: Condvar::new() }),
        }
    }

    /// Waits for a slot, runs `work` on a thread of the pool and gives what it returns.
    ///
    /// Dropping the future while it waits for a slot means `work` never runs; afterwards `work` runs to its
    /// end and its result is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Panic`] with the panic's message when `work` panics, [`ErrorKind::Closed`] once the pool
    /// is closed, [`ErrorKind::Capacity`] when the system gives no more threads.
    pub async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let slot = self.slots.acquire_owned().await?;
        self.start(slot, work)?.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Closed, self.shared.name, "the pool ended before the work began"))
        })
    }

    /// Hands `work` to a thread now, holding `slot` until it has returned.
    fn start<T, F>(&self, slot: OwnedPermit, work: F) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let name = self.shared.name;
        let job = Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            // Free the slot before the waiter wakes: whoever sees the result sees the slot free.
            drop(slot);
            let _ = sender.send(
                outcome.map_err(|panic| Error::new(ErrorKind::Panic, name, panic_message(panic.as_ref()))),
            );
        });
        self.shared.hand_over(job, self.slots.max())?;
        Ok(receiver)
    }

    /// Changes the most threads. Lowering lets running work end.
    pub fn set_max_threads(&self, max: usize) {
        self.slots.set_max(max);
    }

    /// Pieces of work running now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.slots.used()
    }

    /// The figures of the bound.
    #[must_use]
    pub fn usage(&self) -> LimitUsage {
        self.slots.usage()
    }

    /// Waits until no work runs. Dropping the future stops waiting and nothing else.
    pub async fn wait_idle(&self) {
        self.slots.wait_idle().await;
    }

    /// Refuses further work. Work that has begun runs on; idle threads end.
    pub fn close(&self) {
        self.slots.close();
        let mut state = self.shared.state.lock();
        state.closed = true;
        drop(state);
        self.shared.wake.notify_all();
    }
}

impl Drop for BlockingPool {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for BlockingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingPool").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Shared {
    fn hand_over(self: &Arc<Self>, job: Job, max_threads: usize) -> Result<()> {
        let mut state = self.state.lock();
        state.jobs.push_back(job);
        // An idle thread may already be promised to an earlier job that it has not yet taken; and a thread
        // whose work has just given back its slot is about to look for the next.
        if state.idle >= state.jobs.len() || state.threads >= max_threads.max(1) {
            drop(state);
            self.wake.notify_one();
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(self);
        let spawned = std::thread::Builder::new().name(self.name.into()).spawn(move || shared.work());
        spawned.map(drop).or_else(|error| {
            let mut state = self.state.lock();
            state.threads -= 1;
            // A thread that is there takes the job when it comes to it.
            if state.threads > 0 {
                return Ok(());
            }
            state.jobs.clear();
            Err(Error::new(ErrorKind::Capacity, self.name, "the system gives no more threads")
                .with_source(error))
        })
    }

    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state.lock();
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let timed_out = self.wake.wait_for(&mut state, KEEP_ALIVE).timed_out();
            state.idle -= 1;
            if timed_out && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

/// The message of a panic, as far as it has one.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    format!("it panicked: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_its_slot_is_free_again() {
        let pool = BlockingPool::new("test", 1);
        let error = pool.run(|| panic!("out of cheese")).await.expect_err("it panics");
        assert_eq!(error.kind(), ErrorKind::Panic);
        assert!(error.message().contains("out of cheese"), "{error}");
        assert_eq!(pool.run(|| 7).await.expect("the thread lives on"), 7);
    }

    #[tokio::test]
    async fn no_more_threads_run_than_there_are_slots() {
        let pool = Arc::new(BlockingPool::new("test", 3));
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..500 {
            let pool = Arc::clone(&pool);
            calls.spawn(async move { pool.run(std::thread::yield_now).await.is_ok() });
        }
        assert!(calls.join_all().await.into_iter().all(|ok| ok));
        assert!(pool.usage().peak <= 3);
        assert!(pool.shared.state.lock().threads <= 3);
    }

    #[tokio::test]
    async fn a_closed_pool_lets_its_threads_go() {
        let pool = BlockingPool::new("test", 2);
        pool.run(|| ()).await.expect("open");
        let shared = Arc::downgrade(&pool.shared);
        drop(pool);
        while shared.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
