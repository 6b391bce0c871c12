//! What one answer of a model may hold.

/// The most tools a model may ask for in one answer. More is an error: no honest answer comes near.
pub const MAX_TOOL_CALLS: usize = 128;

/// The most bytes that the arguments of one answer's tool calls may have together.
pub const MAX_ARGUMENT_BYTES: usize = 1 << 20;
