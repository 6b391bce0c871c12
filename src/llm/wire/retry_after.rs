//! When a provider asks to be called again.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};
use serde_json::Value;

/// A longer delay counts as this one: no deadline leaves room for either.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The details that Google adds to an error.
pub(super) fn details(detail: &Value) -> impl Iterator<Item = &Value> {
    detail["details"].as_array().into_iter().flatten()
}

/// The delay in a header, or in the details as Google sends it.
pub(super) fn retry_after(headers: &HeaderMap, detail: &Value) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let milliseconds = text("retry-after-ms").and_then(|ms| ms.parse::<f64>().ok()).map(|ms| ms / 1000.0);
    let seconds = || text(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse::<f64>().ok());
    let requested = milliseconds.or_else(seconds).and_then(delay_of);
    // Dates are relative to the response's own date: both are by the provider's clock.
    let date = |name: &str| httpdate::parse_http_date(text(name)?).ok();
    let until = |moment: SystemTime| Some(moment.duration_since(date(DATE.as_str())?).unwrap_or_default());
    let requested = requested.or_else(|| date(RETRY_AFTER.as_str()).and_then(until));
    // OpenRouter's, in headers or in their copy in the details: milliseconds since the Unix epoch.
    let either = |name: &str| text(name).or_else(|| copied_header(detail, name));
    let epoch = || {
        let exhausted = either("x-ratelimit-remaining") == Some("0");
        let reset = exhausted.then(|| either("x-ratelimit-reset")).flatten()?.parse().ok()?;
        until(SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(reset))?)
    };
    let reset = |what: &str| {
        let exhausted = text(&format!("x-ratelimit-remaining-{what}")) == Some("0");
        exhausted.then(|| text(&format!("x-ratelimit-reset-{what}"))).flatten().and_then(duration)
    };
    let delay = || details(detail).find_map(|detail| detail["retryDelay"].as_str()).and_then(duration);
    let after = requested.or_else(|| reset("requests").max(reset("tokens"))).or_else(epoch).or_else(delay)?;
    Some(after.min(MAX_RETRY_AFTER))
}

/// A number of seconds of any size, but not a negative one.
fn delay_of(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// A header that OpenRouter repeats in the details of an error.
fn copied_header<'a>(detail: &'a Value, name: &str) -> Option<&'a str> {
    let headers = detail["metadata"]["headers"].as_object()?;
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?.1.as_str()
}

/// A duration in the format of these headers: `1s`, `6m0s`, `1h2m3.5s`, `120ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.saturating_add(delay_of(number * unit)?);
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_of_any_size_is_kept_up_to_a_day() {
        let requested = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().expect("a header"));
            retry_after(&headers, &Value::Null)
        };
        for long in ["86401", "18446744073709551615", "99999999999999999999999999", "1e400"] {
            assert_eq!(requested(long), Some(MAX_RETRY_AFTER), "{long}");
        }
        assert_eq!(requested("7"), Some(Duration::from_secs(7)));
        for wrong in ["-1", "NaN", "soon"] {
            assert_eq!(requested(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_are_parsed() {
        assert_eq!(duration("1h2m3s"), Some(Duration::from_secs(3723)));
        for wrong in ["", "5", "s", "1y", "1s2"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
