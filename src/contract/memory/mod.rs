//! The contract suite of [`MemoryManager`].
//!
//! A backend author calls [`suite`] from a test with an async function that creates an empty backend from a [`Setup`],
//! and [`expiry`] too if the backend's entries expire on the injected [`Clock`]:
//!
//! ```
//! use std::sync::Arc;
//! use arshai::backends::memory::LegacyMemoryManager;
//! use arshai::contract::memory::{self, Setup};
//! use arshai::memory::MemoryManager;
//!
//! async fn make(setup: Setup) -> Arc<dyn MemoryManager> {
//!     let memory = LegacyMemoryManager::new(setup.ttl, setup.clock);
//!     Arc::new(memory.with_eviction_listener(setup.eviction_listener))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! memory::suite(make).await;
//! memory::expiry(make).await;
//! # }
//! ```
//!
//! Where the backend's [`MemoryCapabilities`](crate::memory::MemoryCapabilities) deviate from the contract, the suite
//! tests the documented deviation: a store without limits, for example, must return an error from `set_limit`.

mod basics;
mod expiry;
mod limits;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

pub use expiry::expiry;

use crate::memory::{
    EvictionListener, MemoryInput, MemoryManager, RemovalCause, RemovalCounts, RemovedEntry,
};
use crate::support::opaque_debug;
use crate::{Clock, ManualClock};

/// The settings of a backend under test. Settings that a backend does not support are ignored, as its capabilities say.
#[derive(Clone)]
#[non_exhaustive]
pub struct Setup {
    /// The TTL of entries.
    pub ttl: Duration,
    /// Maximum number of entries.
    pub max_entries: u64,
    /// Maximum size in bytes.
    pub max_bytes: u64,
    /// The clock for expiry.
    pub clock: Arc<dyn Clock>,
    /// The listener for removed entries.
    pub eviction_listener: EvictionListener,
}

opaque_debug!(Setup { ttl, max_entries, max_bytes });

/// Runs the contract suite on backends created by `make`, in a tokio runtime of either flavor.
///
/// # Panics
/// When the backend breaks the contract.
pub async fn suite<F, Fut>(make: F)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn MemoryManager>>,
{
    let factory = Factory(make);
    basics::run(&factory).await;
    limits::run(&factory).await;
}

const TTL: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Creates the backend of each test.
struct Factory<F>(F);

impl<F, Fut> Factory<F>
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn MemoryManager>>,
{
    async fn make(&self, max_entries: u64, max_bytes: u64) -> Fixture {
        let (clock, removals) = (Arc::new(ManualClock::new()), Arc::new(ReportedRemovals::default()));
        let listener = Arc::clone(&removals);
        let setup = Setup {
            ttl: TTL,
            max_entries,
            max_bytes,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            eviction_listener: Arc::new(move |removed: RemovedEntry| listener.add(&removed)),
        };
        Fixture { memory: (self.0)(setup).await, clock, removals }
    }

    /// A backend with room for everything that a test stores.
    async fn roomy(&self) -> Fixture {
        self.make(10_000, 64 * MIB).await
    }
}

/// A backend, its clock, and the removals its listener was called with.
struct Fixture {
    memory: Arc<dyn MemoryManager>,
    clock: Arc<ManualClock>,
    removals: Arc<ReportedRemovals>,
}

impl Fixture {
    async fn store(&self, id: &str, text: &str) {
        self.memory.store(MemoryInput::new(id).with_data(text)).await.expect("it stores");
    }

    async fn update(&self, id: &str, text: &str) {
        self.memory.update(MemoryInput::new(id).with_data(text)).await.expect("it updates");
    }

    async fn delete(&self, id: &str) {
        self.memory.delete(&MemoryInput::new(id)).await.expect("it deletes");
    }

    async fn read(&self, id: &str) -> Option<String> {
        self.retrieve(&MemoryInput::new(id)).await
    }

    async fn retrieve(&self, input: &MemoryInput) -> Option<String> {
        let found = self.memory.retrieve(input).await.expect("it retrieves");
        assert!(found.len() <= 1, "retrieve returns zero or one entry");
        found.first().map(|memory| memory.as_str().to_owned())
    }

    /// Asserts the number of entries, where the backend counts them.
    fn assert_entries(&self, entries: u64) {
        let stats = self.memory.stats();
        assert!(!self.memory.capabilities().counts_entries || stats.entries == entries, "{stats:?}");
    }

    /// Asserts that the listener was called once for every counted removal, where there is a listener.
    fn assert_removals_reported(&self) {
        if self.memory.capabilities().eviction_listener {
            assert_eq!(self.removals.counts(), self.memory.stats().removals);
        }
    }
}

/// The causes an [`EvictionListener`] was called with.
#[derive(Default)]
struct ReportedRemovals([AtomicU64; 5]);

impl ReportedRemovals {
    fn add(&self, removed: &RemovedEntry) {
        let index = match removed.reason {
            RemovalCause::MaxEntries => 0,
            RemovalCause::MaxBytes => 1,
            RemovalCause::Expired => 2,
            RemovalCause::Replaced => 3,
            RemovalCause::Deleted => 4,
        };
        self.0[index].fetch_add(1, SeqCst);
    }

    fn counts(&self) -> RemovalCounts {
        let [over_max_entries, over_max_bytes, expired, replaced, deleted] =
            [0, 1, 2, 3, 4].map(|index| self.0[index].load(SeqCst));
        RemovalCounts { over_max_entries, over_max_bytes, expired, replaced, deleted }
    }
}
