//! Values, from text or from a file, to what a key expects.

use figment::value::{Num, Value};

use super::sections::McpServerConfig;
use super::servers;

/// What a key expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// true or false.
    Flag,
    /// A whole number within bounds, and an example.
    Number { least: u64, most: u64, example: u64 },
    /// A number of seconds, at least one.
    Seconds { example: u64 },
    /// Any text, and an example.
    Text { example: &'static str },
    /// Text that must never be shown.
    Secret,
    /// A URL of one of these schemes, whose credentials and query must never be shown.
    Url { schemes: &'static [&'static str], example: &'static str },
    /// Several texts.
    List { example: &'static str },
    /// MCP servers.
    Servers,
}

/// The schemes of model endpoints and MCP servers.
pub(super) const WEB: [&str; 2] = ["http", "https"];

/// The largest count: no machine holds more, and no arithmetic on it overflows.
pub(super) const MOST: u64 = u32::MAX as u64;

/// The longest duration: a century, which can be added to any clock.
pub(super) const LONGEST_SECONDS: u64 = 3_155_760_000;

/// A value that fits its key.
#[derive(Debug, Clone)]
pub(super) enum Parsed {
    Flag(bool),
    Number(u64),
    Text(String),
    List(Vec<String>),
    Servers(Vec<McpServerConfig>),
}

/// A value that does not fit, and where in it the fault is.
#[derive(Debug)]
pub(super) struct Wrong {
    /// What follows the key's path, for example `[0].url`; empty for the value as a whole.
    pub at: String,
    /// What was expected.
    pub expected: String,
}

impl Wrong {
    pub(super) fn new(expected: impl Into<String>) -> Self {
        Self { at: String::new(), expected: expected.into() }
    }

    /// The same, of this key.
    pub(super) fn at(self, key: &str) -> Self {
        self.within(&format!(".{key}"))
    }

    /// The same, seen from outside.
    pub(super) fn within(self, outer: &str) -> Self {
        Self { at: format!("{outer}{}", self.at), ..self }
    }
}

impl Kind {
    /// What to say when a value does not fit.
    pub(super) fn expected(self) -> String {
        match self {
            Self::Flag => "expected true or false (or 1/0, yes/no, on/off), for example true".into(),
            Self::Number { least, most, example } => {
                format!("expected a whole number from {least} to {most}, for example {example}")
            }
            Self::Seconds { example } => {
                format!("expected a whole number of seconds, at least 1, for example {example}")
            }
            Self::Text { example } => format!("expected text that is not empty, for example {example}"),
            Self::Secret => "expected text that is not empty; it is a secret and not shown".into(),
            Self::Url { schemes, example } => {
                format!(
                    "expected a URL that starts with {}://, for example {example}",
                    schemes.join(":// or ")
                )
            }
            Self::List { example } => format!("expected a list, for example {example}"),
            Self::Servers => {
                "expected a list of servers, each with a name and a url or a command, for example \
                 [{ name = \"search\", url = \"https://mcp.example.com\" }]"
                    .into()
            }
        }
    }

    /// Whether values may be repeated in errors and explanations.
    pub(super) fn is_public(self) -> bool {
        !matches!(self, Self::Secret | Self::Url { .. } | Self::Servers)
    }

    /// Parses a variable's text, which is not empty.
    pub(super) fn parse_text(self, text: &str) -> Option<Parsed> {
        match self {
            Self::Flag => flag(text).map(Parsed::Flag),
            Self::Number { .. } | Self::Seconds { .. } => self.number(digits(text)?),
            Self::Text { .. } | Self::Secret => {
                (!text.trim().is_empty()).then(|| Parsed::Text(text.to_owned()))
            }
            Self::Url { schemes, .. } => is_url(text, schemes).then(|| Parsed::Text(text.to_owned())),
            Self::List { .. } => {
                let items = text.split(',').map(|item| item.trim().to_owned());
                Some(Parsed::List(items.filter(|item| !item.is_empty()).collect()))
            }
            // Only files and code can hold more than one server's settings.
            Self::Servers => None,
        }
    }

    /// Parses a value from a file or from code.
    pub(super) fn parse_value(self, value: &Value) -> Result<Parsed, Wrong> {
        let parsed = match (self, value) {
            (Self::Flag, Value::Bool(_, flag)) => Some(Parsed::Flag(*flag)),
            (Self::Number { .. } | Self::Seconds { .. }, Value::Num(_, number)) => {
                whole(*number).and_then(|number| self.number(number))
            }
            (Self::List { .. }, Value::Array(_, items)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .map(Parsed::List),
            (Self::Servers, Value::Array(_, items)) => return servers::parse(items).map(Parsed::Servers),
            (Self::Text { .. } | Self::Secret | Self::Url { .. }, Value::String(_, text)) => {
                self.parse_text(text)
            }
            _ => None,
        };
        parsed.ok_or_else(|| Wrong::new(self.expected()))
    }

    fn number(self, number: u64) -> Option<Parsed> {
        let (least, most) = match self {
            Self::Number { least, most, .. } => (least, most),
            _ => (1, LONGEST_SECONDS),
        };
        (least..=most).contains(&number).then_some(Parsed::Number(number))
    }
}

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Digits and nothing else: no sign, no point, no exponent.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn whole(number: Num) -> Option<u64> {
    number
        .to_u128()
        .and_then(|number| u64::try_from(number).ok())
        .or_else(|| u64::try_from(number.to_i128()?).ok())
}

fn is_url(text: &str, schemes: &[&str]) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let has_host = !rest.is_empty() && !rest.starts_with(['/', '?', '#', ':']);
    has_host && schemes.contains(&scheme) && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}
