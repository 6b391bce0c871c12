//! Idle connections: health checks and reaping.

use super::super::doubles::ScriptedOutcome;
use super::*;

pub(super) async fn checks<F, Fut>(maker: &Maker<F>)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn ConnectionPool>>,
{
    a_connection_idle_for_long_is_checked(&maker.pool().await).await;
    a_connection_that_fails_its_check_is_replaced(&maker.pool().await).await;
    a_connection_whose_check_hangs_is_replaced(&maker.pool().await).await;
    a_check_that_outlives_the_deadline_is_named(&maker.pool().await).await;
}

async fn a_connection_idle_for_long_is_checked(fixture: &Fixture) {
    fixture.warm(1, fixture.settings.check_after / 2).await;
    fixture.warm(1, 2 * fixture.settings.check_after).await;
    assert_eq!(fixture.connector.checked(), 0, "not before check_after");
    let mut connection = fixture.acquire().await;
    assert_eq!((id(&mut connection), fixture.connector.checked()), (1, 1));
    fixture.check_counts(1, 3);
}

async fn a_connection_that_fails_its_check_is_replaced(fixture: &Fixture) {
    fixture.warm(1, 2 * SECOND).await;
    fixture.connector.set_check_outcome(ScriptedOutcome::Fails);
    let mut connection = fixture.acquire().await;
    assert_eq!((id(&mut connection), fixture.connector.open()), (2, 1), "by a new one");
    assert_eq!(fixture.stats().discarded, 1);
    fixture.check_counts(1, 3);
}

async fn a_connection_whose_check_hangs_is_replaced(fixture: &Fixture) {
    fixture.warm(1, 2 * SECOND).await;
    fixture.connector.set_check_outcome(ScriptedOutcome::Hangs);
    let began = Instant::now();
    let mut connection = fixture.try_acquire(2 * SECOND).await.expect("a new one within the same deadline");
    assert_eq!((id(&mut connection), fixture.connector.open()), (2, 1));
    let waited = began.elapsed();
    assert!(waited >= fixture.settings.check_timeout && waited < 2 * SECOND, "{waited:?}");
    assert_eq!((fixture.stats().discarded, fixture.stats().timed_out), (1, 0));
    fixture.check_counts(1, 3);
}

async fn a_check_that_outlives_the_deadline_is_named(fixture: &Fixture) {
    fixture.warm(1, 2 * SECOND).await;
    fixture.connector.set_check_outcome(ScriptedOutcome::Hangs);
    let began = Instant::now();
    let error = fixture.acquire_error(SECOND / 2).await;
    check_timeout(&error, "checking", began, SECOND / 2);
    assert_eq!((fixture.stats().timed_out, fixture.connector.open()), (1, 0));
    fixture.connector.set_check_outcome(ScriptedOutcome::Succeeds);
    fixture.check_all_free(3).await;
}

pub(super) async fn connections_are_reaped_unless_they_are_used(fixture: &Fixture) {
    fixture.warm(3, fixture.settings.idle_timeout - SECOND).await;
    assert_eq!(fixture.connector.open(), 3, "not before idle_timeout");
    drop(fixture.acquire().await);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!((fixture.connector.open(), fixture.stats().reaped), (1, 2), "the unused ones are dropped");
    fixture.check_counts(0, 3);
    tokio::time::sleep(fixture.settings.idle_timeout).await;
    assert_eq!((fixture.connector.open(), fixture.stats().reaped), (0, 3));
    fixture.warm(2, fixture.settings.idle_timeout + SECOND).await;
    assert_eq!(fixture.connector.open(), 0, "reaping continues");
    fixture.check_all_free(3).await;
}
