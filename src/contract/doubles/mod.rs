//! Test doubles: stand-ins for the seams, for testing code that uses them without models, servers or waiting.

mod clock;
mod http;
mod llm;
mod memory;
mod pool;
mod vectors;

pub use clock::TokioClock;
pub use http::ScriptedTransport;
pub use llm::ScriptedLlm;
pub use memory::{CountingMemory, FailingMemory, MemoryCalls};
pub use pool::{Scripted, ScriptedConnection, ScriptedConnector};
pub use vectors::{CountingVectors, FailingVectors, VectorCalls};
