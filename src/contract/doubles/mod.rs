//! Test doubles for the backend traits, to test code that uses them without models, servers or waiting.

/// Implements [`Component`](crate::Component) by delegation to the field `inner`.
macro_rules! delegate_component {
    ($Double:ty) => {
        #[async_trait::async_trait]
        impl crate::Component for $Double {
            fn name(&self) -> std::borrow::Cow<'_, str> {
                self.inner.name()
            }

            fn shutdown_phase(&self) -> crate::ShutdownPhase {
                self.inner.shutdown_phase()
            }

            fn limits(&self) -> Vec<crate::LimitUsage> {
                self.inner.limits()
            }

            fn counters(&self) -> serde_json::Value {
                self.inner.counters()
            }

            async fn health(&self, deadline: crate::Deadline) -> crate::Health {
                self.inner.health(deadline).await
            }

            fn set_limit(&self, key: &str, max: u64) -> crate::Result<()> {
                self.inner.set_limit(key, max)
            }

            async fn close(&self, deadline: crate::Deadline) -> crate::CloseReport {
                self.inner.close(deadline).await
            }
        }
    };
}

mod http;
mod llm;
mod memory;
mod pool;
mod vectors;

pub use http::ScriptedTransport;
pub use llm::ScriptedLlm;
pub use memory::{CountingMemory, FailingMemory, MemoryCalls};
pub use pool::{ScriptedConnection, ScriptedConnector, ScriptedOutcome};
pub use vectors::{CountingVectors, FailingVectors, VectorCalls};
