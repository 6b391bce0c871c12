//! Comparisons of a calculation with a number.

use serde_json::{Number, Value};

use super::super::ArithmeticOp;
use super::comparison::{EXACT, Side, whole};
use super::{Column, CompareOp, FieldPath, Operand, Printed, Printer};
use crate::error::Result;
use crate::vectors::FieldType;

/// `path op operand == result`, or `!=`.
struct Equation<'a> {
    path: &'a FieldPath,
    op: ArithmeticOp,
    operand: &'a Number,
    result: &'a Number,
    is_equal: bool,
}

impl Equation<'_> {
    fn compare_op(&self) -> CompareOp {
        if self.is_equal { CompareOp::Equal } else { CompareOp::NotEqual }
    }

    /// The equation of values that are never equal.
    fn never(&self) -> Printed {
        Printed::Constant(!self.is_equal)
    }
}

impl Printer<'_> {
    pub(super) fn compare_calculation(
        &self,
        op: CompareOp,
        calculation: &Operand,
        result: &Value,
    ) -> Result<Printed> {
        let Operand::Arithmetic { op: arithmetic, left, right } = calculation else {
            return Err(self.unsupported("this calculation"));
        };
        let is_equal = match op {
            CompareOp::Equal => true,
            CompareOp::NotEqual => false,
            _ => return Err(self.unsupported("an order of calculated values")),
        };
        let is_commutative = matches!(arithmetic, ArithmeticOp::Add | ArithmeticOp::Multiply);
        let (path, operand) = match (&**left, &**right) {
            (Operand::Field(path), operand) => (path, operand),
            (operand, Operand::Field(path)) if is_commutative => (path, operand),
            _ => return Err(self.unsupported("this calculation")),
        };
        let Side::Literal(operand) = self.side(operand)? else {
            return Err(self.unsupported("calculations with several fields or steps"));
        };
        let (Value::Number(operand), Value::Number(result)) = (&operand, result) else {
            return Ok(Printed::Constant(!is_equal));
        };
        let equation = Equation { path, op: *arithmetic, operand, result, is_equal };
        match self.column(path)? {
            Column::JsonPath => self.json_equation(&equation),
            Column::Scalar(FieldType::Int64) => self.integer_equation(&equation),
            // It is calculated in 32 bits there.
            Column::Scalar(FieldType::Float) => Err(self.unsupported("calculations with a float field")),
            Column::Json => Err(self.whole_json(path)),
            Column::Missing | Column::Scalar(_) => Ok(equation.never()),
        }
    }

    /// Solved for the field, since servers overflow silently.
    fn integer_equation(&self, equation: &Equation<'_>) -> Result<Printed> {
        let Some(operand) = equation.operand.as_i64() else {
            return Err(self.unsupported("calculations with an integer field and a float"));
        };
        if equation.op == ArithmeticOp::Divide {
            return Err(self.unsupported("divisions of an integer field"));
        }
        // Such a float equals several integers.
        if equation.result.is_f64() && equation.result.as_f64().is_some_and(|result| result.abs() >= EXACT) {
            return Err(self.unsupported("comparisons of an integer field with a float beyond 2^53"));
        }
        let Some(result) = whole(equation.result) else { return Ok(equation.never()) };
        let op = equation.compare_op();
        let solution = match equation.op {
            ArithmeticOp::Add => result.checked_sub(operand),
            ArithmeticOp::Subtract => result.checked_add(operand),
            ArithmeticOp::Multiply if operand == 0 => {
                return Ok(Printed::Constant((result == 0) == equation.is_equal));
            }
            ArithmeticOp::Multiply => {
                result.checked_div(operand).filter(|solution| solution.checked_mul(operand) == Some(result))
            }
            ArithmeticOp::Remainder if self.dialect.remainder && operand.unsigned_abs() > 1 => {
                let (path, symbol) = (self.path(equation.path)?, op.symbol());
                return Ok(Printed::leaf(format!("({path} % {operand} {symbol} {result})")));
            }
            _ => return Err(self.unsupported("this calculation with an integer field")),
        };
        match solution {
            Some(i64::MIN) => Err(self.unsupported("the number -2^63")),
            Some(solution) => self.comparison(equation.path, op, &solution.to_string()),
            None => Ok(equation.never()),
        }
    }

    /// In floats, since servers calculate whole numbers otherwise; exact below 2^52.
    fn json_equation(&self, equation: &Equation<'_>) -> Result<Printed> {
        let float = |number: &Number| {
            let in_floats = equation.operand.is_f64() && number.is_f64();
            let float = number.as_f64().filter(|float| in_floats || float.abs() < EXACT / 2.0);
            float.ok_or_else(|| self.unsupported("calculations of integers with numbers beyond 2^52"))
        };
        let (operand, result) = (float(equation.operand)?, float(equation.result)?);
        if !self.dialect.json_arithmetic {
            return Err(self.unsupported("calculations with JSON"));
        }
        self.check_json_negation(!equation.is_equal)?;
        if !matches!(
            equation.op,
            ArithmeticOp::Add | ArithmeticOp::Subtract | ArithmeticOp::Multiply | ArithmeticOp::Divide
        ) {
            return Err(self.unsupported("this calculation with JSON"));
        }
        let (path, symbol) = (self.path(equation.path)?, equation.op.symbol());
        let compare = equation.compare_op().symbol();
        Ok(Printed::leaf(format!("({path} {symbol} {operand:?} {compare} {result:?})")))
    }
}
