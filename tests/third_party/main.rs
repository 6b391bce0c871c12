//! Backends written outside the crate, through its public items only: registered by name, chosen by configuration,
//! and held to the same contracts as the built-in ones.

mod component;
mod http;
mod memory;
mod pool;
mod tasks;
mod vectors;
