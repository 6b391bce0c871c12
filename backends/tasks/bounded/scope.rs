//! Calls that run together: how they start, and how they end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::super::EndOnDrop;
use super::engine::Engine;
use super::failure::{CallFailure, CallResult};
use crate::Deadline;
use crate::support::ResizableSemaphore;
use crate::tasks::{
    CallContext, Function, FunctionBody, FunctionCall, FunctionOutcome, Functions, ProgressListener,
};

/// A call reports its own timeout; one that has not by this long after its deadline blocks its worker thread.
const REPORT_GRACE: Duration = Duration::from_millis(10);

/// The calls of an executor, or those of a parent call.
pub(super) struct Scope {
    pub(super) engine: Arc<Engine>,
    pub(super) permits: ResizableSemaphore,
    /// Cancelled when running calls must end.
    pub(super) stop: CancellationToken,
    pub(super) parent: Option<CallContext>,
}

/// What the calls of one turn share.
pub(super) struct Turn<'a> {
    functions: &'a Functions,
    background_tasks: &'a Functions,
    deadline: Option<Deadline>,
    began: Instant,
    runtime: Option<Handle>,
}

impl<'a> Turn<'a> {
    /// A turn that begins now, in the current runtime.
    pub(super) fn new(
        functions: &'a Functions,
        background_tasks: &'a Functions,
        deadline: Option<Deadline>,
    ) -> Self {
        let runtime = Handle::try_current().ok();
        Self { functions, background_tasks, deadline, began: Instant::now(), runtime }
    }
}

/// A call that was started, or failed to start. Dropping it cancels a regular call.
pub(super) enum StartedCall {
    Ended(FunctionOutcome),
    Running {
        call: Arc<FunctionCall>,
        task: AbortOnDropHandle<CallResult>,
        began: Instant,
        deadline: Deadline,
    },
}

impl Scope {
    pub(super) fn start(self: &Arc<Self>, call: FunctionCall, turn: &Turn<'_>) -> StartedCall {
        let functions = if call.is_background { turn.background_tasks } else { turn.functions };
        let Some(function) = functions.get(&call.name) else {
            return StartedCall::Ended(FunctionOutcome::not_found(call));
        };
        let Some(runtime) = &turn.runtime else {
            return StartedCall::Ended(CallFailure::no_runtime().into_outcome(call));
        };
        if call.is_background {
            return StartedCall::Ended(self.start_background(call, function, functions, runtime));
        }
        if self.permits.is_closed() {
            return StartedCall::Ended(CallFailure::shut_down().into_outcome(call));
        }
        let (began, deadline) = (turn.began, self.deadline(function, turn));
        let (call, progress) = (Arc::new(call), functions.progress_listener());
        let work = Arc::clone(self).run(Arc::clone(&call), function.clone(), progress, began, deadline);
        let task = AbortOnDropHandle::new(runtime.spawn(work));
        StartedCall::Running { call, task, began, deadline }
    }

    /// When a regular call of `function` times out.
    fn deadline(&self, function: &Function, turn: &Turn<'_>) -> Deadline {
        let own = Deadline::since(turn.began, function.timeout().unwrap_or(self.engine.timeout));
        let parent = self.parent.as_ref().and_then(CallContext::deadline);
        [turn.deadline, parent].into_iter().flatten().fold(own, Deadline::min)
    }

    fn start_background(
        &self,
        call: FunctionCall,
        function: &Function,
        functions: &Functions,
        runtime: &Handle,
    ) -> FunctionOutcome {
        let args = match call.arguments() {
            Ok(args) => args,
            Err(error) => return FunctionOutcome::function_error(call, &error),
        };
        let deadline = function.timeout().map(Deadline::after);
        let context = self.engine.context(function, &call, deadline, functions.progress_listener());
        let work = {
            let (engine, context) = (Arc::clone(&self.engine), context.clone());
            async move { engine.run(None, &context, args).await }
        };
        self.engine.background.start(call, context, runtime, work)
    }

    /// A regular call, on its task. What it needs is allocated here, on the thread that also frees it.
    async fn run(
        self: Arc<Self>,
        call: Arc<FunctionCall>,
        function: Function,
        progress: Option<ProgressListener>,
        began: Instant,
        deadline: Deadline,
    ) -> CallResult {
        let args = call.arguments()?;
        let end = EndOnDrop(self.engine.context(&function, &call, Some(deadline), progress));
        let context = &end.0;
        if self.parent.as_ref().is_some_and(CallContext::has_ended) {
            return Err(CallFailure::cancelled());
        }
        let permits = match context.function().body() {
            FunctionBody::Async(_) => &self.permits,
            FunctionBody::Blocking(_) => &self.engine.blocking.permits,
        };
        let mut is_queued = true;
        let work = async {
            let permit = self.engine.acquire(permits).await?;
            is_queued = false;
            self.engine.run(Some(permit), context, args).await
        };
        // Pinned here: each future around it would hold it twice, and large tasks are slow to allocate and to move.
        let ended = {
            let work = pin!(work);
            tokio::select! {
                // The call first: the stop signal takes a lock, which calls that never wait do not need.
                biased;
                ended = timeout_at(deadline.instant(), work) => Some(ended),
                () = self.stop.cancelled() => None,
            }
        };
        match ended {
            None => Err(CallFailure::cancelled()),
            Some(Ok(result)) => result,
            Some(Err(_)) if is_queued => Err(CallFailure::queue_timeout(deadline.instant() - began, permits)),
            Some(Err(_)) => Err(CallFailure::timed_out(deadline.instant() - began)),
        }
    }

    /// The outcome of a call of this scope, which is counted if it is `regular`.
    pub(super) async fn outcome(
        &self,
        call: StartedCall,
        is_regular: bool,
        watch: &mut WorkerWatch,
    ) -> FunctionOutcome {
        let outcome = match call {
            StartedCall::Ended(outcome) => outcome,
            StartedCall::Running { call, mut task, began, deadline } => {
                let result = watch.wait(&mut task, began, deadline).await;
                // The task has dropped its handle, unless it blocks its worker.
                let call = Arc::unwrap_or_clone(call);
                match result {
                    Ok(output) => FunctionOutcome::completed(call, output),
                    Err(failure) => failure.into_outcome(call),
                }
            }
        };
        if is_regular {
            self.engine.stats.lock().record(&outcome);
        }
        outcome
    }
}

/// Notices calls that cannot report their own timeout because they block their worker thread. One timer serves all calls
/// of a turn, one after the other.
#[derive(Default)]
pub(super) struct WorkerWatch(Option<Pin<Box<Sleep>>>);

impl WorkerWatch {
    async fn wait(
        &mut self,
        task: &mut AbortOnDropHandle<CallResult>,
        began: Instant,
        deadline: Deadline,
    ) -> CallResult {
        let mut limit = None;
        poll_fn(|cx| {
            if let Poll::Ready(joined) = task.poll_unpin(cx) {
                return Poll::Ready(joined.unwrap_or_else(|error| Err(error.into())));
            }
            if limit.is_none() && Handle::try_current().is_err() {
                return Poll::Ready(Err(CallFailure::no_runtime()));
            }
            // The caller may begin to wait long after the deadline.
            let limit = *limit.get_or_insert_with(|| deadline.instant().max(Instant::now()) + REPORT_GRACE);
            self.poll_until(limit, cx).map(|()| Err(CallFailure::blocked_worker(deadline.instant() - began)))
        })
        .await
    }

    fn poll_until(&mut self, limit: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(limit)));
        if sleep.deadline() != limit {
            sleep.as_mut().reset(limit);
        }
        sleep.as_mut().poll(cx)
    }
}
