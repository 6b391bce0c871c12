//! Limits of connections, callers and time.

use parking_lot::Mutex;

use super::super::doubles::ScriptedOutcome;
use super::*;

pub(super) async fn suite<F, Fut>(maker: &Maker<F>)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn ConnectionPool>>,
{
    no_more_connections_than_the_limit(&maker.pool().await).await;
    no_more_idle_connections_than_the_limit(&maker.with(|settings| settings.max_idle = 1).await, 1).await;
    no_more_idle_connections_than_the_limit(&maker.with(|settings| settings.max_idle = 0).await, 0).await;
    waiting_callers_are_served_first_in_first_out(&maker.single().await).await;
    waiting_ends_at_the_deadline(&maker.single().await).await;
    a_connect_that_hangs_ends_at_its_timeout(&maker.pool().await).await;
    let large = |settings: &mut PoolSettings| {
        settings.max_connections = 20;
        settings.max_waiting = 980;
    };
    a_thousand_callers_of_stalled_connections_end_on_time(&maker.with(large).await).await;
    let short_queue = |settings: &mut PoolSettings| {
        settings.max_connections = 1;
        settings.max_waiting = 2;
    };
    a_caller_beyond_the_queue_is_rejected_immediately(&maker.with(short_queue).await).await;
    a_failed_connect_does_not_affect_the_next_waiting_caller(&maker.single().await).await;
    a_raised_limit_serves_waiting_callers_immediately(&maker.single().await).await;
    a_lowered_limit_drops_idle_connections_and_those_returned(&maker.pool().await).await;
    closing_rejects_waiting_callers(&maker.single().await).await;
}

pub(super) async fn an_unbounded_pool_says_so(fixture: &Fixture) {
    let held = [fixture.acquire().await, fixture.acquire().await, fixture.acquire().await];
    fixture.check_counts(3, 1);
    let error = fixture.pool.set_max_connections(5).expect_err("there is no limit to change");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    drop(held);
}

async fn no_more_connections_than_the_limit(fixture: &Fixture) {
    let held = [fixture.acquire().await, fixture.acquire().await, fixture.acquire().await];
    let waiting = fixture.waiting().await;
    fixture.check_counts(3, 3);
    assert_eq!((fixture.stats().waiting, fixture.connector.peak()), (1, 3));
    drop(held);
    drop(waiting.await.expect("one was returned"));
    assert_eq!(fixture.connector.created(), 3, "the waiting caller got one of those returned");
    fixture.check_all_free(3).await;
}

async fn no_more_idle_connections_than_the_limit(fixture: &Fixture, max_idle: u64) {
    fixture.warm(3, Duration::ZERO).await;
    assert_eq!((fixture.connector.open(), fixture.stats().idle), (max_idle, max_idle));
    fixture.check_all_free(3).await;
}

async fn waiting_callers_are_served_first_in_first_out(fixture: &Fixture) {
    let held = fixture.acquire().await;
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    let mut tasks = Vec::new();
    for n in 0..20 {
        let (waiting, order) = (fixture.waiting().await, Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let connection = waiting.await.expect("served");
            order.lock().push(n);
            drop(connection);
        }));
    }
    assert_eq!(fixture.stats().waiting, 20);
    drop(held);
    for task in tasks {
        task.await.expect("served");
    }
    assert!(order.lock().iter().copied().eq(0..20), "{order:?}");
    assert_eq!(fixture.connector.created(), 1);
    fixture.check_all_free(1).await;
}

async fn waiting_ends_at_the_deadline(fixture: &Fixture) {
    let held = fixture.acquire().await;
    let began = Instant::now();
    let error = fixture.acquire_error(2 * SECOND).await;
    check_timeout(&error, "waiting", began, 2 * SECOND);
    assert_eq!((fixture.stats().timed_out, fixture.stats().waiting), (1, 0));
    drop(held);
    fixture.check_all_free(1).await;
}

async fn a_connect_that_hangs_ends_at_its_timeout(fixture: &Fixture) {
    fixture.connector.set_connect_outcome(ScriptedOutcome::Hangs);
    let began = Instant::now();
    let error = fixture.acquire_error(LONG).await;
    check_timeout(&error, "connecting", began, fixture.settings.connect_timeout);
    assert_eq!((fixture.stats().failed, fixture.stats().timed_out), (1, 0));
    fixture.connector.set_connect_outcome(ScriptedOutcome::Succeeds);
    fixture.check_all_free(3).await;
}

/// First twenty hang while they connect and the others wait for them; then twenty hold a connection for too long.
async fn a_thousand_callers_of_stalled_connections_end_on_time(fixture: &Fixture) {
    for outcome in [ScriptedOutcome::Hangs, ScriptedOutcome::Succeeds] {
        fixture.connector.set_connect_outcome(outcome);
        let callers: Vec<_> = (0..1_000).map(|_| tokio::spawn(stalled(Arc::clone(&fixture.pool)))).collect();
        let mut ended = Vec::new();
        for caller in callers {
            ended.push(caller.await.expect("it ends on time"));
        }
        let count = |step| ended.iter().filter(|ended| **ended == step).count();
        let step = if outcome == ScriptedOutcome::Hangs { "connecting" } else { "holding" };
        assert_eq!((count(step), count("waiting")), (20, 980));
    }
    assert_eq!(fixture.stats().timed_out, 1_000 + 980);
    fixture.check_all_free(20).await;
}

/// Acquires a connection for two seconds and holds it for three; returns the step it came to.
async fn stalled(pool: Arc<dyn ConnectionPool>) -> &'static str {
    let began = Instant::now();
    let acquired = pool.acquire(Deadline::after(2 * SECOND)).await;
    if acquired.is_ok() {
        tokio::time::sleep(3 * SECOND).await;
        return "holding";
    }
    let error = not_sent(acquired);
    let step = if error.message().contains("waiting") { "waiting" } else { "connecting" };
    check_timeout(&error, step, began, 2 * SECOND);
    step
}

async fn a_caller_beyond_the_queue_is_rejected_immediately(fixture: &Fixture) {
    let held = fixture.acquire().await;
    let waiting = [fixture.waiting().await, fixture.waiting().await];
    let began = Instant::now();
    let error = fixture.acquire_error(LONG).await;
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Capacity, Duration::ZERO), "{error}");
    let stats = fixture.stats();
    assert_eq!((stats.rejected, stats.waiting, stats.timed_out), (1, 2, 0));
    drop(waiting);
    assert_eq!(fixture.stats().waiting, 0);
    drop(held);
    fixture.check_all_free(1).await;
}

async fn a_failed_connect_does_not_affect_the_next_waiting_caller(fixture: &Fixture) {
    let held = fixture.acquire().await;
    let (first, second) = (fixture.waiting().await, fixture.waiting().await);
    fixture.connector.set_next_connect_outcomes([ScriptedOutcome::Fails]);
    held.discard();
    let error = not_sent(first.await);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    drop(second.await.expect("its own connect succeeds"));
    fixture.check_all_free(1).await;
}

async fn a_raised_limit_serves_waiting_callers_immediately(fixture: &Fixture) {
    let held = fixture.acquire().await;
    let (first, second, mut third) =
        (fixture.waiting().await, fixture.waiting().await, fixture.waiting().await);
    fixture.pool.set_max_connections(3).expect("a valid limit");
    let served = [first.await.expect("served"), second.await.expect("served")];
    assert!(futures_util::poll!(&mut third).is_pending(), "three are in use");
    fixture.check_counts(3, 3);
    drop((held, served, third));
    fixture.check_all_free(3).await;
}

async fn a_lowered_limit_drops_idle_connections_and_those_returned(fixture: &Fixture) {
    let error = fixture.pool.set_max_connections(0).expect_err("no connections");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = fixture.pool.set_limit("pool.unknown", 1).expect_err("no such limit");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let [first, second] = [fixture.acquire().await, fixture.acquire().await];
    fixture.warm(1, Duration::ZERO).await;
    fixture.pool.set_max_connections(1).expect("a valid limit");
    let idle = u64::from(!fixture.capabilities.drops_idle);
    assert_eq!(fixture.connector.open(), 2 + idle);
    fixture.check_counts(2, 1);
    let waiting = fixture.waiting().await;
    drop(first);
    assert_eq!(fixture.connector.open(), 1 + idle, "above the limit, the first one returned is dropped");
    drop(second);
    drop(waiting.await.expect("one is allowed"));
    fixture.check_all_free(1).await;
    assert_eq!(fixture.connector.open(), 1, "the limit holds once those above it have been used");
    fixture.pool.set_max_connections(4).expect("a valid limit");
    fixture.check_all_free(4).await;
}

async fn closing_rejects_waiting_callers(fixture: &Fixture) {
    let in_use = fixture.acquire().await;
    let waiting = fixture.waiting().await;
    let closing = tokio::spawn({
        let pool = Arc::clone(&fixture.pool);
        async move { pool.close(Deadline::after(LONG)).await }
    });
    let error = not_sent(waiting.await);
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    drop(in_use);
    assert!(closing.await.expect("it ends").is_clean());
}
