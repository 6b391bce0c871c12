//! One turn's calls: started in order, ended in any.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep};

use super::bounded::Shared;
use super::call::{
    Ended, Failure, InPlace, Spawned, duplicate, duplicates, outcome, poll_in_place, resolve, stopped,
};
use crate::support::OwnedPermit;
use crate::tasks::{
    Function, FunctionBody, FunctionCall, FunctionExecutionInput, FunctionExecutionResult, FunctionOutcome,
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
    /// The time as of the last await.
    now: Instant,
    /// When the present stretch of calls in place began, and when the last of them ended.
    stretch: Option<(std::time::Instant, std::time::Instant)>,
    deadline: Option<Instant>,
    /// Held from one call to the next while calls end in place.
    slot: Option<OwnedPermit>,
    running: VecDeque<Running>,
    /// What spawned calls hold, and what then tells that all have ended.
    tickets: Option<(Arc<Ticket>, mpsc::Receiver<()>)>,
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

/// What every spawned call of a turn holds. One pointer serves to reach the executor and to tell, when the last
/// is dropped, that all have ended: each more would be one more counter for all threads to fight over.
struct Ticket {
    shared: Arc<Shared>,
    _ended: mpsc::Sender<()>,
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
            stretch: None,
            deadline: None,
            slot: None,
            running: VecDeque::new(),
            tickets: None,
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
        self.wait_for_all().await;
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
        let shared = self.shared;
        if let FunctionBody::Async(body) = function.body()
            && function.pace().is_prompt()
            && let Some(slot) = self.slot.take().or_else(|| shared.calls.try_acquire_owned())
        {
            let (began, last) = self.stretch.unwrap_or_else(|| {
                let now = std::time::Instant::now();
                (now, now)
            });
            let (in_place, now) = poll_in_place(function, body.as_ref(), args, last);
            self.stretch = Some((began, now));
            match in_place {
                InPlace::Ended(ended) => {
                    self.slot = Some(slot);
                    self.end(index, false, outcome(call, ended.and_then(|value| shared.capped(value))));
                    self.breathe().await;
                }
                InPlace::Waits(future) => self.spawn(index, call, deadline, move |ticket| async move {
                    let _slot = slot;
                    ticket.shared.capped(future.await?)
                }),
            }
            return;
        }
        // It takes its slot when it is first polled: one taken here would stand idle while the task is queued.
        let function = function.clone();
        self.spawn(index, call, deadline, move |ticket| async move {
            let _slot = ticket.shared.calls.acquire().await.map_err(|_| Failure::shut_down())?;
            Shared::call(&ticket.shared, function, args).await
        });
    }

    fn spawn<W: Future<Output = Ended> + Send + 'static>(
        &mut self,
        index: usize,
        call: FunctionCall,
        deadline: Instant,
        work: impl FnOnce(Arc<Ticket>) -> W,
    ) {
        let Ok(runtime) = Handle::try_current() else {
            return self.end(index, false, Failure::no_runtime().of(call));
        };
        let (ticket, _) = self.tickets.get_or_insert_with(|| {
            let (ended, all_ended) = mpsc::channel(1);
            (Arc::new(Ticket { shared: Arc::clone(self.shared), _ended: ended }), all_ended)
        });
        let task = Spawned(runtime.spawn(work(Arc::clone(ticket))));
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        self.running.push_back(Running { index, call, deadline, late: false, task });
    }

    /// After a long stretch of calls in place: lets others have the slot and the thread.
    async fn breathe(&mut self) {
        if self.stretch.is_some_and(|(began, now)| now - began >= STRETCH) {
            self.stretch = None;
            self.slot = None;
            tokio::task::yield_now().await;
            self.now = Instant::now();
        }
    }

    /// Waits until every spawned call has ended: one wake-up for all, where awaiting each would take as many as
    /// there are calls. Gives up at the first deadline: a call that then blocks must not hold up the rest.
    async fn wait_for_all(&mut self) {
        let Some((ticket, mut ended)) = self.tickets.take() else { return };
        drop(ticket);
        let Some(first) = self.earliest else { return };
        // What came of each is looked at afterwards.
        let _ = self.wait(ended.recv(), first).await;
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
