//! One turn's calls: started in order, ended in any.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::bounded::Shared;
use super::call::{
    Ended, Failure, InPlace, Spawned, duplicate, duplicates, outcome, poll_in_place, resolve, stopped,
};
use crate::Slot;
use crate::tasks::{
    FailureKind, Function, FunctionBody, FunctionCall, FunctionExecutionInput, FunctionExecutionResult,
    FunctionOutcome,
};

/// How long a turn polls calls in place before it lets other tasks of the runtime have their turn.
const STRETCH: Duration = Duration::from_millis(1);

/// Runs the calls of one turn.
///
/// Calls are started in their order, each once a slot is free. One that is expected to end at once is polled
/// in place; any other, and one that was expected to and does not, is spawned. The turn itself watches the
/// deadlines of what it has spawned, with one timer for all: it can then give up on a task whose poll blocks.
pub(super) struct Turn<'a> {
    shared: &'a Arc<Shared>,
    stop: watch::Receiver<bool>,
    began: Instant,
    /// The time as of the last look at the clock.
    now: Instant,
    deadline: Option<Instant>,
    /// Held from one call to the next while calls end in place.
    slot: Option<Slot>,
    running: VecDeque<Running>,
    /// No running call's deadline is earlier.
    earliest: Option<Instant>,
    watch: Option<Watch>,
    result: FunctionExecutionResult,
}

struct Running {
    index: usize,
    call: FunctionCall,
    deadline: Instant,
    late: bool,
    task: Spawned<Ended>,
}

/// What a turn that waits watches besides what it waits for.
struct Watch {
    timer: Pin<Box<Sleep>>,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, stop: watch::Receiver<bool>) -> Self {
        let now = Instant::now();
        Self {
            shared,
            stop,
            began: now,
            now,
            deadline: None,
            slot: None,
            running: VecDeque::new(),
            earliest: None,
            watch: None,
            result: FunctionExecutionResult::default(),
        }
    }

    /// Runs all of `input`.
    pub(super) async fn run(mut self, input: FunctionExecutionInput) -> FunctionExecutionResult {
        self.deadline = input.deadline.map(|deadline| deadline.instant());
        let mut duplicates = duplicates(&input.function_calls).into_iter().peekable();
        for (index, call) in input.function_calls.into_iter().enumerate() {
            if duplicates.next_if_eq(&index).is_some() {
                self.end(index, call.is_background, duplicate(call));
            } else if call.is_background {
                let started =
                    self.shared.start_background(call, &input.available_background_tasks, &self.stop);
                self.end(index, true, started);
            } else {
                match resolve(&call, &input.available_functions) {
                    Err(unresolved) => self.end(index, false, unresolved.of(call)),
                    Ok((function, args)) => self.start(index, call, function, args).await,
                }
            }
        }
        self.slot = None;
        while let Some(running) = self.running.pop_front() {
            self.finish(running).await;
        }
        self.result.in_call_order()
    }

    fn end(&mut self, index: usize, is_background: bool, outcome: FunctionOutcome) {
        if !is_background {
            self.shared.counters.count(&outcome);
        }
        self.result.push(index, outcome);
    }

    async fn start(
        &mut self,
        index: usize,
        call: FunctionCall,
        function: &Function,
        args: serde_json::Value,
    ) {
        let deadline = self.shared.deadline(self.began, function, self.deadline);
        let slot = match self.slot(deadline).await {
            Ok(slot) => slot,
            Err(failure) => return self.end(index, false, failure.of(call)),
        };
        let shared = Arc::clone(self.shared);
        let in_place = match function.body() {
            FunctionBody::Async(body) if function.pace().is_prompt() => {
                Some(poll_in_place(function, body.as_ref(), args.clone()))
            }
            _ => None,
        };
        match in_place {
            Some(InPlace::Ended(ended)) => {
                self.slot = Some(slot);
                self.end(index, false, outcome(call, ended.and_then(|value| shared.capped(value))));
                self.breathe().await;
            }
            Some(InPlace::Waits(future)) => {
                let work = async move { shared.capped(future.await?) };
                self.spawn(index, call, deadline, slot, work);
            }
            None => {
                let function = function.clone();
                let work = async move { shared.call(&function, args).await };
                self.spawn(index, call, deadline, slot, work);
            }
        }
    }

    fn spawn(
        &mut self,
        index: usize,
        call: FunctionCall,
        deadline: Instant,
        slot: Slot,
        work: impl Future<Output = Ended> + Send + 'static,
    ) {
        let Ok(runtime) = Handle::try_current() else {
            return self.end(index, false, Failure::no_runtime().of(call));
        };
        let task = Spawned(runtime.spawn(async move {
            let ended = work.await;
            drop(slot);
            ended
        }));
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        self.running.push_back(Running { index, call, deadline, late: false, task });
    }

    /// The slot for the next call.
    async fn slot(&mut self, deadline: Instant) -> Result<Slot, Failure> {
        if self.shared.calls.is_closed() {
            return Err(Failure::shut_down());
        }
        if deadline <= self.now {
            return Err(Failure::timed_out(self.now - self.began));
        }
        if let Some(slot) = self.slot.take() {
            return Ok(slot);
        }
        if let Ok(slot) = self.shared.calls.try_acquire() {
            return Ok(slot);
        }
        let shared = self.shared;
        match self.wait(shared.calls.acquire(), deadline).await {
            Waited::For(slot) => slot.map_err(|_| Failure::shut_down()),
            Waited::UntilStopped => Err(Failure::shut_down()),
            Waited::TooLong => Err(Failure::new(
                FailureKind::TimedOut,
                format!(
                    "its deadline passed after {:.3}s, while it waited for one of the {} calls that may run \
                     at once to end",
                    (self.now - self.began).as_secs_f64(),
                    shared.calls.max()
                ),
            )),
        }
    }

    /// After a long stretch of calls in place: lets others have the slot and the thread.
    async fn breathe(&mut self) {
        let now = Instant::now();
        if now - self.now >= STRETCH {
            self.slot = None;
            tokio::task::yield_now().await;
            self.now = Instant::now();
        }
    }

    async fn finish(&mut self, running: Running) {
        let Running { index, call, deadline, late, mut task } = running;
        let waited = match late {
            true => Waited::TooLong,
            false => self.wait(&mut task, deadline).await,
        };
        let ended = match waited {
            Waited::For(Ok(ended)) => ended,
            Waited::For(Err(error)) => Err(error.into()),
            Waited::UntilStopped => Err(Failure::cancelled()),
            Waited::TooLong => Err(Failure::timed_out(deadline - self.began)),
        };
        self.end(index, false, outcome(call, ended));
    }

    /// Waits for `event` until `deadline`, meanwhile aborting running calls whose own deadlines pass.
    async fn wait<T>(&mut self, event: impl Future<Output = T>, deadline: Instant) -> Waited<T> {
        let mut event = pin!(event);
        loop {
            let until = self.earliest.map_or(deadline, |earliest| earliest.min(deadline));
            let watch = self.watch.get_or_insert_with(|| Watch {
                timer: Box::pin(tokio::time::sleep_until(until)),
                stopped: Box::pin(stopped(self.stop.clone())),
            });
            if watch.timer.deadline() != until {
                watch.timer.as_mut().reset(until);
            }
            tokio::select! {
                biased;
                happened = &mut event => return Waited::For(happened),
                () = &mut watch.stopped => {
                    // Made anew if it is needed again.
                    self.watch = None;
                    return Waited::UntilStopped;
                }
                () = &mut watch.timer => {}
            }
            self.now = Instant::now();
            self.abort_late();
            if deadline <= self.now {
                return Waited::TooLong;
            }
        }
    }

    fn abort_late(&mut self) {
        for running in &mut self.running {
            if running.deadline <= self.now && !running.late && !running.task.0.is_finished() {
                running.late = true;
                running.task.0.abort();
            }
        }
        let ahead = self.running.iter().map(|running| running.deadline);
        self.earliest = ahead.filter(|deadline| *deadline > self.now).min();
    }
}

enum Waited<T> {
    For(T),
    UntilStopped,
    TooLong,
}
