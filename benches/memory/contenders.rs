//! The stores that are compared. Each maps a conversation id to an `Arc<str>`; a hit looks the id up by a
//! borrowed key and clones the `Arc`, a write makes an owned key and clones an `Arc` in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arshai::Clock;
use arshai::backends::memory::{InMemoryManager, LegacyMemoryManager};
use arshai::memory::{MemoryInput, MemoryManager, MemoryType, WorkingMemory};
use parking_lot::Mutex;

pub(crate) const QUICK: &str = "quick_cache 0.7.0";
/// Copies texts in and out, as a store outside the heap must; the other peers lend theirs.
pub(crate) const COPIED: &str = "quick_cache 0.7.0, texts copied";
pub(crate) const MOKA: &str = "moka 0.12.16 with TTL";
pub(crate) const HASHLINK: &str = "Mutex<hashlink 0.12.2>";
pub(crate) const LEGACY: &str = "legacy";

const TTL: Duration = Duration::from_secs(12 * 60 * 60);
const TYPE: MemoryType = MemoryType::WorkingMemory;

/// What a store may hold.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    Entries(u64),
    /// Ours counts all that it allocates; the others, as their users do, the bytes of key and value.
    Bytes(u64),
}

pub(crate) trait Contender: Send + Sync {
    fn get(&self, id: &str) -> Option<Arc<str>>;
    fn set(&self, id: &str, text: &Arc<str>);
    fn remove(&self, id: &str);
    fn clear(&self);
    /// Housekeeping that the store leaves to its user.
    fn settle(&self) {}
}

/// Every contender by name; ours is "arshai".
pub(crate) fn make(name: &str, limit: Limit, ttl: Option<Duration>) -> Box<dyn Contender> {
    let ttl = ttl.unwrap_or(TTL);
    match name {
        "arshai" => Box::new(ours(limit, ttl)),
        QUICK => Box::new(quick(limit)),
        COPIED => Box::new(Copied(quick(limit))),
        MOKA => Box::new(moka(limit, ttl)),
        HASHLINK => Box::new(Linked::new(limit)),
        LEGACY => Box::new(Legacy::new(ttl)),
        other => panic!("no contender {other}"),
    }
}

/// Ours: sharded, bounded in entries and in bytes, with a time to live; hits read the clock.
pub(crate) fn ours(limit: Limit, ttl: Duration) -> InMemoryManager {
    let builder = InMemoryManager::builder().ttl(ttl);
    let builder = match limit {
        Limit::Entries(entries) => builder.max_entries(entries).max_memory_mb(None),
        Limit::Bytes(bytes) => builder.max_entries(None).max_bytes(bytes),
    };
    builder.build().expect("valid limits")
}

impl Contender for InMemoryManager {
    fn get(&self, id: &str) -> Option<Arc<str>> {
        Self::get(self, TYPE, id).map(|memory| memory.working_memory)
    }

    fn set(&self, id: &str, text: &Arc<str>) {
        self.put(TYPE, id, WorkingMemory::new(Arc::clone(text))).expect("it stores");
    }

    fn remove(&self, id: &str) {
        self.delete(&MemoryInput::working_memory(id)).expect("it deletes");
    }

    fn clear(&self) {
        Self::clear(self);
    }

    fn settle(&self) {
        self.clean_up();
    }
}

fn weight(id: &str, text: &Arc<str>) -> usize {
    id.len() + text.len()
}

/// quick_cache: sharded, S3-FIFO-like, no time to live.
#[derive(Clone)]
pub(crate) struct ByLen;

impl quick_cache::Weighter<String, Arc<str>> for ByLen {
    fn weight(&self, id: &String, text: &Arc<str>) -> u64 {
        weight(id, text) as u64
    }
}

pub(crate) enum Quick {
    Plain(quick_cache::sync::Cache<String, Arc<str>>),
    Weighted(quick_cache::sync::Cache<String, Arc<str>, ByLen>),
}

fn quick(limit: Limit) -> Quick {
    match limit {
        Limit::Entries(entries) => Quick::Plain(quick_cache::sync::Cache::new(entries as usize)),
        Limit::Bytes(bytes) => Quick::Weighted(quick_cache::sync::Cache::with_weighter(65_536, bytes, ByLen)),
    }
}

impl Contender for Quick {
    fn get(&self, id: &str) -> Option<Arc<str>> {
        match self {
            Self::Plain(cache) => cache.get(id),
            Self::Weighted(cache) => cache.get(id),
        }
    }

    fn set(&self, id: &str, text: &Arc<str>) {
        match self {
            Self::Plain(cache) => cache.insert(id.to_owned(), Arc::clone(text)),
            Self::Weighted(cache) => cache.insert(id.to_owned(), Arc::clone(text)),
        }
    }

    fn remove(&self, id: &str) {
        match self {
            Self::Plain(cache) => drop(cache.remove(id)),
            Self::Weighted(cache) => drop(cache.remove(id)),
        }
    }

    fn clear(&self) {
        match self {
            Self::Plain(cache) => cache.clear(),
            Self::Weighted(cache) => cache.clear(),
        }
    }
}

struct Copied(Quick);

impl Contender for Copied {
    fn get(&self, id: &str) -> Option<Arc<str>> {
        self.0.get(id).map(|text| Arc::from(&*text))
    }

    fn set(&self, id: &str, text: &Arc<str>) {
        self.0.set(id, &Arc::from(&**text));
    }

    fn remove(&self, id: &str) {
        self.0.remove(id);
    }

    fn clear(&self) {
        self.0.clear();
    }
}

/// moka: concurrent, TinyLFU, with a time to live.
fn moka(limit: Limit, ttl: Duration) -> moka::sync::Cache<String, Arc<str>> {
    let builder = moka::sync::Cache::builder().time_to_live(ttl);
    match limit {
        Limit::Entries(entries) => builder.max_capacity(entries).build(),
        Limit::Bytes(bytes) => {
            builder.weigher(|id: &String, text| weight(id, text) as u32).max_capacity(bytes).build()
        }
    }
}

impl Contender for moka::sync::Cache<String, Arc<str>> {
    fn get(&self, id: &str) -> Option<Arc<str>> {
        Self::get(self, id)
    }

    fn set(&self, id: &str, text: &Arc<str>) {
        self.insert(id.to_owned(), Arc::clone(text));
    }

    fn remove(&self, id: &str) {
        self.invalidate(id);
    }

    fn clear(&self) {
        self.invalidate_all();
    }

    fn settle(&self) {
        self.run_pending_tasks();
    }
}

/// The simplest exact LRU: one map behind one lock, no time to live.
struct Linked {
    limit: Limit,
    inner: Mutex<(hashlink::LruCache<String, Arc<str>>, u64)>,
}

impl Linked {
    fn new(limit: Limit) -> Self {
        Self { limit, inner: Mutex::new((hashlink::LruCache::new_unbounded(), 0)) }
    }
}

impl Contender for Linked {
    fn get(&self, id: &str) -> Option<Arc<str>> {
        self.inner.lock().0.get(id).cloned()
    }

    fn set(&self, id: &str, text: &Arc<str>) {
        let mut inner = self.inner.lock();
        let (map, bytes) = &mut *inner;
        *bytes += weight(id, text) as u64;
        if let Some(old) = map.insert(id.to_owned(), Arc::clone(text)) {
            *bytes -= weight(id, &old) as u64;
        }
        while match self.limit {
            Limit::Entries(most) => map.len() as u64 > most,
            Limit::Bytes(most) => *bytes > most,
        } {
            let (id, text) = map.remove_lru().expect("it is over its limit, so not empty");
            *bytes -= weight(&id, &text) as u64;
        }
    }

    fn remove(&self, id: &str) {
        let mut inner = self.inner.lock();
        if let Some(old) = inner.0.remove(id) {
            inner.1 -= weight(id, &old) as u64;
        }
    }

    fn clear(&self) {
        *self.inner.lock() = (hashlink::LruCache::new_unbounded(), 0);
    }
}

/// The legacy store, through the trait: its cost is the scan of every entry.
struct Legacy {
    store: LegacyMemoryManager,
    runtime: tokio::runtime::Runtime,
}

impl Legacy {
    fn new(ttl: Duration) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(arshai::SystemClock::new());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Self { store: LegacyMemoryManager::new(ttl, clock), runtime }
    }
}

impl Contender for Legacy {
    fn get(&self, id: &str) -> Option<Arc<str>> {
        let found = self.runtime.block_on(self.store.retrieve(&MemoryInput::working_memory(id)));
        found.expect("it retrieves").pop().map(|memory| memory.working_memory)
    }

    fn set(&self, id: &str, text: &Arc<str>) {
        let input = MemoryInput::working_memory(id).with_data(WorkingMemory::new(Arc::clone(text)));
        self.runtime.block_on(self.store.store(input)).expect("it stores");
    }

    fn remove(&self, id: &str) {
        self.runtime.block_on(self.store.delete(&MemoryInput::working_memory(id))).expect("it deletes");
    }

    fn clear(&self) {
        unreachable!("no bench clears it");
    }
}

/// Figures of the peers by name.
pub(crate) type Peers = std::collections::BTreeMap<String, f64>;

/// An exact LRU of `capacity` entries, replaying `operations`: the share of reads that hit.
pub(crate) fn exact_lru_hit_ratio(capacity: u64, operations: &[(u32, bool)]) -> f64 {
    let mut lru = hashlink::LruCache::new(capacity as usize);
    let (mut hits, mut reads) = (0_u64, 0_u64);
    for &(key, write) in operations {
        if write {
            lru.insert(key, ());
        } else {
            reads += 1;
            hits += u64::from(lru.get(&key).is_some());
        }
    }
    hits as f64 / reads as f64
}

/// Ids as services make them: 36 characters, like a UUID.
pub(crate) fn ids(count: usize) -> Vec<String> {
    let mut seen = HashMap::with_capacity(count);
    let ids = (0..count as u64).map(|n| {
        let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!(
            "{:08x}-{:04x}-4{:03x}-9{:03x}-{n:012x}",
            mixed >> 32,
            mixed >> 16 & 0xffff,
            mixed & 0xfff,
            n & 0xfff
        )
    });
    let ids: Vec<_> = ids.collect();
    assert!(ids.iter().all(|id| id.len() == 36 && seen.insert(id.as_str(), ()).is_none()));
    ids
}
