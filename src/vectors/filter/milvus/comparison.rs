//! Comparisons: a field, a calculation or a length on the left, a literal on the right.

use serde_json::{Map, Number, Value};

use super::super::{ArithmeticOp, evaluate};
use super::{Column, CompareOp, Expr, FieldPath, Operand, Printed, Printer};
use crate::error::Result;
use crate::vectors::FieldType;

/// Floats up to this are exact as integers, and integers up to this as floats.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A side of a comparison, calculated as far as it does not depend on the row.
enum Side<'a> {
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

    fn side<'a>(&self, operand: &'a Operand) -> Result<Side<'a>> {
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
            Operand::Arithmetic { op: arithmetic, left, right: operand } => {
                let is_equal = match op {
                    CompareOp::Equal => true,
                    CompareOp::NotEqual => false,
                    _ => return Err(self.unsupported("an order of calculated values")),
                };
                let (path, operand) = match (&**left, &**operand) {
                    (Operand::Field(path), operand) => (path, operand),
                    (operand, Operand::Field(path))
                        if matches!(arithmetic, ArithmeticOp::Add | ArithmeticOp::Multiply) =>
                    {
                        (path, operand)
                    }
                    _ => return Err(self.unsupported("this calculation")),
                };
                let Side::Literal(operand) = self.side(operand)? else {
                    return Err(self.unsupported("calculations with several fields or steps"));
                };
                let (Value::Number(operand), Value::Number(right)) = (&operand, right) else {
                    return Ok(Printed::Constant(!is_equal));
                };
                self.compare_arithmetic(is_equal, path, *arithmetic, operand, right)
            }
            _ => Err(self.unsupported("this calculation")),
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
            Column::JsonPath => {}
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

    fn compare_arithmetic(
        &self,
        is_equal: bool,
        path: &FieldPath,
        arithmetic: ArithmeticOp,
        operand: &Number,
        right: &Number,
    ) -> Result<Printed> {
        match self.column(path)? {
            Column::JsonPath => self.compare_json_arithmetic(is_equal, path, arithmetic, operand, right),
            Column::Scalar(FieldType::Int64) => {
                self.compare_integer_arithmetic(is_equal, path, arithmetic, operand, right)
            }
            // It is calculated in 32 bits there.
            Column::Scalar(FieldType::Float) => Err(self.unsupported("calculations with a float field")),
            Column::Json => Err(self.whole_json(path)),
            Column::Missing | Column::Scalar(_) => Ok(Printed::Constant(!is_equal)),
        }
    }

    /// Solved for the field, since servers overflow silently.
    fn compare_integer_arithmetic(
        &self,
        is_equal: bool,
        path: &FieldPath,
        arithmetic: ArithmeticOp,
        operand: &Number,
        right: &Number,
    ) -> Result<Printed> {
        let op = if is_equal { CompareOp::Equal } else { CompareOp::NotEqual };
        let Some(operand) = operand.as_i64() else {
            return Err(self.unsupported("calculations with an integer field and a float"));
        };
        if arithmetic == ArithmeticOp::Divide {
            return Err(self.unsupported("divisions of an integer field"));
        }
        let Some(right) = whole(right) else { return Ok(Printed::Constant(!is_equal)) };
        let solution = match arithmetic {
            ArithmeticOp::Add => right.checked_sub(operand),
            ArithmeticOp::Subtract => right.checked_add(operand),
            ArithmeticOp::Multiply if operand == 0 => return Ok(Printed::Constant((right == 0) == is_equal)),
            ArithmeticOp::Multiply => {
                right.checked_div(operand).filter(|solution| solution.checked_mul(operand) == Some(right))
            }
            ArithmeticOp::Remainder if self.dialect.remainder && operand.unsigned_abs() > 1 => {
                let (path, symbol) = (self.path(path)?, op.symbol());
                return Ok(Printed::leaf(format!("({path} % {operand} {symbol} {right})")));
            }
            _ => return Err(self.unsupported("this calculation with an integer field")),
        };
        match solution {
            Some(i64::MIN) => Err(self.unsupported("the number -2^63")),
            Some(solution) => self.comparison(path, op, &solution.to_string()),
            None => Ok(Printed::Constant(!is_equal)),
        }
    }

    /// In floats, since servers calculate whole numbers otherwise; exact below 2^52.
    fn compare_json_arithmetic(
        &self,
        is_equal: bool,
        path: &FieldPath,
        arithmetic: ArithmeticOp,
        operand: &Number,
        right: &Number,
    ) -> Result<Printed> {
        let float = |number: &Number| {
            let float = number.as_f64().filter(|float| !number.is_i64() || float.abs() < EXACT / 2.0);
            float.ok_or_else(|| self.unsupported("calculations with integers beyond 2^52"))
        };
        let (operand, right) = (float(operand)?, float(right)?);
        if !self.dialect.json_arithmetic {
            return Err(self.unsupported("calculations with JSON"));
        }
        if !matches!(
            arithmetic,
            ArithmeticOp::Add | ArithmeticOp::Subtract | ArithmeticOp::Multiply | ArithmeticOp::Divide
        ) {
            return Err(self.unsupported("this calculation with JSON"));
        }
        let (path, symbol) = (self.path(path)?, arithmetic.symbol());
        let op = if is_equal { "==" } else { "!=" };
        Ok(Printed::leaf(format!("({path} {symbol} {operand:?} {op} {right:?})")))
    }

    fn comparison(&self, path: &FieldPath, op: CompareOp, literal: &str) -> Result<Printed> {
        Ok(Printed::leaf(format!("({} {} {literal})", self.path(path)?, op.symbol())))
    }
}

/// The comparison of values that have no order and are not equal.
fn incomparable(op: CompareOp, negated: bool) -> Printed {
    Printed::Constant((op == CompareOp::NotEqual) != negated)
}

fn whole(number: &Number) -> Option<i64> {
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
