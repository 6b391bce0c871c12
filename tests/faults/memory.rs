//! The in-process store under faults: listeners that misbehave, limits under load, runtimes without a timer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use arshai::backends::memory::{InMemoryManager, LegacyMemoryManager};
use arshai::memory::{
    CasOutcome, EvictionListener, MemoryInput, MemoryManager, MemoryType, RemovalCause, WorkingMemory,
};
use arshai::{Component, Deadline, ErrorKind, ManualClock};
use proptest::prelude::*;
use serde_json::json;
use tokio::runtime::Builder;

const WORKING: MemoryType = MemoryType::WorkingMemory;
const MAX_ENTRIES: &str = "memory.max_entries";
const MAX_BYTES: &str = "memory.max_memory_mb";

fn input(id: impl ToString, text: &str) -> MemoryInput {
    MemoryInput::working_memory(id.to_string()).with_data(text)
}

/// A store with a listener that can use it.
fn with_listener(
    max_entries: u64,
    listener: impl Fn(&InMemoryManager, arshai::memory::RemovedEntry) + Send + Sync + 'static,
) -> Arc<InMemoryManager> {
    let store: Arc<OnceLock<std::sync::Weak<InMemoryManager>>> = Arc::default();
    let inner = Arc::clone(&store);
    let listener: EvictionListener = Arc::new(move |removed| {
        let store = inner.get().and_then(std::sync::Weak::upgrade).expect("it is in use");
        listener(&store, removed);
    });
    let builder = InMemoryManager::builder().max_entries(max_entries).eviction_listener(listener);
    let memory = Arc::new(builder.build().expect("valid"));
    store.set(Arc::downgrade(&memory)).expect("set once");
    memory
}

/// Its own drop panics, as a careless panic payload can.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("the payload panics when dropped");
    }
}

#[tokio::test]
async fn a_panicking_listener_harms_nothing_in_either_store() {
    let listener: EvictionListener = Arc::new(|_| std::panic::panic_any(PanicsOnDrop));
    let bounded = InMemoryManager::builder().max_entries(2).eviction_listener(Arc::clone(&listener));
    let bounded = bounded.build().expect("valid");
    for n in 0..10 {
        bounded.store(input(n, "text")).expect("a listener's panic is not the caller's");
    }
    let legacy = LegacyMemoryManager::new(Duration::from_secs(60), Arc::new(ManualClock::new()));
    let legacy = legacy.with_eviction_listener(listener);
    for memory in [&bounded as &dyn MemoryManager, &legacy] {
        memory.store(input(9, "text")).await.expect("it stores");
        memory.store(input(9, "again")).await.expect("replacing calls the listener too");
        memory.delete(&input(9, "")).await.expect("so does deleting");
        assert_eq!(memory.stats().removals.deleted, 1);
    }
    assert_eq!((bounded.stats().entries, bounded.stats().removals.over_max_entries), (1, 8));
}

#[test]
fn a_listener_may_use_the_store() {
    let memory = with_listener(1, |store, removed| {
        assert!(store.get(removed.memory_type, &removed.conversation_id).is_none());
    });
    memory.store(input("a", "text")).expect("it stores");
    memory.store(input("b", "text")).expect("no lock is held while the listener runs");
}

#[test]
fn a_listener_that_stores_the_entry_again_returns() {
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let memory = with_listener(2, move |store, removed| {
        counted.fetch_add(1, SeqCst);
        if removed.reason == RemovalCause::MaxEntries {
            store.put(removed.memory_type, &removed.conversation_id, removed.memory).expect("it stores");
        }
    });
    for n in 0..1_000 {
        memory.store(input(n, "text")).expect("it stores");
    }
    let stats = memory.stats();
    assert_eq!(stats.entries, 2);
    assert!(
        stats.removals.over_max_entries > calls.load(SeqCst),
        "its own removals are counted, not reported"
    );
}

#[test]
fn the_listener_is_called_for_every_entry_that_clear_removes_beside_writes() {
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let memory = with_listener(u64::MAX, move |_, _| {
        counted.fetch_add(1, SeqCst);
    });
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            (0..20_000).for_each(|n| drop(memory.store(input(n, "text")).expect("it stores")));
        });
        while !writer.is_finished() {
            memory.clear();
        }
    });
    memory.clear();
    assert_eq!((memory.stats().removals.deleted, calls.load(SeqCst)), (20_000, 20_000));
}

#[test]
fn a_blocked_listener_blocks_only_its_own_operation() {
    let (entered, blocked) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    let barriers = Arc::new((entered, blocked));
    let inside = Arc::clone(&barriers);
    let memory = with_listener(4, move |_, removed| {
        if &*removed.conversation_id == "slow" {
            inside.0.wait();
            inside.1.wait();
        }
    });
    memory.store(input("slow", "text")).expect("it stores");
    std::thread::scope(|scope| {
        scope.spawn(|| memory.delete(&input("slow", "")).expect("it deletes"));
        barriers.0.wait();
        for n in 0..100 {
            memory.store(input(n, "text")).expect("other operations go on");
        }
        barriers.1.wait();
    });
    assert_eq!(memory.stats().entries, 4);
}

#[test]
fn invalid_settings_are_rejected_and_named() {
    let builder = InMemoryManager::builder;
    for (settings, named) in [
        (builder().max_entries(0), "max_entries"),
        (builder().max_bytes(100), "memory limit"),
        (builder().ttl(Duration::ZERO), "ttl"),
        (builder().cleanup_interval(Duration::ZERO), "cleanup_interval"),
    ] {
        let error = settings.build().expect_err("it cannot work");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(named), "{error}");
    }
}

#[test]
fn either_limit_can_be_absent() {
    let by_bytes = InMemoryManager::builder().max_entries(None).max_bytes(1 << 20).build().expect("valid");
    let by_entries = InMemoryManager::builder().max_entries(50).max_memory_mb(None).build().expect("valid");
    for n in 0..2_000 {
        by_bytes.store(input(n, &"x".repeat(1_000))).expect("it stores");
        by_entries.store(input(n, &"x".repeat(100_000))).expect("it stores");
    }
    assert!(by_bytes.stats().entries > 500 && by_bytes.stats().bytes <= 1 << 20);
    assert_eq!(by_bytes.limits()[0].limit, None);
    assert_eq!((by_entries.stats().entries, by_entries.limits()[1].limit), (50, None));
}

#[tokio::test]
async fn update_keeps_metadata_in_either_store() {
    let bounded = InMemoryManager::new();
    let legacy = LegacyMemoryManager::new(Duration::from_secs(60), Arc::new(ManualClock::new()));
    let metadata = json!({"user": "ada", "tags": vec!["x"; 500]}).as_object().cloned().expect("an object");
    for memory in [&bounded as &dyn MemoryManager, &legacy] {
        memory.store(input("a", "old").with_metadata(metadata.clone())).await.expect("it stores");
        memory.update(input("a", &"new".repeat(1_000))).await.expect("it updates");
        memory.update(input("a", "short")).await.expect("it updates");
    }
    assert_eq!(bounded.metadata(WORKING, "a").as_ref(), Some(&metadata));
    assert_eq!(legacy.metadata(WORKING, "a").as_ref(), Some(&metadata));
    bounded.store(input("a", "text")).expect("it stores");
    assert_eq!(bounded.metadata(WORKING, "a"), Some(serde_json::Map::new()), "store replaces metadata too");
}

#[tokio::test(start_paused = true)]
async fn the_background_cleanup_removes_expired_entries() {
    let clock = Arc::new(ManualClock::new());
    let builder = InMemoryManager::builder().ttl(Duration::from_secs(60)).clock(Arc::clone(&clock) as _);
    let memory = builder.cleanup_interval(Duration::from_secs(10)).build().expect("valid");
    for n in 0..5_000 {
        MemoryManager::store(&memory, input(n, "text")).await.expect("it stores");
    }
    clock.advance(Duration::from_secs(61));
    assert_eq!(memory.stats().entries, 5_000);
    tokio::time::sleep(Duration::from_secs(11)).await;
    let stats = memory.stats();
    assert_eq!((stats.entries, stats.bytes, stats.removals.expired), (0, 0, 5_000));
}

#[test]
fn synchronous_calls_remove_expired_entries_of_all_conversations() {
    let clock = Arc::new(ManualClock::new());
    let builder = InMemoryManager::builder().ttl(Duration::from_secs(60)).clock(Arc::clone(&clock) as _);
    let memory = builder.build().expect("valid");
    for n in 0..5_000 {
        memory.store(input(n, "text")).expect("it stores");
    }
    clock.advance(Duration::from_secs(61));
    for _ in 0..7_000 {
        memory.put(WORKING, "the only active conversation", "text".into()).expect("it stores");
    }
    assert_eq!(memory.stats().entries, 1);
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
fn the_background_cleanup_starts_again_in_another_runtime_even_after_one_without_a_timer() {
    let memory = InMemoryManager::new();
    let tasks_after_store = |builder: &mut Builder| {
        builder.build().expect("a runtime").block_on(async {
            MemoryManager::store(&memory, input("a", "text")).await.expect("it stores");
            tokio::task::yield_now().await;
            tokio::runtime::Handle::current().metrics().num_alive_tasks()
        })
    };
    assert_eq!(tasks_after_store(&mut Builder::new_current_thread()), 0);
    for _ in 0..2 {
        assert_eq!(tasks_after_store(Builder::new_current_thread().enable_time()), 1);
    }
}

#[test]
fn the_largest_entry_that_fits_evicts_all_others_and_a_larger_one_nothing() {
    let memory = InMemoryManager::builder().max_bytes(256 * 1024).build().expect("valid");
    let fill = || (0..1_000).for_each(|n| drop(memory.store(input(n, "text")).expect("it stores")));
    fill();
    let entries = memory.stats().entries;
    let store_large = |bytes: usize| memory.store(input("large", &"x".repeat(bytes)));
    for bytes in (230_000..262_144).rev() {
        match store_large(bytes) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TooLarge);
                assert_eq!(memory.stats().entries, entries, "nothing was evicted");
            }
            Ok(_) => {
                assert!(memory.stats().bytes <= 256 * 1024);
                assert_eq!(memory.get(WORKING, "large").expect("stored").as_str().len(), bytes);
                break;
            }
        }
    }
    assert_eq!(memory.stats().entries, 1);
    fill();
    assert!(memory.get(WORKING, "large").is_none());
}

#[test]
fn limits_hold_and_writes_are_readable_on_many_threads() {
    for (entries, bytes) in [(3, 4 << 20), (50, 64 * 1024), (20_000, 2 << 20)] {
        let memory = InMemoryManager::builder().max_entries(entries).max_bytes(bytes).build().expect("valid");
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let memory = &memory;
                scope.spawn(move || {
                    for n in 0..3_000 {
                        let text = "x".repeat((n * 37 + thread * 11) % 900);
                        memory.store(input((n * 7 + thread) % 1_000, &text)).expect("it stores");
                        if n % 7 == 0 {
                            memory.delete(&input((n * 11 + thread) % 1_000, "")).expect("it deletes");
                        }
                    }
                });
            }
        });
        for limit in memory.limits() {
            assert!(Some(limit.used) <= limit.limit && Some(limit.peak) <= limit.limit, "{limit:?}");
        }
        let stats = memory.stats();
        let held = (0..1_000).filter(|n| memory.get(WORKING, &n.to_string()).is_some()).count();
        assert_eq!(held as u64, stats.entries, "every counted entry is readable");
        (0..1_000).for_each(|n| memory.delete(&input(n, "")).expect("it deletes"));
        assert_eq!((memory.stats().entries, memory.stats().bytes), (0, 0), "every byte was returned");
    }
}

#[test]
fn two_large_writers_never_evict_each_other() {
    let memory = InMemoryManager::builder().max_bytes(1 << 20).build().expect("valid");
    let text = "x".repeat(600_000);
    for _ in 0..200 {
        std::thread::scope(|scope| {
            for id in ["a", "b"] {
                let (memory, text) = (&memory, &text);
                scope.spawn(move || memory.store(input(id, text)).expect("it stores"));
            }
        });
        assert_eq!(memory.stats().entries, 1, "the later write is there");
    }
}

#[test]
fn lowering_ten_thousand_entries_to_a_hundred_keeps_the_newest_hundred() {
    let memory = InMemoryManager::new();
    (0..10_000).for_each(|n| drop(memory.store(input(n, "text")).expect("it stores")));
    for n in 0..10_000 {
        assert!(memory.get(WORKING, &n.to_string()).is_some());
    }
    assert!(memory.get(WORKING, "7").is_some());
    memory.set_limit(MAX_ENTRIES, 100).expect("valid");
    let kept = |n: u32| memory.get(WORKING, &n.to_string()).is_some();
    assert!(kept(7), "the entry just read");
    assert_eq!((9_901..10_000).filter(|n| kept(*n)).count(), 99);
}

/// With and without a listener, which is called for each entry.
#[test]
fn lowering_a_limit_far_leaves_the_entries_that_stay_as_they_were() {
    let listener: EvictionListener = Arc::new(|_| ());
    for listener in [None, Some(listener)] {
        for (key, max) in [(MAX_ENTRIES, 40), (MAX_BYTES, 64 * 1024)] {
            let clock = Arc::new(ManualClock::new());
            let mut builder = InMemoryManager::builder().ttl(Duration::from_secs(10_000));
            builder = builder.clock(Arc::clone(&clock) as _).max_entries(None);
            if let Some(listener) = &listener {
                builder = builder.eviction_listener(Arc::clone(listener));
            }
            let memory = builder.build().expect("valid");
            let text = |n: u64| format!("{n},").repeat(n as usize % 200 + 1);
            for n in 0..5_000 {
                let metadata = json!({ "n": n }).as_object().cloned().expect("an object");
                memory.store(input(n, &text(n)).with_metadata(metadata)).expect("it stores");
                clock.advance(Duration::from_secs(1));
            }
            // The last ones to be read are not the last ones that were stored.
            assert!((100..200).rev().all(|n| memory.get(WORKING, &n.to_string()).is_some()));
            memory.set_limit(key, max).expect("valid");
            let stats = memory.stats();
            let stay: Vec<_> = (0..5_000).filter(|n| memory.get(WORKING, &n.to_string()).is_some()).collect();
            assert_eq!(
                stay,
                (100..100 + stay.len() as u64).collect::<Vec<_>>(),
                "the last ones that were used"
            );
            let removals = stats.removals.over_max_entries + stats.removals.over_max_bytes;
            assert_eq!((stats.entries, removals), (stay.len() as u64, 5_000 - stats.entries));
            assert!(if key == MAX_ENTRIES {
                stats.entries == max
            } else {
                stats.bytes <= max && stay.len() > 20
            });
            for n in &stay {
                assert_eq!(memory.get(WORKING, &n.to_string()), Some(WorkingMemory::new(text(*n))));
                assert_eq!(memory.metadata(WORKING, &n.to_string()).expect("stays")["n"], json!(n));
            }
            // Each still expires in its own time.
            clock.advance(Duration::from_secs(10_000 - 5_000 + 110));
            assert!(
                (100..stay.len() as u64 + 100)
                    .all(|n| memory.get(WORKING, &n.to_string()).is_some() == (n > 110))
            );
        }
    }
}

#[test]
fn a_large_store_evicts_in_the_order_of_use_across_shards() {
    let evicted: Arc<Mutex<Vec<String>>> = Arc::default();
    let list = Arc::clone(&evicted);
    let listener: EvictionListener =
        Arc::new(move |removed| list.lock().expect("no panic").push(removed.conversation_id.to_string()));
    let builder = InMemoryManager::builder().max_entries(20_000).eviction_listener(listener);
    let memory = builder.build().expect("valid");
    let put = |n: u32| memory.put(WORKING, &n.to_string(), "text".into()).expect("it stores");
    (0..20_000).for_each(put);
    assert!((0..20_000).rev().all(|n| memory.get(WORKING, &n.to_string()).is_some()));
    (20_000..25_000).for_each(put);
    let expected: Vec<_> = (15_000..20_000).rev().map(|n| n.to_string()).collect();
    assert_eq!(*evicted.lock().expect("no panic"), expected, "the order of the last use");
}

#[tokio::test]
async fn a_closed_store_returns_neither_texts_nor_metadata() {
    let memory = InMemoryManager::new();
    let metadata = json!({"source": "test"}).as_object().cloned().expect("an object");
    memory.store(input("c", "text").with_metadata(metadata)).expect("it stores");
    assert!(memory.get(WORKING, "c").is_some() && memory.metadata(WORKING, "c").is_some());
    memory.close(Deadline::after(Duration::from_secs(1))).await;
    assert_eq!(memory.get(WORKING, "c"), None);
    assert_eq!(memory.metadata(WORKING, "c"), None);
}

#[test]
fn a_rejected_write_does_not_count_as_a_use() {
    let memory = InMemoryManager::builder().max_entries(2).max_bytes(8 << 10).build().expect("valid");
    memory.store(input("a", "text")).expect("it stores");
    memory.store(input("b", "text")).expect("it stores");
    let large = "x".repeat(16 << 10);
    let old = WorkingMemory::new("text");
    let rejected = [
        memory.store(input("a", &large)).map(drop),
        memory.update(input("a", &large)),
        memory.compare_and_set(input("a", &large), Some(&old)).map(|_| ()),
    ];
    for result in rejected {
        assert_eq!(result.expect_err("larger than the store").kind(), ErrorKind::TooLarge);
    }
    let other = WorkingMemory::new("other");
    let conflict = memory.compare_and_set(input("a", "new"), Some(&other)).expect("it compares");
    assert_eq!(conflict, CasOutcome::Conflict);
    memory.store(input("c", "text")).expect("it stores");
    assert_eq!(memory.get(WORKING, "a"), None, "the least recently used entry");
    assert_eq!(memory.get(WORKING, "b"), Some(old));
}

#[test]
#[ignore = "a limit of time: for release builds"]
fn a_million_entries_are_evicted_within_100_ms() {
    let memory = InMemoryManager::builder().max_entries(None).max_memory_mb(None).build().expect("valid");
    for n in 0..1_000_000 {
        memory.put(WORKING, &n.to_string(), WorkingMemory::new("x".repeat(100))).expect("it stores");
    }
    let began = Instant::now();
    memory.set_limit(MAX_ENTRIES, 1).expect("valid");
    let took = began.elapsed();
    assert_eq!(memory.stats().entries, 1);
    assert!(memory.get(WORKING, "999999").is_some());
    assert!(took < Duration::from_millis(100), "{took:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Entries come, grow, shrink, expire and go while limits change: limits hold after every operation, every text is
    /// what was written, and an emptied store counts nothing.
    #[test]
    fn limits_hold_and_accounting_is_exact_for_any_operations(
        steps in prop::collection::vec((0..9_u8, 0..200_u64, 0..5_000_usize), 1..400),
        entries in 1..300_u64,
    ) {
        let clock = Arc::new(ManualClock::new());
        let builder = InMemoryManager::builder().max_entries(entries).max_bytes(1 << 20);
        let builder = builder.ttl(Duration::from_secs(100)).clock(Arc::clone(&clock) as _);
        let memory = builder.build().expect("valid");
        let mut model: HashMap<String, String> = HashMap::new();
        for (step, (operation, n, size)) in steps.into_iter().enumerate() {
            let (id, text) = (n.to_string(), format!("{step},").repeat(size / 3));
            match operation {
                0..=3 => {
                    memory.store(input(n, &text)).expect("it stores");
                    model.insert(id, text);
                }
                4 => {
                    memory.update(input(n, &text)).expect("it updates");
                    model.entry(id).and_modify(|old| *old = text);
                }
                5 => {
                    memory.delete(&input(n, "")).expect("it deletes");
                    model.remove(&id);
                }
                6 => clock.advance(Duration::from_secs(n / 4)),
                7 => {
                    memory.set_limit(MAX_ENTRIES, n + 1).expect("valid");
                    memory.set_limit(MAX_BYTES, 64 * 1024 + size as u64 * 100).expect("valid");
                }
                _ => {
                    let found = memory.get(WORKING, &id);
                    prop_assert!(found.is_none_or(|found| Some(found.as_str()) == model.get(&id).map(String::as_str)));
                }
            }
            for limit in memory.limits() {
                prop_assert!(Some(limit.used) <= limit.limit, "{limit:?}");
            }
        }
        clock.advance(Duration::from_secs(1_000));
        memory.clean_up();
        let stats = memory.stats();
        prop_assert_eq!((stats.entries, stats.bytes), (0, 0));
    }
}
