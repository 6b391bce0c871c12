//! Doubles for conversation memory.

use crate::{CloseReport, Component, Deadline, LimitUsage, ShutdownPhase};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use async_trait::async_trait;

use crate::memory::{MemoryCapabilities, MemoryInput, MemoryManager, MemoryStats, WorkingMemory};
use crate::{Error, ErrorKind, Health, Result};

/// Memory that cannot be reached: every operation fails with the kind it was made with, and it is unhealthy.
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

    async fn delete(&self, _input: &MemoryInput) -> Result<()> {
        self.failure()
    }

    fn stats(&self) -> MemoryStats {
        MemoryStats::default()
    }

    fn capabilities(&self) -> MemoryCapabilities {
        MemoryCapabilities::default()
    }
}

/// How often each operation of a [`CountingMemory`] was called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryCalls {
    /// Calls of `store`.
    pub store: u64,
    /// Calls of `retrieve`.
    pub retrieve: u64,
    /// Calls of `update`.
    pub update: u64,
    /// Calls of `delete`.
    pub delete: u64,
}

/// Passes every operation on to another memory and counts the calls.
#[derive(Debug)]
pub struct CountingMemory {
    inner: Arc<dyn MemoryManager>,
    store: AtomicU64,
    retrieve: AtomicU64,
    update: AtomicU64,
    delete: AtomicU64,
}

impl CountingMemory {
    /// Counts the calls to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn MemoryManager>) -> Self {
        Self { inner, store: 0.into(), retrieve: 0.into(), update: 0.into(), delete: 0.into() }
    }

    /// The calls so far, those that failed included.
    #[must_use]
    pub fn calls(&self) -> MemoryCalls {
        MemoryCalls {
            store: self.store.load(SeqCst),
            retrieve: self.retrieve.load(SeqCst),
            update: self.update.load(SeqCst),
            delete: self.delete.load(SeqCst),
        }
    }
}

#[async_trait]
impl Component for CountingMemory {
    fn name(&self) -> Cow<'_, str> {
        self.inner.name()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        self.inner.shutdown_phase()
    }

    fn limits(&self) -> Vec<LimitUsage> {
        self.inner.limits()
    }

    fn counters(&self) -> Value {
        self.inner.counters()
    }

    async fn health(&self, deadline: Deadline) -> Health {
        self.inner.health(deadline).await
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        self.inner.set_limit(key, max)
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.inner.close(deadline).await
    }
}

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

    async fn delete(&self, input: &MemoryInput) -> Result<()> {
        self.delete.fetch_add(1, SeqCst);
        self.inner.delete(input).await
    }

    fn stats(&self) -> MemoryStats {
        self.inner.stats()
    }

    fn capabilities(&self) -> MemoryCapabilities {
        self.inner.capabilities()
    }
}
