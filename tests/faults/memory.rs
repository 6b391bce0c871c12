//! What goes wrong around the in-process store leaves it whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use arshai::backends::memory::{InMemoryManager, LegacyMemoryManager};
use arshai::memory::{EvictionListener, MemoryInput, MemoryManager, MemoryType, WorkingMemory};
use arshai::{Component, ErrorKind, ManualClock};
use proptest::prelude::*;
use serde_json::json;

const WORKING: MemoryType = MemoryType::WorkingMemory;

fn input(id: impl ToString, text: &str) -> MemoryInput {
    MemoryInput::working_memory(id.to_string()).with_data(text)
}

#[test]
fn a_panicking_listener_harms_nothing() {
    let listener: EvictionListener = Arc::new(|_| panic!("a listener's own fault"));
    let memory =
        InMemoryManager::builder().max_entries(2).eviction_listener(listener).build().expect("valid");
    for n in 0..10 {
        memory.store(input(n, "text")).expect("a listener's panic is not the caller's");
    }
    memory.store(input(9, "again")).expect("replacing calls the listener too");
    memory.delete(&input(9, "")).expect("so does deleting");
    let stats = memory.stats();
    assert_eq!((stats.entries, stats.removals.over_max_entries), (1, 8));
    assert_eq!((stats.removals.replaced, stats.removals.deleted), (1, 1));
}

#[test]
fn a_listener_may_use_the_store_it_listens_to() {
    let store: Arc<std::sync::OnceLock<Arc<InMemoryManager>>> = Arc::default();
    let inside = Arc::clone(&store);
    let listener: EvictionListener = Arc::new(move |evicted| {
        let store = inside.get().expect("set before use");
        assert!(store.get(evicted.memory_type, &evicted.conversation_id).is_none());
    });
    let memory =
        InMemoryManager::builder().max_entries(1).eviction_listener(listener).build().expect("valid");
    let memory = store.get_or_init(|| Arc::new(memory));
    memory.store(input("a", "text")).expect("it stores");
    memory.store(input("b", "text")).expect("no lock is held while the listener runs");
}

#[test]
fn senseless_settings_are_refused_and_named() {
    let builder = InMemoryManager::builder;
    for (settings, named) in [
        (builder().max_entries(0), "max_entries"),
        (builder().max_bytes(100), "memory budget"),
        (builder().ttl(Duration::ZERO), "time to live"),
        (builder().cleanup_interval(Duration::ZERO), "cleanup interval"),
    ] {
        let error = settings.build().expect_err("it cannot work");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(named), "{error}");
    }
}

#[tokio::test]
async fn update_keeps_metadata_in_both_stores() {
    let bounded = InMemoryManager::new();
    let legacy = LegacyMemoryManager::new(Duration::from_secs(60), Arc::new(ManualClock::new()));
    let metadata = json!({"user": "ada"}).as_object().cloned().expect("an object");
    let stored = input("a", "old").with_metadata(metadata.clone());
    for memory in [&bounded as &dyn MemoryManager, &legacy] {
        memory.store(stored.clone()).await.expect("it stores");
        memory.update(input("a", "new")).await.expect("it updates");
    }
    assert_eq!(bounded.metadata(WORKING, "a").as_ref(), Some(&metadata));
    assert_eq!(legacy.metadata(WORKING, "a").as_ref(), Some(&metadata));
}

#[tokio::test(start_paused = true)]
async fn the_background_cleanup_clears_expired_entries_away() {
    let clock = Arc::new(ManualClock::new());
    let builder = InMemoryManager::builder().ttl(Duration::from_secs(60)).clock(Arc::clone(&clock) as _);
    let memory = builder.cleanup_interval(Duration::from_secs(10)).build().expect("valid");
    let handle: &dyn MemoryManager = &memory;
    for n in 0..5_000 {
        handle.store(input(n, "text")).await.expect("it stores");
    }
    let full = memory.stats().bytes;
    clock.advance(Duration::from_secs(61));
    assert_eq!(memory.stats().entries, 5_000, "nothing has cleaned up yet");
    tokio::time::sleep(Duration::from_secs(11)).await;
    let stats = memory.stats();
    assert_eq!((stats.entries, stats.removals.expired), (0, 5_000));
    assert!(stats.bytes < full / 50, "memory is given back: {} of {full}", stats.bytes);
}

#[tokio::test(start_paused = true)]
async fn the_background_cleanup_ends_with_the_store() {
    let memory = InMemoryManager::new();
    MemoryManager::store(&memory, input("a", "text")).await.expect("it stores");
    let tasks = tokio::runtime::Handle::current().metrics();
    assert_eq!(tasks.num_alive_tasks(), 1);
    drop(memory);
    tokio::task::yield_now().await;
    assert_eq!(tasks.num_alive_tasks(), 0);
}

#[test]
fn the_background_cleanup_starts_again_in_another_runtime() {
    let memory = InMemoryManager::new();
    for round in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            MemoryManager::store(&memory, input("a", "text")).await.expect("it stores");
            let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            assert_eq!(alive, 1, "round {round}");
        });
    }
}

#[test]
fn the_largest_entry_that_fits_is_stored_at_the_price_of_all_others() {
    let memory = InMemoryManager::builder().max_bytes(256 * 1024).build().expect("valid");
    for n in 0..1_000 {
        memory.store(input(n, "text")).expect("it stores");
    }
    let fits = |bytes: usize| {
        let large = WorkingMemory::new("x".repeat(bytes));
        memory.store(MemoryInput::working_memory("large").with_data(large)).is_ok()
    };
    let (mut low, mut high) = (0, 256 * 1024);
    while low + 1 < high {
        let middle = (low + high) / 2;
        if fits(middle) {
            low = middle
        } else {
            high = middle
        }
        assert!(memory.stats().bytes <= 256 * 1024);
    }
    assert!(low > 220 * 1024, "{low} bytes were the most");
    assert_eq!(memory.get(WORKING, "large").expect("an earlier value stays").as_str().len(), low);
    for n in 0..1_000 {
        memory.store(input(n, "text")).expect("small ones fit again");
    }
    assert!(memory.get(WORKING, "large").is_none());
}

#[test]
fn limits_hold_at_every_moment_on_many_threads() {
    for (entries, bytes) in [(3, 1 << 20), (50, 64 * 1024), (20_000, 2 << 20)] {
        let memory = InMemoryManager::builder().max_entries(entries).max_bytes(bytes).build().expect("valid");
        let refused = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let (memory, refused) = (&memory, &refused);
                scope.spawn(move || {
                    for n in 0..3_000 {
                        let text = "x".repeat((n * 37 + thread * 11) % 900);
                        if let Err(error) = memory.store(input((n * 7 + thread) % 1_000, &text)) {
                            assert_eq!(error.kind(), ErrorKind::Capacity);
                            refused.fetch_add(1, SeqCst);
                        }
                        if n % 16 == 0 {
                            let stats = memory.stats();
                            assert!(stats.entries <= entries && stats.bytes <= bytes, "{stats:?}");
                        }
                    }
                });
            }
        });
        let stats = memory.stats();
        assert!(memory.limits().iter().all(|bound| Some(bound.peak) <= bound.limit), "{stats:?}");
        assert_eq!(refused.load(SeqCst), 0);
        for n in 0..1_000 {
            memory.delete(&input(n, "")).expect("it deletes");
        }
        let empty = InMemoryManager::builder().max_entries(entries).max_bytes(bytes).build().expect("valid");
        assert_eq!(memory.stats().bytes, empty.stats().bytes, "every byte was given back");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Limits change while entries come, go and expire: the bounds hold, and an emptied store takes no more
    /// than a new one.
    #[test]
    fn bounds_hold_and_accounts_balance_whatever_happens(
        steps in prop::collection::vec((0..8_u8, 0..200_u64, 0..3_000_usize), 1..400),
        entries in 1..300_u64,
    ) {
        let clock = Arc::new(ManualClock::new());
        let builder = InMemoryManager::builder().max_entries(entries).max_bytes(512 * 1024);
        let builder = builder.ttl(Duration::from_secs(100)).clock(Arc::clone(&clock) as _);
        let memory = builder.build().expect("valid");
        let new = memory.stats().bytes;
        for (what, n, size) in steps {
            match what {
                0..=3 => { memory.store(input(n, &"x".repeat(size))).expect("it stores"); }
                4 => memory.update(input(n, &"y".repeat(size))).expect("it updates"),
                5 => memory.delete(&input(n, "")).expect("it deletes"),
                6 => clock.advance(Duration::from_secs(n / 4)),
                _ => {
                    memory.set_limit("memory.max_entries", n + 1).expect("valid");
                    memory.set_limit("memory.max_memory_mb", 64 * 1024 + size as u64 * 100).expect("valid");
                }
            }
            let stats = memory.stats();
            for bound in &memory.limits() {
                prop_assert!(Some(bound.used) <= bound.limit, "{bound:?}");
            }
        }
        clock.advance(Duration::from_secs(1_000));
        memory.clean_up();
        let stats = memory.stats();
        prop_assert_eq!((stats.entries, stats.bytes), (0, new));
    }
}
