//! What Milvus servers evaluate of the filter language.

/// What a Milvus server evaluates of the filter language with the same result as this crate.
///
/// Every value is measured: with Milvus 2.3.5, and with the small engine of the Python package `milvus-lite`. What a
/// dialect lacks, [`Filter::to_milvus`](super::super::Filter::to_milvus) rejects before anything is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MilvusDialect {
    /// What the server is called in errors.
    pub name: &'static str,
    /// `not (…)` around conditions. Without it, negations of `==`, `!=`, `in`, `and`, `or` and of comparisons with a
    /// typed field remain.
    pub negation: bool,
    /// `exists`.
    pub exists: bool,
    /// `+`, `-`, `*` and `/` on JSON paths.
    pub json_arithmetic: bool,
    /// `%` on integer fields.
    pub remainder: bool,
    /// `like` with `%` elsewhere than at the end, and with `_`.
    pub like_anywhere: bool,
    /// Escapes of control characters in strings, such as `\n`.
    pub control_characters: bool,
    /// Comparisons with arrays; arrays and booleans in the lists of `json_contains_all` and `json_contains_any`.
    pub array_literals: bool,
    /// Maximum nesting depth of conditions.
    pub max_depth: usize,
}

impl MilvusDialect {
    /// Milvus 2.3 and later.
    pub const STANDALONE: Self = Self {
        name: "Milvus 2.3",
        negation: true,
        exists: true,
        json_arithmetic: true,
        remainder: false,
        like_anywhere: false,
        control_characters: true,
        array_literals: true,
        max_depth: 64,
    };

    /// The native engine of the Python package `milvus-lite` 2.5.
    pub const LITE: Self = Self {
        name: "milvus-lite",
        negation: false,
        exists: false,
        json_arithmetic: false,
        remainder: true,
        like_anywhere: true,
        control_characters: false,
        array_literals: false,
        // It fails beyond 50.
        max_depth: 40,
    };
}
