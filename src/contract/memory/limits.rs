//! Limits, eviction, and random operations against a model.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::random::Random;
use super::{Factory, Fixture, MIB, Setup, TTL};
use crate::memory::{MemoryInput, MemoryManager, RemovalCounts, WorkingMemory};
use crate::{Clock, ErrorKind};

const MAX_ENTRIES: &str = "memory.max_entries";
const MAX_BYTES: &str = "memory.max_memory_mb";

pub(super) async fn run<F, Fut>(factory: &Factory<F>)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn MemoryManager>>,
{
    if factory.roomy().await.memory.capabilities().bounded {
        a_full_store_evicts_the_least_recently_used_entry(&factory.make(3, 64 * MIB).await).await;
        replacing_in_a_full_store_evicts_nothing(&factory.make(3, 64 * MIB).await).await;
        for capacity in [1, 2, 3, 10, 100] {
            eviction_follows_the_order_of_use_exactly(&factory.make(capacity, 64 * MIB).await, capacity)
                .await;
        }
        a_write_that_grows_a_full_store_is_readable(&factory.make(10_000, MIB).await).await;
        an_entry_larger_than_the_limit_is_rejected_and_evicts_nothing(&factory.make(1_000, MIB).await).await;
        lowered_limits_hold_immediately(&factory.make(1_000, 4 * MIB).await).await;
        limits_that_allow_nothing_are_rejected(&factory.roomy().await);
    } else {
        a_store_without_limits_rejects_set_limit(&factory.roomy().await);
    }
    for seed in 1..=4 {
        random_operations(&factory.make(40, MIB).await, seed, false).await;
        random_operations(&factory.make(5_000, MIB / 4).await, seed, false).await;
        random_operations(&factory.make(2_000, 64 * MIB).await, seed, false).await;
    }
}

async fn a_full_store_evicts_the_least_recently_used_entry(fixture: &Fixture) {
    for id in ["a", "b", "c"] {
        fixture.store(id, id).await;
    }
    assert!(fixture.read("a").await.is_some());
    fixture.store("d", "d").await;
    assert_eq!(fixture.read("b").await, None, "b is the least recently used");
    fixture.assert_entries(3);
    for id in ["a", "c", "d"] {
        assert!(fixture.read(id).await.is_some(), "{id} stays");
    }
    if fixture.memory.capabilities().eviction_listener {
        let expected = RemovalCounts { over_max_entries: 1, ..RemovalCounts::default() };
        assert_eq!(fixture.removals.counts(), expected);
    }
}

async fn replacing_in_a_full_store_evicts_nothing(fixture: &Fixture) {
    for id in ["a", "b", "c", "a", "b"] {
        fixture.store(id, id).await;
    }
    fixture.update("c", "a longer text").await;
    for id in ["a", "b", "c"] {
        assert!(fixture.read(id).await.is_some(), "{id} stays");
    }
}

/// Reads, writes and updates against an exact model. Every entry has been read before anything is evicted, and the
/// limit is lowered to half in between.
async fn eviction_follows_the_order_of_use_exactly(fixture: &Fixture, mut capacity: u64) {
    let mut random = Random::new(capacity);
    let mut model: VecDeque<String> = VecDeque::new();
    for step in 0..600 {
        let id = random.below(2 * capacity + 2).to_string();
        let known = model.iter().position(|other| *other == id);
        match random.below(3) {
            0 => {
                fixture.store(&id, "text").await;
                known.and_then(|at| model.remove(at));
                model.push_back(id);
                model.drain(..model.len().saturating_sub(capacity as usize));
            }
            1 => {
                assert_eq!(fixture.read(&id).await.is_some(), known.is_some(), "step {step}: {id}");
                if let Some(used) = known.and_then(|at| model.remove(at)) {
                    model.push_back(used);
                }
            }
            _ => {
                fixture.update(&id, "updated").await;
                if let Some(used) = known.and_then(|at| model.remove(at)) {
                    model.push_back(used);
                }
            }
        }
        if step == 300 {
            capacity = capacity.div_ceil(2);
            fixture.memory.set_limit(MAX_ENTRIES, capacity).expect("it is bounded");
            model.drain(..model.len().saturating_sub(capacity as usize));
        }
    }
    fixture.assert_entries(model.len() as u64);
    for id in &model {
        assert!(fixture.read(id).await.is_some(), "{id} is among the {capacity} most recently used");
    }
}

/// The byte limit is reached, everything has been read, and then an existing entry grows.
async fn a_write_that_grows_a_full_store_is_readable(fixture: &Fixture) {
    for n in 0..1_200 {
        fixture.store(&n.to_string(), &"x".repeat(1_000)).await;
    }
    let mut random = Random::new(1);
    for round in 0..200 {
        let mut live = Vec::new();
        for n in 0..1_200 {
            let id = n.to_string();
            if fixture.read(&id).await.is_some() {
                live.push(id);
            }
        }
        let id = &live[random.below(live.len() as u64) as usize];
        let text = "y".repeat(1_000 + random.below(40_000) as usize);
        match round % 2 {
            0 => fixture.store(id, &text).await,
            _ => fixture.update(id, &text).await,
        }
        assert_eq!(fixture.read(id).await.map(|found| found.len()), Some(text.len()), "round {round}");
    }
}

async fn an_entry_larger_than_the_limit_is_rejected_and_evicts_nothing(fixture: &Fixture) {
    for n in 0..50 {
        fixture.store(&n.to_string(), "text").await;
    }
    let large = WorkingMemory::new("x".repeat(MIB as usize));
    for id in ["0", "new"] {
        let input = MemoryInput::new(id).with_data(large.clone());
        let errors = [
            fixture.memory.store(input.clone()).await.expect_err("it cannot fit"),
            fixture.memory.update(input).await.err().unwrap_or_else(|| large_missing(id)),
        ];
        assert!(errors.iter().all(|error| error.kind() == ErrorKind::TooLarge), "{errors:?}");
    }
    for n in 0..50 {
        assert_eq!(fixture.read(&n.to_string()).await.as_deref(), Some("text"), "nothing was evicted");
    }
    fixture.store("half", &"x".repeat(MIB as usize / 2)).await;
    assert!(fixture.read("half").await.is_some(), "half the limit fits");
    assert!(fixture.memory.stats().bytes <= MIB);
}

/// Updating a missing entry may also succeed without effect.
fn large_missing(id: &str) -> crate::Error {
    assert_eq!(id, "new", "an existing entry cannot become larger than the limit");
    crate::Error::new(ErrorKind::TooLarge, "memory", "missing")
}

async fn lowered_limits_hold_immediately(fixture: &Fixture) {
    for n in 0..1_000 {
        fixture.store(&n.to_string(), &"x".repeat(200)).await;
    }
    let lower = |key, max| fixture.memory.set_limit(key, max).expect("it is bounded");
    assert!(fixture.read("0").await.is_some());
    lower(MAX_ENTRIES, 100);
    assert_eq!(fixture.memory.stats().entries, 100, "no more than necessary is evicted");
    assert!(fixture.read("0").await.is_some(), "the entry just read stays");
    for n in 901..1_000 {
        assert!(fixture.read(&n.to_string()).await.is_some(), "{n} is among the newest");
    }
    lower(MAX_BYTES, 64 * 1024);
    assert!(fixture.memory.stats().bytes <= 64 * 1024);
    assert!(fixture.read("999").await.is_some(), "the entry just read stays");
    fixture.store("new", "text").await;
    assert!(fixture.read("new").await.is_some(), "a smaller store still stores");
    lower(MAX_ENTRIES, 3);
    lower(MAX_BYTES, MIB);
    for id in ["a", "b", "c", "d"] {
        fixture.store(id, id).await;
    }
    fixture.assert_entries(3);
    for limit in fixture.memory.limits() {
        assert!(Some(limit.used) <= limit.limit && limit.peak >= limit.used, "{limit:?}");
    }
    fixture.assert_removals_reported();
}

fn limits_that_allow_nothing_are_rejected(fixture: &Fixture) {
    for (key, max) in [(MAX_ENTRIES, 0), (MAX_BYTES, 1)] {
        let error = fixture.memory.set_limit(key, max).expect_err("nothing could be stored");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let error = fixture.memory.set_limit("memory.unknown", 1).expect_err("there is no such limit");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

fn a_store_without_limits_rejects_set_limit(fixture: &Fixture) {
    let error = fixture.memory.set_limit(MAX_ENTRIES, 10).expect_err("it has no limits");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(fixture.memory.limits().iter().all(|limit| limit.limit.is_none()));
}

/// An entry as it must be if it was not evicted.
struct Expected {
    text: String,
    expires: Duration,
}

/// Random operations against a model: every write is readable immediately afterwards, an entry is missing only if it
/// expired or an eviction was counted, and limits hold after every step.
pub(super) async fn random_operations(fixture: &Fixture, seed: u64, move_clock: bool) {
    let renews_ttl = fixture.memory.capabilities().update_renews_ttl;
    let mut random = Random::new(seed);
    let mut model: HashMap<String, Expected> = HashMap::new();
    let mut evicted = 0;
    for step in 0..1_500 {
        let n = random.below(120);
        let id = if n.is_multiple_of(3) { format!("{n:0>60}") } else { n.to_string() };
        let text = format!("{step}").repeat(random.below(400) as usize + 1);
        let input = MemoryInput::new(id.as_str()).with_data(text.as_str());
        match random.below(10) {
            0..=3 => {
                let metadata = json!({"step": step, "tags": ["x", {"y": text}]}).as_object().cloned();
                let metadata = metadata.filter(|_| step % 2 == 0).unwrap_or_default();
                fixture.memory.store(input.with_metadata(metadata)).await.expect("it stores");
                assert_eq!(fixture.read(&id).await.as_ref(), Some(&text), "step {step}: stored and readable");
                model.insert(id, Expected { text, expires: fixture.clock.now() + TTL });
            }
            4..=5 => {
                let existed = fixture.read(&id).await.is_some();
                fixture.memory.update(input).await.expect("it updates");
                let updated = fixture.read(&id).await;
                assert_eq!(updated.as_ref(), existed.then_some(&text), "step {step}: updated and readable");
                if let Some(expected) = model.get_mut(&id).filter(|_| existed) {
                    expected.text = text;
                    if renews_ttl {
                        expected.expires = fixture.clock.now() + TTL;
                    }
                }
            }
            6 => {
                fixture.delete(&id).await;
                model.remove(&id);
            }
            7 if move_clock => fixture.clock.advance(Duration::from_millis(random.below(2_000))),
            _ => {
                let found = fixture.read(&id).await;
                let live = model.get(&id).filter(|expected| expected.expires > fixture.clock.now());
                match (found, live) {
                    (Some(found), Some(expected)) => assert_eq!(found, expected.text, "the latest value"),
                    (Some(_), None) => panic!("step {step}: a deleted or expired entry was returned"),
                    (None, Some(_)) => {
                        model.remove(&id);
                        evicted += 1;
                    }
                    (None, None) => {}
                }
            }
        }
        let removals = fixture.memory.stats().removals;
        assert!(
            evicted <= removals.over_max_entries + removals.over_max_bytes,
            "step {step}: an entry was lost"
        );
        for limit in fixture.memory.limits() {
            assert!(limit.limit.is_none_or(|max| limit.used <= max), "step {step}: {limit:?}");
        }
        fixture.assert_removals_reported();
    }
    for id in model.keys() {
        fixture.delete(id).await;
    }
    fixture.assert_entries(0);
}
