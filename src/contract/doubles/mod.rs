//! Test doubles: stand-ins for the seams, for testing code that uses them.

mod memory;

pub use memory::{CountingMemory, FailingMemory, MemoryCalls};
