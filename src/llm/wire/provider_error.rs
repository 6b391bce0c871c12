//! Errors that a provider reports.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::retry_after::{details, retry_after};
use crate::error::{Error, ErrorKind, Outcome};
use crate::llm::secrets::Secrets;

/// Characters of a provider's message that an error repeats.
const MESSAGE_CHARS: usize = 500;

/// The error of a response whose status is not a success. The provider did not do what was asked.
pub(in crate::llm) fn status_error(
    component: &'static str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &Secrets,
) -> Error {
    classify(component, status, &error_detail(body), headers, secrets).with_outcome(Outcome::Rejected)
}

/// The error in a body whose status is a success, perhaps after text. The provider may have charged for it.
pub(super) fn body_error(component: &'static str, error: &Value, secrets: &Secrets) -> Error {
    classify(component, status_of(error), error, &HeaderMap::new(), secrets)
}

/// The provider's content filter stopped the response.
pub(super) fn content_filter_error(component: &'static str) -> Error {
    Error::new(ErrorKind::ContentFilter, component, "the provider's content filter stopped the response")
}

/// The model declined (`refusal` in the wire format).
pub(super) fn model_refusal_error(component: &'static str) -> Error {
    Error::new(ErrorKind::ContentFilter, component, "the model declined to answer (refusal)")
}

/// The `error` in a body. Google wraps it in a list, FastAPI calls it `detail`, and some servers leave the wrapping out.
fn error_detail(body: &[u8]) -> Value {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut body = match body {
        Value::Array(list) => list.into_iter().next().unwrap_or_default(),
        body => body,
    };
    for name in ["error", "detail"] {
        match body.get_mut(name).map(Value::take) {
            Some(Value::String(message)) => return serde_json::json!({"message": message}),
            // FastAPI's validation errors.
            Some(Value::Array(list)) => {
                let message = list.first().and_then(|error| error.get("msg")).cloned();
                return serde_json::json!({"message": message});
            }
            Some(error @ Value::Object(_)) => return error,
            _ => {}
        }
    }
    body
}

fn classify(
    component: &'static str,
    status: StatusCode,
    detail: &Value,
    headers: &HeaderMap,
    secrets: &Secrets,
) -> Error {
    let message = detail["message"].as_str().or_else(|| detail.as_str()).unwrap_or_default();
    let kind = kind_of(status, detail, message);
    let mut error = Error::new(kind, component, format!("provider returned HTTP {status}"))
        .with_retryable(is_retryable(status, headers, detail))
        .with_retry_after(retry_after(headers, detail));
    // A message about a wrong API key may repeat a part of it.
    let may_show = status != StatusCode::UNAUTHORIZED && !is_bad_key(detail) && !secrets.appear_in(message);
    if may_show && !message.is_empty() {
        error = error.with_context("provider", message.chars().take(MESSAGE_CHARS).collect::<String>());
    }
    error
}

/// As the provider says, or by the status.
fn is_retryable(status: StatusCode, headers: &HeaderMap, detail: &Value) -> bool {
    let by_status = matches!(status.as_u16(), 408 | 409 | 429) || status.is_server_error();
    match headers.get("x-should-retry").map(http::HeaderValue::as_bytes) {
        Some(b"true") => true,
        Some(b"false") => false,
        _ => by_status && !is_quota_exhausted(status, detail),
    }
}

fn kind_of(status: StatusCode, detail: &Value, message: &str) -> ErrorKind {
    match (status.as_u16(), code_of(detail)) {
        (_, "context_length_exceeded") => ErrorKind::ContextLength,
        (_, "content_filter" | "content_policy_violation") => ErrorKind::ContentFilter,
        (400, _) if is_bad_key(detail) => ErrorKind::Authentication,
        (400 | 413 | 422, _) if is_too_long(message) => ErrorKind::ContextLength,
        // OpenRouter's moderation, which lists its reasons.
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

/// The account's quota is exhausted: waiting does not help.
fn is_quota_exhausted(status: StatusCode, detail: &Value) -> bool {
    status == StatusCode::PAYMENT_REQUIRED || code_of(detail) == "insufficient_quota"
}

/// Google reports a wrong key with status 400 and a reason in the details.
fn is_bad_key(detail: &Value) -> bool {
    details(detail).any(|detail| detail["reason"] == "API_KEY_INVALID")
}

/// Messages of providers without a code for a conversation that is too long.
fn is_too_long(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [
        "maximum context length",
        "context window",
        "context size",
        "maximum number of tokens",
        "prompt is too long",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// The status that fits an error in a successful response or in a stream.
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn error(status: u16, headers: &[(&'static str, &'static str)], body: &Value) -> Error {
        let status = StatusCode::from_u16(status).expect("valid");
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        status_error("test", status, &headers, body.to_string().as_bytes(), &Secrets::new(["sk-sentinel"]))
    }

    fn kind(status: u16, body: &Value) -> ErrorKind {
        error(status, &[], body).kind()
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
    fn the_forms_of_each_provider_are_classified() {
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
    fn an_exhausted_quota_is_not_retryable() {
        let body = json!({"error": {"code": "insufficient_quota", "message": "pay"}});
        for (status, body) in [(429, body), (402, json!({"error": {"code": 402, "message": "pay"}}))] {
            let error = error(status, &[], &body);
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::RateLimited, false));
        }
    }

    #[test]
    fn retry_after_is_found_in_headers_and_details() {
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
            (&[("retry-after", "99999999999999")], &none, Some(86_400.0)),
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
            let retry_after = error(429, headers, body).retry_after();
            assert_eq!(retry_after.map(|after| after.as_secs_f64()), expected, "{headers:?}");
        }
    }

    #[test]
    fn an_error_in_a_stream_is_classified_by_its_fields() {
        let kind = |detail: Value| body_error("test", &detail, &Secrets::default()).kind();
        assert_eq!(kind(json!({"type": "server_error", "code": null})), ErrorKind::Overloaded);
        assert_eq!(kind(json!({"code": 502, "message": "provider disconnected"})), ErrorKind::Overloaded);
        assert_eq!(kind(json!({"type": "invalid_request_error"})), ErrorKind::BadRequest);
        assert_eq!(kind(json!({"code": "rate_limit_exceeded"})), ErrorKind::RateLimited);
        assert_eq!(kind(json!("words alone")), ErrorKind::Overloaded);
    }

    #[test]
    fn an_api_key_in_the_providers_message_is_not_repeated() {
        let body = json!({"error": {"message": "bad header: Bearer sk-sentinel"}});
        for status in [401, 400, 500] {
            let error = error(status, &[], &body);
            assert!(!format!("{error} {error:?}").contains("sentinel"), "{error:?}");
        }
    }

    #[test]
    fn the_providers_reason_is_shown_unless_it_is_about_the_api_key() {
        let openai = json!({"error": {"message": "not allowed in your region"}});
        for (status, body) in [
            (403, openai.clone()),
            (422, json!({"detail": "not allowed in your region"})),
            (422, json!({"detail": [{"loc": ["body"], "msg": "not allowed in your region"}]})),
            (400, json!({"object": "error", "message": "not allowed in your region", "code": 400})),
            (400, json!({"error": "not allowed in your region"})),
        ] {
            let error = error(status, &[], &body);
            assert!(error.to_string().contains("not allowed in your region"), "{body}: {error}");
        }
        assert!(!error(401, &[], &openai).to_string().contains("region"));
    }

    #[test]
    fn an_error_status_is_a_rejection_and_retryable_by_status_or_as_the_provider_says() {
        let none = json!({});
        for (status, headers, expected) in [
            (409, &[][..], true),
            (503, &[], true),
            (404, &[], false),
            (503, &[("x-should-retry", "false")], false),
            (400, &[("x-should-retry", "true")], true),
        ] {
            let error = error(status, headers, &none);
            assert_eq!((error.is_retryable(), error.outcome()), (expected, Outcome::Rejected), "{status}");
        }
        assert_eq!(body_error("test", &none, &Secrets::default()).outcome(), Outcome::Unknown);
    }
}
