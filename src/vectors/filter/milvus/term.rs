//! Paths, literals and patterns.

use serde_json::Value;

use super::{Column, CompareOp, FieldPath, Operand, Printed, Printer};
use crate::error::Result;
use crate::vectors::FieldType;
use crate::vectors::filter::PathSegment;

/// Integers up to this are exact as floats.
const EXACT: u64 = 1 << 53;

impl Printer<'_> {
    /// The path, with quoted keys. Keys that are numbers are also indexes there, and the other way round.
    pub(super) fn path(&self, path: &FieldPath) -> Result<String> {
        let mut text = path.field.clone();
        for segment in &path.segments {
            match segment {
                PathSegment::Index(index) if i64::try_from(*index).is_ok() => {
                    text.push_str(&format!("[{index}]"))
                }
                PathSegment::Index(_) => return Err(self.unsupported("indexes beyond 2^63")),
                PathSegment::Key(key) if key.bytes().all(|byte| byte.is_ascii_digit()) => {
                    return Err(self.unsupported("empty keys and keys that are numbers"));
                }
                PathSegment::Key(key) => text.push_str(&format!("[{}]", Value::from(key.as_str()))),
            }
        }
        Ok(text)
    }

    /// The literal that equals `value` in a typed field; `None` if no value of the field does.
    pub(super) fn equal_literal(&self, field_type: FieldType, value: &Value) -> Result<Option<String>> {
        let literal = match (field_type, value) {
            (FieldType::VarChar, Value::String(_)) | (FieldType::Bool, Value::Bool(_)) => {
                self.literal(value)?
            }
            (FieldType::Int64, Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(_), _) => self.literal(value)?,
                (None, Some(float)) if float.fract() != 0.0 => return Ok(None),
                (None, Some(float)) if float.abs() < EXACT as f64 => (float as i64).to_string(),
                _ => return Err(self.unsupported("comparisons of an integer field with a float beyond 2^53")),
            },
            (FieldType::Float, Value::Number(number)) => match number.as_f64() {
                Some(float) if (float as f32).is_finite() => format!("{float:?}"),
                _ => return Err(self.unsupported("comparisons of a float field with more than 32 bits hold")),
            },
            _ => return Ok(None),
        };
        Ok(Some(literal))
    }

    /// A string, number or boolean.
    pub(super) fn literal(&self, value: &Value) -> Result<String> {
        match value {
            Value::String(text)
                if !self.dialect.control_characters && text.bytes().any(|byte| byte < b' ') =>
            {
                Err(self.unsupported("control characters in strings"))
            }
            Value::Number(number) if number.as_i64() == Some(i64::MIN) => {
                Err(self.unsupported("the number -2^63"))
            }
            Value::Number(number) if number.is_f64() => {
                Ok(format!("{:?}", number.as_f64().unwrap_or_default()))
            }
            // JSON's escapes are Milvus's.
            _ => Ok(value.to_string()),
        }
    }

    /// An element of an array. A whole number is a float, which also equals integers there; an integer would not equal
    /// floats.
    pub(super) fn element(&self, value: &Value) -> Result<String> {
        match value {
            Value::Array(_) => self.elements_of(value),
            Value::Number(number) => match number.as_i64() {
                Some(integer) if integer.unsigned_abs() < EXACT => Ok(format!("{:?}", integer as f64)),
                _ => self.literal(value),
            },
            _ => self.literal(value),
        }
    }

    /// A list of elements, for functions that look for all or any of them.
    pub(super) fn elements(&self, values: &[Value]) -> Result<String> {
        if !self.dialect.array_literals && values.iter().any(|value| value.is_array() || value.is_boolean()) {
            return Err(self.unsupported("arrays and booleans in lists of elements"));
        }
        let elements = values.iter().map(|value| self.element(value)).collect::<Result<Vec<_>>>()?;
        Ok(format!("[{}]", elements.join(", ")))
    }

    /// An array to compare with.
    pub(super) fn array(&self, value: &Value) -> Result<String> {
        let is_nested = value.as_array().is_some_and(|items| items.iter().any(Value::is_array));
        if !self.dialect.array_literals || is_nested {
            return Err(self.unsupported("comparisons with such an array"));
        }
        self.elements_of(value)
    }

    fn elements_of(&self, array: &Value) -> Result<String> {
        match array.as_array() {
            Some(items) if !items.is_empty() => {
                let elements = items.iter().map(|item| self.element(item)).collect::<Result<Vec<_>>>()?;
                Ok(format!("[{}]", elements.join(", ")))
            }
            _ => Err(self.unsupported("empty arrays")),
        }
    }

    pub(super) fn like(&self, path: &FieldPath, pattern: &str, negated: bool) -> Result<Printed> {
        let is_string = match self.column(path)? {
            Column::Scalar(FieldType::VarChar) => true,
            Column::JsonPath => false,
            Column::Json => return Err(self.whole_json(path)),
            Column::Missing | Column::Scalar(_) => return Ok(Printed::Constant(negated)),
        };
        let pattern = Pattern::parse(pattern);
        let path_operand = || Operand::Field(path.clone());
        match &pattern {
            Pattern::Exact(text) => {
                let literal = Operand::Literal(text.as_str().into());
                self.compare(CompareOp::Equal, &path_operand(), &literal, negated)
            }
            Pattern::Anything if is_string => Ok(Printed::Constant(!negated)),
            // True for every string, as `like '%'` is not there.
            Pattern::Anything => {
                let literal = Operand::Literal("".into());
                self.compare(CompareOp::GreaterOrEqual, &path_operand(), &literal, negated)
            }
            Pattern::Wildcards { .. } => {
                let pattern = self.literal(&self.pattern(&pattern)?.into())?;
                let text = format!("({} like {pattern})", self.path(path)?);
                self.check_json_negation(negated && !is_string)?;
                self.negated_if(negated, Printed::leaf(text))
            }
        }
    }

    /// The pattern as it is sent. There are no escapes there.
    fn pattern(&self, pattern: &Pattern) -> Result<String> {
        let Pattern::Wildcards { text, escaped, has_single, is_prefix } = pattern else {
            return Ok(String::new());
        };
        if escaped.iter().any(|c| *c != '_' || !self.dialect.like_literal_underscore) {
            return Err(self.unsupported("escaped characters in a `like` pattern"));
        }
        if *has_single {
            return Err(self.unsupported("an underscore in a `like` pattern"));
        }
        if !is_prefix && !self.dialect.like_anywhere {
            return Err(self.unsupported("a `like` pattern other than a prefix"));
        }
        Ok(text.clone())
    }
}

/// A pattern of `like`, without its escapes.
enum Pattern {
    /// Without wildcards.
    Exact(String),
    /// `%`.
    Anything,
    Wildcards {
        /// The characters, of which some may have been escaped.
        text: String,
        escaped: Vec<char>,
        /// Whether an `_` stands for one character.
        has_single: bool,
        /// Whether the only wildcard is a `%` at the end.
        is_prefix: bool,
    },
}

impl Pattern {
    fn parse(pattern: &str) -> Self {
        let (mut text, mut escaped) = (String::new(), Vec::new());
        let mut wildcards = String::new();
        let mut after_percent = false;
        let mut characters = pattern.chars();
        while let Some(c) = characters.next() {
            if c == '%' && after_percent {
                continue;
            }
            after_percent = c == '%';
            match c {
                '\\' => {
                    let literal = characters.next().unwrap_or('\\');
                    if matches!(literal, '%' | '_' | '\\') {
                        escaped.push(literal);
                    }
                    text.push(literal);
                }
                '%' | '_' => {
                    wildcards.push(c);
                    text.push(c);
                }
                _ => text.push(c),
            }
        }
        match wildcards.as_str() {
            "" => Self::Exact(text),
            "%" if text == "%" => Self::Anything,
            _ => {
                let has_single = wildcards.contains('_');
                let is_prefix = wildcards == "%" && after_percent;
                Self::Wildcards { text, escaped, has_single, is_prefix }
            }
        }
    }
}
