//! Doubles for conversation memory.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use async_trait::async_trait;

use crate::memory::{CasOutcome, MemoryCapabilities, MemoryInput, MemoryManager, MemoryStats, WorkingMemory};
use crate::{CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result, ShutdownPhase};

/// Unreachable memory: every operation fails with the configured error kind, and health is unhealthy.
#[derive(Debug, Clone, Copy)]
pub struct FailingMemory {
    kind: ErrorKind,
}

impl FailingMemory {
    /// Memory whose every operation fails with `kind`.
    #[must_use]
    pub fn new(kind: ErrorKind) -> Self {
        Self { kind }
    }

    fn failure<T>(self) -> Result<T> {
        Err(Error::new(self.kind, "memory.failing", "this test double always fails"))
    }
}

#[async_trait]
impl Component for FailingMemory {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("memory")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Stores
    }

    fn limits(&self) -> Vec<LimitUsage> {
        Vec::new()
    }

    async fn health(&self, _: Deadline) -> Health {
        Health::unhealthy("this test double always fails")
    }

    fn set_limit(&self, _: &str, _: u64) -> Result<()> {
        self.failure()
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        CloseReport::idle()
    }
}

#[async_trait]
impl MemoryManager for FailingMemory {
    async fn store(&self, _input: MemoryInput) -> Result<String> {
        self.failure()
    }

    async fn retrieve(&self, _input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        self.failure()
    }

    async fn update(&self, _input: MemoryInput) -> Result<()> {
        self.failure()
    }

    async fn compare_and_set(&self, _: MemoryInput, _: Option<&WorkingMemory>) -> Result<CasOutcome> {
        self.failure()
    }

    async fn delete(&self, _input: &MemoryInput) -> Result<()> {
        self.failure()
    }

    async fn flush(&self) -> Result<()> {
        self.failure()
    }

    fn stats(&self) -> MemoryStats {
        MemoryStats::default()
    }

    fn capabilities(&self) -> MemoryCapabilities {
        MemoryCapabilities::default()
    }
}

/// Calls of each operation of a [`CountingMemory`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryCalls {
    /// Calls of `store`.
    pub store: u64,
    /// Calls of `retrieve`.
    pub retrieve: u64,
    /// Calls of `update`.
    pub update: u64,
    /// Calls of `compare_and_set`.
    pub compare_and_set: u64,
    /// Calls of `delete`.
    pub delete: u64,
}

/// Forwards every operation to another memory and counts the calls.
#[derive(Debug)]
pub struct CountingMemory {
    inner: Arc<dyn MemoryManager>,
    store: AtomicU64,
    retrieve: AtomicU64,
    update: AtomicU64,
    compare_and_set: AtomicU64,
    delete: AtomicU64,
}

impl CountingMemory {
    /// Counts the calls to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn MemoryManager>) -> Self {
        let [store, retrieve, update, compare_and_set, delete] = Default::default();
        Self { inner, store, retrieve, update, compare_and_set, delete }
    }

    /// The calls so far, including failed ones.
    #[must_use]
    pub fn calls(&self) -> MemoryCalls {
        MemoryCalls {
            store: self.store.load(SeqCst),
            retrieve: self.retrieve.load(SeqCst),
            update: self.update.load(SeqCst),
            compare_and_set: self.compare_and_set.load(SeqCst),
            delete: self.delete.load(SeqCst),
        }
    }
}

delegate_component!(CountingMemory);

#[async_trait]
impl MemoryManager for CountingMemory {
    async fn store(&self, input: MemoryInput) -> Result<String> {
        self.store.fetch_add(1, SeqCst);
        self.inner.store(input).await
    }

    async fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        self.retrieve.fetch_add(1, SeqCst);
        self.inner.retrieve(input).await
    }

    async fn update(&self, input: MemoryInput) -> Result<()> {
        self.update.fetch_add(1, SeqCst);
        self.inner.update(input).await
    }

    async fn compare_and_set(
        &self,
        input: MemoryInput,
        expected: Option<&WorkingMemory>,
    ) -> Result<CasOutcome> {
        self.compare_and_set.fetch_add(1, SeqCst);
        self.inner.compare_and_set(input, expected).await
    }

    async fn delete(&self, input: &MemoryInput) -> Result<()> {
        self.delete.fetch_add(1, SeqCst);
        self.inner.delete(input).await
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }

    fn stats(&self) -> MemoryStats {
        self.inner.stats()
    }

    fn capabilities(&self) -> MemoryCapabilities {
        self.inner.capabilities()
    }
}
