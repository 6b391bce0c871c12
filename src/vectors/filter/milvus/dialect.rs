//! What Milvus servers evaluate of the filter language.

/// What a Milvus server evaluates of the filter language with the same result as this crate.
///
/// Every value is measured: with Milvus 2.3.5, and with the small engine of the Python package `milvus-lite`. Newer
/// servers are not: they get what 2.3.5 evaluates, with the changes that their makers document. What a dialect lacks, [`Filter::to_milvus`](super::super::Filter::to_milvus) rejects before anything is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MilvusDialect {
    /// What the server is called in errors.
    pub name: &'static str,
    /// `not (…)` around conditions. Without it, negations of `==`, `!=`, `in`, `and`, `or` and of comparisons with a
    /// typed field remain.
    pub negation: bool,
    /// Conditions on JSON paths that are true for a missing path and for a value of another type: `!=`, `not in` and
    /// `not (…)`.
    pub json_negation: bool,
    /// `exists`.
    pub exists: bool,
    /// `+`, `-`, `*` and `/` on JSON paths.
    pub json_arithmetic: bool,
    /// `%` on integer fields.
    pub remainder: bool,
    /// `like` with `%` elsewhere than at the end. `_` for one character is never sent: the small engine takes it for one
    /// byte.
    pub like_anywhere: bool,
    /// `_` stands for itself in a pattern. Without it, an escaped `_` cannot be sent beside a `%`.
    pub like_literal_underscore: bool,
    /// Escapes of control characters in strings, such as `\n`.
    pub control_characters: bool,
    /// Comparisons with arrays; arrays and booleans in the lists of `json_contains_all` and `json_contains_any`.
    pub array_literals: bool,
    /// Maximum nesting depth of conditions.
    pub max_depth: usize,
}

impl MilvusDialect {
    /// Milvus 2.3.
    pub const STANDALONE: Self = Self {
        name: "Milvus 2.3",
        negation: true,
        json_negation: true,
        exists: true,
        json_arithmetic: true,
        remainder: false,
        like_anywhere: false,
        like_literal_underscore: true,
        control_characters: true,
        array_literals: true,
        max_depth: 64,
    };

    /// Milvus 2.4 and 2.5: `%` anywhere; `_` has become a wildcard.
    pub const STANDALONE_2_4: Self =
        Self { name: "Milvus 2.4", like_anywhere: true, like_literal_underscore: false, ..Self::STANDALONE };

    /// Milvus 2.6 and later. Its releases give different answers to negated conditions on JSON paths, even one release
    /// for different segments: it is changing to three-valued logic.
    pub const STANDALONE_2_6: Self =
        Self { name: "Milvus 2.6", json_negation: false, ..Self::STANDALONE_2_4 };

    /// The native engine of the Python package `milvus-lite` 2.5.
    pub const LITE: Self = Self {
        name: "milvus-lite",
        negation: false,
        json_negation: true,
        exists: false,
        json_arithmetic: false,
        remainder: true,
        like_anywhere: true,
        like_literal_underscore: false,
        control_characters: false,
        array_literals: false,
        // It fails beyond 50.
        max_depth: 40,
    };
}
