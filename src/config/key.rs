//! Configuration keys: what is known about each, and the macro that the table of all of them is written in.

use std::fmt;

use figment::value::Value;

use super::Config;
use super::setting::{MAX_COUNT, Setting, ValueError};

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
    /// An example, where the default is none.
    pub example: &'static str,
    pub legacy: Legacy,
}

impl Spec {
    pub(super) const NEW: Self =
        Self { env: "", unit: "", min: 1, max: MAX_COUNT, schemes: &[], example: "", legacy: Legacy::Same };
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

/// One key of the configuration.
pub(super) struct Key {
    /// Its path, for example `memory.max_entries`.
    pub path: &'static str,
    /// Its description: the documentation of the field.
    pub doc: &'static str,
    pub spec: Spec,
    pub get: fn(&Config) -> &dyn Setting,
    pub get_mut: fn(&mut Config) -> &mut dyn Setting,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path)
    }
}

impl Key {
    /// `ARSHAI_<SECTION>__<KEY>`, sections within sections included.
    pub(super) fn generic_env_var(&self) -> String {
        format!("ARSHAI_{}", self.path.to_uppercase().replace('.', "__"))
    }

    /// Its own environment variable.
    pub(super) fn env_var(&self) -> Option<&'static str> {
        Some(self.spec.env).filter(|name| !name.is_empty())
    }

    /// The value with its unit, secrets redacted.
    pub(super) fn display(&self, config: &Config) -> String {
        let value = (self.get)(config).display(&self.spec);
        match self.spec.unit {
            unit if !unit.is_empty() && value.starts_with(|c: char| c.is_ascii_digit()) => {
                format!("{value} {unit}")
            }
            _ => value,
        }
    }

    /// Whether both configurations have the same value, secrets included.
    pub(super) fn is_same(&self, one: &Config, other: &Config) -> bool {
        (self.get)(one).exposed() == (self.get)(other).exposed()
    }

    pub(super) fn is_secret(&self) -> bool {
        (self.get)(&Config::default()).is_secret(&self.spec)
    }

    pub(super) fn parse(&self, config: &mut Config, text: &str) -> Result<(), ValueError> {
        (self.get_mut)(config).parse(text, &self.spec)
    }

    pub(super) fn parse_value(&self, config: &mut Config, value: &Value) -> Result<(), ValueError> {
        (self.get_mut)(config).parse_value(value, &self.spec)
    }

    /// The expected values, with an example: the message for an invalid one.
    pub(super) fn expected(&self) -> String {
        let defaults = Config::default();
        let setting = (self.get)(&defaults);
        let example = match self.spec.example {
            "" => setting.display(&self.spec),
            example => example.to_owned(),
        };
        let expected = setting.expected(&self.spec);
        match example.as_str() {
            "none" => format!("expected {expected}"),
            example => format!("expected {expected}, e.g. {example}"),
        }
    }
}

/// Writes the sections of the configuration, their defaults, what they print, and the table of keys, from rows of
///
/// ```text
/// /// The field's documentation.
/// field: Type = default, env: "VARIABLE", unit: "s";   // any fields of `Spec`
/// ```
///
/// Each section names the path to it in parentheses, and after `sections:` the sections within it.
macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])+
        $Section:ident $parent:tt {
            $($(#[doc = $doc:literal])+ $field:ident: $Type:ty = $default:expr $(, $attribute:ident: $value:expr)*;)*
            $(sections: $($(#[doc = $part_doc:literal])+ $vis:vis $part:ident: $Part:ty;)+)?
        }
    )+) => {
        $(
            $(#[doc = $section_doc])+
            #[derive(Clone)]
            #[non_exhaustive]
            pub struct $Section {
                $($(#[doc = $doc])+ pub $field: $Type,)*
                $($($(#[doc = $part_doc])+ $vis $part: $Part,)+)?
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($field: $default,)* $($($part: <$Part>::default(),)+)? }
                }
            }

            /// Secrets are redacted.
            impl std::fmt::Debug for $Section {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.debug_struct(stringify!($Section))
                        $(.field(
                            stringify!($field),
                            &format_args!("{}", self.$field.display(&Spec { $($attribute: $value,)* ..Spec::NEW })),
                        ))*
                        $($(.field(stringify!($part), &self.$part))+)?
                        .finish()
                }
            }
        )+

        /// Every key, in the order of the documentation.
        pub(super) const KEYS: &[Key] = &[$($(Key {
            path: $crate::config::key::key_path!($parent $field),
            doc: concat!($($doc),+),
            spec: Spec { $($attribute: $value,)* ..Spec::NEW },
            get: |config| &$crate::config::key::field!(config $parent $field),
            get_mut: |config| &mut $crate::config::key::field!(config $parent $field),
        },)*)+];
    };
}

/// `(llm.openai) api_key` as `"llm.openai.api_key"`.
macro_rules! key_path {
    (($($parent:ident).*) $field:ident) => { concat!($(stringify!($parent), ".",)* stringify!($field)) };
}

/// `config (llm.openai) api_key` as `config.llm.openai.api_key`.
macro_rules! field {
    ($config:ident ($($parent:ident).*) $field:ident) => { $config$(.$parent)*.$field };
}

pub(super) use {field, key_path, sections};
