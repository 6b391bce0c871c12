//! The contract of tasks.
