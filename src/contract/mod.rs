//! One contract suite per backend trait, and test doubles for every trait.
//!
//! A suite is an async function that takes a way to make backends and panics where one breaks the trait's
//! contract, naming the promise. Call it from a test.

pub mod doubles;
pub mod http;
pub mod memory;
pub mod pool;
mod random;
pub mod tasks;
pub mod vectors;
