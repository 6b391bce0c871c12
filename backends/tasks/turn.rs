//! One turn's calls: started in order, ended in any.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
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
/// Calls are started in their order. One that is expected to end at once, and for which a slot is free, is
/// polled in place; any other is spawned, and waits for its slot there if it has to. The turn itself watches the
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
    /// For a call that waits for a slot: whether it has got one.
    began: Option<Arc<AtomicBool>>,
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

    async fn start(&mut self, index: usize, call: FunctionCall, function: &Function, args: Value) {
        let deadline = self.shared.deadline(self.began, function, self.deadline);
        if self.shared.calls.is_closed() {
            return self.end(index, false, Failure::shut_down().of(call));
        }
        if deadline <= self.now {
            return self.end(index, false, Failure::timed_out(self.now - self.began).of(call));
        }
        let shared = Arc::clone(self.shared);
        let Some(slot) = self.slot.take().or_else(|| shared.calls.try_acquire().ok()) else {
            return self.spawn_waiting(index, call, deadline, function.clone(), args);
        };
        let in_place = match function.body() {
            FunctionBody::Async(body) if function.pace().is_prompt() => {
                poll_in_place(function, body.as_ref(), args)
            }
            _ => {
                let function = function.clone();
                let work = async move {
                    let ended = shared.call(&function, args).await;
                    drop(slot);
                    ended
                };
                return self.spawn(index, call, deadline, None, work);
            }
        };
        match in_place {
            InPlace::Ended(ended) => {
                self.slot = Some(slot);
                self.end(index, false, outcome(call, ended.and_then(|value| shared.capped(value))));
                self.breathe().await;
            }
            InPlace::Waits(future) => {
                let work = async move {
                    let ended = future.await.map_err(Failure::from).and_then(|value| shared.capped(value));
                    drop(slot);
                    ended
                };
                self.spawn(index, call, deadline, None, work);
            }
        }
    }

    /// Spawns a call that has to wait for its slot first.
    fn spawn_waiting(
        &mut self,
        index: usize,
        call: FunctionCall,
        deadline: Instant,
        function: Function,
        args: Value,
    ) {
        let began = Arc::new(AtomicBool::new(false));
        let (shared, begins) = (Arc::clone(self.shared), Arc::clone(&began));
        let work = async move {
            let slot = shared.calls.acquire().await.map_err(|_| Failure::shut_down())?;
            begins.store(true, Ordering::Relaxed);
            let ended = shared.call(&function, args).await;
            drop(slot);
            ended
        };
        self.spawn(index, call, deadline, Some(began), work);
    }

    fn spawn(
        &mut self,
        index: usize,
        call: FunctionCall,
        deadline: Instant,
        began: Option<Arc<AtomicBool>>,
        work: impl Future<Output = Ended> + Send + 'static,
    ) {
        let Ok(runtime) = Handle::try_current() else {
            return self.end(index, false, Failure::no_runtime().of(call));
        };
        let task = Spawned(runtime.spawn(work));
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        self.running.push_back(Running { index, call, deadline, began, late: false, task });
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
        let Running { index, call, deadline, began, late, mut task } = running;
        let waited = match late {
            true => Waited::TooLong,
            false => self.wait(&mut task, deadline).await,
        };
        let ended = match waited {
            Waited::For(Ok(ended)) => ended,
            Waited::For(Err(error)) => Err(error.into()),
            Waited::UntilStopped => Err(Failure::cancelled()),
            Waited::TooLong if began.is_some_and(|began| !began.load(Ordering::Relaxed)) => {
                Err(self.never_began(deadline))
            }
            Waited::TooLong => Err(Failure::timed_out(deadline - self.began)),
        };
        self.end(index, false, outcome(call, ended));
    }

    fn never_began(&self, deadline: Instant) -> Failure {
        let waited = (deadline - self.began).as_secs_f64();
        let max = self.shared.calls.max();
        Failure::new(
            FailureKind::TimedOut,
            format!(
                "its deadline passed after {waited:.3}s before it began: all {max} calls that may run at once \
                 were running (tasks.max_concurrency)"
            ),
        )
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
