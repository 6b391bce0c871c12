//! The types that a configuration field can have: how each is parsed, checked and displayed.

use std::time::Duration;

use figment::value::{Num, Value};
use secrecy::{ExposeSecret, SecretString};

use super::spec::{MAX_COUNT, Spec};
use super::url;

/// The longest duration, a century, which can be added to any clock. It means "unlimited".
pub(super) const MAX_SECONDS: u64 = 3_155_760_000;

pub(super) const UNLIMITED: &str = "unlimited";

/// A type that a configuration field can have.
pub(super) trait Setting {
    /// Sets it from the text of a variable, which is trimmed and not empty.
    fn parse(&mut self, text: &str, spec: &Spec) -> Result<(), ValueError>;

    /// Sets it from a value of a file or of code.
    fn parse_value(&mut self, value: &Value, spec: &Spec) -> Result<(), ValueError>;

    /// Whether a value that code wrote into the field is one that could have been parsed.
    fn is_valid(&self, _: &Spec) -> bool {
        true
    }

    /// The value without its unit, secrets redacted.
    fn display(&self, spec: &Spec) -> String;

    /// The expected values, after "expected".
    fn expected(&self, spec: &Spec) -> String;

    /// Whether an invalid value may hold a secret, so that errors must not repeat it.
    fn is_secret(&self, _: &Spec) -> bool {
        false
    }

    /// Removes the limit. Only called for limits.
    fn set_unlimited(&mut self) {}

    /// The value with its secrets, to find out whether it has changed.
    fn exposed(&self) -> String {
        self.display(&Spec::NEW)
    }
}

/// A value that does not fit its key.
#[derive(Debug, Default)]
pub(super) struct ValueError {
    /// Path within the key's value, for example `[0].url`; empty for the value as a whole.
    pub path: String,
    /// The reason, where the key's expected values do not say it.
    pub reason: Option<String>,
}

impl ValueError {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { path: String::new(), reason: Some(reason.into()) }
    }

    /// The same error, of this key of a table.
    pub(super) fn at_key(self, key: &str) -> Self {
        self.nested_under(&format!(".{key}"))
    }

    /// The same error, of a value within `outer`.
    pub(super) fn nested_under(self, outer: &str) -> Self {
        Self { path: format!("{outer}{}", self.path), ..self }
    }
}

/// Digits and nothing else: no sign, no point, no exponent.
fn parse_digits(text: &str) -> Result<u64, ValueError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok());
    digits.flatten().ok_or_else(ValueError::default)
}

/// A number that is whole and not negative.
pub(super) fn parse_whole_number(value: &Value) -> Result<u64, ValueError> {
    let Value::Num(_, number) = value else { return Err(ValueError::default()) };
    match number {
        Num::F32(float) => Err(ValueError::new(format!("{float:?} is not a whole number"))),
        Num::F64(float) => Err(ValueError::new(format!("{float:?} is not a whole number"))),
        number => number
            .to_u128()
            .and_then(|number| u64::try_from(number).ok())
            .or_else(|| u64::try_from(number.to_i128()?).ok())
            .ok_or_else(ValueError::default),
    }
}

macro_rules! number_settings {
    ($($Type:ty),+) => {$(
        impl Setting for $Type {
            fn parse(&mut self, text: &str, spec: &Spec) -> Result<(), ValueError> {
                *self = spec.in_range(parse_digits(text)?)?;
                Ok(())
            }

            fn parse_value(&mut self, value: &Value, spec: &Spec) -> Result<(), ValueError> {
                *self = spec.in_range(parse_whole_number(value)?)?;
                Ok(())
            }

            fn is_valid(&self, spec: &Spec) -> bool {
                let number = *self as u64;
                number >= spec.min && (number <= spec.max || spec.max == MAX_COUNT)
            }

            fn display(&self, _: &Spec) -> String {
                match *self as u64 {
                    number if number <= MAX_COUNT => number.to_string(),
                    _ => UNLIMITED.to_owned(),
                }
            }

            fn expected(&self, spec: &Spec) -> String {
                format!("a whole number from {} to {}", spec.min, spec.max)
            }

            fn set_unlimited(&mut self) {
                *self = Self::MAX;
            }
        }
    )+};
}

number_settings!(u8, u16, u32, u64, usize);

impl Spec {
    fn in_range<T: TryFrom<u64>>(&self, number: u64) -> Result<T, ValueError> {
        let number = Some(number).filter(|number| (self.min..=self.max).contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(ValueError::default)
    }
}

fn seconds(seconds: u64) -> Result<Duration, ValueError> {
    let is_valid = (1..=MAX_SECONDS).contains(&seconds);
    is_valid.then(|| Duration::from_secs(seconds)).ok_or_else(ValueError::default)
}

/// Whole seconds.
impl Setting for Duration {
    fn parse(&mut self, text: &str, _: &Spec) -> Result<(), ValueError> {
        *self = seconds(parse_digits(text)?)?;
        Ok(())
    }

    fn parse_value(&mut self, value: &Value, _: &Spec) -> Result<(), ValueError> {
        *self = seconds(parse_whole_number(value)?)?;
        Ok(())
    }

    /// Code may set fractions of a second.
    fn is_valid(&self, _: &Spec) -> bool {
        !self.is_zero()
    }

    fn display(&self, _: &Spec) -> String {
        match self.as_secs() {
            MAX_SECONDS.. => UNLIMITED.to_owned(),
            _ => self.as_secs_f64().to_string(),
        }
    }

    fn expected(&self, _: &Spec) -> String {
        "a whole number of seconds, at least 1".to_owned()
    }

    fn set_unlimited(&mut self) {
        *self = Self::from_secs(MAX_SECONDS);
    }
}

impl Setting for bool {
    fn parse(&mut self, text: &str, _: &Spec) -> Result<(), ValueError> {
        *self = match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => return Err(ValueError::default()),
        };
        Ok(())
    }

    fn parse_value(&mut self, value: &Value, _: &Spec) -> Result<(), ValueError> {
        *self = value.to_bool().ok_or_else(ValueError::default)?;
        Ok(())
    }

    fn display(&self, _: &Spec) -> String {
        self.to_string()
    }

    fn expected(&self, _: &Spec) -> String {
        "true or false (or 1/0, yes/no, on/off)".to_owned()
    }
}

const HOST: &str = "name or address of a host, without scheme, credentials and port";

/// A string that is not empty; a URL where the key has schemes.
impl Setting for String {
    fn parse(&mut self, text: &str, spec: &Spec) -> Result<(), ValueError> {
        let parsed = match spec.schemes {
            _ if spec.host => Some(text.to_owned()).filter(|text| url::is_bare_host(text)),
            [] => Some(text.to_owned()).filter(|text| !text.trim().is_empty()),
            schemes => url::parse(text, schemes),
        };
        *self = parsed.ok_or_else(ValueError::default)?;
        Ok(())
    }

    fn parse_value(&mut self, value: &Value, spec: &Spec) -> Result<(), ValueError> {
        self.parse(value.as_str().ok_or_else(ValueError::default)?, spec)
    }

    fn is_valid(&self, spec: &Spec) -> bool {
        Self::new().parse(self, spec).is_ok()
    }

    fn display(&self, spec: &Spec) -> String {
        match spec.schemes {
            _ if spec.host => displayed_host(self).to_owned(),
            [] => self.clone(),
            schemes => url::redact(self, schemes),
        }
    }

    fn expected(&self, spec: &Spec) -> String {
        match spec.schemes {
            _ if spec.host => format!("the {HOST}"),
            [] => "a non-empty string".to_owned(),
            schemes => format!(
                "a URL that starts with {}:// (special characters of a password are percent-encoded)",
                schemes.join(":// or ")
            ),
        }
    }

    fn is_secret(&self, spec: &Spec) -> bool {
        !spec.schemes.is_empty() || spec.host
    }

    fn exposed(&self) -> String {
        self.clone()
    }
}

/// What is not a host may hold credentials.
fn displayed_host(host: &str) -> &str {
    if url::is_bare_host(host) { host } else { "***" }
}

/// A secret, or a URL that may hold one.
impl Setting for SecretString {
    fn parse(&mut self, text: &str, spec: &Spec) -> Result<(), ValueError> {
        let mut string = String::new();
        string.parse(text, spec)?;
        *self = string.into();
        Ok(())
    }

    fn parse_value(&mut self, value: &Value, spec: &Spec) -> Result<(), ValueError> {
        self.parse(value.as_str().ok_or_else(ValueError::default)?, spec)
    }

    fn is_valid(&self, spec: &Spec) -> bool {
        String::new().parse(self.expose_secret(), spec).is_ok()
    }

    fn display(&self, spec: &Spec) -> String {
        match spec.schemes {
            [] => "***".to_owned(),
            schemes => url::redact(self.expose_secret(), schemes),
        }
    }

    fn expected(&self, spec: &Spec) -> String {
        let secret = if spec.schemes.is_empty() { " (value hidden: secret)" } else { "" };
        String::new().expected(spec) + secret
    }

    fn is_secret(&self, _: &Spec) -> bool {
        true
    }

    fn exposed(&self) -> String {
        self.expose_secret().to_owned()
    }
}

impl<T: Setting + Default> Setting for Option<T> {
    fn parse(&mut self, text: &str, spec: &Spec) -> Result<(), ValueError> {
        let mut value = T::default();
        value.parse(text, spec)?;
        *self = Some(value);
        Ok(())
    }

    fn parse_value(&mut self, value: &Value, spec: &Spec) -> Result<(), ValueError> {
        let mut inner = T::default();
        inner.parse_value(value, spec)?;
        *self = Some(inner);
        Ok(())
    }

    fn is_valid(&self, spec: &Spec) -> bool {
        self.as_ref().is_none_or(|value| value.is_valid(spec))
    }

    fn display(&self, spec: &Spec) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), |value| value.display(spec))
    }

    fn expected(&self, spec: &Spec) -> String {
        T::default().expected(spec)
    }

    fn is_secret(&self, spec: &Spec) -> bool {
        T::default().is_secret(spec)
    }

    fn exposed(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), |value| format!("some {}", value.exposed()))
    }
}

impl Setting for Vec<String> {
    fn parse(&mut self, text: &str, spec: &Spec) -> Result<(), ValueError> {
        let items = text.split(',').map(|item| item.trim().to_owned());
        let items: Self = items.filter(|item| !item.is_empty()).collect();
        *self = Some(items).filter(|items| items.is_valid(spec)).ok_or_else(ValueError::default)?;
        Ok(())
    }

    fn parse_value(&mut self, value: &Value, spec: &Spec) -> Result<(), ValueError> {
        let items = value.as_array().ok_or_else(ValueError::default)?.iter();
        let strings = items.map(|item| item.as_str().map(str::to_owned)).collect::<Option<Self>>();
        *self = strings.filter(|items| items.is_valid(spec)).ok_or_else(ValueError::default)?;
        Ok(())
    }

    fn is_valid(&self, spec: &Spec) -> bool {
        !spec.host || self.iter().all(|host| url::is_bare_host(host))
    }

    fn display(&self, spec: &Spec) -> String {
        let displayed: Vec<_> =
            self.iter().map(|item| if spec.host { displayed_host(item) } else { item }).collect();
        if self.is_empty() { "none".to_owned() } else { displayed.join(", ") }
    }

    fn expected(&self, spec: &Spec) -> String {
        match spec.host {
            true => format!("a list, each the {HOST}"),
            false => "a list of strings".to_owned(),
        }
    }

    fn is_secret(&self, spec: &Spec) -> bool {
        spec.host
    }
}
