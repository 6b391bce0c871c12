//! The filter language: Milvus's boolean expressions, parsed once for every backend.

mod evaluate;
mod lexer;
mod parser;

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// A filter's text may be at most this many bytes long.
pub const MAX_FILTER_BYTES: usize = 64 * 1024;
/// A filter's parts may be nested at most this deep.
pub const MAX_FILTER_DEPTH: usize = 64;

/// Which entities count: a boolean expression over their fields.
///
/// The language is Milvus's: comparison (`== != < <= > >=`), `in [..]`, `not in [..]`, `like "a%"`, `and`/`or`/`not`
/// (or `&&`, `||`, `!`), arithmetic (`+ - * / %`), JSON paths (`metadata["a"]["b"][0]`), `json_contains(path, value)`,
/// `exists path`, `path is null`, `path is not null`. A path that is missing, or a comparison of different types, is
/// false.
///
/// Values from users belong into parameters, never into the text: `{name}` stands for a bound value and can never
/// become syntax. A bound value is a text, a number of 64 bits, true or false, or (after `in`) a list of these. A
/// pattern of `like` has at most 1 024 bytes.
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
    /// [`ErrorKind::InvalidInput`] with the position and what was expected; also for an empty expression, one longer
    /// than [`MAX_FILTER_BYTES`] or nested deeper than [`MAX_FILTER_DEPTH`].
    pub fn parse(text: &str) -> Result<Self> {
        Self::with_params(text, std::iter::empty::<(&str, Value)>())
    }

    /// Parses an expression and binds its `{name}` parameters.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); also for a parameter that is not given, or given and not used.
    pub fn with_params<'a>(text: &str, params: impl IntoIterator<Item = (&'a str, Value)>) -> Result<Self> {
        parser::parse(text, params.into_iter().collect()).map(|root| Self { root })
    }

    /// Whether an entity with these fields counts.
    #[must_use]
    pub fn matches(&self, fields: &Map<String, Value>) -> bool {
        evaluate::is_true(&self.root, fields)
    }

    /// The fields it names, first part of their paths only.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        let mut fields = Vec::new();
        self.root.collect_fields(&mut fields);
        fields.into_iter()
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// The filter in Milvus's syntax, parameters filled in and quoted.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)
    }
}

/// A field, and the way into its JSON.
#[derive(Debug, Clone, PartialEq)]
struct Path {
    field: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

#[derive(Debug, Clone, PartialEq)]
enum Expr {
    Literal(Value),
    Path(Path),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Compare(Comparison, Box<Expr>, Box<Expr>),
    Calculate(Operation, Box<Expr>, Box<Expr>),
    In { value: Box<Expr>, list: Vec<Value>, negated: bool },
    Like { path: Path, pattern: String },
    Contains { path: Path, value: Value },
    Exists(Path),
    IsNull { path: Path, negated: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Expr {
    fn collect_fields<'a>(&'a self, fields: &mut Vec<&'a str>) {
        match self {
            Self::Literal(_) => {}
            Self::Path(path)
            | Self::Like { path, .. }
            | Self::Contains { path, .. }
            | Self::Exists(path)
            | Self::IsNull { path, .. } => fields.push(&path.field),
            Self::Not(inner) | Self::Negate(inner) | Self::In { value: inner, .. } => {
                inner.collect_fields(fields)
            }
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.collect_fields(fields)),
            Self::Compare(_, left, right) | Self::Calculate(_, left, right) => {
                left.collect_fields(fields);
                right.collect_fields(fields);
            }
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Self], word: &str| {
            f.write_str("(")?;
            for (i, part) in parts.iter().enumerate() {
                write!(f, "{}{part}", if i == 0 { "" } else { word })?;
            }
            f.write_str(")")
        };
        match self {
            // JSON's text is Milvus's: double quotes, the same escapes.
            Self::Literal(value) => value.fmt(f),
            Self::Path(path) => path.fmt(f),
            Self::Not(inner) => write!(f, "(not {inner})"),
            Self::Negate(inner) => write!(f, "(-{inner})"),
            Self::And(parts) => joined(f, parts, " and "),
            Self::Or(parts) => joined(f, parts, " or "),
            Self::Compare(comparison, left, right) => {
                let sign = match comparison {
                    Comparison::Equal => "==",
                    Comparison::NotEqual => "!=",
                    Comparison::Less => "<",
                    Comparison::LessOrEqual => "<=",
                    Comparison::Greater => ">",
                    Comparison::GreaterOrEqual => ">=",
                };
                write!(f, "({left} {sign} {right})")
            }
            Self::Calculate(operation, left, right) => {
                let sign = match operation {
                    Operation::Add => "+",
                    Operation::Subtract => "-",
                    Operation::Multiply => "*",
                    Operation::Divide => "/",
                    Operation::Remainder => "%",
                };
                write!(f, "({left} {sign} {right})")
            }
            Self::In { value, list, negated } => {
                write!(f, "({value} {}in {})", if *negated { "not " } else { "" }, Value::Array(list.clone()))
            }
            Self::Like { path, pattern } => write!(f, "({path} like {})", Value::String(pattern.clone())),
            Self::Contains { path, value } => write!(f, "json_contains({path}, {value})"),
            Self::Exists(path) => write!(f, "(exists {path})"),
            Self::IsNull { path, negated } => {
                write!(f, "({path} is {}null)", if *negated { "not " } else { "" })
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        for step in &self.steps {
            match step {
                Step::Key(key) => write!(f, "[{}]", Value::String(key.clone()))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, "vectors.filter", message.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn matches(text: &str) -> bool {
        let fields = json!({
            "content": "the quick fox", "page": 7, "price": 2.5, "draft": false, "nothing": null,
            "metadata": {"source": "a.md", "tags": ["x", "y"], "deep": {"list": [1, [2, 3]]}, "it's": 1},
        });
        Filter::parse(text).expect(text).matches(fields.as_object().expect("an object"))
    }

    #[test]
    fn every_form_of_the_language_is_evaluated() {
        for (text, expected) in [
            ("page == 7", true),
            ("page != 7", false),
            ("page > 6 and page < 8 and page >= 7 and page <= 7", true),
            ("7.0 == page", true),
            ("page in [1, 7]", true),
            ("page not in [1, 7]", false),
            ("content like 'the%'", true),
            ("content like '%fox'", true),
            ("content like '%quick%'", true),
            ("content like 'quick%'", false),
            ("content like 't_e%'", true),
            ("not draft == true", true),
            ("draft or page == 7", true),
            ("!(page == 7) || price > 2", true),
            ("page == 7 && price > 3", false),
            ("page * 2 + 1 == 15", true),
            ("-page == -7", true),
            ("page % 4 == 3 and page / 2 == 3.5", true),
            ("metadata['source'] == \"a.md\"", true),
            ("metadata['deep']['list'][1][0] == 2", true),
            ("metadata['it\\'s'] == 1", true),
            ("metadata['missing'] == 1", false),
            ("metadata['missing'] != 1", false),
            ("metadata['source'] > 3", false),
            ("json_contains(metadata['tags'], 'y')", true),
            ("JSON_CONTAINS(metadata['tags'], 'z')", false),
            ("exists metadata['source'] and not exists metadata['nope']", true),
            ("nothing is null and page is not null", true),
            ("page == 7 or page == 8 and page == 9", true),
            ("true", true),
        ] {
            assert_eq!(matches(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_an_error_that_says_where() {
        for (text, at) in [
            ("", "empty"),
            ("   ", "empty"),
            ("page ==", "at byte 7"),
            ("page = 7", "at byte 5"),
            ("page == 'open", "at byte 8"),
            ("(page == 7", "at byte 10"),
            ("page == 7 7", "at byte 10"),
            ("page in 7", "at byte 8"),
            ("page == {x}", "parameter \"x\""),
            ("page # 7", "at byte 5"),
            ("metadata['a' == 1", "at byte 13"),
            ("page == 99999999999999999999999", "at byte 8"),
        ] {
            let error = Filter::parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.message().contains(at), "{text}: {error}");
        }
    }

    #[test]
    fn a_hostile_expression_is_refused_and_overflows_nothing() {
        for text in ["(".repeat(60_000), "not ".repeat(15_000), "-".repeat(60_000), "x".repeat(1 << 20)] {
            assert_eq!(Filter::parse(&text).expect_err("hostile").kind(), ErrorKind::InvalidInput);
        }
        let wide = vec!["page == 1"; 4_000].join(" or ");
        assert!(Filter::parse(&wide).is_ok(), "wide is not deep");
    }

    #[test]
    fn a_parameter_never_becomes_syntax() {
        let hostile = "' or true or '";
        let filter = Filter::with_params("content == {name}", [("name", json!(hostile))]).expect("bound");
        assert!(!filter.matches(json!({"content": "x"}).as_object().expect("an object")));
        assert!(filter.matches(json!({"content": hostile}).as_object().expect("an object")));
        assert_eq!(Filter::parse(&filter.to_string()).expect("quoted"), filter);
    }

    #[test]
    fn a_parameter_that_is_not_used_is_an_error() {
        let error = Filter::with_params("page == 1", [("name", json!(1))]).expect_err("not used");
        assert!(error.message().contains("\"name\""), "{error}");
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0_u32..100).prop_map(Value::from),
            "[a-z'\"\\\\%]{0,6}".prop_map(Value::from),
        ]
    }

    fn path() -> impl Strategy<Value = Path> {
        let step = prop_oneof!["[a-c']{1,2}".prop_map(Step::Key), (0_usize..3).prop_map(Step::Index)];
        ("[a-c]", proptest::collection::vec(step, 0..3)).prop_map(|(field, steps)| Path { field, steps })
    }

    fn expr() -> impl Strategy<Value = Expr> {
        let operand = prop_oneof![path().prop_map(Expr::Path), value().prop_map(Expr::Literal)];
        let signs = prop_oneof![
            Just(Comparison::Equal),
            Just(Comparison::NotEqual),
            Just(Comparison::Less),
            Just(Comparison::GreaterOrEqual)
        ];
        let list = proptest::collection::vec(value(), 0..3);
        let leaf = prop_oneof![
            (signs, operand.clone(), operand.clone()).prop_map(|(sign, left, right)| Expr::Compare(
                sign,
                left.into(),
                right.into()
            )),
            (operand, list, any::<bool>()).prop_map(|(value, list, negated)| Expr::In {
                value: value.into(),
                list,
                negated
            }),
            (path(), "[a-z%_']{0,5}").prop_map(|(path, pattern)| Expr::Like { path, pattern }),
            (path(), value()).prop_map(|(path, value)| Expr::Contains { path, value }),
            path().prop_map(Expr::Exists),
            (path(), any::<bool>()).prop_map(|(path, negated)| Expr::IsNull { path, negated }),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|inner| Expr::Not(inner.into())),
                proptest::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
                proptest::collection::vec(inner, 2..4).prop_map(Expr::Or),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_filter_written_out_and_read_back_is_the_same(root in expr()) {
            let filter = Filter { root };
            prop_assert_eq!(Filter::parse(&filter.to_string()).map_err(|e| TestCaseError::fail(format!("{filter}: {e}")))?, filter);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-c0-9'\"(){}\\[\\]=<>!&|%*+ .,-]{0,60}") {
            let _ = Filter::parse(&text);
        }
    }
}
