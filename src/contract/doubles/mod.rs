//! Test doubles for the backend traits, to test code that uses them without models, servers or waiting.

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
