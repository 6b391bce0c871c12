//! The context of a call: nested calls, deadline, cancellation, progress.

use super::*;

/// A function that calls the function "tool" through the executor of its context.
fn agent(tool: Function) -> Function {
    let tools = functions([tool]);
    Function::new_with_context("agent", move |context: CallContext, args: Value| {
        let tools = tools.clone();
        async move {
            let input = FunctionExecutionInput::new(vec![FunctionCall::new("tool", args)], tools);
            let result = context.executor().execute_functions(input).await;
            match result.regular_results.into_iter().next() {
                Some(done) => Ok(done.result),
                None => Err(FunctionError::new(format!("{:?}", result.failed_functions))),
            }
        }
    })
}

/// Agents used as tools hold all permits while they call tools: those do not wait for a permit.
pub(super) async fn nested_calls_need_no_permit(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
    let tool = Function::new("tool", |args: Value| async move {
        tokio::task::yield_now().await;
        Ok::<_, FunctionError>(args)
    });
    let calls = (0..64).map(|n| FunctionCall::new("agent", json!({ "n": n }))).collect();
    let turn = run(executor.as_ref(), calls, &functions([agent(tool)])).await;
    assert_eq!(turn.0.regular_results.len(), 64, "{:?}", turn.0.failed_functions);
    assert_eq!(turn.0.regular_results[63].result, json!({ "n": 63 }));
}

/// A nested call has its parent's deadline, and is cancelled when its parent ends in another way.
pub(super) async fn nested_calls_end_with_their_parent(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
    let running = Arc::new(AtomicUsize::new(0));
    let tool = Function::new_with_context("tool", {
        let running = Arc::clone(&running);
        move |context: CallContext, _| {
            let inside = Inside::enter(&running);
            async move {
                let _inside = inside;
                let deadline = context.deadline().expect("the parent has one");
                assert!(deadline.remaining() <= SHORT, "the parent's deadline applies");
                pending::<Result<Value, FunctionError>>().await
            }
        }
    })
    .with_timeout(LONG);
    let turn =
        run(executor.as_ref(), vec![call("agent")], &functions([agent(tool).with_timeout(SHORT)])).await;
    assert_eq!(turn.0.failed_functions.len(), 1);
    until("a nested call ends with its parent", || running.load(Ordering::SeqCst) == 0).await;
}

/// Call id and progress; a listener that panics is ignored.
pub(super) async fn progress_reaches_the_listener_of_the_turn(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
    let reported: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let listener: ProgressListener = Arc::new({
        let reported = Arc::clone(&reported);
        move |progress| {
            reported.lock().push(progress);
            panic!("a listener may panic");
        }
    });
    let works = Function::new_with_context("works", |context: CallContext, _| async move {
        context.report_progress(json!(0.5));
        Ok::<_, FunctionError>(json!(context.call_id()))
    });
    let functions = functions([works]).with_progress_listener(listener);
    let turn = run(executor.as_ref(), vec![call("works").with_call_id("a")], &functions).await;
    assert_eq!(turn.0.regular_results[0].result, json!("a"));
    let reported = reported.lock();
    let progress: Vec<_> = reported
        .iter()
        .map(|progress| (progress.name.as_str(), progress.call_id.as_deref(), &progress.value))
        .collect();
    assert_eq!(progress, [("works", Some("a"), &json!(0.5))]);
}

/// A blocking function is not interrupted; its context says that its call has ended.
pub(super) async fn a_blocking_function_sees_that_its_call_was_cancelled(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
    let stopped = Arc::new(AtomicBool::new(false));
    let polls = Function::blocking_with_context("polls", {
        let stopped = Arc::clone(&stopped);
        move |context: CallContext, _| {
            while !context.cancellation().is_cancelled() {
                std::thread::yield_now();
            }
            stopped.store(true, Ordering::SeqCst);
            Ok::<_, FunctionError>(Value::Null)
        }
    })
    .with_timeout(SHORT);
    let turn = run(executor.as_ref(), vec![call("polls")], &functions([polls])).await;
    assert_eq!(turn.failure(0), Some(FailureKind::TimedOut));
    until("its context is cancelled", || stopped.load(Ordering::SeqCst)).await;
}
