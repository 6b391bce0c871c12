//! rmcp's HTTP client over the runtime's own transport, so that its proxy, authorities, limits and idle connections apply.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use rmcp::model::{ClientJsonRpcMessage, ClientRequest};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use secrecy::{ExposeSecret, SecretString};
use sse_stream::Sse;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::authorization::Authorization;
use super::errors::CHALLENGE;
use super::headers::CallHeaders;
use super::http_response::{
    EVENT_STREAM, JSON, check_authorization, content_type, event_stream, failed_post, is_media_type,
    status_error, successful_post,
};
use super::resume::Resumes;
use crate::http::{HttpBody, HttpRequest, HttpResponse, HttpTransport};
use crate::support::truncated;
use crate::{Deadline, Error, ErrorKind};

pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Closing waits for the end of the session this long: less than the second after which nothing of a dropped runtime is
/// left.
const DELETE_TIMEOUT: Duration = Duration::from_millis(900);

pub(super) type HttpError = StreamableHttpError<Error>;

/// The transports of a connection, and what bounds its requests.
#[derive(Clone)]
pub(super) struct HttpSettings {
    /// Carries calls.
    pub(super) calls: Arc<dyn HttpTransport>,
    /// Carries streams that stay open, so that they take no connection from calls.
    pub(super) streams: Arc<dyn HttpTransport>,
    pub(super) authorization: Option<Arc<dyn Authorization>>,
    /// Longest a POST may take, its whole response included.
    pub(super) call_timeout: Duration,
    /// Maximum bytes of a response or of one event of a stream.
    pub(super) max_bytes: usize,
    pub(super) deny_private_addresses: bool,
}

impl HttpSettings {
    fn request(&self, request: http::Request<Bytes>, deadline: Option<Deadline>) -> HttpRequest {
        let deny = self.deny_private_addresses;
        HttpRequest::new(request).with_deadline(deadline).with_deny_private_addresses(deny)
    }
}

/// Sends MCP messages over an [`HttpTransport`]. Cloning returns another handle to the same client.
#[derive(Clone)]
pub(super) struct TransportClient(Arc<Inner>);

struct Inner {
    settings: HttpSettings,
    /// When connecting must have ended; `None` once connected.
    connecting: Mutex<Option<Deadline>>,
    /// Ends requests and streams: rmcp leaves a POST of a failed handshake running.
    closed: CancellationToken,
    resumes: Resumes,
    session: watch::Sender<Session>,
    /// Cancels `ended` when rmcp drops the last handle.
    _ended: DropGuard,
}

/// Whether a session began, and whether its listening stream was answered.
#[derive(Default)]
struct Session {
    has_begun: bool,
    is_listening: bool,
}

impl TransportClient {
    pub(super) fn new(
        settings: HttpSettings,
        connecting: Deadline,
        closed: CancellationToken,
        ended: CancellationToken,
    ) -> Self {
        let connecting = Mutex::new(Some(connecting));
        let (resumes, session) = (Resumes::default(), watch::Sender::default());
        let ended = ended.drop_guard();
        Self(Arc::new(Inner { settings, connecting, closed, resumes, session, _ended: ended }))
    }

    /// Waits until the session's listening stream is open or refused, so that no change of the tools is missed between
    /// listing them and listening. Returns at once without a session.
    pub(super) async fn listening(&self) {
        let mut session = self.0.session.subscribe();
        // The sender lives as long as `self`.
        let _ = session.wait_for(|session| !session.has_begun || session.is_listening).await;
    }

    /// The handshake is done: requests have the timeout of calls from now on.
    pub(super) fn connected(&self) {
        *self.0.connecting.lock() = None;
    }

    fn post_deadline(&self) -> Deadline {
        let own = Deadline::after(self.0.settings.call_timeout);
        self.0.connecting.lock().map_or(own, |connecting| connecting.min(own))
    }

    /// Sends a request with an access token, where the server is authorized. One that was answered 401 was not
    /// executed: it is sent once more if there is another token.
    async fn send(
        &self,
        http: &Arc<dyn HttpTransport>,
        request: http::Request<Bytes>,
        deadline: Option<Deadline>,
    ) -> Result<HttpResponse, HttpError> {
        let authorization = self.0.settings.authorization.as_ref();
        let Some(authorization) = authorization.filter(|_| !request.headers().contains_key(AUTHORIZATION))
        else {
            return self.send_once(http, request, deadline).await;
        };
        let token_deadline = deadline.unwrap_or_else(|| self.post_deadline());
        let token = authorization.token(token_deadline).await.map_err(StreamableHttpError::Client)?;
        let first = with_token(request.clone(), token.as_ref())?;
        let response = self.send_once(http, first, deadline).await?;
        if response.status != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenge = response.headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let challenge = challenge.unwrap_or_default();
        let renewed = authorization.renew(token.as_ref(), challenge, token_deadline).await;
        let renewed = renewed.map_err(|error| match error.kind() {
            ErrorKind::Authentication => error.with_context(CHALLENGE, truncated(challenge, 500)),
            _ => error,
        });
        match renewed.map_err(StreamableHttpError::Client)? {
            Some(token) => self.send_once(http, with_token(request, Some(&token))?, deadline).await,
            None => Ok(response),
        }
    }

    async fn send_once(
        &self,
        http: &Arc<dyn HttpTransport>,
        request: http::Request<Bytes>,
        deadline: Option<Deadline>,
    ) -> Result<HttpResponse, HttpError> {
        let closed = &self.0.closed;
        let sending = http.send(self.0.settings.request(request, deadline));
        let sent = closed.run_until_cancelled(sending).await.ok_or_else(closed_error)?;
        let mut response = sent.map_err(StreamableHttpError::Client)?;
        response.body = HttpBody::new(response.body.take_until(closed.clone().cancelled_owned()));
        Ok(response)
    }

    /// Opens the stream that a session listens on, or resumes one, not too often.
    async fn open_stream(
        &self,
        uri: &str,
        parts: RequestParts,
        last_event_id: Option<String>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, HttpError> {
        let pacing = self.0.resumes.pace(last_event_id.clone());
        let paced = self.0.closed.run_until_cancelled(pacing).await.ok_or_else(closed_error)?;
        let mut request = parts.into_request(Method::GET, uri, Bytes::new())?;
        if let Some(id) = last_event_id {
            request.headers_mut().insert(LAST_EVENT_ID, header_value(&id)?);
        }
        let sent = self.send(&self.0.settings.streams, request, None).await;
        self.0.session.send_modify(|session| session.is_listening = true);
        let response = sent?;
        check_authorization(&response)?;
        match response.status {
            StatusCode::METHOD_NOT_ALLOWED => Err(StreamableHttpError::ServerDoesNotSupportSse),
            StatusCode::NOT_FOUND => Err(StreamableHttpError::SessionExpired),
            status if !status.is_success() => Err(status_error(&response).into()),
            _ if is_media_type(&response.headers, EVENT_STREAM) => {
                let client = self.clone();
                let events = event_stream(response.body, self.0.settings.max_bytes);
                Ok(events.inspect(move |event| client.0.resumes.observe(&paced, event)).boxed())
            }
            _ => Err(StreamableHttpError::UnexpectedContentType(content_type(&response.headers))),
        }
    }
}

fn closed_error() -> HttpError {
    StreamableHttpError::Client(Error::new(ErrorKind::Closed, "mcp", "the connection was closed"))
}

fn with_token(
    mut request: http::Request<Bytes>,
    token: Option<&SecretString>,
) -> Result<http::Request<Bytes>, HttpError> {
    if let Some(token) = token {
        request.headers_mut().insert(AUTHORIZATION, bearer(token.expose_secret())?);
    }
    Ok(request)
}

fn bearer(token: &str) -> Result<HeaderValue, HttpError> {
    let mut value = header_value(&format!("Bearer {token}"))?;
    value.set_sensitive(true);
    Ok(value)
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
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(session_id) = self.session_id {
            headers.insert(SESSION_ID, header_value(&session_id)?);
        }
        if let Some(token) = self.token {
            headers.insert(AUTHORIZATION, bearer(&token)?);
        }
        Ok(request)
    }
}

fn header_value(text: &str) -> Result<HeaderValue, HttpError> {
    HeaderValue::from_str(text).map_err(|_| invalid("invalid header value"))
}

fn invalid(message: &'static str) -> HttpError {
    StreamableHttpError::Client(Error::new(ErrorKind::InvalidInput, "mcp", message).not_sent())
}

/// Whether the answer is a stream that stays open.
fn is_subscription(message: &ClientJsonRpcMessage) -> bool {
    matches!(message, ClientJsonRpcMessage::Request(request)
        if matches!(request.request, ClientRequest::SubscriptionsListenRequest(_)))
}

/// The limits of responses are the client's own: rmcp's variants with limits call these methods.
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
        let in_session = session_id.is_some();
        let body = Bytes::from(serde_json::to_vec(&message)?);
        let parts = RequestParts { session_id, token, headers };
        let mut request = parts.into_request(Method::POST, &uri, body)?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        CallHeaders::of(&message).add_to(request.headers_mut());
        let settings = &self.0.settings;
        let response = match is_subscription(&message) {
            true => self.send(&settings.streams, request, None).await?,
            false => self.send(&settings.calls, request, Some(self.post_deadline())).await?,
        };
        check_authorization(&response)?;
        if response.headers.contains_key(SESSION_ID) {
            self.0.session.send_if_modified(|session| !std::mem::replace(&mut session.has_begun, true));
        }
        match response.status {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(StreamableHttpPostResponse::Accepted),
            StatusCode::NOT_FOUND if in_session => Err(StreamableHttpError::SessionExpired),
            status if !status.is_success() => failed_post(response, &message, in_session).await,
            _ => successful_post(response, &message, settings.max_bytes).await,
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), HttpError> {
        let parts = RequestParts { session_id: Some(session_id), token, headers };
        let mut request = parts.into_request(Method::DELETE, &uri, Bytes::new())?;
        let settings = &self.0.settings;
        // Closing waits for this: a server that hangs here must not delay it, and nothing is renewed for it.
        let deadline = Deadline::after(DELETE_TIMEOUT);
        if let Some(authorization) = &settings.authorization
            && let Ok(token) = authorization.token(deadline).await
        {
            request = with_token(request, token.as_ref())?;
        }
        let request = settings.request(request, Some(deadline));
        let response = settings.calls.send(request).await.map_err(StreamableHttpError::Client)?;
        match response.status {
            status if status.is_success() => Ok(()),
            StatusCode::METHOD_NOT_ALLOWED => Err(StreamableHttpError::ServerDoesNotSupportDeleteSession),
            _ => Err(status_error(&response).into()),
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
        loop {
            let parts = RequestParts {
                session_id: session_id.clone(),
                token: token.clone(),
                headers: headers.clone(),
            };
            match self.open_stream(&uri, parts, last_event_id.clone()).await {
                // rmcp resumes a stream that was open, and gives one up that never was: it would miss every change.
                Err(error) if last_event_id.is_none() && is_passing(&error) => {
                    tracing::debug!(%error, "listening failed; trying again");
                }
                opened_or_refused => return opened_or_refused,
            }
        }
    }
}

/// Whether the same request may succeed later.
fn is_passing(error: &HttpError) -> bool {
    match error {
        StreamableHttpError::HttpStatus(status) => matches!(status.status, 429 | 502..=504),
        StreamableHttpError::Client(error) => matches!(
            error.kind(),
            ErrorKind::Timeout | ErrorKind::Capacity | ErrorKind::Unavailable | ErrorKind::Transport
        ),
        _ => false,
    }
}
