//! Conversation memory in process and elsewhere.

use crate::Registry;

/// Adds the memory backends.
pub(super) fn register(_registry: &mut Registry) {}
