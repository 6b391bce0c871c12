//! Differences between backends.

use serde::Serialize;

/// Optional properties of a vector backend; the default is none of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VectorCapabilities {
    /// The store has a limit of bytes.
    pub bounded: bool,
    /// Searches find the true nearest entities, not an approximation.
    pub exact: bool,
    /// Sparse and hybrid search.
    pub sparse: bool,
    /// Every filter is evaluated. Without it, some are rejected with `Unsupported`, before anything is sent.
    pub all_filters: bool,
    /// Ids ascend in the order of insertion, `query_by_expr` returns entities by ascending id, and so do searches where
    /// scores are equal.
    pub ordered: bool,
    /// Statistics count every acknowledged insert and delete.
    pub exact_counts: bool,
    /// An insert or delete whose future is dropped is done completely or not at all.
    pub atomic_writes: bool,
}
