//! Background calls, closing and dropping the executor.

use super::*;

/// A background task goes on after its turn; its permit is released when it has ended.
pub(super) async fn a_background_call_outlives_its_turn_and_releases_its_permit(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
    let (function, gate) = gated("waits");
    let turn = run(executor.as_ref(), vec![call("waits").in_background()], &functions([function])).await;
    assert_eq!(turn.0.background_initiated.len(), 1);
    assert_eq!(executor.active_background_tasks_count(), 1);
    assert_eq!(executor.wait_for_background_tasks(Some(Duration::from_millis(1))).await, 1);
    gate.notify_one();
    assert_eq!(executor.wait_for_background_tasks(None).await, 0);
    let stats = executor.stats();
    assert_eq!((stats.background_started, stats.background_succeeded), (1, 1));
}

/// The listener is called for each failure once, with the function's metadata, and may panic.
pub(super) async fn a_background_failure_is_counted_and_reported_after_its_permit_is_released(
    make: &Make<'_>,
) {
    let reported: Arc<Mutex<Vec<BackgroundFailure>>> = Arc::default();
    let listener: BackgroundFailureListener = Arc::new({
        let reported = Arc::clone(&reported);
        move |failure| {
            reported.lock().push(failure);
            panic!("a listener may panic");
        }
    });
    let executor = make(Setup { listener, ..Setup::default() }).await;
    let functions = functions([
        Function::new("fails", |_| async { Err::<Value, _>(FunctionError::new("no")) })
            .with_metadata(json!({"team": "ops"})),
        Function::new("panics", panics_before_its_future),
        never().with_timeout(SHORT),
    ]);
    let calls = ["fails", "panics", "never"].map(|name| call(name).in_background().with_call_id(name));
    run(executor.as_ref(), calls.to_vec(), &functions).await;
    until("each failure is reported", || reported.lock().len() == 3).await;
    assert_eq!(executor.active_background_tasks_count(), 0);
    let mut kinds: Vec<_> =
        reported.lock().iter().map(|failure| (failure.name.clone(), failure.kind)).collect();
    kinds.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("fails".to_owned(), FailureKind::Failed),
        ("never".to_owned(), FailureKind::TimedOut),
        ("panics".to_owned(), FailureKind::Panicked),
    ];
    assert_eq!(kinds, expected);
    let reported = reported.lock();
    let failed = reported.iter().find(|failure| failure.name == "fails").expect("reported above");
    assert_eq!((&failed.metadata, failed.call_id.as_deref()), (&json!({"team": "ops"}), Some("fails")));
    assert_eq!(executor.stats().background_failed, 3);
}

/// Closing lets running tasks complete, aborts the rest at its deadline, and rejects every later call.
pub(super) async fn closing_waits_then_aborts_and_rejects_further_calls(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
    let (ends, gate) = gated("ends");
    let functions = functions([ends, never(), echo()]);
    let calls = vec![call("ends").in_background(), call("never").in_background()];
    run(executor.as_ref(), calls, &functions).await;
    // The task can end only while the executor is closing.
    let (report, ()) = tokio::join!(executor.close(Deadline::after(SHORT)), async { gate.notify_one() });
    assert_eq!((report.finished, report.aborted), (1, 1), "{report:?}");
    until("an aborted task ends", || executor.active_background_tasks_count() == 0).await;
    let turn = run(executor.as_ref(), vec![call("echo"), call("echo").in_background()], &functions).await;
    assert_eq!(turn.0.failed_functions.len(), 2);
    assert!(turn.0.failed_functions.iter().all(|failed| failed.kind == FailureKind::ShutDown));
    assert!(!executor.health(Deadline::after(Duration::from_secs(5))).await.is_usable());
    assert_eq!(executor.close(Deadline::after(SHORT)).await.aborted, 0, "closing again finds nothing");
}

/// A background task does not outlive its executor.
pub(super) async fn dropping_the_executor_ends_its_background_tasks(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
    let running = Arc::new(AtomicUsize::new(0));
    let function = Function::new("never", {
        let running = Arc::clone(&running);
        move |_| {
            let inside = Inside::enter(&running);
            async move {
                let _inside = inside;
                pending::<Result<Value, FunctionError>>().await
            }
        }
    });
    run(executor.as_ref(), vec![call("never").in_background()], &functions([function])).await;
    until("a background task starts", || running.load(Ordering::SeqCst) == 1).await;
    drop(executor);
    until("a background task ends with its executor", || running.load(Ordering::SeqCst) == 0).await;
}
