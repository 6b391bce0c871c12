//! The attributes of a configuration key besides its name and type.

/// The largest count in a variable or file. A larger one, set in code or by a rollback flag, means "unlimited".
pub(super) const MAX_COUNT: u64 = u32::MAX as u64;

/// A row of the table: everything about a key besides its name, type, default and description.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spec {
    /// Its own environment variable, besides `ARSHAI_<SECTION>__<KEY>`; empty where there is none.
    pub env: &'static str,
    pub unit: &'static str,
    pub min: u64,
    pub max: u64,
    /// The schemes of a URL; empty for other values.
    pub schemes: &'static [&'static str],
    /// Whether a string, or each of a list, is the name or address of a host.
    pub host: bool,
    /// An example, where the default is none.
    pub example: &'static str,
    pub legacy: Legacy,
}

impl Spec {
    pub(super) const NEW: Self = Self {
        env: "",
        unit: "",
        min: 1,
        max: MAX_COUNT,
        schemes: &[],
        host: false,
        example: "",
        legacy: Legacy::Same,
    };
}

/// How a rollback flag, or selecting a legacy backend, changes a value; `effective.rs` applies it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Legacy {
    /// Nothing.
    Same,
    /// The legacy implementation of this backend key has no such limit.
    Unlimited(&'static str),
    /// The legacy implementation of this backend key does not read it.
    NotUsed(&'static str),
    /// A size of the HTTP pool of Python arshai. The legacy pool for other connections does not read it.
    HttpPool(&'static str),
    /// `ARSHAI_DISABLE_OPTIMIZATIONS` sets this value.
    Optimization(&'static str),
}
