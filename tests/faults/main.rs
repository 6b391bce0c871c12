//! Faults injected for real.

mod memory;
