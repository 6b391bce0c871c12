//! Tokens to an expression, by recursive descent of bounded depth.

use std::collections::BTreeMap;

use serde_json::Value;

use super::lexer::{Token, tokens};
use super::{Comparison, Expr, MAX_FILTER_BYTES, MAX_FILTER_DEPTH, Operation, Path, Step, invalid};
use crate::error::Result;

pub(super) fn parse(text: &str, params: BTreeMap<&str, Value>) -> Result<Expr> {
    if text.len() > MAX_FILTER_BYTES {
        let length = text.len();
        return Err(invalid(format!(
            "the filter is {length} bytes long; at most {MAX_FILTER_BYTES} are allowed"
        )));
    }
    if text.trim().is_empty() {
        return Err(invalid(
            "the filter is empty; give an expression, for example metadata['source'] == 'a.md'",
        ));
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0, unused: params.clone(), params };
    let root = parser.or()?;
    parser.expect_end()?;
    match parser.unused.keys().next() {
        Some(name) => {
            Err(invalid(format!("the parameter {name:?} was given and the filter does not use it")))
        }
        None => Ok(root),
    }
}

/// The most bytes of a pattern: matching costs at most the pattern's length times the text's.
const MAX_PATTERN_BYTES: usize = 1_024;

struct Parser<'a> {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    params: BTreeMap<&'a str, Value>,
    unused: BTreeMap<&'a str, Value>,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        // The last token is the end, which is never passed.
        &self.tokens[self.next].1
    }

    fn advance(&mut self) -> Token {
        let token = self.tokens[self.next].1.clone();
        if token != Token::End {
            self.next += 1;
        }
        token
    }

    fn wrong<T>(&self, expected: &str) -> Result<T> {
        let (at, token) = &self.tokens[self.next];
        let found = match token {
            Token::End => "the end".to_owned(),
            Token::Word(word) => word.clone(),
            Token::Sign(sign) => format!("{sign:?}"),
            Token::Text(_) => "a text".to_owned(),
            Token::Integer(_) | Token::Float(_) => "a number".to_owned(),
            Token::Param(name) => format!("{{{name}}}"),
        };
        Err(invalid(format!("expected {expected} at byte {at}, found {found}")))
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.next += usize::from(found);
        found
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.next += usize::from(found);
        found
    }

    fn expect_sign(&mut self, sign: &str) -> Result<()> {
        if self.take_sign(sign) { Ok(()) } else { self.wrong(&format!("{sign:?}")) }
    }

    fn expect_end(&self) -> Result<()> {
        if *self.peek() == Token::End { Ok(()) } else { self.wrong("an operator or the end") }
    }

    /// One level deeper, if there may be one.
    fn nested(&mut self, parse: impl FnOnce(&mut Self) -> Result<Expr>) -> Result<Expr> {
        if self.depth >= MAX_FILTER_DEPTH {
            let at = self.tokens[self.next].0;
            return Err(invalid(format!("the filter is nested deeper than {MAX_FILTER_DEPTH} at byte {at}")));
        }
        self.depth += 1;
        let expr = parse(self);
        self.depth -= 1;
        expr
    }

    fn or(&mut self) -> Result<Expr> {
        let mut parts = vec![self.and()?];
        while self.take_word("or") || self.take_sign("||") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Or(parts) })
    }

    fn and(&mut self) -> Result<Expr> {
        let mut parts = vec![self.not()?];
        while self.take_word("and") || self.take_sign("&&") {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::And(parts) })
    }

    fn not(&mut self) -> Result<Expr> {
        if self.take_word("not") || self.take_sign("!") {
            return self.nested(|parser| Ok(Expr::Not(parser.not()?.into())));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr> {
        if self.take_word("exists") {
            return self.path().map(Expr::Exists);
        }
        let left = self.sum()?;
        let signs = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        if let Some((_, comparison)) = signs.into_iter().find(|(sign, _)| self.take_sign(sign)) {
            return Ok(Expr::Compare(comparison, left.into(), self.sum()?.into()));
        }
        if self.take_word("in") {
            return Ok(Expr::In { value: left.into(), list: self.list()?, negated: false });
        }
        if self.is_word("not") {
            self.next += 1;
            if !self.take_word("in") {
                return self.wrong("\"in\"");
            }
            return Ok(Expr::In { value: left.into(), list: self.list()?, negated: true });
        }
        if self.is_word("like") {
            let Expr::Path(path) = left else { return self.wrong("a field before \"like\"") };
            self.next += 1;
            return Ok(Expr::Like { path, pattern: self.pattern()? });
        }
        if self.is_word("is") {
            let Expr::Path(path) = left else { return self.wrong("a field before \"is\"") };
            self.next += 1;
            let negated = self.take_word("not");
            return if self.take_word("null") {
                Ok(Expr::IsNull { path, negated })
            } else {
                self.wrong("\"null\"")
            };
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Expr> {
        self.operations(&[("+", Operation::Add), ("-", Operation::Subtract)], Self::product)
    }

    fn product(&mut self) -> Result<Expr> {
        let signs = [("*", Operation::Multiply), ("/", Operation::Divide), ("%", Operation::Remainder)];
        self.operations(&signs, Self::sign)
    }

    /// A chain of operations of one rank. Each one nests its left side, so it counts as depth.
    fn operations(
        &mut self,
        signs: &[(&str, Operation)],
        operand: fn(&mut Self) -> Result<Expr>,
    ) -> Result<Expr> {
        let mut left = operand(self)?;
        let mut chained = 0;
        while let Some((_, operation)) = signs.iter().find(|(sign, _)| self.take_sign(sign)) {
            chained += 1;
            if self.depth + chained > MAX_FILTER_DEPTH {
                return self.wrong("fewer operations in a row");
            }
            left = Expr::Calculate(*operation, left.into(), operand(self)?.into());
        }
        Ok(left)
    }

    fn sign(&mut self) -> Result<Expr> {
        let next = self.tokens.get(self.next + 1).map(|(_, token)| token);
        if *self.peek() == Token::Sign("-") && matches!(next, Some(Token::Integer(_) | Token::Float(_))) {
            return self.literal().map(Expr::Literal);
        }
        if self.take_sign("-") {
            return self.nested(|parser| Ok(Expr::Negate(parser.sign()?.into())));
        }
        if self.take_sign("+") {
            return self.nested(Self::sign);
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Expr> {
        if self.take_sign("(") {
            return self.nested(|parser| {
                let inner = parser.or()?;
                parser.expect_sign(")")?;
                Ok(inner)
            });
        }
        let reserved = ["and", "or", "not", "in", "like", "is", "exists"];
        match self.peek() {
            Token::Word(word)
                if ["true", "false", "null"].iter().any(|known| word.eq_ignore_ascii_case(known)) =>
            {
                self.literal().map(Expr::Literal)
            }
            Token::Word(word) if word.eq_ignore_ascii_case("json_contains") => self.contains(),
            Token::Word(word) if reserved.iter().any(|known| word.eq_ignore_ascii_case(known)) => {
                self.wrong("a field or a value")
            }
            Token::Word(_) => self.path().map(Expr::Path),
            Token::Text(_) | Token::Integer(_) | Token::Float(_) | Token::Param(_) => {
                self.literal().map(Expr::Literal)
            }
            _ => self.wrong("a field or a value"),
        }
    }

    fn contains(&mut self) -> Result<Expr> {
        self.next += 1;
        self.expect_sign("(")?;
        let path = self.path()?;
        self.expect_sign(",")?;
        let value = self.literal()?;
        self.expect_sign(")")?;
        Ok(Expr::Contains { path, value })
    }

    fn path(&mut self) -> Result<Path> {
        let Token::Word(_) = self.peek() else { return self.wrong("a field") };
        let Token::Word(field) = self.advance() else { return self.wrong("a field") };
        let mut steps = Vec::new();
        while self.take_sign("[") {
            let step = match self.peek() {
                Token::Text(key) => Step::Key(key.clone()),
                Token::Integer(index) => match usize::try_from(*index) {
                    Ok(index) => Step::Index(index),
                    Err(_) => return self.wrong("an index"),
                },
                _ => return self.wrong("a quoted key or an index"),
            };
            self.next += 1;
            self.expect_sign("]")?;
            steps.push(step);
        }
        Ok(Path { field, steps })
    }

    fn list(&mut self) -> Result<Vec<Value>> {
        // A parameter may stand for the whole list.
        if let Token::Param(name) = self.peek().clone() {
            return match self.param(&name)? {
                Value::Array(list) if list.iter().all(is_literal) => {
                    self.next += 1;
                    Ok(list)
                }
                _ => self.wrong("a parameter that is a list of texts, numbers of 64 bits, true or false"),
            };
        }
        self.expect_sign("[")?;
        let mut list = Vec::new();
        if self.take_sign("]") {
            return Ok(list);
        }
        loop {
            list.push(self.literal()?);
            if self.take_sign("]") {
                return Ok(list);
            }
            self.expect_sign(",")?;
        }
    }

    fn literal(&mut self) -> Result<Value> {
        let negative = self.take_sign("-");
        let value = match self.peek().clone() {
            Token::Integer(number) => {
                let number = if negative { -i128::from(number) } else { i128::from(number) };
                let Ok(number) = i64::try_from(number) else { return self.wrong("a number of 64 bits") };
                number.into()
            }
            Token::Float(number) => Value::from(if negative { -number } else { number }),
            _ if negative => return self.wrong("a number"),
            Token::Text(text) => Value::String(text),
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Value::Bool(true),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Value::Bool(false),
            Token::Word(word) if word.eq_ignore_ascii_case("null") => Value::Null,
            Token::Param(name) => match self.param(&name)? {
                value if is_literal(&value) => value,
                _ => return self.wrong("a parameter that is a text, a number of 64 bits, true or false"),
            },
            _ => return self.wrong("a value"),
        };
        self.next += 1;
        Ok(value)
    }

    fn pattern(&mut self) -> Result<String> {
        let at = self.tokens[self.next].0;
        match self.literal()? {
            Value::String(pattern) if pattern.len() <= MAX_PATTERN_BYTES => Ok(pattern),
            Value::String(_) => Err(invalid(format!(
                "the pattern at byte {at} is longer than {MAX_PATTERN_BYTES} bytes, the most there may be"
            ))),
            _ => Err(invalid(format!("expected a text after \"like\" at byte {at}"))),
        }
    }

    fn param(&mut self, name: &str) -> Result<Value> {
        self.unused.remove(name);
        let value = self.params.get(name).cloned();
        value.ok_or_else(|| invalid(format!("no value is bound to the parameter {name:?}")))
    }
}

/// Whether a bound value is one that the language can write.
fn is_literal(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_i64() || number.is_f64(),
        Value::Array(_) | Value::Object(_) => false,
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}
