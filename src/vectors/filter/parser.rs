//! Parses tokens into an expression, by recursive descent of bounded depth.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::lexer::{Token, tokens};
use super::{
    ArithmeticOp, CompareOp, Expr, FieldPath, FieldValue, MAX_FILTER_BYTES, MAX_FILTER_DEPTH, Operand,
    PathSegment, evaluate, invalid,
};
use crate::error::Result;

/// Words that cannot name a field.
pub(super) const KEYWORDS: [&str; 17] = [
    "and",
    "or",
    "not",
    "in",
    "like",
    "is",
    "exists",
    "null",
    "true",
    "false",
    "json_contains",
    "json_contains_all",
    "json_contains_any",
    "array_contains",
    "array_contains_all",
    "array_contains_any",
    "array_length",
];

pub(super) fn parse(text: &str, params: BTreeMap<&str, Value>) -> Result<Expr> {
    if text.len() > MAX_FILTER_BYTES {
        let length = text.len();
        return Err(invalid(format!("filter of {length} bytes exceeds {MAX_FILTER_BYTES} bytes")));
    }
    if text.trim().is_empty() {
        return Err(invalid("filter must not be empty; expected e.g. metadata['source'] == 'a.md'"));
    }
    let unused = params.keys().copied().collect();
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0, unused, params: &params };
    let root = parser.or()?.into_condition(0)?;
    if *parser.peek() != Token::End {
        return parser.unexpected("an operator or the end");
    }
    match parser.unused.first() {
        Some(name) => Err(invalid(format!("unused filter parameter {name:?}"))),
        None => Ok(root),
    }
}

/// A parsed part of the text.
enum Term {
    Condition(Expr),
    Value(Operand),
}

impl Term {
    fn into_condition(self, at: usize) -> Result<Expr> {
        match self {
            Self::Condition(expr) => Ok(expr),
            Self::Value(Operand::Field(path)) => Ok(Expr::IsTrue(path)),
            Self::Value(Operand::Literal(Value::Bool(value))) => Ok(Expr::Constant(value)),
            Self::Value(_) => Err(invalid(format!("expected a condition at byte {at}, found a value"))),
        }
    }

    fn into_operand(self, at: usize) -> Result<Operand> {
        match self {
            Self::Value(operand) => Ok(operand),
            Self::Condition(_) => Err(invalid(format!("expected a value at byte {at}, found a condition"))),
        }
    }
}

pub(super) struct Parser<'a> {
    tokens: Vec<(usize, Token)>,
    pub(super) next: usize,
    pub(super) depth: usize,
    pub(super) params: &'a BTreeMap<&'a str, Value>,
    /// Parameters that were not used so far.
    pub(super) unused: BTreeSet<&'a str>,
}

impl Parser<'_> {
    pub(super) fn peek(&self) -> &Token {
        // The last token is the end, which is never passed.
        &self.tokens[self.next].1
    }

    pub(super) fn offset(&self) -> usize {
        self.tokens[self.next].0
    }

    pub(super) fn unexpected<T>(&self, expected: &str) -> Result<T> {
        let (at, token) = &self.tokens[self.next];
        let found = match token {
            Token::End => "the end".to_owned(),
            Token::Word(word) => word.clone(),
            Token::Symbol(symbol) => format!("{symbol:?}"),
            Token::String(_) => "a string".to_owned(),
            Token::Integer(_) | Token::Float(_) => "a number".to_owned(),
            Token::Param(name) => format!("{{{name}}}"),
        };
        Err(invalid(format!("expected {expected} at byte {at}, found {found}")))
    }

    fn at_keyword(&self, keyword: &str) -> bool {
        matches!(self.peek(), Token::Word(found) if found.eq_ignore_ascii_case(keyword))
    }

    fn eat_keyword(&mut self, keyword: &str) -> bool {
        let found = self.at_keyword(keyword);
        self.next += usize::from(found);
        found
    }

    pub(super) fn eat_symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Token::Symbol(found) if *found == symbol);
        self.next += usize::from(found);
        found
    }

    pub(super) fn expect_symbol(&mut self, symbol: &str) -> Result<()> {
        if self.eat_symbol(symbol) { Ok(()) } else { self.unexpected(&format!("{symbol:?}")) }
    }

    /// Parses one level deeper, within the depth limit.
    pub(super) fn with_depth<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_FILTER_DEPTH {
            let at = self.offset();
            return Err(invalid(format!("filter nesting exceeds {MAX_FILTER_DEPTH} levels at byte {at}")));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn or(&mut self) -> Result<Term> {
        self.junction("or", "||", Self::and, Expr::Or)
    }

    fn and(&mut self) -> Result<Term> {
        self.junction("and", "&&", Self::not, Expr::And)
    }

    fn junction(
        &mut self,
        keyword: &str,
        symbol: &str,
        operand: fn(&mut Self) -> Result<Term>,
        build: fn(Vec<Expr>) -> Expr,
    ) -> Result<Term> {
        let at = self.offset();
        let first = operand(self)?;
        if !self.eat_keyword(keyword) && !self.eat_symbol(symbol) {
            return Ok(first);
        }
        let mut parts = vec![first.into_condition(at)?];
        loop {
            let at = self.offset();
            parts.push(operand(self)?.into_condition(at)?);
            if !self.eat_keyword(keyword) && !self.eat_symbol(symbol) {
                return Ok(Term::Condition(build(parts)));
            }
        }
    }

    fn not(&mut self) -> Result<Term> {
        if self.eat_keyword("not") || self.eat_symbol("!") {
            let at = self.offset();
            let inner = self.with_depth(Self::not)?.into_condition(at)?;
            return Ok(Term::Condition(Expr::Not(inner.into())));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Term> {
        if self.eat_keyword("exists") {
            return self.path().map(Expr::Exists).map(Term::Condition);
        }
        let at = self.offset();
        let left = self.additive()?;
        if let Some(op) = self.eat_compare_op() {
            let left = left.into_operand(at)?;
            return self.compared_with(left, op).map(Term::Condition);
        }
        let negated = self.at_keyword("not");
        if negated || self.at_keyword("in") {
            self.next += usize::from(negated);
            if !self.eat_keyword("in") {
                return self.unexpected("\"in\"");
            }
            let operand = left.into_operand(at)?;
            return Ok(Term::Condition(Expr::In { operand, list: self.scalar_list()?, negated }));
        }
        if self.at_keyword("like") {
            let Term::Value(Operand::Field(path)) = left else {
                return self.unexpected("a field before \"like\"");
            };
            self.next += 1;
            return Ok(Term::Condition(Expr::Like { path, pattern: self.pattern()? }));
        }
        if self.at_keyword("is") {
            let Term::Value(Operand::Field(path)) = left else {
                return self.unexpected("a field before \"is\"");
            };
            self.next += 1;
            let negated = self.eat_keyword("not");
            if !self.eat_keyword("null") {
                return self.unexpected("\"null\"");
            }
            return Ok(Term::Condition(Expr::IsNull { path, negated }));
        }
        Ok(left)
    }

    /// The rest of `left op right`, or of a range such as `1 < page <= 5`.
    fn compared_with(&mut self, left: Operand, op: CompareOp) -> Result<Expr> {
        let at = self.offset();
        let right = self.additive()?.into_operand(at)?;
        let is_less = |op| matches!(op, CompareOp::Less | CompareOp::LessOrEqual);
        let is_greater = |op| matches!(op, CompareOp::Greater | CompareOp::GreaterOrEqual);
        let before = self.next;
        match self.eat_compare_op() {
            Some(second) if is_less(op) && is_less(second) || is_greater(op) && is_greater(second) => {
                let at = self.offset();
                let end = self.additive()?.into_operand(at)?;
                let first = Expr::Compare { op, left, right: right.clone() };
                Ok(Expr::And(vec![first, Expr::Compare { op: second, left: right, right: end }]))
            }
            _ => {
                self.next = before;
                Ok(Expr::Compare { op, left, right })
            }
        }
    }

    fn eat_compare_op(&mut self) -> Option<CompareOp> {
        use CompareOp::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        let all = [Equal, NotEqual, LessOrEqual, GreaterOrEqual, Less, Greater];
        all.into_iter().find(|op| self.eat_symbol(op.symbol()))
    }

    fn additive(&mut self) -> Result<Term> {
        self.binary_chain(&[ArithmeticOp::Add, ArithmeticOp::Subtract], Self::multiplicative)
    }

    fn multiplicative(&mut self) -> Result<Term> {
        use ArithmeticOp::{Divide, Multiply, Remainder};
        self.binary_chain(&[Multiply, Divide, Remainder], Self::unary)
    }

    /// A chain of operations of one precedence. Each one nests its left side, so it counts as depth.
    fn binary_chain(&mut self, ops: &[ArithmeticOp], operand: fn(&mut Self) -> Result<Term>) -> Result<Term> {
        let at = self.offset();
        let mut left = operand(self)?;
        let mut chained = 0;
        while let Some(op) = ops.iter().copied().find(|op| self.eat_symbol(op.symbol())) {
            chained += 1;
            let right_at = self.offset();
            if self.depth + chained > MAX_FILTER_DEPTH {
                return Err(invalid(format!("too many chained operators at byte {right_at}")));
            }
            let right = operand(self)?.into_operand(right_at)?;
            if matches!(op, ArithmeticOp::Divide | ArithmeticOp::Remainder) && is_constant_zero(&right) {
                return Err(invalid(format!("division by zero at byte {right_at}")));
            }
            let left_operand = left.into_operand(at)?;
            left = Term::Value(Operand::Arithmetic { op, left: left_operand.into(), right: right.into() });
        }
        Ok(left)
    }

    /// A sign binds less than `**`, except that of a literal, which may be the smallest integer.
    fn unary(&mut self) -> Result<Term> {
        let token = |ahead: usize| self.tokens.get(self.next + ahead).map(|(_, token)| token);
        let is_literal = matches!(token(1), Some(Token::Integer(_) | Token::Float(_)));
        if *self.peek() == Token::Symbol("-") && is_literal && token(2) != Some(&Token::Symbol("**")) {
            return self.scalar().map(Operand::Literal).map(Term::Value);
        }
        let at = self.offset();
        if self.eat_symbol("-") {
            let inner = self.with_depth(Self::unary)?.into_operand(at)?;
            return Ok(Term::Value(Operand::Negate(inner.into())));
        }
        if self.eat_symbol("+") {
            return self.with_depth(Self::unary)?.into_operand(at).map(Term::Value);
        }
        self.binary_chain(&[ArithmeticOp::Power], Self::exponent)
    }

    /// A part of a power. An exponent may have a sign.
    fn exponent(&mut self) -> Result<Term> {
        if matches!(self.peek(), Token::Symbol("-" | "+")) {
            return self.with_depth(Self::unary);
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Term> {
        if self.eat_symbol("(") {
            return self.with_depth(|parser| {
                let inner = parser.or()?;
                parser.expect_symbol(")")?;
                Ok(inner)
            });
        }
        match self.peek() {
            Token::Word(word) => match word.to_ascii_lowercase().as_str() {
                "true" | "false" => self.scalar().map(Operand::Literal).map(Term::Value),
                "null" => self.unexpected("a field or a value (null is tested with \"is null\")"),
                "array_length" => self.array_length().map(Term::Value),
                "json_contains" | "array_contains" => {
                    self.contains(|parser| parser.literal(), |path, value| Expr::Contains { path, value })
                }
                "json_contains_all" | "array_contains_all" => {
                    self.contains(Self::list, |path, values| Expr::ContainsAll { path, values })
                }
                "json_contains_any" | "array_contains_any" => {
                    self.contains(Self::list, |path, values| Expr::ContainsAny { path, values })
                }
                word if KEYWORDS.contains(&word) => self.unexpected("a field or a value"),
                _ => self.path().map(Operand::Field).map(Term::Value),
            },
            Token::String(_) | Token::Integer(_) | Token::Float(_) | Token::Param(_) | Token::Symbol("[") => {
                self.literal().map(Operand::Literal).map(Term::Value)
            }
            _ => self.unexpected("a field or a value"),
        }
    }

    fn array_length(&mut self) -> Result<Operand> {
        self.next += 1;
        self.expect_symbol("(")?;
        let path = self.path()?;
        self.expect_symbol(")")?;
        Ok(Operand::ArrayLength(path))
    }

    fn contains<T>(
        &mut self,
        argument: impl FnOnce(&mut Self) -> Result<T>,
        build: impl FnOnce(FieldPath, T) -> Expr,
    ) -> Result<Term> {
        self.next += 1;
        self.expect_symbol("(")?;
        let path = self.path()?;
        self.expect_symbol(",")?;
        let argument = argument(self)?;
        self.expect_symbol(")")?;
        Ok(Term::Condition(build(path, argument)))
    }

    fn path(&mut self) -> Result<FieldPath> {
        let Token::Word(field) = self.peek().clone() else { return self.unexpected("a field") };
        if KEYWORDS.iter().any(|keyword| field.eq_ignore_ascii_case(keyword)) {
            return self.unexpected("a field");
        }
        self.next += 1;
        let mut segments = Vec::new();
        while self.eat_symbol("[") {
            let segment = match self.peek() {
                Token::String(key) => PathSegment::Key(key.clone()),
                Token::Integer(index) => match usize::try_from(*index) {
                    Ok(index) => PathSegment::Index(index),
                    Err(_) => return self.unexpected("an index"),
                },
                _ => return self.unexpected("a quoted key or an index"),
            };
            self.next += 1;
            self.expect_symbol("]")?;
            segments.push(segment);
        }
        Ok(FieldPath { field, segments })
    }
}

/// Some servers crash on a division by zero, so a constant one is rejected here.
fn is_constant_zero(operand: &Operand) -> bool {
    match evaluate::value(operand, &Map::new()) {
        Some(FieldValue::Int(number)) => number == 0,
        Some(FieldValue::Float(number)) => number == 0.0,
        _ => false,
    }
}
