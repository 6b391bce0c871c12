//! Reading answers of a server: status, challenge, body and event stream.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt, TryStreamExt};
use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, StatusCode};
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, ErrorData, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, HttpStatusError, InsufficientScopeError, SseError, StreamableHttpError,
    StreamableHttpPostResponse,
};
use sse_stream::{Sse, SseStream};

use super::http_client::{HttpError, SESSION_ID};
use crate::http::{HttpBody, HttpResponse};
use crate::{Error, ErrorKind};

pub(super) const JSON: &str = "application/json";
pub(super) const EVENT_STREAM: &str = "text/event-stream";
/// Bodies of errors are read this far.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// A stream is resumed after this time even where the server asks for a longer one.
const MAX_RETRY_MILLIS: u64 = 30_000;
/// A server that asks for a longer delay made a mistake, or waiting is of no use.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Reports the challenge of a 401, or of a 403 that has one.
pub(super) fn check_authorization(response: &HttpResponse) -> Result<(), HttpError> {
    let challenge = text_header(&response.headers, &WWW_AUTHENTICATE);
    match (response.status, challenge) {
        (StatusCode::UNAUTHORIZED, challenge) => {
            let error = AuthRequiredError::new(challenge.unwrap_or_default().to_owned());
            Err(StreamableHttpError::AuthRequired(error))
        }
        (StatusCode::FORBIDDEN, Some(challenge)) => {
            let scope = challenge_parameter(challenge, "scope");
            let error = InsufficientScopeError::new(challenge.to_owned(), scope);
            Err(StreamableHttpError::InsufficientScope(error))
        }
        _ => Ok(()),
    }
}

/// A parameter of a `WWW-Authenticate` header.
pub(super) fn challenge_parameter(challenge: &str, name: &str) -> Option<String> {
    let starts = challenge.match_indices(name).map(|(start, _)| start);
    let value = starts.filter_map(|start| {
        let is_start =
            challenge[..start].chars().next_back().is_none_or(|before| matches!(before, ' ' | ','));
        challenge[start + name.len()..].strip_prefix('=').filter(|_| is_start)
    });
    let value = value.into_iter().next()?;
    Some(match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?.to_owned(),
        None => value.split([',', ' ']).next()?.to_owned(),
    })
}

/// The delay that a server asks for.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = text_header(headers, &RETRY_AFTER)?.trim();
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // A date is relative to the response's own: both are by the server's clock.
    let until = || {
        let date = |text: &str| httpdate::parse_http_date(text).ok();
        let now = text_header(headers, &DATE).and_then(date).unwrap_or_else(SystemTime::now);
        Some(date(text)?.duration_since(now).unwrap_or_default())
    };
    seconds.or_else(until).filter(|after| *after <= MAX_RETRY_AFTER)
}

pub(super) fn status_error(response: &HttpResponse) -> HttpStatusError {
    let seconds = retry_after(&response.headers).map(|after| after.as_secs_f64().to_string());
    HttpStatusError::new(response.status.as_u16(), seconds)
}

/// A response that is no success: a JSON-RPC error where its body is one, else its status. A server of an earlier era
/// rejects `server/discover` with a 4xx of any body; that becomes the JSON-RPC error which makes the handshake fall back.
pub(super) async fn failed_post(
    response: HttpResponse,
    message: &ClientJsonRpcMessage,
    in_session: bool,
) -> Result<StreamableHttpPostResponse, HttpError> {
    let (status, error) = (response.status, status_error(&response));
    if matches!(status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
        return Err(error.into());
    }
    let session_id = text_header(&response.headers, &SESSION_ID).map(str::to_owned);
    let body = read_body(response.body, MAX_ERROR_BYTES).await.unwrap_or_default();
    let rpc_error = match serde_json::from_slice(&body) {
        Ok(ServerJsonRpcMessage::Error(error)) => Some(error),
        _ => None,
    };
    if let ClientJsonRpcMessage::Request(request) = message
        && matches!(request.request, ClientRequest::DiscoverRequest(_))
        && status.is_client_error()
        && !in_session
    {
        let rejected =
            || ErrorData::invalid_request(format!("server/discover rejected with HTTP {status}"), None);
        let data = rpc_error.map_or_else(rejected, |error| error.error);
        let message = ServerJsonRpcMessage::error(data, Some(request.id.clone()));
        return Ok(StreamableHttpPostResponse::Json(message, None));
    }
    match rpc_error {
        Some(error) => Ok(StreamableHttpPostResponse::Json(ServerJsonRpcMessage::Error(error), session_id)),
        None => Err(error.into()),
    }
}

/// A success: one message, a stream of them, or nothing where no answer is due.
pub(super) async fn successful_post(
    response: HttpResponse,
    message: &ClientJsonRpcMessage,
    max_bytes: usize,
) -> Result<StreamableHttpPostResponse, HttpError> {
    let session_id = text_header(&response.headers, &SESSION_ID).map(str::to_owned);
    if is_media_type(&response.headers, EVENT_STREAM) {
        return Ok(StreamableHttpPostResponse::Sse(event_stream(response.body, max_bytes), session_id));
    }
    if !is_media_type(&response.headers, JSON) {
        return match message {
            ClientJsonRpcMessage::Request(_) => {
                Err(StreamableHttpError::UnexpectedContentType(content_type(&response.headers)))
            }
            _ => Ok(StreamableHttpPostResponse::Accepted),
        };
    }
    let body = read_body(response.body, max_bytes).await?;
    let message = serde_json::from_slice(&body).map_err(|error| {
        StreamableHttpError::UnexpectedServerResponse(format!("invalid JSON-RPC response: {error}").into())
    })?;
    Ok(StreamableHttpPostResponse::Json(message, session_id))
}

async fn read_body(mut body: HttpBody, max_size: usize) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await.map_err(StreamableHttpError::Client)? {
        if bytes.len() + chunk.len() > max_size {
            return Err(StreamableHttpError::ResponseBodyTooLarge { max_size });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

pub(super) fn event_stream(
    body: HttpBody,
    max_event_size: usize,
) -> BoxStream<'static, Result<Sse, SseError>> {
    let events = SseStream::from_bytes_stream(limit_events(body, max_event_size).boxed());
    events
        .map_ok(|mut event| {
            event.retry = event.retry.map(|millis| millis.min(MAX_RETRY_MILLIS));
            event
        })
        .boxed()
}

/// Ends the stream with an error once more than `max` bytes come without a blank line.
fn limit_events(
    chunks: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
    max: usize,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let mut event_bytes = 0;
    let mut line_is_empty = true;
    chunks.map(move |chunk| {
        let chunk = chunk?;
        for byte in &chunk {
            event_bytes += 1;
            match byte {
                b'\n' if line_is_empty => event_bytes = 0,
                b'\n' => line_is_empty = true,
                b'\r' => {}
                _ => line_is_empty = false,
            }
        }
        if event_bytes > max {
            let message = format!("event of the stream exceeds {max} bytes");
            return Err(Error::new(ErrorKind::TooLarge, "mcp", message));
        }
        Ok(chunk)
    })
}

fn text_header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

pub(super) fn content_type(headers: &HeaderMap) -> Option<String> {
    text_header(headers, &CONTENT_TYPE).map(str::to_owned)
}

pub(super) fn is_media_type(headers: &HeaderMap, wanted: &str) -> bool {
    let found = text_header(headers, &CONTENT_TYPE).and_then(|value| value.split(';').next());
    found.is_some_and(|found| found.trim().eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_challenge_are_found_quoted_or_not() {
        let challenge = r#"Bearer error="insufficient_scope", scope="files:read files:write", max_scope=x"#;
        assert_eq!(challenge_parameter(challenge, "scope").as_deref(), Some("files:read files:write"));
        assert_eq!(challenge_parameter(challenge, "error").as_deref(), Some("insufficient_scope"));
        assert_eq!(challenge_parameter("Bearer scope=a,realm=b", "scope").as_deref(), Some("a"));
        assert_eq!(challenge_parameter("Bearer realm=\"x\"", "scope"), None);
    }

    #[test]
    fn a_delay_is_given_in_seconds_or_as_a_date() {
        let after = |pairs: &[(&'static str, &'static str)]| {
            let items = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)));
            retry_after(&items.collect())
        };
        assert_eq!(after(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        let date = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(
            after(&[date, ("retry-after", "Wed, 21 Oct 2015 07:29:00 GMT")]),
            Some(Duration::from_secs(60))
        );
        for nonsense in ["-1", "soon", "1e30", "99999999"] {
            assert_eq!(after(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }
}
