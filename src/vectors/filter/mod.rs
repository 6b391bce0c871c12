//! The filter language: Milvus's boolean expressions, parsed once for every backend.

mod ast;
mod evaluate;
mod fields;
mod lexer;
mod like;
mod literals;
mod milvus;
mod parser;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::CollectionConfig;
use crate::error::{Error, ErrorKind, Result};

pub use ast::{ArithmeticOp, CompareOp, Expr, FieldPath, Operand, PathSegment};
pub use fields::{FieldValue, Fields};
pub use milvus::MilvusDialect;

/// Maximum length of a filter's text in bytes.
pub const MAX_FILTER_BYTES: usize = 64 * 1024;
/// Maximum nesting depth of a filter.
pub const MAX_FILTER_DEPTH: usize = 64;
/// Maximum length of a `like` pattern in bytes: matching costs at most the pattern's length times the string's.
pub const MAX_PATTERN_BYTES: usize = 1_024;

/// A boolean expression over the fields of an entity, in Milvus's filter language.
///
/// | syntax | true when |
/// |---|---|
/// | `a == 1`, `!=`, `<`, `<=`, `>`, `>=`, `1 < a <= 5` | the values compare so: integers exactly, an integer and a float as 64-bit floats, strings by their bytes |
/// | `a in [1, 2]`, `a not in [1, 2]` | the list contains the value, or not |
/// | `a like 'x%'` | the string matches: `%` any string, `_` any one character, `\` makes the next one literal |
/// | `draft` | the value is the boolean `true` |
/// | `and`, `or`, `not`, `&&`, `\|\|`, `!`, `( )` | as usual |
/// | `a + 1`, `-`, `*`, `/`, `%`, `**`, `-a` | (values) integers stay integers, except in a division, which is exact |
/// | `metadata["a"]["b"][0]` | (value) a quoted segment is a key, a number is an array index |
/// | `json_contains(a, 1)`, `json_contains_all(a, [1, 2])`, `json_contains_any(a, [1, 2])` | the array has the element, all, or one of them; `array_contains*` are aliases |
/// | `array_length(a)` | (value) number of elements |
/// | `exists a` | the path is present, even if null |
/// | `a is null`, `a is not null` | the path is missing or null, or not |
///
/// Keywords are case-insensitive. A missing path, a value of another type and a calculation without result (overflow,
/// division by zero) make every comparison false, except `!=` and `not in`, which are the exact opposites of `==` and
/// `in` and therefore true. The literal `null` and constant divisions by zero are rejected.
///
/// Values from users belong into parameters, never into the text: `{name}` stands for a bound value and can never
/// become syntax. A bound value is a string, a 64-bit number, a boolean or a list of these. In a `like` pattern, escape
/// a user's text with [`escape_like`](Self::escape_like).
///
/// ```
/// use arshai::vectors::Filter;
/// use serde_json::json;
///
/// let filter = Filter::with_params("metadata['source'] == {source} and page > 3", [("source", json!("a.md"))])?;
/// assert!(filter.matches(json!({"metadata": {"source": "a.md"}, "page": 4}).as_object().unwrap()));
/// # Ok::<_, arshai::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    root: Expr,
}

impl Filter {
    /// Parses an expression without parameters.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the byte offset and what was expected; also for an empty expression, one longer
    /// than [`MAX_FILTER_BYTES`] or nested deeper than [`MAX_FILTER_DEPTH`].
    pub fn parse(text: &str) -> Result<Self> {
        Self::with_params(text, std::iter::empty::<(&str, Value)>())
    }

    /// Parses an expression and binds its `{name}` parameters.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); also for a parameter that is missing, unused or bound twice.
    pub fn with_params<'a>(text: &str, params: impl IntoIterator<Item = (&'a str, Value)>) -> Result<Self> {
        let mut bound = BTreeMap::new();
        for (name, value) in params {
            if bound.insert(name, value).is_some() {
                return Err(invalid(format!("filter parameter {name:?} is bound twice")));
            }
        }
        parser::parse(text, bound).map(|root| Self { root })
    }

    /// Whether it is true for an entity with these fields. Allocates nothing.
    #[must_use]
    pub fn matches(&self, fields: &dyn Fields) -> bool {
        evaluate::is_true(&self.root, fields)
    }

    /// The expression.
    #[must_use]
    pub fn expr(&self) -> &Expr {
        &self.root
    }

    /// The paths it reads, in order, with repetitions.
    #[must_use]
    pub fn paths(&self) -> Vec<&FieldPath> {
        let mut paths = Vec::new();
        self.root.collect_paths(&mut paths);
        paths
    }

    /// An estimate of its cost per entity: the number of its values, or `usize::MAX` with a `like`, whose cost is its
    /// pattern's length times the string's. One value costs at most as much as reading the entity once.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.root.cost()
    }

    /// Escapes `%`, `_` and `\` in a string, so that `like` matches them literally.
    #[must_use]
    pub fn escape_like(text: &str) -> String {
        let mut escaped = String::with_capacity(text.len());
        for c in text.chars() {
            if matches!(c, '%' | '_' | '\\') {
                escaped.push('\\');
            }
            escaped.push(c);
        }
        escaped
    }

    /// The filter's text for a Milvus server, with bound values as escaped literals. It selects the rows of the
    /// collection there for which [`matches`](Self::matches) is true here.
    ///
    /// # Errors
    /// `Unsupported`, naming what the server cannot evaluate or evaluates differently; `InvalidInput` for an unknown
    /// field. Nothing was sent.
    pub fn to_milvus(&self, config: &CollectionConfig, dialect: &MilvusDialect) -> Result<String> {
        milvus::print(&self.root, config, dialect)
    }

    /// Whether `word` is a keyword of the language, which cannot name a field.
    #[must_use]
    pub(crate) fn is_keyword(word: &str) -> bool {
        parser::KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// The filter in Milvus's syntax, with bound values as escaped literals.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, "vectors.filter", message.into()).not_sent()
}
