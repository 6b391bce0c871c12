//! Comparisons: a field, a calculation or a length on the left, a literal on the right.

use serde_json::{Map, Number, Value};

use super::super::evaluate;
use super::{Column, CompareOp, Expr, FieldPath, Operand, Printed, Printer};
use crate::error::Result;
use crate::vectors::FieldType;

/// Floats up to this are exact as integers, and integers up to this as floats.
pub(super) const EXACT: f64 = 9_007_199_254_740_992.0;

/// A side of a comparison, calculated as far as it does not depend on the row.
pub(super) enum Side<'a> {
    Missing,
    Literal(Value),
    Operand(&'a Operand),
}

impl Printer<'_> {
    /// A comparison, or its negation.
    pub(super) fn compare(
        &self,
        op: CompareOp,
        left: &Operand,
        right: &Operand,
        negated: bool,
    ) -> Result<Printed> {
        // Equality has an exact opposite. An order has one only where both values are always comparable.
        let (op, negated) = match op {
            CompareOp::Equal if negated => (CompareOp::NotEqual, false),
            CompareOp::NotEqual if negated => (CompareOp::Equal, false),
            _ => (op, negated),
        };
        match (self.side(left)?, self.side(right)?) {
            (Side::Missing, _) | (_, Side::Missing) => Ok(incomparable(op, negated)),
            (Side::Literal(left), Side::Literal(right)) => {
                let (left, right) = (Operand::Literal(left), Operand::Literal(right));
                let is_true = evaluate::is_true(&Expr::Compare { op, left, right }, &Map::new());
                Ok(Printed::Constant(is_true != negated))
            }
            (Side::Operand(left), Side::Literal(right)) => self.compare_literal(op, left, &right, negated),
            // The small engine inverts a comparison with the literal on the left.
            (Side::Literal(left), Side::Operand(right)) => {
                self.compare_literal(mirrored(op), right, &left, negated)
            }
            (Side::Operand(Operand::Field(left)), Side::Operand(Operand::Field(right))) => {
                self.compare_fields(op, left, right, negated)
            }
            _ => Err(self.unsupported("comparisons of a calculation with another field")),
        }
    }

    pub(super) fn side<'a>(&self, operand: &'a Operand) -> Result<Side<'a>> {
        let mut paths = Vec::new();
        operand.collect_paths(&mut paths);
        if paths.is_empty() {
            // Literals alone are calculated here: exactly, where servers calculate whole numbers.
            let no_fields = Map::new();
            let value = evaluate::value(operand, &no_fields);
            return Ok(value.map_or(Side::Missing, |value| Side::Literal(value.to_json())));
        }
        let is_missing =
            |path: &&FieldPath| self.column(path).map(|column| matches!(column, Column::Missing));
        for path in &paths {
            if is_missing(path)? {
                return Ok(Side::Missing);
            }
        }
        Ok(Side::Operand(operand))
    }

    fn compare_literal(
        &self,
        op: CompareOp,
        left: &Operand,
        right: &Value,
        negated: bool,
    ) -> Result<Printed> {
        match left {
            Operand::Field(path) => self.compare_field(op, path, right, negated),
            Operand::ArrayLength(path) => self.compare_length(op, path, right, negated),
            calculation => self.compare_calculation(op, calculation, right),
        }
    }

    fn compare_field(
        &self,
        op: CompareOp,
        path: &FieldPath,
        right: &Value,
        negated: bool,
    ) -> Result<Printed> {
        let field_type = match self.column(path)? {
            Column::Missing => return Ok(incomparable(op, negated)),
            Column::Json => return Err(self.whole_json(path)),
            Column::JsonPath => return self.compare_json(op, path, right, negated),
            Column::Scalar(field_type) => field_type,
        };
        let comparable = match field_type {
            FieldType::VarChar => right.is_string(),
            FieldType::Bool => right.is_boolean(),
            _ => right.is_number(),
        };
        if !comparable {
            return Ok(incomparable(op, negated));
        }
        let op = if negated { opposite(op) } else { op };
        let is_integer = field_type == FieldType::Int64;
        if let (true, Some(right)) = (is_integer, right.as_f64().filter(|_| right.is_f64())) {
            return self.compare_integer_with_float(op, path, right);
        }
        match self.equal_literal(field_type, right)? {
            Some(literal) => self.comparison(path, op, &literal),
            None => Ok(incomparable(op, false)),
        }
    }

    /// Milvus does not compare integer fields with floats.
    fn compare_integer_with_float(&self, op: CompareOp, path: &FieldPath, right: f64) -> Result<Printed> {
        if right.abs() >= EXACT {
            return Err(self.unsupported("comparisons of an integer field with a float beyond 2^53"));
        }
        let (op, right) = match op {
            CompareOp::Equal | CompareOp::NotEqual if right.fract() != 0.0 => {
                return Ok(incomparable(op, false));
            }
            CompareOp::Less if right.fract() != 0.0 => (CompareOp::LessOrEqual, right.floor()),
            CompareOp::GreaterOrEqual if right.fract() != 0.0 => (op, right.ceil()),
            CompareOp::Greater | CompareOp::LessOrEqual => (op, right.floor()),
            _ => (op, right),
        };
        self.comparison(path, op, &(right as i64).to_string())
    }

    fn compare_json(&self, op: CompareOp, path: &FieldPath, right: &Value, negated: bool) -> Result<Printed> {
        self.check_json_negation(negated || op == CompareOp::NotEqual)?;
        let is_order = !matches!(op, CompareOp::Equal | CompareOp::NotEqual);
        if !right.is_array() {
            return self.negated_if(negated, self.comparison(path, op, &self.literal(right)?)?);
        }
        if is_order {
            return Ok(incomparable(op, negated));
        }
        let equal = self.comparison(path, CompareOp::Equal, &self.array(right)?)?;
        // There, `!=` is false for a missing path.
        self.negated_if(op == CompareOp::NotEqual, equal)
    }

    fn compare_fields(
        &self,
        op: CompareOp,
        left: &FieldPath,
        right: &FieldPath,
        negated: bool,
    ) -> Result<Printed> {
        let (Column::Scalar(left_type), Column::Scalar(right_type)) =
            (self.column(left)?, self.column(right)?)
        else {
            return Err(self.unsupported("comparisons of JSON with another field"));
        };
        let is_number = |field_type| matches!(field_type, FieldType::Int64 | FieldType::Float);
        if left_type != right_type && !(is_number(left_type) && is_number(right_type)) {
            return Ok(incomparable(op, negated));
        }
        // There, the integer is rounded to the 32 bits of the float.
        if left_type != right_type {
            return Err(self.unsupported("comparisons of an integer field with a float field"));
        }
        let op = if negated { opposite(op) } else { op };
        self.comparison(left, op, &self.path(right)?)
    }

    /// A server takes what is no array for an empty one, so lengths of zero cannot be told apart.
    fn compare_length(
        &self,
        op: CompareOp,
        path: &FieldPath,
        right: &Value,
        negated: bool,
    ) -> Result<Printed> {
        match self.column(path)? {
            Column::Missing | Column::Scalar(_) => return Ok(incomparable(op, negated)),
            Column::Json => return Err(self.whole_json(path)),
            Column::JsonPath => self.check_json_negation(op == CompareOp::NotEqual)?,
        }
        let Value::Number(right) = right else { return Ok(incomparable(op, negated)) };
        if !matches!(op, CompareOp::Equal | CompareOp::NotEqual) {
            return Err(self.unsupported("an order of array lengths"));
        }
        match whole(right) {
            Some(0) => Err(self.unsupported("array_length(..) == 0")),
            Some(length) if length > 0 => {
                let path = self.path(path)?;
                Ok(Printed::leaf(format!("(array_length({path}) {} {length})", op.symbol())))
            }
            _ => Ok(incomparable(op, negated)),
        }
    }

    pub(super) fn comparison(&self, path: &FieldPath, op: CompareOp, literal: &str) -> Result<Printed> {
        Ok(Printed::leaf(format!("({} {} {literal})", self.path(path)?, op.symbol())))
    }
}

/// The comparison of values that have no order and are not equal.
fn incomparable(op: CompareOp, negated: bool) -> Printed {
    Printed::Constant((op == CompareOp::NotEqual) != negated)
}

pub(super) fn whole(number: &Number) -> Option<i64> {
    let float = |float: f64| (float.fract() == 0.0 && float.abs() < EXACT).then_some(float as i64);
    number.as_i64().or_else(|| number.as_f64().and_then(float))
}

/// The comparison with its sides exchanged.
fn mirrored(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Less => CompareOp::Greater,
        CompareOp::LessOrEqual => CompareOp::GreaterOrEqual,
        CompareOp::Greater => CompareOp::Less,
        CompareOp::GreaterOrEqual => CompareOp::LessOrEqual,
        CompareOp::Equal | CompareOp::NotEqual => op,
    }
}

/// The comparison that is true where this one is false, for values that have an order.
fn opposite(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Equal => CompareOp::NotEqual,
        CompareOp::NotEqual => CompareOp::Equal,
        CompareOp::Less => CompareOp::GreaterOrEqual,
        CompareOp::LessOrEqual => CompareOp::Greater,
        CompareOp::Greater => CompareOp::LessOrEqual,
        CompareOp::GreaterOrEqual => CompareOp::Less,
    }
}
