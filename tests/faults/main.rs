//! Faults injected for real.
