//! The typed tree of a filter, and its text.

use std::fmt;

use serde_json::Value;

/// A condition that is true or false for an entity.
///
/// A backend translates it or evaluates parts of it from an index. Only the parser builds a [`Filter`](super::Filter)
/// of it, so depth, pattern length and literals are within their limits.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Expr {
    /// `true` or `false`.
    Constant(bool),
    /// A path on its own: its value is the boolean `true`.
    IsTrue(FieldPath),
    /// All parts are true.
    And(Vec<Expr>),
    /// At least one part is true.
    Or(Vec<Expr>),
    /// The part is false.
    Not(Box<Expr>),
    /// `left op right`. Values of different types are not equal and have no order; so is a missing value.
    Compare {
        /// The comparison.
        op: CompareOp,
        /// The left value.
        left: Operand,
        /// The right value.
        right: Operand,
    },
    /// `operand in [..]`, or `operand not in [..]`: the exact opposite, true for a missing value.
    In {
        /// The value that is looked for.
        operand: Operand,
        /// Strings, numbers and booleans.
        list: Vec<Value>,
        /// Whether it is `not in`.
        negated: bool,
    },
    /// `path like pattern`: `%` matches any string, `_` any one character, `\` makes the next character literal.
    /// False for a value that is not a string.
    Like {
        /// The string's path.
        path: FieldPath,
        /// The pattern.
        pattern: String,
    },
    /// `json_contains(path, value)`: the array has an element equal to the value.
    Contains {
        /// The array's path.
        path: FieldPath,
        /// The element, perhaps a list.
        value: Value,
    },
    /// `json_contains_all(path, [..])`: the array has all of these elements.
    ContainsAll {
        /// The array's path.
        path: FieldPath,
        /// The elements.
        values: Vec<Value>,
    },
    /// `json_contains_any(path, [..])`: the array has at least one of these elements.
    ContainsAny {
        /// The array's path.
        path: FieldPath,
        /// The elements.
        values: Vec<Value>,
    },
    /// `exists path`: the path is present, even if null.
    Exists(FieldPath),
    /// `path is null`, or `path is not null`: the path is missing or null.
    IsNull {
        /// The path.
        path: FieldPath,
        /// Whether it is `is not null`.
        negated: bool,
    },
}

/// A value in a comparison. A calculation with a missing value, another type than numbers, an overflow or a division by
/// zero has no result, which compares like a missing value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Operand {
    /// A string, 64-bit number, boolean or a list of these.
    Literal(Value),
    /// The value of a field or of a path into its JSON.
    Field(FieldPath),
    /// `array_length(path)`.
    ArrayLength(FieldPath),
    /// `-operand`.
    Negate(Box<Operand>),
    /// `left op right`. Integers stay integers, except in a division, which is exact: `7 / 2 == 3.5`.
    Arithmetic {
        /// The operation.
        op: ArithmeticOp,
        /// The left value.
        left: Box<Operand>,
        /// The right value.
        right: Box<Operand>,
    },
}

/// A field and a path into its JSON: `metadata["tags"][0]`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldPath {
    /// The field's name.
    pub field: String,
    /// The path inside the field, empty for the field itself.
    pub segments: Vec<PathSegment>,
}

impl FieldPath {
    /// A path into a field.
    #[must_use]
    pub fn new(field: impl Into<String>, segments: Vec<PathSegment>) -> Self {
        Self { field: field.into(), segments }
    }
}

/// One step into a JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathSegment {
    /// The key of an object, never an array index: `["0"]`.
    Key(String),
    /// The index of an array, never a key: `[0]`.
    Index(usize),
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    /// `==`
    Equal,
    /// `!=`: the exact opposite of `==`, so true for a missing value and for a value of another type.
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl CompareOp {
    /// The operator in the filter language.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// An arithmetic operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArithmeticOp {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Remainder,
    /// `**`: of integers an integer, except with a negative exponent.
    Power,
}

impl ArithmeticOp {
    /// The operator in the filter language.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Power => "**",
        }
    }
}

impl Expr {
    /// Appends every path in it, in order.
    pub(super) fn collect_paths<'a>(&'a self, paths: &mut Vec<&'a FieldPath>) {
        match self {
            Self::Constant(_) => {}
            Self::IsTrue(path)
            | Self::Like { path, .. }
            | Self::Contains { path, .. }
            | Self::ContainsAll { path, .. }
            | Self::ContainsAny { path, .. }
            | Self::Exists(path)
            | Self::IsNull { path, .. } => paths.push(path),
            Self::Not(part) => part.collect_paths(paths),
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.collect_paths(paths)),
            Self::In { operand, .. } => operand.collect_paths(paths),
            Self::Compare { left, right, .. } => {
                left.collect_paths(paths);
                right.collect_paths(paths);
            }
        }
    }

    /// Number of values; `usize::MAX` with a `like`.
    pub(super) fn cost(&self) -> usize {
        let sum = |parts: &[Self]| parts.iter().map(Self::cost).fold(1, usize::saturating_add);
        match self {
            Self::Like { .. } => usize::MAX,
            Self::Constant(_) | Self::IsTrue(_) | Self::Exists(_) | Self::IsNull { .. } => 1,
            Self::Contains { .. } => 1,
            Self::ContainsAll { values, .. } | Self::ContainsAny { values, .. } => 1 + values.len(),
            Self::In { operand, list, .. } => operand.cost() + list.len(),
            Self::Compare { left, right, .. } => left.cost() + right.cost(),
            Self::Not(part) => part.cost(),
            Self::And(parts) | Self::Or(parts) => sum(parts),
        }
    }
}

impl Operand {
    pub(super) fn collect_paths<'a>(&'a self, paths: &mut Vec<&'a FieldPath>) {
        match self {
            Self::Literal(_) => {}
            Self::Field(path) | Self::ArrayLength(path) => paths.push(path),
            Self::Negate(inner) => inner.collect_paths(paths),
            Self::Arithmetic { left, right, .. } => {
                left.collect_paths(paths);
                right.collect_paths(paths);
            }
        }
    }

    fn cost(&self) -> usize {
        match self {
            Self::Literal(_) | Self::Field(_) | Self::ArrayLength(_) => 1,
            Self::Negate(inner) => inner.cost(),
            Self::Arithmetic { left, right, .. } => left.cost() + right.cost(),
        }
    }
}

/// In Milvus's syntax, with parentheses around every compound part.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(value) => value.fmt(f),
            Self::IsTrue(path) => path.fmt(f),
            Self::And(parts) => join(f, parts, " and "),
            Self::Or(parts) => join(f, parts, " or "),
            Self::Not(part) => write!(f, "(not {part})"),
            Self::Compare { op, left, right } => write!(f, "({left} {} {right})", op.symbol()),
            Self::In { operand, list, negated } => {
                write!(f, "({operand} {}in {})", if *negated { "not " } else { "" }, List(list))
            }
            Self::Like { path, pattern } => write!(f, "({path} like {})", Value::from(pattern.as_str())),
            Self::Contains { path, value } => write!(f, "json_contains({path}, {value})"),
            Self::ContainsAll { path, values } => write!(f, "json_contains_all({path}, {})", List(values)),
            Self::ContainsAny { path, values } => write!(f, "json_contains_any({path}, {})", List(values)),
            Self::Exists(path) => write!(f, "(exists {path})"),
            Self::IsNull { path, negated } => {
                write!(f, "({path} is {}null)", if *negated { "not " } else { "" })
            }
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // JSON's literals are Milvus's: double quotes, the same escapes.
            Self::Literal(value) => value.fmt(f),
            Self::Field(path) => path.fmt(f),
            Self::ArrayLength(path) => write!(f, "array_length({path})"),
            Self::Negate(inner) => write!(f, "(-{inner})"),
            Self::Arithmetic { op, left, right } => {
                // The sign of a literal binds less than a power.
                let negative = matches!(&**left, Self::Literal(left) if left.as_f64().is_some_and(f64::is_sign_negative));
                match op {
                    ArithmeticOp::Power if negative => write!(f, "(({left}) ** {right})"),
                    _ => write!(f, "({left} {} {right})", op.symbol()),
                }
            }
        }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        for segment in &self.segments {
            match segment {
                PathSegment::Key(key) => write!(f, "[{}]", Value::from(key.as_str()))?,
                PathSegment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

fn join(f: &mut fmt::Formatter<'_>, parts: &[Expr], separator: &str) -> fmt::Result {
    f.write_str("(")?;
    for (i, part) in parts.iter().enumerate() {
        write!(f, "{}{part}", if i == 0 { "" } else { separator })?;
    }
    f.write_str(")")
}

struct List<'a>(&'a [Value]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, value) in self.0.iter().enumerate() {
            write!(f, "{}{value}", if i == 0 { "" } else { "," })?;
        }
        f.write_str("]")
    }
}
