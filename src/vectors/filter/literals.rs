//! Parses literals, lists, patterns and parameters.

use serde_json::Value;

use super::lexer::Token;
use super::parser::Parser;
use super::{MAX_FILTER_DEPTH, MAX_PATTERN_BYTES, invalid};
use crate::error::Result;

impl Parser<'_> {
    /// A scalar, or a list of literals.
    pub(super) fn literal(&mut self) -> Result<Value> {
        match self.peek() {
            Token::Symbol("[") => self.list().map(Value::Array),
            Token::Param(name) if matches!(self.params.get(name.as_str()), Some(Value::Array(_))) => {
                self.list().map(Value::Array)
            }
            _ => self.scalar(),
        }
    }

    /// A list of scalars, perhaps one parameter that is such a list.
    pub(super) fn scalar_list(&mut self) -> Result<Vec<Value>> {
        let at = self.offset();
        let list = self.list()?;
        if list.iter().any(Value::is_array) {
            return Err(invalid(format!("expected a list of strings, numbers or booleans at byte {at}")));
        }
        Ok(list)
    }

    pub(super) fn list(&mut self) -> Result<Vec<Value>> {
        if let Token::Param(name) = self.peek().clone() {
            return match self.param(&name)? {
                Value::Array(list) if list.iter().all(|item| is_literal(item, self.depth + 1)) => {
                    self.next += 1;
                    Ok(list)
                }
                _ => self.unexpected("a parameter that is a list of strings, 64-bit numbers or booleans"),
            };
        }
        self.expect_symbol("[")?;
        let mut list = Vec::new();
        if self.eat_symbol("]") {
            return Ok(list);
        }
        loop {
            list.push(self.with_depth(Self::literal)?);
            if self.eat_symbol("]") {
                return Ok(list);
            }
            self.expect_symbol(",")?;
        }
    }

    pub(super) fn scalar(&mut self) -> Result<Value> {
        let negative = self.eat_symbol("-");
        let value = match self.peek().clone() {
            Token::Integer(number) => {
                let number = if negative { -i128::from(number) } else { i128::from(number) };
                let Ok(number) = i64::try_from(number) else { return self.unexpected("a 64-bit integer") };
                number.into()
            }
            Token::Float(number) => Value::from(if negative { -number } else { number }),
            _ if negative => return self.unexpected("a number"),
            Token::String(string) => Value::String(string),
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Value::Bool(true),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Value::Bool(false),
            Token::Param(name) => match self.param(&name)? {
                value if !value.is_array() && is_literal(&value, self.depth) => value,
                _ => return self.unexpected("a string, 64-bit number or boolean parameter"),
            },
            _ => return self.unexpected("a value"),
        };
        self.next += 1;
        Ok(value)
    }

    pub(super) fn pattern(&mut self) -> Result<String> {
        let at = self.offset();
        let Value::String(pattern) = self.scalar()? else {
            return Err(invalid(format!("expected a string after \"like\" at byte {at}")));
        };
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(invalid(format!("LIKE pattern at byte {at} exceeds {MAX_PATTERN_BYTES} bytes")));
        }
        let trailing = pattern.bytes().rev().take_while(|byte| *byte == b'\\').count();
        if trailing % 2 == 1 {
            return Err(invalid(format!("LIKE pattern at byte {at} must not end with a single backslash")));
        }
        Ok(pattern)
    }

    fn param(&mut self, name: &str) -> Result<Value> {
        self.unused.remove(name);
        let value = self.params.get(name).cloned();
        value.ok_or_else(|| invalid(format!("missing value for filter parameter {name:?}")))
    }
}

/// Whether a bound value can be written in the language, nested `depth` levels deep.
fn is_literal(value: &Value, depth: usize) -> bool {
    match value {
        Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => number.is_i64() || number.is_f64(),
        Value::Array(items) => {
            depth < MAX_FILTER_DEPTH && items.iter().all(|item| is_literal(item, depth + 1))
        }
        Value::Null | Value::Object(_) => false,
    }
}
