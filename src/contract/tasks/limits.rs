//! Limits, for bounded executors.

use super::*;

pub(super) async fn suite(make: &Make<'_>) {
    no_more_calls_run_concurrently_than_the_limit(make).await;
    waiting_for_a_permit_spends_the_deadline_and_says_so(make).await;
    a_result_over_the_size_limit_is_a_failure_that_says_so(make).await;
    at_the_limit_a_background_call_fails_and_starts_nothing(make).await;
    no_background_tasks_at_all_is_a_healthy_limit(make).await;
    a_lowered_limit_lets_running_tasks_end(make).await;
    misbehaving_functions_do_not_affect_the_others(make).await;
    blocking_functions_that_never_return_do_not_delay_async_ones(make).await;
}

/// The limit holds over all turns together.
async fn no_more_calls_run_concurrently_than_the_limit(make: &Make<'_>) {
    let executor = make(Setup { max_concurrency: 3, ..Setup::default() }).await;
    let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let function = Function::new("counted", {
        let (running, peak) = (Arc::clone(&running), Arc::clone(&peak));
        move |_| {
            let inside = Inside::enter(&running);
            peak.fetch_max(running.load(Ordering::SeqCst), Ordering::SeqCst);
            async move {
                let _inside = inside;
                tokio::task::yield_now().await;
                Ok::<_, FunctionError>(Value::Null)
            }
        }
    });
    let functions = functions([function]);
    let turn = || run(executor.as_ref(), vec![call("counted"); 50], &functions);
    let turns = futures_util::future::join_all([turn(), turn(), turn()]).await;
    assert!(turns.iter().all(|turn| turn.0.regular_results.len() == 50));
    assert!(peak.load(Ordering::SeqCst) <= 3, "{} ran at once", peak.load(Ordering::SeqCst));
}

/// A call that gets no permit fails at its deadline and names the limit.
async fn waiting_for_a_permit_spends_the_deadline_and_says_so(make: &Make<'_>) {
    let executor = make(Setup { max_concurrency: 1, timeout: SHORT, ..Setup::default() }).await;
    let (waits, gate) = gated("waits");
    let functions = functions([waits.with_timeout(LONG), echo()]);
    let holds = executor.execute_function_progressively(call("waits"), &functions, &functions, None);
    until("the first call begins", || executor.limits().iter().any(|limit| limit.used == 1)).await;
    let turn = run(executor.as_ref(), vec![call("echo")], &functions).await;
    assert_eq!(turn.failure(0), Some(FailureKind::TimedOut));
    let error = &turn.0.failed_functions[0].error;
    assert!(error.contains("tasks.max_concurrency"), "{error}");
    gate.notify_one();
    assert!(matches!(holds.await, FunctionOutcome::Completed(_)));
}

/// The limit counts bytes of JSON.
async fn a_result_over_the_size_limit_is_a_failure_that_says_so(make: &Make<'_>) {
    let executor = make(Setup { max_result_bytes: 10, ..Setup::default() }).await;
    let text = |name: &str, length: usize| {
        Function::new(name, move |_| async move { Ok::<_, FunctionError>(json!("x".repeat(length))) })
    };
    let functions = functions([text("fits", 8), text("too_long", 9)]);
    let turn = run(executor.as_ref(), vec![call("fits"), call("too_long")], &functions).await;
    assert_eq!(turn.failure(0), None);
    assert_eq!(turn.failure(1), Some(FailureKind::ResultTooLarge));
    assert!(turn.0.failed_functions[0].error.contains("10 bytes"), "{:?}", turn.0.failed_functions);
}

/// One background call too many fails with the limit and how to raise it; a task that ends releases its permit.
async fn at_the_limit_a_background_call_fails_and_starts_nothing(make: &Make<'_>) {
    let executor = make(Setup { max_background_tasks: 2, ..Setup::default() }).await;
    let (waits, gate) = gated("waits");
    let functions = functions([waits]);
    let turn = run(executor.as_ref(), vec![call("waits").in_background(); 3], &functions).await;
    assert_eq!(turn.failure(2), Some(FailureKind::NoBackgroundSlot));
    let error = &turn.0.failed_functions[0].error;
    assert!(error.contains('2') && error.contains("ARSHAI_MAX_BACKGROUND_TASKS"), "{error}");
    let stats = executor.stats();
    assert_eq!((stats.background_started, stats.background_rejected), (2, 1));
    until("a task that ends releases its permit", || {
        gate.notify_waiters();
        executor.active_background_tasks_count() == 0
    })
    .await;
    let turn = run(executor.as_ref(), vec![call("waits").in_background()], &functions).await;
    assert_eq!(turn.0.background_initiated.len(), 1);
}

/// Lowering the limit below what runs takes effect for new calls alone.
async fn a_lowered_limit_lets_running_tasks_end(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
    let (waits, gate) = gated("waits");
    let functions = functions([waits]);
    run(executor.as_ref(), vec![call("waits").in_background(); 3], &functions).await;
    executor.set_max_background_tasks(1).expect("a bounded executor can");
    assert_eq!(executor.active_background_tasks_count(), 3);
    let turn = run(executor.as_ref(), vec![call("waits").in_background()], &functions).await;
    assert_eq!(turn.failure(0), Some(FailureKind::NoBackgroundSlot));
    until("running tasks end by themselves", || {
        gate.notify_waiters();
        executor.active_background_tasks_count() == 0
    })
    .await;
    assert_eq!(executor.stats().background_succeeded, 3);
}

/// A third of the functions panics, a third blocks a thread, a third never ends: the others' results arrive, no more
/// calls run concurrently than the limit, and closing returns by its deadline although threads are still blocked.
async fn misbehaving_functions_do_not_affect_the_others(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
    let running = Arc::new(AtomicUsize::new(0));
    let exceeded = Arc::new(AtomicBool::new(false));
    let gate = Gate::new();
    let mut functions = Functions::new().with(echo());
    let mut calls = Vec::new();
    for i in 0..100 {
        let name = format!("tool_{i}");
        functions = functions.with(misbehaving(i, &name, &running, &exceeded, &gate));
        calls.push(call(&name));
        if i % 10 == 0 {
            calls.push(call("echo"));
        }
    }
    let turn = run(executor.as_ref(), calls.clone(), &functions).await;
    assert_one_outcome_each(calls.len(), &turn.0);
    assert_eq!(turn.0.regular_results.len(), 10, "the others' results arrive");
    assert!(!exceeded.load(Ordering::SeqCst), "no more calls run concurrently than the limit");
    for limit in executor.limits() {
        assert!(limit.limit.is_none_or(|max| limit.peak <= max), "{limit:?}");
    }
    let began = Instant::now();
    let report = executor.close(Deadline::after(SHORT)).await;
    assert!(began.elapsed() < LONG / 2, "closing returns by its deadline");
    assert!(!report.lost.is_empty() && report.lost.len() <= 4, "threads that block are named: {report:?}");
    gate.open();
}

fn misbehaving(
    i: usize,
    name: &str,
    running: &Arc<AtomicUsize>,
    exceeded: &Arc<AtomicBool>,
    gate: &Arc<Gate>,
) -> Function {
    let (running, exceeded, gate) = (Arc::clone(running), Arc::clone(exceeded), Arc::clone(gate));
    let function = match i % 3 {
        0 => Function::new(name, panics_before_its_future),
        1 => Function::blocking(name, move |_| {
            gate.wait();
            Ok::<_, FunctionError>(Value::Null)
        }),
        _ => Function::new(name, move |_| {
            let inside = Inside::enter(&running);
            if running.load(Ordering::SeqCst) > 8 {
                exceeded.store(true, Ordering::SeqCst);
            }
            async move {
                let _inside = inside;
                pending::<Result<Value, FunctionError>>().await
            }
        }),
    };
    function.with_timeout(SHORT)
}

/// A limit of zero rejects every background call and is not a problem.
async fn no_background_tasks_at_all_is_a_healthy_limit(make: &Make<'_>) {
    let executor = make(Setup { max_background_tasks: 0, ..Setup::default() }).await;
    assert_eq!(executor.health(Deadline::after(LONG)).await, Health::Healthy);
    let turn = run(executor.as_ref(), vec![call("echo").in_background()], &functions([echo()])).await;
    assert_eq!(turn.failure(0), Some(FailureKind::NoBackgroundSlot));
}

/// They occupy all threads, not the permits of async functions, and health names them.
async fn blocking_functions_that_never_return_do_not_delay_async_ones(make: &Make<'_>) {
    let executor = make(Setup { max_concurrency: 1, ..Setup::default() }).await;
    let gate = Gate::new();
    let stuck = Function::blocking("stuck", {
        let gate = Arc::clone(&gate);
        move |_| {
            gate.wait();
            Ok::<_, FunctionError>(Value::Null)
        }
    })
    .with_timeout(SHORT);
    let functions = functions([stuck, echo()]);
    let turn = run(executor.as_ref(), vec![call("stuck"); 64], &functions).await;
    assert!(turn.0.failed_functions.iter().all(|failed| failed.kind == FailureKind::TimedOut));
    let queued = &turn.0.failed_functions[63].error;
    assert!(queued.contains("tasks.max_blocking_threads"), "{queued}");
    let turn = run(executor.as_ref(), vec![call("echo"); 10], &functions).await;
    assert_eq!(turn.0.regular_results.len(), 10);
    match executor.health(Deadline::after(LONG)).await {
        Health::Degraded { reason } => assert!(reason.contains("stuck"), "{reason}"),
        health => panic!("degraded, not {health:?}"),
    }
    gate.open();
    until("the threads are released", || executor.limits().iter().all(|limit| limit.used == 0)).await;
    assert_eq!(executor.health(Deadline::after(LONG)).await, Health::Healthy);
}
