//! Tools that the model may call.

use std::time::SystemTime;

use arshai::tasks::{Function, FunctionError, Functions};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) fn all() -> Functions {
    Functions::new().with(clock()).with(calculator())
}

fn clock() -> Function {
    Function::new("clock", |_: Value| async {
        Ok::<_, FunctionError>(json!(httpdate::fmt_http_date(SystemTime::now())))
    })
    .with_description("The current date and time")
}

/// Arguments of the calculator.
#[derive(Deserialize, JsonSchema)]
struct Calculation {
    left: f64,
    operator: Operator,
    right: f64,
}

#[derive(Deserialize, JsonSchema)]
enum Operator {
    #[serde(rename = "+")]
    Plus,
    #[serde(rename = "-")]
    Minus,
    #[serde(rename = "*")]
    Times,
    #[serde(rename = "/")]
    Over,
}

fn calculator() -> Function {
    Function::typed("calculator", |Calculation { left, operator, right }: Calculation| async move {
        let result = match operator {
            Operator::Plus => left + right,
            Operator::Minus => left - right,
            Operator::Times => left * right,
            Operator::Over if right == 0.0 => return Err(FunctionError::bad_arguments("division by zero")),
            Operator::Over => left / right,
        };
        // Most are whole, and are read more easily so.
        Ok(if result.fract() == 0.0 { json!(result as i64) } else { json!(result) })
    })
    .with_description("Calculates with two numbers")
}
