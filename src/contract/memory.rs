//! The contract of [`MemoryManager`].
//!
//! A backend author calls [`suite`] from a test, with a way to make an empty backend from a [`Setup`]:
//!
//! ```
//! use std::sync::Arc;
//! use arshai::backends::memory::LegacyMemoryManager;
//! use arshai::contract::memory::{self, Setup};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! memory::suite(|setup: Setup| {
//!     Arc::new(LegacyMemoryManager::new(setup.ttl, setup.clock).with_eviction_listener(setup.eviction_listener))
//! })
//! .await;
//! # }
//! ```
//!
//! A promise that a backend does not make, by its
//! [`MemoryCapabilities`](crate::memory::MemoryCapabilities), is held to what it promises instead: an
//! unbounded store, for example, must refuse `set_limits`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde_json::json;

use super::random::Random;
use crate::memory::{
    EvictionListener, MAX_CONVERSATION_ID_BYTES, MemoryInput, MemoryManager, MemoryType, RemovalCause,
    RemovalCounts, RemovedEntry, WorkingMemory,
};
use crate::{Clock, ErrorKind, ManualClock};

/// What a backend under test is made from. What it cannot use it ignores, as its capabilities say.
#[derive(Clone)]
#[non_exhaustive]
pub struct Setup {
    /// The time to live.
    pub ttl: Duration,
    /// The most entries.
    pub max_entries: u64,
    /// The most bytes.
    pub max_bytes: u64,
    /// The clock that entries expire by.
    pub clock: Arc<dyn Clock>,
    /// To be told of every entry that leaves.
    pub eviction_listener: EvictionListener,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup")
            .field("ttl", &self.ttl)
            .field("max_entries", &self.max_entries)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

const TTL: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// One backend, its clock, and what its listener heard.
struct Bench {
    memory: Arc<dyn MemoryManager>,
    clock: Arc<ManualClock>,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard([AtomicU64; 5]);

impl Heard {
    fn hear(&self, evicted: &RemovedEntry) {
        let place = match evicted.reason {
            RemovalCause::MaxEntries => 0,
            RemovalCause::MaxBytes => 1,
            RemovalCause::Expired => 2,
            RemovalCause::Replaced => 3,
            RemovalCause::Deleted => 4,
        };
        self.0[place].fetch_add(1, SeqCst);
    }

    fn counts(&self) -> RemovalCounts {
        let [over_max_entries, over_max_bytes, expired, replaced, deleted] =
            [0, 1, 2, 3, 4].map(|place| self.0[place].load(SeqCst));
        RemovalCounts { over_max_entries, over_max_bytes, expired, replaced, deleted }
    }
}

/// Makes the backend of each test.
struct Maker<F>(F);

impl<M: MemoryManager + 'static, F: Fn(Setup) -> Arc<M>> Maker<F> {
    fn bench(&self, max_entries: u64, max_bytes: u64) -> Bench {
        let (clock, heard) = (Arc::new(ManualClock::new()), Arc::new(Heard::default()));
        let ears = Arc::clone(&heard);
        let setup = Setup {
            ttl: TTL,
            max_entries,
            max_bytes,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            eviction_listener: Arc::new(move |evicted: RemovedEntry| ears.hear(&evicted)),
        };
        Bench { memory: (self.0)(setup), clock, heard }
    }

    fn roomy(&self) -> Bench {
        self.bench(10_000, 64 * MIB)
    }
}

impl Bench {
    async fn store(&self, id: &str, text: &str) {
        self.memory.store(MemoryInput::new(id).with_data(text)).await.expect("it stores");
    }

    /// That the backend holds so many entries, where it counts them.
    fn holds(&self, entries: u64) {
        let stats = self.memory.stats();
        assert!(!self.memory.capabilities().counts_entries || stats.entries == entries, "{stats:?}");
    }

    async fn read(&self, id: &str) -> Option<String> {
        read(&*self.memory, &MemoryInput::new(id)).await
    }
}

async fn read(memory: &dyn MemoryManager, input: &MemoryInput) -> Option<String> {
    let found = memory.retrieve(input).await.expect("it retrieves");
    assert!(found.len() <= 1, "retrieve gives zero or one entry");
    found.first().map(|memory| memory.as_str().to_owned())
}

/// Runs every test of the contract on backends made by `make`.
///
/// # Panics
/// Where the backend breaks the contract.
pub async fn suite<M: MemoryManager + 'static>(make: impl Fn(Setup) -> Arc<M>) {
    let maker = Maker(make);
    what_is_stored_is_retrieved_under_its_key(&maker.roomy()).await;
    conversations_and_types_never_see_each_other(&maker.roomy()).await;
    store_replaces_and_the_last_data_wins(&maker.roomy()).await;
    update_changes_only_what_is_there(&maker.roomy()).await;
    deleting_is_final_and_repeatable(&maker.roomy()).await;
    bad_input_is_refused_and_changes_nothing(&maker.roomy()).await;
    hits_and_misses_are_counted(&maker.roomy()).await;
    writers_of_one_key_leave_one_whole_value(&maker.roomy()).await;
    a_dropped_future_leaves_nothing_half_done(&maker.roomy()).await;
    let capabilities = maker.roomy().memory.capabilities();
    if capabilities.injected_clock {
        an_expired_entry_is_never_returned(&maker.roomy()).await;
        the_wall_clock_expires_nothing(&maker.roomy()).await;
        updating_renews_the_time_to_live_only_where_promised(&maker.roomy()).await;
    }
    if capabilities.bounded && !capabilities.eviction_loses_nothing {
        a_full_store_evicts_the_least_recently_used_entry(&maker.bench(3, MIB)).await;
        replacing_in_a_full_store_evicts_nothing(&maker.bench(3, MIB)).await;
        an_entry_larger_than_the_budget_is_refused_and_evicts_nothing(&maker.bench(100, MIB)).await;
    }
    if capabilities.eviction_loses_nothing {
        more_than_fits_is_still_all_there(&maker.bench(3, MIB)).await;
    }
    if capabilities.bounded {
        lowered_limits_hold_at_once(&maker.bench(1_000, 4 * MIB)).await;
        senseless_limits_are_refused(&maker.roomy());
    } else {
        an_unbounded_store_refuses_limits(&maker.roomy());
    }
    for seed in 1..=4 {
        random_operations_keep_every_promise(&maker.bench(40, 256 * 1024), seed).await;
        random_operations_keep_every_promise(&maker.bench(5_000, 64 * 1024), seed).await;
        random_operations_keep_every_promise(&maker.bench(2_000, 64 * MIB), seed).await;
    }
}

async fn what_is_stored_is_retrieved_under_its_key(bench: &Bench) {
    assert_eq!(bench.read("a").await, None);
    let key =
        bench.memory.store(MemoryInput::working_memory("a").with_data("hello")).await.expect("it stores");
    assert_eq!(key, "memory:WORKING_MEMORY:a", "the key is Python's");
    assert_eq!(read(&*bench.memory, &MemoryInput::working_memory("a")).await.as_deref(), Some("hello"));
    let long = "ü".repeat(MAX_CONVERSATION_ID_BYTES / 2);
    bench.store(&long, "").await;
    assert_eq!(bench.read(&long).await.as_deref(), Some(""), "the longest id and the shortest text");
}

async fn conversations_and_types_never_see_each_other(bench: &Bench) {
    let types = [MemoryType::ShortTermMemory, MemoryType::LongTermMemory, MemoryType::WorkingMemory];
    let inputs =
        types.iter().flat_map(|kind| ["a", "b"].map(|id| MemoryInput::new(id).with_memory_type(*kind)));
    let inputs: Vec<_> = inputs.collect();
    for input in &inputs {
        bench.memory.store(input.clone().with_data(input.key())).await.expect("it stores");
    }
    for input in &inputs {
        assert_eq!(read(&*bench.memory, input).await, Some(input.key()));
    }
    bench.memory.delete(&inputs[0]).await.expect("it deletes");
    assert_eq!(read(&*bench.memory, &inputs[0]).await, None);
    for input in &inputs[1..] {
        assert_eq!(read(&*bench.memory, input).await, Some(input.key()), "only one entry was deleted");
    }
}

async fn store_replaces_and_the_last_data_wins(bench: &Bench) {
    bench.store("a", "old").await;
    let input = MemoryInput::new("a").with_data("first").with_data("last");
    bench.memory.store(input).await.expect("it stores");
    assert_eq!(bench.read("a").await.as_deref(), Some("last"));
    bench.holds(1);
}

async fn update_changes_only_what_is_there(bench: &Bench) {
    let update = |id: &str| bench.memory.update(MemoryInput::new(id).with_data("new"));
    update("missing").await.expect("updating a missing entry is no error");
    assert_eq!(bench.read("missing").await, None, "update creates nothing");
    bench.store("a", "old").await;
    update("a").await.expect("it updates");
    assert_eq!(bench.read("a").await.as_deref(), Some("new"));
    bench.memory.delete(&MemoryInput::new("a")).await.expect("it deletes");
    update("a").await.expect("updating a deleted entry is no error");
    assert_eq!(bench.read("a").await, None, "update brings nothing back");
}

async fn deleting_is_final_and_repeatable(bench: &Bench) {
    bench.store("a", "text").await;
    for _ in 0..2 {
        bench.memory.delete(&MemoryInput::new("a")).await.expect("deleting is repeatable");
        assert_eq!(bench.read("a").await, None);
    }
    bench.holds(0);
}

async fn bad_input_is_refused_and_changes_nothing(bench: &Bench) {
    bench.store("a", "text").await;
    let store = bench.memory.store(MemoryInput::new("a")).await.expect_err("no data");
    assert_eq!((store.kind(), store.message()), (ErrorKind::InvalidInput, "No data provided to store"));
    let update = bench.memory.update(MemoryInput::new("a")).await.expect_err("no data");
    assert_eq!((update.kind(), update.message()), (ErrorKind::InvalidInput, "No data provided to update"));
    for id in ["", "line\nbreak", "nul\0", "\u{85}", &"x".repeat(600)] {
        let input = MemoryInput::new(id).with_data("text");
        let errors = [
            bench.memory.store(input.clone()).await.expect_err("a bad id is not stored"),
            bench.memory.retrieve(&input).await.expect_err("a bad id is not retrieved"),
            bench.memory.update(input.clone()).await.expect_err("a bad id is not updated"),
            bench.memory.delete(&input).await.expect_err("a bad id is not deleted"),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(id.is_empty() || !error.to_string().contains(id), "errors do not repeat ids");
        }
    }
    assert_eq!(bench.read("a").await.as_deref(), Some("text"));
    bench.holds(1);
}

async fn hits_and_misses_are_counted(bench: &Bench) {
    bench.store("a", "text").await;
    for id in ["a", "b", "a", "a"] {
        bench.read(id).await;
    }
    let stats = bench.memory.stats();
    assert_eq!((stats.hits, stats.misses), (3, 1));
}

async fn writers_of_one_key_leave_one_whole_value(bench: &Bench) {
    let write = |memory: Arc<dyn MemoryManager>, n: usize| async move {
        for round in 0..50 {
            let text = format!("{n}").repeat(100 + round);
            let input = MemoryInput::new(format!("{}", round % 3)).with_data(text);
            if n == 0 {
                memory.update(input).await.expect("it updates");
            } else {
                memory.store(input).await.expect("it stores");
            }
            tokio::task::yield_now().await;
        }
    };
    let tasks: Vec<_> = (0..8).map(|n| tokio::spawn(write(Arc::clone(&bench.memory), n))).collect();
    for task in tasks {
        task.await.expect("no writer panics");
    }
    for id in ["0", "1", "2"] {
        let text = bench.read(id).await.expect("it was stored");
        let first = &text[..1];
        assert!(text.matches(first).count() == text.len(), "one writer's whole value");
    }
    bench.holds(3);
}

async fn a_dropped_future_leaves_nothing_half_done(bench: &Bench) {
    bench.store("a", "old").await;
    drop(bench.memory.store(MemoryInput::new("a").with_data("never polled")));
    assert_eq!(bench.read("a").await.as_deref(), Some("old"), "an unpolled operation has not begun");
    for n in 0..20 {
        let text = format!("new {n}");
        let operation = bench.memory.store(MemoryInput::new("a").with_data(text.as_str()));
        let before = bench.memory.retrieve(&MemoryInput::new("a")).await.expect("it retrieves");
        let done = tokio::select! {
            biased;
            () = tokio::task::yield_now(), if n % 2 == 0 => false,
            result = operation => result.is_ok(),
        };
        let after = bench.read("a").await.expect("the entry stays");
        let old = before.first().map(|memory| memory.as_str().to_owned());
        assert!(after == text || (!done && Some(after) == old), "done or not begun");
    }
    bench.holds(1);
}

async fn an_expired_entry_is_never_returned(bench: &Bench) {
    bench.store("a", "text").await;
    bench.clock.advance(TTL - Duration::from_millis(1));
    assert!(bench.read("a").await.is_some(), "it lives for its whole time");
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.read("a").await, None, "and not longer");
    let late = MemoryInput::new("a").with_data("late");
    bench.memory.update(late).await.expect("as if it were missing");
    assert_eq!(bench.read("a").await, None, "update brings nothing back");
    bench.store("b", "text").await;
    if bench.memory.capabilities().eviction_listener {
        assert_eq!(bench.heard.counts().expired, 1, "the listener hears of it once");
    }
    bench.clock.advance(TTL / 2);
    bench.store("b", "again").await;
    bench.clock.advance(TTL / 2);
    assert_eq!(bench.read("b").await.as_deref(), Some("again"), "store counts anew");
}

async fn the_wall_clock_expires_nothing(bench: &Bench) {
    bench.store("a", "text").await;
    bench.clock.advance_system_time(Duration::from_secs(86_400));
    assert!(bench.read("a").await.is_some(), "a day's jump of the wall clock changes nothing");
}

async fn updating_renews_the_time_to_live_only_where_promised(bench: &Bench) {
    bench.store("a", "text").await;
    bench.clock.advance(TTL / 2);
    bench.memory.update(MemoryInput::new("a").with_data("new")).await.expect("it updates");
    bench.clock.advance(TTL / 2);
    assert_eq!(bench.read("a").await.is_some(), bench.memory.capabilities().update_renews_ttl);
}

async fn a_full_store_evicts_the_least_recently_used_entry(bench: &Bench) {
    for id in ["a", "b", "c"] {
        bench.store(id, id).await;
    }
    assert!(bench.read("a").await.is_some());
    bench.store("d", "d").await;
    assert_eq!(bench.read("b").await, None, "b was used longest ago");
    bench.holds(3);
    for id in ["a", "c", "d"] {
        assert!(bench.read(id).await.is_some(), "{id} stays");
    }
    if bench.memory.capabilities().eviction_listener {
        assert_eq!(bench.heard.counts(), RemovalCounts { over_max_entries: 1, ..RemovalCounts::default() });
    }
}

async fn more_than_fits_is_still_all_there(bench: &Bench) {
    for n in 0..20 {
        bench.store(&n.to_string(), &format!("text {n}")).await;
    }
    bench.store("large", &"x".repeat(MIB as usize)).await;
    for n in 0..20 {
        assert_eq!(bench.read(&n.to_string()).await, Some(format!("text {n}")));
    }
    assert_eq!(bench.read("large").await, Some("x".repeat(MIB as usize)));
    assert!(bench.memory.stats().entries <= 3, "and the bound holds");
}

async fn replacing_in_a_full_store_evicts_nothing(bench: &Bench) {
    for id in ["a", "b", "c", "a", "b"] {
        bench.store(id, id).await;
    }
    bench.memory.update(MemoryInput::new("c").with_data("a longer text")).await.expect("it updates");
    for id in ["a", "b", "c"] {
        assert!(bench.read(id).await.is_some(), "{id} stays");
    }
}

async fn an_entry_larger_than_the_budget_is_refused_and_evicts_nothing(bench: &Bench) {
    for n in 0..50 {
        bench.store(&n.to_string(), "text").await;
    }
    let large = WorkingMemory::new("x".repeat(MIB as usize));
    for id in ["0", "new"] {
        let input = MemoryInput::new(id).with_data(large.clone());
        let error = bench.memory.store(input.clone()).await.expect_err("it cannot fit");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let error = bench.memory.update(input).await.expect_err("it cannot fit");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }
    for n in 0..50 {
        assert_eq!(bench.read(&n.to_string()).await.as_deref(), Some("text"), "nothing was evicted");
    }
    let half = WorkingMemory::new("x".repeat(MIB as usize / 2));
    bench.memory.store(MemoryInput::new("half").with_data(half)).await.expect("half the budget fits");
    assert!(bench.memory.stats().bytes <= MIB);
}

fn set_limits(bench: &Bench, max_entries: Option<u64>, max_bytes: Option<u64>) -> crate::Result<()> {
    max_entries.map_or(Ok(()), |max| bench.memory.set_limit("memory.max_entries", max))?;
    max_bytes.map_or(Ok(()), |max| bench.memory.set_limit("memory.max_memory_mb", max))
}

async fn lowered_limits_hold_at_once(bench: &Bench) {
    for n in 0..1_000 {
        bench.store(&n.to_string(), &"x".repeat(200)).await;
    }
    let lower = |entries, bytes| set_limits(bench, entries, bytes);
    lower(Some(100), None).expect("it is bounded");
    assert_eq!(bench.memory.stats().entries, 100, "only as many leave as must");
    lower(None, Some(32 * 1024)).expect("it is bounded");
    assert!(bench.memory.stats().bytes <= 32 * 1024);
    bench.store("new", "text").await;
    assert!(bench.read("new").await.is_some(), "a smaller store still stores");
    lower(Some(3), Some(MIB)).expect("it is bounded");
    for id in ["a", "b", "c", "d"] {
        bench.store(id, id).await;
    }
    bench.holds(3);
    let stats = bench.memory.stats();
    for bound in bench.memory.limits() {
        assert!(Some(bound.used) <= bound.limit, "{bound:?}");
        assert!(bound.peak >= bound.used, "{bound:?}");
    }
    if bench.memory.capabilities().eviction_listener {
        assert_eq!(bench.heard.counts(), stats.removals, "the listener heard of each");
    }
}

fn senseless_limits_are_refused(bench: &Bench) {
    for (entries, bytes) in [(Some(0), None), (None, Some(1))] {
        let error =
            set_limits(bench, entries, bytes).expect_err("a store that can hold nothing is of no use");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

fn an_unbounded_store_refuses_limits(bench: &Bench) {
    let error = set_limits(bench, Some(10), None).expect_err("it has no bounds");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(bench.memory.limits().iter().all(|bound| bound.limit.is_none()));
}

/// What must be true of an entry if it is there at all.
struct Expected {
    text: String,
    expires: Duration,
}

async fn random_operations_keep_every_promise(bench: &Bench, seed: u64) {
    let capabilities = bench.memory.capabilities();
    let may_lose = capabilities.bounded && !capabilities.eviction_loses_nothing;
    let mut random = Random::new(seed);
    let mut model: HashMap<String, Expected> = HashMap::new();
    for step in 0..1_500 {
        // A third of the ids are too long to be kept inside a key.
        let n = random.below(120);
        let id = if n.is_multiple_of(3) { format!("{n:0>60}") } else { n.to_string() };
        let text = format!("{step}").repeat(random.below(400) as usize + 1);
        let input = MemoryInput::new(id.as_str()).with_data(text.as_str());
        match random.below(10) {
            0..=3 => {
                let metadata = json!({"step": step, "tags": ["x", {"y": text}]}).as_object().cloned();
                let metadata = metadata.expect("it is an object");
                let input = if step % 2 == 0 { input.with_metadata(metadata) } else { input };
                bench.memory.store(input).await.expect("it stores");
                model.insert(id, Expected { text, expires: bench.clock.now() + TTL });
            }
            4..=5 => {
                bench.memory.update(input).await.expect("it updates");
                if let Some(expected) = model.get_mut(&id) {
                    expected.text = text;
                    if capabilities.update_renews_ttl && expected.expires > bench.clock.now() {
                        expected.expires = bench.clock.now() + TTL;
                    }
                }
            }
            6 => {
                bench.memory.delete(&input).await.expect("it deletes");
                model.remove(&id);
            }
            7 if capabilities.injected_clock => {
                bench.clock.advance(Duration::from_millis(random.below(2_000)));
            }
            _ => {
                let found = bench.read(&id).await;
                let live = model.get(&id).filter(|expected| expected.expires > bench.clock.now());
                match (&found, live) {
                    (Some(found), Some(expected)) => assert_eq!(found, &expected.text, "the latest value"),
                    (Some(_), None) => panic!("step {step}: a deleted or expired entry came back"),
                    (None, Some(_)) => assert!(may_lose, "step {step}: an entry was lost"),
                    (None, None) => {}
                }
            }
        }
        check_bounds(bench, step);
    }
    empty(bench, &model).await;
}

fn check_bounds(bench: &Bench, step: u64) {
    let stats = bench.memory.stats();
    for bound in bench.memory.limits() {
        assert!(bound.limit.is_none_or(|limit| bound.peak <= limit), "step {step}: {bound:?}");
    }
    if bench.memory.capabilities().eviction_listener {
        assert_eq!(bench.heard.counts(), stats.removals, "step {step}: the listener hears of each once");
    }
}

async fn empty(bench: &Bench, model: &HashMap<String, Expected>) {
    for id in model.keys() {
        bench.memory.delete(&MemoryInput::new(id.as_str())).await.expect("it deletes");
    }
    bench.holds(0);
}
