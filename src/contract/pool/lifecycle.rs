//! Connecting, returning, cancelling and closing.

use super::super::doubles::ScriptedOutcome;
use super::super::random::Random;
use super::*;

pub(super) async fn suite<F, Fut>(maker: &Maker<F>)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn ConnectionPool>>,
{
    nothing_connects_before_the_first_acquire(&maker.pool().await).await;
    the_connection_used_last_is_handed_out_first(&maker.pool().await).await;
    a_broken_connection_is_not_reused(&maker.pool().await).await;
    discarded_connections_leave_nothing(&maker.pool().await).await;
    a_failed_connect_affects_one_caller(&maker.pool().await).await;
    a_connect_that_hangs_ends_at_the_deadline(&maker.pool().await).await;
    an_acquire_dropped_at_any_await_leaves_nothing(&maker.pool().await).await;
    a_hundred_thousand_cancelled_acquires_release_every_permit(&maker.pool().await).await;
    closing_drops_idle_connections_and_waits_for_those_in_use(&maker.pool().await).await;
    dropping_the_last_handle_drops_idle_connections(maker.pool().await).await;
    connections_may_be_returned_and_dropped_outside_a_runtime(maker.pool().await).await;
    health_is_checked_through_a_connection(&maker.pool().await).await;
}

async fn nothing_connects_before_the_first_acquire(fixture: &Fixture) {
    drop(fixture.start_acquire());
    tokio::time::sleep(SECOND).await;
    assert_eq!((fixture.connector.created(), fixture.connector.connecting()), (0, 0));
    fixture.check_counts(0, 3);
    drop(fixture.acquire().await);
    let stats = fixture.stats();
    assert_eq!((stats.name, stats.created, stats.acquired, stats.idle), ("test", 1, 1, 1));
}

async fn the_connection_used_last_is_handed_out_first(fixture: &Fixture) {
    let mut held = [fixture.acquire().await, fixture.acquire().await, fixture.acquire().await];
    let ids = held.each_mut().map(id);
    fixture.check_counts(3, 3);
    drop(held);
    let mut again = [fixture.acquire().await, fixture.acquire().await, fixture.acquire().await];
    let again = again.each_mut().map(id);
    assert_eq!(again, [ids[2], ids[1], ids[0]], "last in, first out");
    assert_eq!(fixture.connector.created(), 3);
    assert_eq!(fixture.stats().acquired, 6);
}

async fn a_broken_connection_is_not_reused(fixture: &Fixture) {
    let mut broken = fixture.acquire().await;
    scripted(&mut broken).mark_broken();
    drop(broken);
    assert_eq!(fixture.connector.open(), 0, "dropped when it is returned");
    fixture.check_counts(0, 3);
    fixture.warm(2, Duration::ZERO).await;
    fixture.connector.break_all();
    let mut connection = fixture.acquire().await;
    assert_eq!(id(&mut connection), 4, "one that broke while idle is not handed out");
    fixture.check_counts(1, 3);
    assert!(fixture.stats().discarded >= 2);
}

async fn discarded_connections_leave_nothing(fixture: &Fixture) {
    fixture.acquire().await.discard();
    // The tasks of earlier pools have ended by then.
    tokio::time::sleep(SECOND).await;
    let before = alive_tasks();
    for _ in 1..10_000 {
        let mut connection = fixture.acquire().await;
        connection.set_reusable(false);
        connection.set_reusable(true);
        connection.discard();
        assert_eq!(fixture.connector.open(), 0);
    }
    assert_eq!(fixture.stats().discarded, 10_000);
    assert_eq!(alive_tasks(), before, "no task is left");
    fixture.check_all_free(3).await;
}

async fn a_failed_connect_affects_one_caller(fixture: &Fixture) {
    fixture.connector.set_connect_outcome(ScriptedOutcome::Fails);
    for _ in 0..20 {
        let error = fixture.acquire_error(LONG).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "the connector's error: {error}");
    }
    assert_eq!((fixture.stats().failed, fixture.connector.open()), (20, 0));
    fixture.connector.set_connect_outcome(ScriptedOutcome::Succeeds);
    fixture.check_all_free(3).await;
}

async fn a_connect_that_hangs_ends_at_the_deadline(fixture: &Fixture) {
    fixture.connector.set_connect_outcome(ScriptedOutcome::Hangs);
    let began = Instant::now();
    let error = fixture.acquire_error(2 * SECOND).await;
    check_timeout(&error, "connecting", began, 2 * SECOND);
    assert_eq!((fixture.stats().timed_out, fixture.stats().failed), (1, 1));
    fixture.connector.set_connect_outcome(ScriptedOutcome::Succeeds);
    fixture.check_all_free(3).await;
}

async fn an_acquire_dropped_at_any_await_leaves_nothing(fixture: &Fixture) {
    for outcome in [ScriptedOutcome::Succeeds, ScriptedOutcome::Hangs] {
        // The number held decides the step: checking the idle one, connecting, or waiting.
        for held in 0..=3 {
            fixture.connector.set_connect_outcome(ScriptedOutcome::Succeeds);
            fixture.warm(1, 2 * SECOND).await;
            let mut holds = Vec::new();
            for _ in 0..held {
                holds.push(fixture.acquire().await);
            }
            fixture.connector.set_connect_outcome(outcome);
            fixture.connector.set_check_outcome(outcome);
            for polls in 0..5 {
                let mut acquire = fixture.start_acquire();
                poll_times(&mut acquire, polls).await;
                drop(acquire);
                assert_eq!(fixture.connector.connecting(), 0, "the connection being opened is gone");
                assert_eq!(fixture.stats().waiting, 0, "it has left the queue");
                fixture.check_counts(held, 3);
            }
            fixture.connector.set_check_outcome(ScriptedOutcome::Succeeds);
        }
    }
    fixture.connector.set_connect_outcome(ScriptedOutcome::Succeeds);
    fixture.check_all_free(3).await;
}

async fn a_hundred_thousand_cancelled_acquires_release_every_permit(fixture: &Fixture) {
    let mut random = Random::new(7);
    let mut held = Vec::new();
    for _ in 0..100_000 {
        match random.below(50) {
            0 => fixture.connector.set_next_connect_outcomes([ScriptedOutcome::Hangs]),
            // Idle connections are due for a check then.
            1 => tokio::time::sleep(2 * SECOND).await,
            2 => fixture.connector.set_check_outcome(ScriptedOutcome::Hangs),
            3 => fixture.connector.set_check_outcome(ScriptedOutcome::Succeeds),
            _ => {}
        }
        let polls = random.below(4);
        if let Some(acquired) = poll_times(&mut fixture.start_acquire(), polls).await {
            held.push(acquired.expect("the queue is not full"));
        }
        while held.len() as u64 > random.below(4) {
            let connection: PooledConnection = held.swap_remove(random.below(held.len() as u64) as usize);
            if random.below(3) == 0 {
                connection.discard();
            }
        }
    }
    fixture.check_counts(held.len(), 3);
    drop(held);
    fixture.connector.set_connect_outcome(ScriptedOutcome::Succeeds);
    fixture.connector.set_check_outcome(ScriptedOutcome::Succeeds);
    fixture.check_all_free(3).await;
}

async fn closing_drops_idle_connections_and_waits_for_those_in_use(fixture: &Fixture) {
    let in_use = fixture.acquire().await;
    fixture.warm(1, Duration::ZERO).await;
    let began = Instant::now();
    let report = fixture.pool.close(Deadline::after(SECOND)).await;
    assert_eq!(report.lost.len(), 1, "one is still in use: {report:?}");
    assert!(began.elapsed() >= SECOND, "it waited for it");
    let idle = u64::from(!fixture.capabilities.drops_idle);
    assert_eq!(fixture.connector.open(), 1 + idle);
    let error = fixture.acquire_error(LONG).await;
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    let closing = tokio::spawn({
        let pool = Arc::clone(&fixture.pool);
        async move { pool.close(Deadline::after(LONG)).await }
    });
    tokio::task::yield_now().await;
    drop(in_use);
    assert!(closing.await.expect("it ends").is_clean());
    assert_eq!(fixture.connector.open(), 0, "a connection returned to a closed pool is dropped");
    fixture.check_counts(0, 3);
    assert!(!fixture.pool.health(Deadline::after(SECOND)).await.is_usable());
}

async fn dropping_the_last_handle_drops_idle_connections(fixture: Fixture) {
    let before = alive_tasks();
    let in_use = fixture.acquire().await;
    fixture.warm(2, Duration::ZERO).await;
    let Fixture { pool, connector, capabilities, .. } = fixture;
    drop(pool);
    assert_eq!(connector.open(), if capabilities.drops_idle { 1 } else { 3 });
    drop(in_use);
    assert_eq!(connector.open(), 0, "the last one is dropped when it is returned");
    tokio::time::sleep(SECOND).await;
    assert_eq!(alive_tasks(), before, "a second later no task of the pool is left");
}

async fn connections_may_be_returned_and_dropped_outside_a_runtime(fixture: Fixture) {
    let (returned, discarded) = (fixture.acquire().await, fixture.acquire().await);
    let thread = std::thread::spawn(move || {
        drop(returned);
        discarded.discard();
    });
    thread.join().expect("returning needs no runtime");
    fixture.check_counts(0, 3);
    assert_eq!(fixture.stats().idle, 1);
    let Fixture { pool, connector, .. } = fixture;
    let last = pool.acquire(Deadline::after(LONG)).await.expect("a connection");
    std::thread::spawn(move || drop((pool, last))).join().expect("dropping the pool needs no runtime");
    assert_eq!(connector.open(), 0);
}

async fn health_is_checked_through_a_connection(fixture: &Fixture) {
    let health = async || fixture.pool.health(Deadline::after(10 * SECOND)).await.is_usable();
    assert!(health().await);
    assert_eq!(fixture.connector.checked(), 1, "the server was asked");
    fixture.check_counts(0, 3);
    for outcome in [ScriptedOutcome::Fails, ScriptedOutcome::Hangs] {
        fixture.connector.set_check_outcome(outcome);
        assert!(!health().await);
    }
    fixture.connector.set_check_outcome(ScriptedOutcome::Succeeds);
    assert!(health().await, "it recovers");
    fixture.connector.break_all();
    fixture.connector.set_connect_outcome(ScriptedOutcome::Fails);
    assert!(!health().await);
    fixture.connector.set_connect_outcome(ScriptedOutcome::Succeeds);
    fixture.check_all_free(3).await;
}
