//! Values, from text or from a file, to what a key expects.

use std::collections::BTreeMap;
use std::time::Duration;

use figment::value::{Num, Value};

use super::sections::McpServerConfig;

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
    /// A URL, whose credentials and query must never be shown.
    Url { example: &'static str },
    /// Several texts.
    List { example: &'static str },
    /// MCP servers.
    Servers,
}

/// A value that fits its key.
#[derive(Debug, Clone)]
pub(super) enum Parsed {
    Flag(bool),
    Number(u64),
    Text(String),
    List(Vec<String>),
    Servers(Vec<McpServerConfig>),
}

impl Kind {
    /// What to say when a value does not fit.
    pub(super) fn expected(self) -> String {
        match self {
            Self::Flag => "expected true or false (or 1/0, yes/no, on/off), for example true".into(),
            Self::Number { least, most: u64::MAX, example } => {
                format!("expected a whole number of at least {least}, for example {example}")
            }
            Self::Number { least, most, example } => {
                format!("expected a whole number from {least} to {most}, for example {example}")
            }
            Self::Seconds { example } => {
                format!("expected a whole number of seconds, at least 1, for example {example}")
            }
            Self::Text { example } => format!("expected text, for example {example}"),
            Self::Secret => "expected text in UTF-8; the value is a secret and is not shown".into(),
            Self::Url { example } => format!("expected a URL, for example {example}"),
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
            Self::Text { .. } | Self::Secret => Some(Parsed::Text(text.to_owned())),
            Self::Url { .. } => url(text).map(Parsed::Text),
            Self::List { .. } => {
                let items = text.split(',').map(|item| item.trim().to_owned());
                Some(Parsed::List(items.filter(|item| !item.is_empty()).collect()))
            }
            // Only files and code can hold more than one server's settings.
            Self::Servers => None,
        }
    }

    /// Parses a value from a file or from code.
    pub(super) fn parse_value(self, value: &Value) -> Option<Parsed> {
        match (self, value) {
            (Self::Flag, Value::Bool(_, flag)) => Some(Parsed::Flag(*flag)),
            (Self::Number { .. } | Self::Seconds { .. }, Value::Num(_, number)) => {
                self.number(whole(*number)?)
            }
            (Self::List { .. }, Value::Array(_, items)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .map(Parsed::List),
            (Self::Servers, Value::Array(_, items)) => {
                items.iter().map(server).collect::<Option<_>>().map(Parsed::Servers)
            }
            (Self::Text { .. } | Self::Secret | Self::Url { .. }, Value::String(_, text)) => {
                self.parse_text(text)
            }
            _ => None,
        }
    }

    fn number(self, number: u64) -> Option<Parsed> {
        let (least, most) = match self {
            Self::Number { least, most, .. } => (least, most),
            // A century: longer than anybody waits, and safe to add to any clock.
            _ => (1, 3_155_760_000),
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

fn url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    (!scheme.is_empty() && !rest.is_empty() && !text.contains(char::is_whitespace)).then(|| text.to_owned())
}

/// One server of `mcp.servers`; refuses keys it does not know.
fn server(value: &Value) -> Option<McpServerConfig> {
    let known = ["name", "url", "command", "args", "env", "timeout", "max_retries", "description"];
    let dict = value.as_dict()?;
    if dict.keys().any(|key| !known.contains(&key.as_str())) {
        return None;
    }
    let text = |key: &str| dict.get(key).map(|value| value.as_str().map(str::to_owned));
    let number = |key: &str| dict.get(key).map(|value| value.to_num().and_then(whole));
    let list = |key: &str| match dict.get(key) {
        Some(value) => {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        }
        None => Some(Vec::new()),
    };
    let env = match dict.get("env") {
        Some(value) => value
            .as_dict()?
            .iter()
            .map(|(name, value)| Some((name.clone(), value.as_str()?.into())))
            .collect::<Option<BTreeMap<_, _>>>()?,
        None => BTreeMap::new(),
    };
    let server = McpServerConfig {
        name: text("name")??,
        url: text("url").map_or(Some(None), |text| text.map(Some))?,
        command: text("command").map_or(Some(None), |text| text.map(Some))?,
        args: list("args")?,
        env,
        timeout: Duration::from_secs(number("timeout").unwrap_or(Some(30))?.max(1)),
        max_retries: number("max_retries")
            .map_or(Some(None), |number| number.and_then(|n| u32::try_from(n).ok()).map(Some))?,
        description: text("description").map_or(Some(None), |text| text.map(Some))?,
    };
    // A server is reached by its URL or started by its command: one of them, not both.
    (!server.name.is_empty() && server.url.is_some() != server.command.is_some()).then_some(server)
}
