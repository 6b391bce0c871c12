//! Calls the eviction listener of a store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, ThreadId};

use parking_lot::Mutex;

use crate::memory::{EvictionListener, RemovedEntry};

/// Calls an [`EvictionListener`], contains its panics and never calls it recursively on one thread.
#[derive(Default)]
pub(super) struct EvictionNotifier {
    listener: Option<EvictionListener>,
    /// Threads that are inside the listener now.
    notifying: Mutex<Vec<ThreadId>>,
}

impl EvictionNotifier {
    pub(super) fn new(listener: Option<EvictionListener>) -> Self {
        Self { listener, notifying: Mutex::default() }
    }

    pub(super) fn has_listener(&self) -> bool {
        self.listener.is_some()
    }

    /// An empty collection for the entries that one operation removes.
    pub(super) fn collect(&self) -> RemovedEntries {
        RemovedEntries { has_listener: self.listener.is_some(), entries: Vec::new() }
    }

    /// Reports removed entries. The caller holds no lock.
    pub(super) fn notify(&self, removed: RemovedEntries) {
        let removed = removed.entries;
        let Some(listener) = self.listener.as_ref().filter(|_| !removed.is_empty()) else { return };
        let thread = thread::current().id();
        {
            let mut notifying = self.notifying.lock();
            if notifying.contains(&thread) {
                return;
            }
            notifying.push(thread);
        }
        for entry in removed {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| listener(entry))) {
                // Dropping the payload could panic again.
                std::mem::forget(payload);
                tracing::error!("eviction listener panicked; ignored");
            }
        }
        self.notifying.lock().retain(|other| *other != thread);
    }
}

/// Entries removed under a lock, to be reported after it is released.
pub(super) struct RemovedEntries {
    has_listener: bool,
    entries: Vec<RemovedEntry>,
}

impl RemovedEntries {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an entry, which is copied only if there is a listener.
    pub(super) fn push_with(&mut self, entry: impl FnOnce() -> RemovedEntry) {
        if self.has_listener {
            self.entries.push(entry());
        }
    }
}
