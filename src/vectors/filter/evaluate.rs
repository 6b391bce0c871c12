//! Whether an expression holds for an entity's fields.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::{Comparison, Expr, Operation, Path, Step};

type Fields = Map<String, Value>;

/// Whether `expr` is true. What is missing or of the wrong type is not.
pub(super) fn is_true(expr: &Expr, fields: &Fields) -> bool {
    match expr {
        Expr::Not(inner) => !is_true(inner, fields),
        Expr::And(parts) => parts.iter().all(|part| is_true(part, fields)),
        Expr::Or(parts) => parts.iter().any(|part| is_true(part, fields)),
        Expr::Compare(comparison, left, right) => match (value(left, fields), value(right, fields)) {
            (Some(left), Some(right)) => compare(*comparison, &left, &right),
            _ => false,
        },
        Expr::In { value: of, list, negated } => match value(of, fields) {
            Some(found) => list.iter().any(|item| equal(&found, item)) != *negated,
            None => false,
        },
        Expr::Like { path, pattern } => {
            find(path, fields).and_then(Value::as_str).is_some_and(|text| like(text, pattern))
        }
        Expr::Contains { path, value } => match find(path, fields) {
            Some(Value::Array(items)) => items.iter().any(|item| equal(item, value)),
            _ => false,
        },
        Expr::Exists(path) => find(path, fields).is_some(),
        Expr::IsNull { path, negated } => find(path, fields).is_none_or(Value::is_null) != *negated,
        Expr::Literal(_) | Expr::Path(_) | Expr::Negate(_) | Expr::Calculate(..) => {
            value(expr, fields).as_deref() == Some(&Value::Bool(true))
        }
    }
}

/// The value of an operand; `None` where a path is missing or a calculation has no result.
fn value<'a>(expr: &'a Expr, fields: &'a Fields) -> Option<Cow<'a, Value>> {
    match expr {
        Expr::Literal(value) => Some(Cow::Borrowed(value)),
        Expr::Path(path) => find(path, fields).map(Cow::Borrowed),
        Expr::Negate(inner) => {
            calculate(Operation::Subtract, &Value::from(0), &*value(inner, fields)?).map(Cow::Owned)
        }
        Expr::Calculate(operation, left, right) => {
            calculate(*operation, &*value(left, fields)?, &*value(right, fields)?).map(Cow::Owned)
        }
        _ => Some(Cow::Owned(Value::Bool(is_true(expr, fields)))),
    }
}

fn find<'a>(path: &Path, fields: &'a Fields) -> Option<&'a Value> {
    path.steps.iter().try_fold(fields.get(&path.field)?, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(index) => value.get(index),
    })
}

fn compare(comparison: Comparison, left: &Value, right: &Value) -> bool {
    let ordering = match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => left.as_f64().zip(right.as_f64()).and_then(|(left, right)| left.partial_cmp(&right)),
        },
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        // Lists and objects are equal or not; they have no order.
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            return match comparison {
                Comparison::Equal => left == right,
                Comparison::NotEqual => left != right,
                _ => false,
            };
        }
        _ => None,
    };
    let Some(ordering) = ordering else { return false };
    match comparison {
        Comparison::Equal => ordering == Ordering::Equal,
        Comparison::NotEqual => ordering != Ordering::Equal,
        Comparison::Less => ordering == Ordering::Less,
        Comparison::LessOrEqual => ordering != Ordering::Greater,
        Comparison::Greater => ordering == Ordering::Greater,
        Comparison::GreaterOrEqual => ordering != Ordering::Less,
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    compare(Comparison::Equal, left, right)
}

/// Whole numbers stay whole except in a division, which gives a fraction; what overflows or divides by zero has no
/// result.
fn calculate(operation: Operation, left: &Value, right: &Value) -> Option<Value> {
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
        let whole = match operation {
            Operation::Add => left.checked_add(right),
            Operation::Subtract => left.checked_sub(right),
            Operation::Multiply => left.checked_mul(right),
            Operation::Remainder => left.checked_rem(right),
            Operation::Divide if right == 0 => None,
            Operation::Divide => return Some((left as f64 / right as f64).into()),
        };
        return whole.map(Value::from);
    }
    let (left, right) = (left.as_f64()?, right.as_f64()?);
    let result = match operation {
        Operation::Add => left + right,
        Operation::Subtract => left - right,
        Operation::Multiply => left * right,
        Operation::Divide => left / right,
        Operation::Remainder => left % right,
    };
    result.is_finite().then(|| result.into())
}

/// `%` stands for any text, `_` for any one character. Costs at most the pattern's length times the text's.
fn like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let pattern: Vec<char> = pattern.chars().collect();
    let (mut at, mut next) = (0, 0);
    // Where to go on if the text after the last `%` does not fit: that `%` takes one character more.
    let mut retry = None;
    while at < text.len() {
        match pattern.get(next) {
            Some('%') => {
                retry = Some((at, next));
                next += 1;
            }
            Some(c) if *c == '_' || *c == text[at] => {
                at += 1;
                next += 1;
            }
            _ => {
                let Some((from, star)) = retry else { return false };
                retry = Some((from + 1, star));
                at = from + 1;
                next = star + 1;
            }
        }
    }
    pattern[next..].iter().all(|c| *c == '%')
}
