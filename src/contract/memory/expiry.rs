//! Expiry on the injected clock.

use std::sync::Arc;
use std::time::Duration;

use super::limits::random_operations;
use super::{Factory, Fixture, MIB, Setup, TTL};
use crate::memory::MemoryManager;

/// Runs the tests of expiry on backends created by `make`, whose entries expire on [`Setup::clock`]. Backends whose
/// server counts the TTL are tested with [`suite`](super::suite) only.
///
/// # Panics
/// When the backend breaks the contract.
pub async fn expiry<F, Fut>(make: F)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn MemoryManager>>,
{
    let factory = Factory(make);
    an_expired_entry_is_never_returned(&factory.roomy().await).await;
    the_system_time_expires_nothing(&factory.roomy().await).await;
    update_renews_the_ttl_only_where_documented(&factory.roomy().await).await;
    for seed in 1..=4 {
        random_operations(&factory.make(40, MIB).await, seed, true).await;
        random_operations(&factory.make(5_000, MIB / 4).await, seed, true).await;
    }
}

async fn an_expired_entry_is_never_returned(fixture: &Fixture) {
    fixture.store("a", "text").await;
    fixture.clock.advance(TTL - Duration::from_millis(1));
    assert!(fixture.read("a").await.is_some(), "it lives for the whole TTL");
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(fixture.read("a").await, None, "and no longer");
    fixture.update("a", "late").await;
    assert_eq!(fixture.read("a").await, None, "update restores nothing");
    fixture.store("b", "text").await;
    if fixture.memory.capabilities().eviction_listener {
        assert_eq!(fixture.removals.counts().expired, 1, "the listener is called once");
    }
    fixture.clock.advance(TTL / 2);
    fixture.store("b", "again").await;
    fixture.clock.advance(TTL / 2);
    assert_eq!(fixture.read("b").await.as_deref(), Some("again"), "store restarts the TTL");
}

async fn the_system_time_expires_nothing(fixture: &Fixture) {
    fixture.store("a", "text").await;
    fixture.clock.advance_system_time(Duration::from_secs(86_400));
    assert!(fixture.read("a").await.is_some(), "a jump of the system time changes nothing");
}

async fn update_renews_the_ttl_only_where_documented(fixture: &Fixture) {
    fixture.store("a", "text").await;
    fixture.clock.advance(TTL / 2);
    fixture.update("a", "new").await;
    fixture.clock.advance(TTL / 2);
    assert_eq!(fixture.read("a").await.is_some(), fixture.memory.capabilities().update_renews_ttl);
}
