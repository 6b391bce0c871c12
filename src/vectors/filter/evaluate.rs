//! Evaluates a filter on the fields of an entity. Allocates nothing.

use std::cmp::Ordering;

use serde_json::Value;

use super::like::like;
use super::{ArithmeticOp, CompareOp, Expr, FieldPath, FieldValue, Fields, Operand, PathSegment};

/// Whether `expr` is true for an entity with these fields.
pub(super) fn is_true(expr: &Expr, fields: &dyn Fields) -> bool {
    match expr {
        Expr::Constant(value) => *value,
        Expr::IsTrue(path) => lookup(path, fields) == Some(FieldValue::Bool(true)),
        Expr::And(parts) => parts.iter().all(|part| is_true(part, fields)),
        Expr::Or(parts) => parts.iter().any(|part| is_true(part, fields)),
        Expr::Not(part) => !is_true(part, fields),
        Expr::Compare { op, left, right } => compare(*op, value(left, fields), value(right, fields)),
        Expr::In { operand, list, negated } => {
            let found = value(operand, fields).is_some_and(|found| contains(list, found));
            found != *negated
        }
        Expr::Like { path, pattern } => {
            matches!(lookup(path, fields), Some(FieldValue::String(text)) if like(text, pattern))
        }
        Expr::Contains { path, value } => {
            array(path, fields).is_some_and(|items| contains(items, value.into()))
        }
        Expr::ContainsAll { path, values } => {
            array(path, fields).is_some_and(|items| values.iter().all(|value| contains(items, value.into())))
        }
        Expr::ContainsAny { path, values } => {
            array(path, fields).is_some_and(|items| values.iter().any(|value| contains(items, value.into())))
        }
        Expr::Exists(path) => lookup(path, fields).is_some(),
        Expr::IsNull { path, negated } => {
            matches!(lookup(path, fields), None | Some(FieldValue::Null)) != *negated
        }
    }
}

/// The value of an operand; `None` where a path is missing or a calculation has no result.
pub(super) fn value<'a>(operand: &'a Operand, fields: &'a dyn Fields) -> Option<FieldValue<'a>> {
    match operand {
        Operand::Literal(value) => Some(value.into()),
        Operand::Field(path) => lookup(path, fields),
        Operand::ArrayLength(path) => i64::try_from(array(path, fields)?.len()).ok().map(FieldValue::Int),
        Operand::Negate(inner) => match value(inner, fields)? {
            FieldValue::Int(number) => number.checked_neg().map(FieldValue::Int),
            FieldValue::Float(number) => Some(FieldValue::Float(-number)),
            _ => None,
        },
        Operand::Arithmetic { op, left, right } => {
            calculate(*op, value(left, fields)?, value(right, fields)?)
        }
    }
}

fn lookup<'a>(path: &FieldPath, fields: &'a dyn Fields) -> Option<FieldValue<'a>> {
    let root = fields.get(&path.field)?;
    let FieldValue::Json(json) = root else { return path.segments.is_empty().then_some(root) };
    let found = path.segments.iter().try_fold(json, |json, segment| match segment {
        PathSegment::Key(key) => json.as_object()?.get(key),
        PathSegment::Index(index) => json.as_array()?.get(*index),
    })?;
    Some(found.into())
}

fn array<'a>(path: &FieldPath, fields: &'a dyn Fields) -> Option<&'a [Value]> {
    match lookup(path, fields)? {
        FieldValue::Json(Value::Array(items)) => Some(items),
        _ => None,
    }
}

fn contains(items: &[Value], value: FieldValue<'_>) -> bool {
    items.iter().any(|item| is_equal(item.into(), value))
}

fn compare(op: CompareOp, left: Option<FieldValue<'_>>, right: Option<FieldValue<'_>>) -> bool {
    let (Some(left), Some(right)) = (left, right) else { return op == CompareOp::NotEqual };
    match op {
        CompareOp::Equal => is_equal(left, right),
        CompareOp::NotEqual => !is_equal(left, right),
        CompareOp::Less => ordering(left, right).is_some_and(Ordering::is_lt),
        CompareOp::LessOrEqual => ordering(left, right).is_some_and(Ordering::is_le),
        CompareOp::Greater => ordering(left, right).is_some_and(Ordering::is_gt),
        CompareOp::GreaterOrEqual => ordering(left, right).is_some_and(Ordering::is_ge),
    }
}

/// Arrays are equal element by element, so that `1` equals `1.0` in them too.
fn is_equal(left: FieldValue<'_>, right: FieldValue<'_>) -> bool {
    match (left, right) {
        (FieldValue::Json(Value::Array(left)), FieldValue::Json(Value::Array(right))) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| is_equal(left.into(), right.into()))
        }
        (FieldValue::Json(left), FieldValue::Json(right)) => left == right,
        (FieldValue::Null, FieldValue::Null) => true,
        _ => ordering(left, right) == Some(Ordering::Equal),
    }
}

/// The order of two scalars of one type; numbers are one type.
fn ordering(left: FieldValue<'_>, right: FieldValue<'_>) -> Option<Ordering> {
    use FieldValue::{Bool, Float, Int, String};
    match (left, right) {
        (Int(left), Int(right)) => Some(left.cmp(&right)),
        (Int(left), Float(right)) => (left as f64).partial_cmp(&right),
        (Float(left), Int(right)) => left.partial_cmp(&(right as f64)),
        (Float(left), Float(right)) => left.partial_cmp(&right),
        (String(left), String(right)) => Some(left.cmp(right)),
        (Bool(left), Bool(right)) => Some(left.cmp(&right)),
        _ => None,
    }
}

fn calculate<'a>(op: ArithmeticOp, left: FieldValue<'_>, right: FieldValue<'_>) -> Option<FieldValue<'a>> {
    if let (FieldValue::Int(left), FieldValue::Int(right)) = (left, right) {
        return match op {
            ArithmeticOp::Add => left.checked_add(right),
            ArithmeticOp::Subtract => left.checked_sub(right),
            ArithmeticOp::Multiply => left.checked_mul(right),
            ArithmeticOp::Remainder => left.checked_rem(right),
            ArithmeticOp::Power if right >= 0 => power(left, right),
            ArithmeticOp::Power => return finite((left as f64).powf(right as f64)),
            ArithmeticOp::Divide if right == 0 => None,
            ArithmeticOp::Divide => return Some(FieldValue::Float(left as f64 / right as f64)),
        }
        .map(FieldValue::Int);
    }
    let (left, right) = (float(left)?, float(right)?);
    let result = match op {
        ArithmeticOp::Add => left + right,
        ArithmeticOp::Subtract => left - right,
        ArithmeticOp::Multiply => left * right,
        ArithmeticOp::Divide => left / right,
        ArithmeticOp::Remainder => left % right,
        ArithmeticOp::Power => left.powf(right),
    };
    finite(result)
}

fn finite<'a>(number: f64) -> Option<FieldValue<'a>> {
    number.is_finite().then_some(FieldValue::Float(number))
}

/// Any exponent beyond 32 bits overflows, or has the result of its last bit.
fn power(base: i64, exponent: i64) -> Option<i64> {
    match base {
        0 | 1 => base.checked_pow(u32::from(exponent > 0)),
        -1 => Some(if exponent % 2 == 0 { 1 } else { -1 }),
        _ => base.checked_pow(u32::try_from(exponent).ok()?),
    }
}

fn float(value: FieldValue<'_>) -> Option<f64> {
    match value {
        FieldValue::Int(number) => Some(number as f64),
        FieldValue::Float(number) => Some(number),
        _ => None,
    }
}
