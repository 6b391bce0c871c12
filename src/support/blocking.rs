//! A bounded thread pool for blocking jobs, with an idle timeout.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::LimitUsage;
use crate::support::{OwnedPermit, ResizableSemaphore, catch_panic, opaque_debug};

/// Idle threads end after this.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// A bounded pool of threads for blocking jobs.
///
/// Tokio's own blocking pool is shared by the whole process, queues without bound and is waited for when the
/// runtime ends; this one belongs to one component. Threads start when they are needed, at most as many as there are
/// permits, and end after ten idle seconds or when the pool is dropped. A running job cannot be interrupted: its
/// thread and its permit stay in use until it returns.
pub struct BlockingPool {
    permits: ResizableSemaphore,
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
    /// A pool of at most `max_threads` threads, reported as the limit `name`. Starts none yet.
    #[must_use]
    pub fn new(name: &'static str, max_threads: usize) -> Self {
        Self::with_permits(name, ResizableSemaphore::new(name, "threads", max_threads))
    }

    /// A pool with one thread per permit in use, for components whose permits each stand for one blocking job, such
    /// as connections. Jobs bring their permit: see [`spawn_job`](Self::spawn_job).
    #[must_use]
    pub fn with_permits(name: &'static str, permits: ResizableSemaphore) -> Self {
        Self { permits, shared: Arc::new(Shared { name, state: Mutex::default(), wake: Condvar::new() }) }
    }

    /// Waits for a permit, runs `work` on a thread of the pool and returns its result.
    ///
    /// Dropping the future while it waits for a permit means `work` never runs; afterwards `work` runs to its
    /// end and its result is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Panic`] with the panic's message when `work` panics, [`ErrorKind::Closed`] once the pool
    /// is closed, [`ErrorKind::Capacity`] when the system cannot start another thread.
    pub async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let permit = self.permits.acquire_owned().await?;
        self.spawn_job(permit, work)?.await
    }

    /// Runs `work` on a thread of the pool, holding `permit`, one of the pool's, until it has returned. The result is
    /// delivered after the permit was released. Dropping the handle neither stops `work` nor delays it.
    ///
    /// # Errors
    /// [`ErrorKind::Capacity`] when the system cannot start another thread.
    pub fn spawn_job<T, F>(&self, permit: OwnedPermit, work: F) -> Result<JobHandle<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, result) = oneshot::channel();
        let name = self.shared.name;
        let job = Box::new(move || {
            let outcome = catch_panic(work);
            drop(permit);
            let _ = sender.send(outcome.map_err(|message| Error::new(ErrorKind::Panic, name, message)));
        });
        self.shared.submit(job, self.permits.max())?;
        Ok(JobHandle { name, result })
    }

    /// Changes the maximum number of threads. Lowering it lets running jobs end.
    pub fn set_max_threads(&self, max: usize) {
        self.permits.set_max(max);
    }

    /// Number of running jobs.
    #[must_use]
    pub fn used(&self) -> usize {
        self.permits.used()
    }

    /// A snapshot of the limit.
    #[must_use]
    pub fn usage(&self) -> LimitUsage {
        self.permits.usage()
    }

    /// Waits until no job runs. Dropping the future stops waiting and nothing else.
    pub async fn wait_idle(&self) {
        self.permits.wait_idle().await;
    }

    /// Rejects further jobs. Running jobs complete; idle threads end.
    pub fn close(&self) {
        self.permits.close();
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

opaque_debug!(BlockingPool { permits });

/// The result of a job, as a future: [`ErrorKind::Panic`] with the panic's message if it panicked,
/// [`ErrorKind::Closed`] if the pool was closed before it started.
#[derive(Debug)]
pub struct JobHandle<T> {
    name: &'static str,
    result: oneshot::Receiver<Result<T>>,
}

impl<T> Future for JobHandle<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.result).poll(cx));
        Poll::Ready(result.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Closed, self.name, "thread pool closed before the job started"))
        }))
    }
}

impl Shared {
    fn submit(self: &Arc<Self>, job: Job, max_threads: usize) -> Result<()> {
        let mut state = self.state.lock();
        state.jobs.push_back(job);
        // An idle thread may already be promised to an earlier job that it has not taken yet; and a thread whose
        // job has just released its permit is about to look for the next one.
        if state.idle >= state.jobs.len() || state.threads >= max_threads.max(1) {
            drop(state);
            self.wake.notify_one();
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(self);
        let spawned = std::thread::Builder::new().name(self.name.into()).spawn(move || shared.run_worker());
        spawned.map(drop).or_else(|error| {
            let mut state = self.state.lock();
            state.threads -= 1;
            // An existing thread takes the job later.
            if state.threads > 0 {
                return Ok(());
            }
            state.jobs.clear();
            Err(Error::new(ErrorKind::Capacity, self.name, "failed to spawn a thread").with_source(error))
        })
    }

    fn run_worker(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A result that the caller no longer wants is dropped here, which can panic.
                if let Err(message) = catch_panic(job) {
                    tracing::error!(
                        pool = self.name,
                        message,
                        "dropping the result of a blocking job panicked"
                    );
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_its_permit_is_released() {
        let pool = BlockingPool::new("test", 1);
        let error = pool.run(|| panic!("out of cheese")).await.expect_err("it panics");
        assert_eq!(error.kind(), ErrorKind::Panic);
        assert!(error.message().contains("out of cheese"), "{error}");
        assert_eq!(pool.run(|| 7).await.expect("the thread lives on"), 7);
    }

    #[tokio::test]
    async fn no_more_threads_run_than_there_are_permits() {
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
    async fn a_job_holds_the_permit_it_brought_until_it_has_returned() {
        let permits = ResizableSemaphore::new("test.max", "jobs", 1);
        let pool = BlockingPool::with_permits("test", permits.clone());
        let permit = permits.try_acquire_owned().expect("free");
        let (release, released) = std::sync::mpsc::channel::<()>();
        let job = pool.spawn_job(permit, move || released.recv().is_ok()).expect("a thread");
        assert_eq!(permits.used(), 1);
        release.send(()).expect("it is waiting");
        assert!(job.await.expect("no panic"));
        assert_eq!(permits.used(), 0);
    }

    #[tokio::test]
    async fn the_threads_of_a_closed_pool_end() {
        let pool = BlockingPool::new("test", 2);
        pool.run(|| ()).await.expect("open");
        let shared = Arc::downgrade(&pool.shared);
        drop(pool);
        while shared.strong_count() > 0 {
            std::thread::yield_now();
        }
    }

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            std::panic::panic_any(PanicsOnDrop);
        }
    }

    #[tokio::test]
    async fn panics_in_destructors_of_payloads_and_results_do_not_end_a_thread() {
        let pool = BlockingPool::new("test", 1);
        let payload = pool.run(|| std::panic::panic_any(PanicsOnDrop)).await.expect_err("it panics");
        assert_eq!(payload.kind(), ErrorKind::Panic);
        let permit = pool.permits.acquire_owned().await.expect("open");
        // The job ends after its handle is gone: its result is dropped on the pool's thread, not on this one.
        let (handle_dropped, wait) = std::sync::mpsc::channel::<()>();
        let job = move || {
            let _ = wait.recv();
            PanicsOnDrop
        };
        drop(pool.spawn_job(permit, job).expect("a thread"));
        drop(handle_dropped);
        assert_eq!(pool.run(|| 7).await.expect("the thread is alive"), 7);
        assert_eq!(pool.shared.state.lock().threads, 1);
    }
}
