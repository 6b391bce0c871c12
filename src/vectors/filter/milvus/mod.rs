//! Prints a filter for a Milvus server.
//!
//! The text selects the same rows there as [`Filter::matches`](super::Filter::matches) does here. Milvus's servers
//! evaluate parts of the language differently from each other and from their documentation; such parts are rewritten
//! where that is exact, and are an error otherwise.

mod calculation;
mod comparison;
mod dialect;
mod term;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use self::dialect::MilvusDialect;
use super::{CompareOp, Expr, FieldPath, Operand, invalid};
use crate::error::{Error, ErrorKind, Result};
use crate::vectors::{CollectionConfig, FieldType};

/// The text of an expression for a collection on a server.
pub(super) fn print(expr: &Expr, config: &CollectionConfig, dialect: &MilvusDialect) -> Result<String> {
    let key = &config.pk_field;
    match (Printer { config, dialect }).expr(expr, false)? {
        Printed::Text { text, .. } => Ok(text),
        // A primary key is never empty, and constants are no conditions there.
        Printed::Constant(true) => Ok(format!("{key} != \"\"")),
        Printed::Constant(false) => Ok(format!("{key} == \"\"")),
    }
}

/// A printed condition.
enum Printed {
    /// It does not depend on the row.
    Constant(bool),
    Text {
        text: String,
        /// Nested `and`, `or` and `not`.
        depth: usize,
    },
}

impl Printed {
    fn leaf(text: String) -> Self {
        Self::Text { text, depth: 1 }
    }
}

/// What a path refers to.
enum Column {
    /// Nothing, in any row: a path into a field that is not JSON.
    Missing,
    /// A field with a value of this type in every row.
    Scalar(FieldType),
    /// A whole JSON field.
    Json,
    /// A path into a JSON field.
    JsonPath,
}

struct Printer<'a> {
    config: &'a CollectionConfig,
    dialect: &'a MilvusDialect,
}

impl Printer<'_> {
    /// The condition, or its negation. Negations move inwards, to where they are exact opposites.
    fn expr(&self, expr: &Expr, negated: bool) -> Result<Printed> {
        match expr {
            Expr::Constant(value) => Ok(Printed::Constant(*value != negated)),
            Expr::And(parts) => self.junction(parts, negated, !negated),
            Expr::Or(parts) => self.junction(parts, negated, negated),
            Expr::Not(part) => self.expr(part, !negated),
            Expr::IsTrue(path) => {
                let (path, literal) = (Operand::Field(path.clone()), Operand::Literal(true.into()));
                self.compare(CompareOp::Equal, &path, &literal, negated)
            }
            Expr::Compare { op, left, right } => self.compare(*op, left, right, negated),
            Expr::In { operand, list, negated: not_in } => self.is_in(operand, list, *not_in != negated),
            Expr::Like { path, pattern } => self.like(path, pattern, negated),
            Expr::Contains { path, value } => {
                self.contains(path, "json_contains", || self.element(value), negated)
            }
            Expr::ContainsAll { path, values } => {
                if values.is_empty() {
                    return Err(self.unsupported("json_contains_all with an empty list"));
                }
                self.contains(path, "json_contains_all", || self.elements(values), negated)
            }
            Expr::ContainsAny { values, .. } if values.is_empty() => Ok(Printed::Constant(negated)),
            Expr::ContainsAny { path, values } => {
                self.contains(path, "json_contains_any", || self.elements(values), negated)
            }
            Expr::Exists(path) => self.exists(path, negated),
            Expr::IsNull { path, negated: not_null } => match self.column(path)? {
                Column::Missing => Ok(Printed::Constant(*not_null == negated)),
                Column::Scalar(_) => Ok(Printed::Constant(*not_null != negated)),
                Column::Json | Column::JsonPath => Err(self.unsupported("null tests of JSON")),
            },
        }
    }

    fn junction(&self, parts: &[Expr], negated: bool, is_and: bool) -> Result<Printed> {
        let parts = parts.iter().map(|part| self.expr(part, negated)).collect::<Result<_>>()?;
        self.join(parts, is_and)
    }

    /// Joins conditions with `and` or `or`, without those that decide nothing.
    fn join(&self, parts: Vec<Printed>, is_and: bool) -> Result<Printed> {
        if parts.iter().any(|part| matches!(part, Printed::Constant(value) if *value != is_and)) {
            return Ok(Printed::Constant(!is_and));
        }
        let texts = parts.into_iter().filter_map(|part| match part {
            Printed::Text { text, depth } => Some((text, depth)),
            Printed::Constant(_) => None,
        });
        let texts: Vec<_> = texts.collect();
        if texts.is_empty() {
            return Ok(Printed::Constant(is_and));
        }
        let (text, depth) = balanced(&texts, if is_and { "and" } else { "or" });
        self.nested(text, depth)
    }

    /// The negation of a condition that has no exact opposite.
    fn not(&self, printed: Printed) -> Result<Printed> {
        match printed {
            Printed::Constant(value) => Ok(Printed::Constant(!value)),
            Printed::Text { .. } if !self.dialect.negation => {
                Err(self.unsupported("the negation of this condition"))
            }
            Printed::Text { text, depth } => self.nested(format!("(not ({text}))"), depth + 1),
        }
    }

    fn nested(&self, text: String, depth: usize) -> Result<Printed> {
        let max = self.dialect.max_depth;
        if depth > max {
            return Err(self.unsupported(&format!("conditions nested deeper than {max}")));
        }
        Ok(Printed::Text { text, depth })
    }

    fn negated_if(&self, negated: bool, printed: Printed) -> Result<Printed> {
        if negated { self.not(printed) } else { Ok(printed) }
    }

    fn is_in(&self, operand: &Operand, list: &[Value], negated: bool) -> Result<Printed> {
        let op = if negated { CompareOp::NotEqual } else { CompareOp::Equal };
        let Operand::Field(path) = operand else {
            let compare = |value: &Value| self.compare(op, operand, &Operand::Literal(value.clone()), false);
            return self.join(list.iter().map(compare).collect::<Result<_>>()?, negated);
        };
        let lists = match self.column(path)? {
            Column::Missing => Vec::new(),
            Column::Json => return Err(self.whole_json(path)),
            Column::Scalar(field_type) => {
                let literals = list.iter().map(|value| self.equal_literal(field_type, value));
                vec![literals.filter_map(Result::transpose).collect::<Result<Vec<_>>>()?]
            }
            // A list of several types is an error there.
            Column::JsonPath => {
                self.check_json_negation(negated)?;
                let types = [Value::is_string, Value::is_boolean, Value::is_i64, Value::is_f64];
                let of_type = |is_of_type: fn(&Value) -> bool| {
                    let values = list.iter().filter(|value| is_of_type(value));
                    values.map(|value| self.literal(value)).collect::<Result<Vec<_>>>()
                };
                types.map(of_type).into_iter().collect::<Result<_>>()?
            }
        };
        let (path, not) = (self.path(path)?, if negated { "not " } else { "" });
        let lists = lists.into_iter().filter(|literals| !literals.is_empty());
        let text = |literals: Vec<String>| format!("({path} {not}in [{}])", literals.join(", "));
        self.join(lists.map(|literals| Printed::leaf(text(literals))).collect(), negated)
    }

    fn contains(
        &self,
        path: &FieldPath,
        function: &str,
        argument: impl FnOnce() -> Result<String>,
        negated: bool,
    ) -> Result<Printed> {
        match self.column(path)? {
            Column::Missing | Column::Scalar(_) => Ok(Printed::Constant(negated)),
            Column::Json => Err(self.whole_json(path)),
            Column::JsonPath => {
                self.check_json_negation(negated)?;
                let text = format!("{function}({}, {})", self.path(path)?, argument()?);
                self.negated_if(negated, Printed::leaf(text))
            }
        }
    }

    fn exists(&self, path: &FieldPath, negated: bool) -> Result<Printed> {
        match self.column(path)? {
            Column::Missing => Ok(Printed::Constant(negated)),
            Column::Scalar(_) | Column::Json => Ok(Printed::Constant(!negated)),
            Column::JsonPath if !self.dialect.exists => Err(self.unsupported("exists")),
            Column::JsonPath => {
                self.negated_if(negated, Printed::leaf(format!("(exists {})", self.path(path)?)))
            }
        }
    }

    fn column(&self, path: &FieldPath) -> Result<Column> {
        let (config, field) = (self.config, &path.field);
        let field_type = if *field == config.metadata_field {
            FieldType::Json
        } else if *field == config.pk_field || *field == config.text_field {
            FieldType::VarChar
        } else {
            let extra = config.extra_fields.iter().find(|extra| extra.name == *field);
            let unknown = || {
                let name = &config.collection_name;
                invalid(format!("collection {name:?} does not have a field {field:?}"))
            };
            extra.ok_or_else(unknown)?.field_type
        };
        Ok(match (field_type, path.segments.is_empty()) {
            (FieldType::Json, true) => Column::Json,
            (FieldType::Json, false) => Column::JsonPath,
            (scalar, true) => Column::Scalar(scalar),
            (_, false) => Column::Missing,
        })
    }

    /// Newer servers take a condition on a missing path, or on a value of another type, for neither true nor false; its
    /// negation then is neither as well, and does not select the row.
    fn check_json_negation(&self, negated: bool) -> Result<()> {
        if negated && !self.dialect.json_negation {
            return Err(self.unsupported("negations of conditions on JSON paths, `!=` and `not in` included"));
        }
        Ok(())
    }

    fn whole_json(&self, path: &FieldPath) -> Error {
        self.unsupported(&format!("conditions on {} as a whole", path.field))
    }

    fn unsupported(&self, what: &str) -> Error {
        let message =
            format!("{} cannot evaluate {what}, or does it differently; not sent", self.dialect.name);
        Error::new(ErrorKind::Unsupported, "vectors.filter", message).not_sent()
    }
}

/// Conditions joined as a balanced tree, so that the depth is the logarithm of their number.
fn balanced(parts: &[(String, usize)], word: &str) -> (String, usize) {
    match parts {
        [one] => one.clone(),
        _ => {
            let (left, right) = parts.split_at(parts.len() / 2);
            let ((left, left_depth), (right, right_depth)) = (balanced(left, word), balanced(right, word));
            (format!("({left} {word} {right})"), left_depth.max(right_depth) + 1)
        }
    }
}
