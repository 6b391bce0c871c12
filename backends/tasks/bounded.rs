//! The executor that holds every bound.

use crate::{CloseReport, Component, LimitUsage, ShutdownPhase, unsupported_limit_error};
use std::borrow::Borrow;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::background::Background;
use super::call::{Counters, Ended, Failure, Spawned, call_noting_pace, outcome, resolve, stopped};
use super::size::fits;
use super::turn::Turn;
use crate::config::TaskConfig;
use crate::registry::BuildContext;
use crate::support::BlockingPool;
use crate::support::ResizableSemaphore;
use crate::tasks::{
    BackgroundFailureListener, FailureKind, Function, FunctionBody, FunctionCall, FunctionError,
    FunctionExecutionInput, FunctionExecutionResult, FunctionOutcome, FunctionTask, Functions,
    TaskCapabilities, TaskExecutor, TaskStats,
};
use crate::{Config, Deadline, ErrorKind, Health, Result};

/// Runs functions within bounds: calls at once, background tasks, threads, time and result size.
///
/// - A regular call waits for one of `max_concurrency` slots, shared by all turns; waiting spends its
///   deadline. A function that itself runs calls on the same executor holds its slot meanwhile.
/// - Blocking functions run on at most `max_blocking_threads` threads of the executor's own, regular and
///   background ones alike; waiting for one spends the deadline. When the deadline passes, the outcome is
///   given on time and the slot is free; the thread runs on, counted among the threads, and a shutdown names
///   it as lost.
/// - A call whose function has lately ended at once is polled in place instead of spawned
///   (see [`Pace`](crate::tasks::Pace)).
///
/// It needs a tokio runtime with time enabled and owns none. Dropping it aborts its background tasks and the
/// calls started progressively.
pub struct BoundedExecutor {
    shared: Arc<Shared>,
    /// True, or gone, when what still runs must stop.
    stop: watch::Sender<bool>,
}

/// Builds a [`BoundedExecutor`].
#[derive(Clone)]
pub struct BoundedExecutorBuilder {
    config: TaskConfig,
    listener: Option<BackgroundFailureListener>,
}

impl BoundedExecutorBuilder {
    /// The most background tasks at once. Default 1 000.
    #[must_use]
    pub fn max_background_tasks(mut self, max: usize) -> Self {
        self.config.max_background_tasks = max;
        self
    }

    /// The share of background slots, in percent, at which a warning is logged; 0 for never. Default 80.
    #[must_use]
    pub fn background_warning_percent(mut self, percent: u8) -> Self {
        self.config.background_warning_percent = percent;
        self
    }

    /// The most regular calls at once. Default 64.
    #[must_use]
    pub fn max_concurrency(mut self, max: usize) -> Self {
        self.config.max_concurrency = max;
        self
    }

    /// The deadline of a regular call whose function has none of its own. Default 60 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.timeout = timeout;
        self
    }

    /// The most bytes of a result's JSON. Default 1 MiB.
    #[must_use]
    pub fn max_result_bytes(mut self, max: usize) -> Self {
        self.config.max_result_bytes = max;
        self
    }

    /// The most threads for blocking functions. Default 64.
    #[must_use]
    pub fn max_blocking_threads(mut self, max: usize) -> Self {
        self.config.max_blocking_threads = max;
        self
    }

    /// Is told about every background task that fails.
    #[must_use]
    pub fn background_failure_listener(mut self, listener: BackgroundFailureListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// The executor. Starts nothing: no thread, no task.
    #[must_use]
    pub fn build(self) -> BoundedExecutor {
        let Self { config, listener } = self;
        let counters = Arc::default();
        let shared = Shared {
            calls: ResizableSemaphore::new("tasks.max_concurrency", "calls", config.max_concurrency),
            background: Arc::new(Background::new(
                config.max_background_tasks,
                config.background_warning_percent,
                listener,
                &counters,
            )),
            blocking: BlockingPool::new("tasks.max_blocking_threads", config.max_blocking_threads),
            on_threads: Mutex::default(),
            timeout: config.timeout,
            max_result_bytes: config.max_result_bytes,
            counters,
        };
        BoundedExecutor { shared: Arc::new(shared), stop: watch::Sender::new(false) }
    }
}

impl fmt::Debug for BoundedExecutorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedExecutorBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl BoundedExecutor {
    /// Its name in the configuration: `tasks.backend = "bounded"`.
    pub const NAME: &'static str = "bounded";

    /// A builder with the defaults of the configuration.
    #[must_use]
    pub fn builder() -> BoundedExecutorBuilder {
        BoundedExecutorBuilder { config: Config::default().tasks, listener: None }
    }

    /// The executor that the configuration asks for.
    #[must_use]
    pub fn from_context(context: &BuildContext) -> Self {
        let config = context.config.tasks.clone();
        BoundedExecutorBuilder { config, listener: context.background_failure_listener.clone() }.build()
    }
}

impl Drop for BoundedExecutor {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for BoundedExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedExecutor")
            .field("calls", &self.shared.calls)
            .field("background", &self.shared.background)
            .finish_non_exhaustive()
    }
}

/// What the executor shares with its tasks.
pub(super) struct Shared {
    pub(super) calls: ResizableSemaphore,
    background: Arc<Background>,
    blocking: BlockingPool,
    /// The functions now on threads, by a number of their call.
    on_threads: Mutex<(u64, BTreeMap<u64, Function>)>,
    timeout: Duration,
    max_result_bytes: usize,
    pub(super) counters: Arc<Counters>,
}

impl Shared {
    /// Until when a call of `function` may take that began at `began`.
    pub(super) fn deadline(&self, began: Instant, function: &Function, whole: Option<Instant>) -> Instant {
        let timeout = function.timeout().unwrap_or(self.timeout);
        let own = began.checked_add(timeout).unwrap_or_else(|| Deadline::after(timeout).instant());
        whole.map_or(own, |whole| whole.min(own))
    }

    /// Runs `function`, wherever its kind belongs.
    pub(super) async fn call(
        this: impl Borrow<Arc<Self>> + Send + Sync,
        function: Function,
        args: Value,
    ) -> Ended {
        let this = this.borrow();
        let value = match function.body() {
            FunctionBody::Async(body) => call_noting_pace(&function, body.as_ref(), args).await?,
            // Boxed: a task is as large as all that it might hold, and most hold an async function.
            FunctionBody::Blocking(body) => {
                let (function, body) = (function.clone(), Arc::clone(body));
                Box::pin(this.on_thread(function, move || body(args))).await?
            }
        };
        this.capped(value)
    }

    /// Runs `work`, the body of `function`, on a thread.
    async fn on_thread(
        self: &Arc<Self>,
        function: Function,
        work: impl FnOnce() -> Result<Value, FunctionError> + Send + 'static,
    ) -> Ended {
        let shared = Arc::clone(self);
        let work = move || {
            let _on_thread = OnThread::enter(&shared, function);
            work()
        };
        let ended = self.blocking.run(work).await.map_err(|error| match error.kind() {
            ErrorKind::Panic => Failure::new(FailureKind::Panicked, error.message()),
            ErrorKind::Closed => Failure::shut_down(),
            _ => Failure::new(FailureKind::Failed, error.to_string()),
        });
        Ok(ended??)
    }

    /// `value`, unless it is larger than the cap.
    pub(super) fn capped(&self, value: Value) -> Ended {
        if fits(&value, self.max_result_bytes) {
            return Ok(value);
        }
        Err(Failure::new(
            FailureKind::ResultTooLarge,
            format!("its result is longer than {} bytes of JSON; ask for less", self.max_result_bytes),
        ))
    }

    pub(super) fn start_background(
        self: &Arc<Self>,
        call: FunctionCall,
        tasks: &Functions,
        stop: &watch::Receiver<bool>,
    ) -> FunctionOutcome {
        match resolve(&call, tasks) {
            Err(unresolved) => unresolved.of(call),
            Ok((function, args)) => {
                let work = Self::call(Arc::clone(self), function.clone(), args);
                self.background.start(call, function, stop.clone(), work)
            }
        }
    }

    fn close(&self) {
        self.calls.close();
        self.background.slots().close();
    }

    async fn idle(&self) {
        self.calls.wait_idle().await;
        self.background.slots().wait_idle().await;
        self.blocking.wait_idle().await;
    }
}

/// Keeps a function among those on threads.
struct OnThread<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> OnThread<'a> {
    fn enter(shared: &'a Shared, function: Function) -> Self {
        let (next, functions) = &mut *shared.on_threads.lock();
        *next += 1;
        functions.insert(*next, function);
        Self { shared, number: *next }
    }
}

impl Drop for OnThread<'_> {
    fn drop(&mut self) {
        self.shared.on_threads.lock().1.remove(&self.number);
    }
}

#[async_trait]
impl Component for BoundedExecutor {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("tasks")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Tasks
    }

    fn limits(&self) -> Vec<LimitUsage> {
        let shared = &self.shared;
        vec![shared.calls.usage(), shared.background.slots().usage(), shared.blocking.usage()]
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, _: Deadline) -> Health {
        let slots = self.shared.background.slots();
        if slots.is_closed() {
            return Health::Unhealthy { reason: "the task executor is shut down".into() };
        }
        if slots.used() >= slots.max() {
            let reason = format!("all {} background tasks are in use", slots.max());
            return Health::Degraded { reason };
        }
        Health::Healthy
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        match key {
            "tasks.max_background_tasks" => {
                self.shared.background.set_max(usize::try_from(max).unwrap_or(usize::MAX));
                Ok(())
            }
            _ => Err(unsupported_limit_error("tasks", key)),
        }
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        let shared = &self.shared;
        shared.close();
        let background = shared.background.slots();
        let before = background.used();
        // Whether time ran out shows in what still runs.
        let _ = deadline.run("tasks", "running calls", shared.idle()).await;
        let left = background.used();
        let aborted = left + shared.calls.used();
        self.stop.send_replace(true);
        shared.blocking.close();
        let lost = shared.on_threads.lock().1.values().map(|function| function.name().to_owned()).collect();
        CloseReport::new(before.saturating_sub(left), aborted, lost)
    }
}

#[async_trait]
impl TaskExecutor for BoundedExecutor {
    async fn execute_functions(&self, input: FunctionExecutionInput) -> FunctionExecutionResult {
        Turn::new(&self.shared, self.stop.subscribe()).run(input).await
    }

    fn execute_function_progressively(
        &self,
        call: FunctionCall,
        available_functions: &Functions,
        available_background_tasks: &Functions,
        deadline: Option<Deadline>,
    ) -> FunctionTask {
        if call.is_background {
            let stop = self.stop.subscribe();
            let started = self.shared.start_background(call, available_background_tasks, &stop);
            return FunctionTask::new(ready(started));
        }
        let shared = Arc::clone(&self.shared);
        let refused = |outcome: FunctionOutcome| {
            shared.counters.count(&outcome);
            FunctionTask::new(ready(outcome))
        };
        let (function, args) = match resolve(&call, available_functions) {
            Ok((function, args)) => (function.clone(), args),
            Err(unresolved) => return refused(unresolved.of(call)),
        };
        let Ok(runtime) = Handle::try_current() else { return refused(Failure::no_runtime().of(call)) };
        let began = Instant::now();
        let until = shared.deadline(began, &function, deadline.map(Deadline::instant));
        let late = move || Err(Failure::timed_out(until - began));
        let (worker, stop) = (Arc::clone(&shared), self.stop.subscribe());
        let mut task = Spawned(runtime.spawn(async move {
            let work = async {
                let _slot = worker.calls.acquire().await.map_err(|_| Failure::shut_down())?;
                Shared::call(&worker, function, args).await
            };
            tokio::select! {
                biased;
                () = stopped(stop) => Err(Failure::cancelled()),
                ended = timeout_at(until, work) => ended.unwrap_or_else(|_| late()),
            }
        }));
        FunctionTask::new(async move {
            // Watched from here too, for a task whose poll blocks.
            let ended = match timeout_at(until, &mut task).await {
                Ok(ended) => ended.unwrap_or_else(|error| Err(error.into())),
                Err(_) => late(),
            };
            let outcome = outcome(call, ended);
            shared.counters.count(&outcome);
            outcome
        })
    }

    fn active_background_tasks_count(&self) -> usize {
        self.shared.background.slots().used()
    }

    async fn wait_for_background_tasks(&self, timeout: Option<Duration>) -> usize {
        self.shared.background.wait(timeout).await
    }

    fn stats(&self) -> TaskStats {
        self.shared.counters.stats()
    }

    fn capabilities(&self) -> TaskCapabilities {
        TaskCapabilities::default().bounded(true)
    }
}
