//! What a provider says went wrong.

use std::time::{Duration, SystemTime};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::error::{Error, ErrorKind};
use crate::llm::compatible::Secrets;
use crate::llm::retry::Failure;

/// Characters of a provider's own message that an error repeats.
const MESSAGE_CHARS: usize = 500;

/// The longest pause that a provider may ask for; a longer one is a slip, or no use.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// Why there is no answer in a body that should hold one.
#[derive(Debug)]
pub(in crate::llm) enum Refusal {
    /// The provider says so: the `error` of its format.
    Said(Value),
    /// The body is not what it should be.
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Refusal {
    /// As the failure of an attempt. One that was answered with success is not tried again: the provider may have
    /// charged for it.
    pub(in crate::llm) fn into_failure(self, component: &'static str, secrets: &Secrets) -> Failure {
        match self {
            Self::Failed(error) => Failure::last(error),
            Self::Said(detail) => {
                let status = status_of(&detail);
                let failure = typed(component, status, &detail, &HeaderMap::new(), secrets);
                Failure { retry: false, ..failure }
            }
        }
    }
}

/// The provider's content filter stopped the answer.
pub(in crate::llm) fn filtered(component: &'static str) -> Error {
    Error::new(ErrorKind::ContentFilter, component, "the provider's content filter stopped the answer")
}

/// The model itself declined.
pub(in crate::llm) fn refused(component: &'static str) -> Error {
    Error::new(ErrorKind::ContentFilter, component, "the model refused to answer")
}

/// What an answer with another status than success says.
pub(in crate::llm) fn provider_error(
    component: &'static str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &Secrets,
) -> Failure {
    typed(component, status, &detail_in(body), headers, secrets)
}

/// The `error` in a body. Google wraps it in a list; some servers leave the wrapping out.
fn detail_in(body: &[u8]) -> Value {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let body = match body {
        Value::Array(list) => list.into_iter().next().unwrap_or_default(),
        body => body,
    };
    match body.get("error") {
        Some(Value::String(message)) => serde_json::json!({"message": message}),
        Some(error) => error.clone(),
        None => body,
    }
}

fn typed(
    component: &'static str,
    status: StatusCode,
    detail: &Value,
    headers: &HeaderMap,
    secrets: &Secrets,
) -> Failure {
    let message = detail["message"].as_str().unwrap_or_default();
    let kind = kind_of(status, detail, message);
    let after = retry_after(headers, detail);
    let mut error = Error::new(kind, component, format!("the provider answered {status}"));
    // A message about credentials may repeat a part of the key.
    let is_told = kind != ErrorKind::Authentication && !secrets.are_in(message);
    if is_told && !message.is_empty() {
        let message: String = message.chars().take(MESSAGE_CHARS).collect();
        error = error.with_context("provider", message);
    }
    if let Some(after) = after {
        error = error.with_context("retry_after", format!("{:.1}s", after.as_secs_f64()));
    }
    let spent = is_spent(status, detail);
    let retry = !spent && (matches!(status.as_u16(), 408 | 409 | 429) || status.is_server_error());
    Failure { error: if spent { error.with_retryable(false) } else { error }, retry, after }
}

fn kind_of(status: StatusCode, detail: &Value, message: &str) -> ErrorKind {
    match (status.as_u16(), code_of(detail)) {
        (_, "context_length_exceeded") => ErrorKind::ContextLength,
        (_, "content_filter" | "content_policy_violation") => ErrorKind::ContentFilter,
        (400, _) if is_bad_key(detail) => ErrorKind::Authentication,
        (400 | 413 | 422, _) if is_too_long(message) => ErrorKind::ContextLength,
        // OpenRouter's moderation gives its reasons.
        (403, _) if detail["metadata"]["reasons"].is_array() => ErrorKind::ContentFilter,
        (401 | 403, _) => ErrorKind::Authentication,
        (402 | 429, _) => ErrorKind::RateLimited,
        (404, _) => ErrorKind::NotFound,
        (408, _) => ErrorKind::Timeout,
        (500.., _) => ErrorKind::Overloaded,
        _ => ErrorKind::BadRequest,
    }
}

fn code_of(detail: &Value) -> &str {
    detail["code"].as_str().unwrap_or_default()
}

/// The account has nothing left: waiting does not help.
fn is_spent(status: StatusCode, detail: &Value) -> bool {
    status == StatusCode::PAYMENT_REQUIRED || code_of(detail) == "insufficient_quota"
}

/// Google answers a wrong key with 400 and says so in the details.
fn is_bad_key(detail: &Value) -> bool {
    details(detail).any(|detail| detail["reason"] == "API_KEY_INVALID")
}

fn details(detail: &Value) -> impl Iterator<Item = &Value> {
    detail["details"].as_array().into_iter().flatten()
}

/// How providers without a code for it say that the conversation is too long.
fn is_too_long(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["maximum context length", "context window", "maximum number of tokens", "prompt is too long"]
        .iter()
        .any(|words| message.contains(words))
}

/// The status that fits an error which came with success, perhaps in the middle of a stream.
fn status_of(detail: &Value) -> StatusCode {
    let numbered = detail["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    if let Some(status) =
        numbered.filter(|code| *code >= 400).and_then(|code| StatusCode::from_u16(code).ok())
    {
        return status;
    }
    match (code_of(detail), detail["type"].as_str().unwrap_or_default()) {
        ("rate_limit_exceeded" | "insufficient_quota", _) => StatusCode::TOO_MANY_REQUESTS,
        (_, "rate_limit_exceeded" | "rate_limit_error" | "tokens" | "requests") => {
            StatusCode::TOO_MANY_REQUESTS
        }
        (_, "invalid_request_error") => StatusCode::BAD_REQUEST,
        (_, "authentication_error") => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// When the provider says to come back: in a header, or in the details as Google does it.
fn retry_after(headers: &HeaderMap, detail: &Value) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let milliseconds = text("retry-after-ms").and_then(|ms| ms.parse::<f64>().ok()).map(|ms| ms / 1000.0);
    let seconds = || text(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse::<f64>().ok());
    let asked = milliseconds.or_else(seconds).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // Moments are counted from the answer's own date: both are by the provider's clock.
    let date = |name: &str| httpdate::parse_http_date(text(name)?).ok();
    let until = |moment: SystemTime| Some(moment.duration_since(date(DATE.as_str())?).unwrap_or_default());
    let asked = asked.or_else(|| date(RETRY_AFTER.as_str()).and_then(until));
    // As OpenRouter has it, in headers or in their copy in the details: milliseconds since the Unix epoch.
    let either = |name: &str| text(name).or_else(|| copied_header(detail, name));
    let epoch = || {
        let spent = either("x-ratelimit-remaining") == Some("0");
        let reset = spent.then(|| either("x-ratelimit-reset")).flatten()?.parse().ok()?;
        until(SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(reset))?)
    };
    let reset = |what: &str| {
        let spent = text(&format!("x-ratelimit-remaining-{what}")) == Some("0");
        spent.then(|| text(&format!("x-ratelimit-reset-{what}"))).flatten().and_then(duration)
    };
    let delay = || details(detail).find_map(|detail| detail["retryDelay"].as_str()).and_then(duration);
    let after = asked.or_else(|| reset("requests").max(reset("tokens"))).or_else(epoch).or_else(delay)?;
    (after <= LONGEST_PAUSE).then_some(after)
}

/// A header as OpenRouter repeats it in the details of an error.
fn copied_header<'a>(detail: &'a Value, name: &str) -> Option<&'a str> {
    let headers = detail["metadata"]["headers"].as_object()?;
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?.1.as_str()
}

/// A duration as these headers have it: `1s`, `6m0s`, `1h2m3.5s`, `120ms`.
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
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn failure(status: u16, headers: &[(&'static str, &'static str)], body: &Value) -> Failure {
        let status = StatusCode::from_u16(status).expect("valid");
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        provider_error("test", status, &headers, body.to_string().as_bytes(), &Secrets::of(["sk-sentinel"]))
    }

    fn kind(status: u16, body: &Value) -> ErrorKind {
        failure(status, &[], body).error.kind()
    }

    #[test]
    fn provider_errors_are_typed() {
        let kind = |status, code: &str| kind(status, &json!({"error": {"message": "m", "code": code}}));
        assert_eq!(kind(401, "invalid_api_key"), ErrorKind::Authentication);
        assert_eq!(kind(429, ""), ErrorKind::RateLimited);
        assert_eq!(kind(400, "context_length_exceeded"), ErrorKind::ContextLength);
        assert_eq!(kind(400, "content_filter"), ErrorKind::ContentFilter);
        assert_eq!(kind(400, "x"), ErrorKind::BadRequest);
        assert_eq!(kind(503, "x"), ErrorKind::Overloaded);
    }

    #[test]
    fn each_providers_own_way_of_saying_it_is_understood() {
        let azure = json!({"error": {"code": "content_filter", "innererror":
            {"code": "ResponsibleAIPolicyViolation"}, "message": "filtered", "status": 400}});
        assert_eq!(kind(400, &azure), ErrorKind::ContentFilter);
        let google = json!([{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT",
            "details": [{"reason": "API_KEY_INVALID"}]}}]);
        assert_eq!(kind(400, &google), ErrorKind::Authentication);
        let google = json!({"error": {"code": 400, "message":
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048575)."}});
        assert_eq!(kind(400, &google), ErrorKind::ContextLength);
        let openrouter =
            json!({"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"]}}});
        assert_eq!(kind(403, &openrouter), ErrorKind::ContentFilter);
        let openrouter = json!({"error": {"code": 400, "message":
            "This endpoint's maximum context length is 8192 tokens."}});
        assert_eq!(kind(400, &openrouter), ErrorKind::ContextLength);
        assert_eq!(kind(400, &json!({"object": "error", "message": "bare"})), ErrorKind::BadRequest);
    }

    #[test]
    fn an_account_with_nothing_left_is_not_asked_again() {
        let body = json!({"error": {"code": "insufficient_quota", "message": "pay"}});
        for (status, body) in [(429, body), (402, json!({"error": {"code": 402, "message": "pay"}}))] {
            let failure = failure(status, &[], &body);
            assert_eq!(failure.error.kind(), ErrorKind::RateLimited);
            assert!(!failure.retry && !failure.error.is_retryable());
        }
    }

    #[test]
    fn when_to_come_back_is_found_wherever_a_provider_puts_it() {
        let google = json!({"error": {"code": 429, "details": [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]}});
        let none = json!({});
        let spent = [("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "6m0s")];
        let left = [("x-ratelimit-remaining-tokens", "9"), ("x-ratelimit-reset-tokens", "6m0s")];
        let moment = "Wed, 21 Oct 2026 07:28:00 GMT";
        // 07:28:00 of that day.
        let openrouter = [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1792567680000"),
            ("date", "Wed, 21 Oct 2026 07:27:00 GMT"),
        ];
        let copied = json!({"error": {"code": 429, "metadata": {"headers":
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1792567680000"}}}});
        for (headers, body, expected) in [
            (&[("retry-after", "2")][..], &none, Some(2.0)),
            (&[("retry-after", "0.5")], &none, Some(0.5)),
            (&[("retry-after-ms", "1500"), ("retry-after", "2")], &none, Some(1.5)),
            (&[("retry-after", "-1")], &none, None),
            (&[("retry-after", "99999999999999")], &none, None),
            (&[("retry-after", moment), ("date", "Wed, 21 Oct 2026 07:27:30 GMT")], &none, Some(30.0)),
            (&[("retry-after", moment), ("date", "Wed, 21 Oct 2026 07:29:00 GMT")], &none, Some(0.0)),
            (&[("retry-after", moment)], &none, None),
            (&openrouter, &none, Some(60.0)),
            (&openrouter[1..], &none, None),
            (&openrouter[2..], &copied, Some(60.0)),
            (&spent, &none, Some(360.0)),
            (&left, &none, None),
            (&[], &google, Some(34.5)),
        ] {
            let failure = failure(429, headers, body);
            assert_eq!(failure.after.map(|after| after.as_secs_f64()), expected, "{headers:?}");
            assert_eq!(failure.error.context().any(|(name, _)| name == "retry_after"), expected.is_some());
        }
        assert_eq!(duration("1h2m3s"), Some(Duration::from_secs(3723)));
        for wrong in ["", "5", "s", "1y", "1s2"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_error_within_a_stream_is_typed_by_what_it_says() {
        let kind = |detail| Refusal::Said(detail).into_failure("test", &Secrets::default()).error.kind();
        assert_eq!(kind(json!({"type": "server_error", "code": null})), ErrorKind::Overloaded);
        assert_eq!(kind(json!({"code": 502, "message": "provider disconnected"})), ErrorKind::Overloaded);
        assert_eq!(kind(json!({"type": "invalid_request_error"})), ErrorKind::BadRequest);
        assert_eq!(kind(json!({"code": "rate_limit_exceeded"})), ErrorKind::RateLimited);
        assert_eq!(kind(json!("words alone")), ErrorKind::Overloaded);
    }

    #[test]
    fn a_key_in_the_providers_words_is_not_repeated() {
        let body = json!({"error": {"message": "bad header: Bearer sk-sentinel"}});
        for status in [401, 400, 500] {
            let error = failure(status, &[], &body).error;
            assert!(!format!("{error} {error:?}").contains("sentinel"), "{error:?}");
        }
    }
}
