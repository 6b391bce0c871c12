//! What happens when a server changes a tool under the same name.

use figment::value::Value;

use super::setting::{Setting, ValueError};
use super::spec::Spec;

/// What happens when an MCP server changes the definition of a tool under the same name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum McpToolChanges {
    /// The new definition is offered.
    Ignore,
    /// The new definition is offered, and the change is logged and in the server's status.
    #[default]
    Report,
    /// The tool is neither offered nor called until the change is accepted.
    Refuse,
}

impl Setting for McpToolChanges {
    fn parse(&mut self, text: &str, _: &Spec) -> Result<(), ValueError> {
        *self = match text {
            "ignore" => Self::Ignore,
            "report" => Self::Report,
            "refuse" => Self::Refuse,
            _ => return Err(ValueError::default()),
        };
        Ok(())
    }

    fn parse_value(&mut self, value: &Value, spec: &Spec) -> Result<(), ValueError> {
        self.parse(value.as_str().ok_or_else(ValueError::default)?, spec)
    }

    fn display(&self, _: &Spec) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn expected(&self, _: &Spec) -> String {
        "\"ignore\", \"report\" or \"refuse\"".to_owned()
    }
}

/// Whether this is a fingerprint: `sha256:` and 64 hexadecimal digits in lower case.
pub(super) fn is_fingerprint(text: &str) -> bool {
    let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    text.strip_prefix("sha256:").is_some_and(|hash| hash.len() == 64 && hash.bytes().all(is_digit))
}
