//! Sources of functions that change while a service runs.

use std::fmt;

use super::Functions;

/// A source of functions that change while a service runs, such as MCP servers that connect and go away.
///
/// An agent asks it once at the start of each turn and offers what it gets for that turn: every turn sees the functions of
/// its time, and within a turn they stay the same.
pub trait FunctionProvider: fmt::Debug + Send + Sync {
    /// The functions of now. Must return without waiting: what is not there yet is there at a later turn.
    fn functions(&self) -> Functions;
}

/// A set that never changes.
impl FunctionProvider for Functions {
    fn functions(&self) -> Functions {
        self.clone()
    }
}
