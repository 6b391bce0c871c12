//! rmcp's HTTP client over the runtime's own transport, so that its proxy, authorities, limits and idle connections apply.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, ErrorData, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, HttpStatusError, InsufficientScopeError, SseError, StreamableHttpClient,
    StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
};
use sse_stream::{Sse, SseStream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::http::{HttpBody, HttpRequest, HttpResponse, HttpTransport};
use crate::{Deadline, Error, ErrorKind};

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";
/// Shortest time between two openings of a stream: a server may end it in order and ask to be resumed after 10 ms.
const MIN_RESUME_INTERVAL: Duration = Duration::from_secs(1);

type HttpError = StreamableHttpError<Error>;

/// Sends MCP messages over an [`HttpTransport`].
#[derive(Clone)]
pub(super) struct TransportClient {
    http: Arc<dyn HttpTransport>,
    /// Longest a POST may take, its whole response included.
    post_timeout: Duration,
    last_opened: Arc<Mutex<Option<Instant>>>,
    /// Whether a session began, and whether its listening stream was asked for and answered.
    session: Arc<watch::Sender<Session>>,
}

#[derive(Default)]
struct Session {
    has_begun: bool,
    is_listening: bool,
}

impl TransportClient {
    pub(super) fn new(http: Arc<dyn HttpTransport>, post_timeout: Duration) -> Self {
        Self { http, post_timeout, last_opened: Arc::default(), session: Arc::default() }
    }

    /// Waits until the session's listening stream is open or refused, so that no change of the tools is missed between
    /// listing them and listening. Returns at once without a session.
    pub(super) async fn listening(&self) {
        let mut session = self.session.subscribe();
        // The sender lives as long as `self`.
        let _ = session.wait_for(|session| !session.has_begun || session.is_listening).await;
    }

    async fn send(
        &self,
        request: http::Request<Bytes>,
        deadline: Option<Deadline>,
    ) -> Result<HttpResponse, HttpError> {
        let request = HttpRequest::new(request).with_deadline(deadline);
        self.http.send(request).await.map_err(StreamableHttpError::Client)
    }

    /// Waits until a stream may be opened again.
    async fn pace(&self) {
        let next = {
            let mut last = self.last_opened.lock();
            let now = Instant::now();
            let next = last.map_or(now, |last| (last + MIN_RESUME_INTERVAL).max(now));
            *last = Some(next);
            next
        };
        tokio::time::sleep_until(next).await;
    }
}

/// The parts that every request has in common.
struct RequestParts {
    session_id: Option<Arc<str>>,
    token: Option<String>,
    headers: HashMap<HeaderName, HeaderValue>,
}

impl RequestParts {
    fn into_request(self, method: Method, uri: &str, body: Bytes) -> Result<http::Request<Bytes>, HttpError> {
        let mut request = http::Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().map_err(|_| invalid("invalid MCP server URL"))?;
        let headers = request.headers_mut();
        headers.extend(
            self.headers.into_iter().map(|(name, value)| (Some(name), value)).collect::<HeaderMapItems>(),
        );
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(session_id) = self.session_id {
            headers.insert(SESSION_ID, header_value(&session_id)?);
        }
        if let Some(token) = self.token {
            let mut value = header_value(&format!("Bearer {token}"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }
}

type HeaderMapItems = Vec<(Option<HeaderName>, HeaderValue)>;

fn header_value(text: &str) -> Result<HeaderValue, HttpError> {
    HeaderValue::from_str(text).map_err(|_| invalid("invalid header value"))
}

fn invalid(message: &'static str) -> HttpError {
    StreamableHttpError::Client(Error::new(ErrorKind::InvalidInput, "mcp", message).not_sent())
}

impl StreamableHttpClient for TransportClient {
    type Error = Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, HttpError> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session_id, token, headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, HttpError> {
        let in_session = session_id.is_some();
        let body = Bytes::from(serde_json::to_vec(&message)?);
        let mut request =
            RequestParts { session_id, token, headers }.into_request(Method::POST, &uri, body)?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        let response = self.send(request, Some(Deadline::after(self.post_timeout))).await?;
        check_authorization(&response)?;
        match response.status {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT => return Ok(StreamableHttpPostResponse::Accepted),
            StatusCode::NOT_FOUND if in_session => return Err(StreamableHttpError::SessionExpired),
            status if !status.is_success() => {
                return failed_post(response, &message, in_session, limits).await;
            }
            _ => {}
        }
        let session_id = text_header(&response.headers, &SESSION_ID).map(str::to_owned);
        if session_id.is_some() {
            self.session.send_if_modified(|session| !std::mem::replace(&mut session.has_begun, true));
        }
        if is_media_type(&response.headers, EVENT_STREAM) {
            let stream = event_stream(response.body, limits.max_sse_event_size);
            return Ok(StreamableHttpPostResponse::Sse(stream, session_id));
        }
        if !is_media_type(&response.headers, JSON) {
            return unexpected_body(response, &message).await;
        }
        let body = read_body(response.body, limits.max_json_response_size).await?;
        let message = serde_json::from_slice(&body).map_err(|error| {
            StreamableHttpError::UnexpectedServerResponse(
                format!("invalid JSON-RPC response: {error}").into(),
            )
        })?;
        Ok(StreamableHttpPostResponse::Json(message, session_id))
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), HttpError> {
        let parts = RequestParts { session_id: Some(session_id), token, headers };
        let request = parts.into_request(Method::DELETE, &uri, Bytes::new())?;
        // Closing waits for this: a server that hangs here must not delay it.
        let response = self.send(request, Some(Deadline::after(Duration::from_secs(2)))).await?;
        match response.status {
            status if status.is_success() || status == StatusCode::METHOD_NOT_ALLOWED => Ok(()),
            status => Err(HttpStatusError::new(status.as_u16(), None).into()),
        }
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, HttpError> {
        let limit = StreamableHttpResponseLimits::default().max_sse_event_size;
        self.get_stream_with_max_sse_event_size(uri, session_id, last_event_id, token, headers, limit).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
        max_event_size: usize,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, HttpError> {
        self.pace().await;
        let parts = RequestParts { session_id, token, headers };
        let mut request = parts.into_request(Method::GET, &uri, Bytes::new())?;
        if let Some(id) = last_event_id {
            request.headers_mut().insert(LAST_EVENT_ID, header_value(&id)?);
        }
        let response = self.send(request, None).await;
        self.session.send_modify(|session| session.is_listening = true);
        let response = response?;
        check_authorization(&response)?;
        match response.status {
            StatusCode::METHOD_NOT_ALLOWED => Err(StreamableHttpError::ServerDoesNotSupportSse),
            status if !status.is_success() => Err(status_error(&response).into()),
            _ if is_media_type(&response.headers, EVENT_STREAM) => {
                Ok(event_stream(response.body, max_event_size))
            }
            _ => Err(StreamableHttpError::UnexpectedContentType(content_type(&response.headers))),
        }
    }
}

/// Reports the challenge of a 401 or 403.
fn check_authorization(response: &HttpResponse) -> Result<(), HttpError> {
    let Some(challenge) = text_header(&response.headers, &WWW_AUTHENTICATE) else { return Ok(()) };
    match response.status {
        StatusCode::UNAUTHORIZED => {
            Err(StreamableHttpError::AuthRequired(AuthRequiredError::new(challenge.to_owned())))
        }
        StatusCode::FORBIDDEN => {
            let scope = challenge.split("scope=\"").nth(1).and_then(|rest| rest.split('"').next());
            let error = InsufficientScopeError::new(challenge.to_owned(), scope.map(str::to_owned));
            Err(StreamableHttpError::InsufficientScope(error))
        }
        _ => Ok(()),
    }
}

fn status_error(response: &HttpResponse) -> HttpStatusError {
    let retry_after = text_header(&response.headers, &RETRY_AFTER).map(str::to_owned);
    HttpStatusError::new(response.status.as_u16(), retry_after)
}

/// A response that is no success: a JSON-RPC error where its body is one, else its status. A server of an earlier era
/// rejects `server/discover` with a 4xx of any body; that becomes the JSON-RPC error which makes the handshake fall back.
async fn failed_post(
    response: HttpResponse,
    message: &ClientJsonRpcMessage,
    in_session: bool,
    limits: StreamableHttpResponseLimits,
) -> Result<StreamableHttpPostResponse, HttpError> {
    let (status, error) = (response.status, status_error(&response));
    let is_authorization = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    if is_authorization || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(error.into());
    }
    let session_id = text_header(&response.headers, &SESSION_ID).map(str::to_owned);
    let body = match is_media_type(&response.headers, JSON) {
        true => read_body(response.body, limits.max_json_response_size).await?,
        false => read_body(response.body, limits.max_error_response_size).await.unwrap_or_default(),
    };
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

/// A success whose body is neither JSON nor a stream: fine where no answer is due.
async fn unexpected_body(
    response: HttpResponse,
    message: &ClientJsonRpcMessage,
) -> Result<StreamableHttpPostResponse, HttpError> {
    if !matches!(message, ClientJsonRpcMessage::Request(_)) {
        return Ok(StreamableHttpPostResponse::Accepted);
    }
    Err(StreamableHttpError::UnexpectedContentType(content_type(&response.headers)))
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

fn event_stream(body: HttpBody, max_event_size: usize) -> BoxStream<'static, Result<Sse, SseError>> {
    let chunks = futures_util::stream::unfold(Some(body), |body| async move {
        let mut body = body?;
        match body.chunk().await {
            Ok(Some(chunk)) => Some((Ok(chunk), Some(body))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    SseStream::from_bytes_stream(limit_events(chunks, max_event_size).boxed()).boxed()
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

fn content_type(headers: &HeaderMap) -> Option<String> {
    text_header(headers, &CONTENT_TYPE).map(str::to_owned)
}

fn is_media_type(headers: &HeaderMap, wanted: &str) -> bool {
    let found = text_header(headers, &CONTENT_TYPE).and_then(|value| value.split(';').next());
    found.is_some_and(|found| found.trim().eq_ignore_ascii_case(wanted))
}
