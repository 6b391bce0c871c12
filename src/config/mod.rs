//! Configuration: defaults < file < environment < code.

mod sections;

pub use sections::*;
