//! Faults injected for real.

mod tasks;
