//! OAuth requests over the runtime's own transport: its proxy, limits, TLS and rules for hosts apply, and no second HTTP
//! client is used.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{StatusCode, Uri};
use parking_lot::Mutex;
use rmcp::transport::auth::{
    OAuthHttpClient, OAuthHttpClientError, OAuthHttpClientFuture, OAuthHttpRedirectPolicy, OAuthHttpRequest,
};

use super::super::http_response::retry_after;
use crate::http::{HttpRequest, HttpResponse, HttpTransport};
use crate::{Deadline, Error, ErrorKind, Result};

/// Metadata and tokens are small.
const MAX_BODY_BYTES: usize = 1 << 20;
const MAX_REDIRECTS: usize = 3;

type Request = http::Request<Vec<u8>>;

/// Sends what rmcp's OAuth flows ask for.
pub(super) struct OAuthHttp {
    component: String,
    http: Arc<dyn HttpTransport>,
    deny_private_addresses: bool,
    deadline: Deadline,
    /// Why the last request had no usable answer; rmcp's own errors do not tell.
    failure: Mutex<Option<Error>>,
}

impl OAuthHttp {
    pub(super) fn new(
        server: &str,
        http: Arc<dyn HttpTransport>,
        deny_private_addresses: bool,
        deadline: Deadline,
    ) -> Self {
        let component = format!("mcp:{server}");
        Self { component, http, deny_private_addresses, deadline, failure: Mutex::new(None) }
    }

    /// The error of the last request, if it got no answer, or one that says to come back later.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failure.lock().take()
    }

    async fn execute_all(&self, request: OAuthHttpRequest) -> Result<http::Response<Vec<u8>>> {
        let OAuthHttpRequest { mut request, redirect_policy, timeout, .. } = request;
        let deadline = timeout.map_or(self.deadline, |timeout| self.deadline.capped(timeout));
        for _ in 0..MAX_REDIRECTS {
            let response = self.send(&request, deadline).await?;
            let target = redirect(request.uri(), &response);
            match target.filter(|_| matches!(redirect_policy, OAuthHttpRedirectPolicy::Follow)) {
                Some(target) => *request.uri_mut() = target,
                None => return self.read(response).await,
            }
        }
        Err(self.error(ErrorKind::Protocol, "the authorization server redirects too often"))
    }

    async fn send(&self, request: &Request, deadline: Deadline) -> Result<HttpResponse> {
        let (parts, body) = request.clone().into_parts();
        let request = http::Request::from_parts(parts, Bytes::from(body));
        let request = HttpRequest::new(request)
            .with_deadline(Some(deadline))
            .with_deny_private_addresses(self.deny_private_addresses);
        self.http.send(request).await
    }

    async fn read(&self, response: HttpResponse) -> Result<http::Response<Vec<u8>>> {
        let HttpResponse { status, headers, mut body } = response;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            let kind = if status.is_server_error() { ErrorKind::Unavailable } else { ErrorKind::RateLimited };
            let error =
                self.error(kind, format!("the authorization server answered HTTP {}", status.as_u16()));
            *self.failure.lock() = Some(error.with_retry_after(retry_after(&headers)));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = body.chunk().await? {
            if bytes.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(
                    self.error(ErrorKind::TooLarge, "the authorization server's answer exceeds 1 MiB")
                );
            }
            bytes.extend_from_slice(&chunk);
        }
        let mut response = http::Response::new(bytes);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Posts a form and returns the answer, of whatever status.
    pub(super) async fn post_form(&self, uri: &str, form: String) -> Result<http::Response<Vec<u8>>> {
        let request = http::Request::post(uri)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.into_bytes())
            .map_err(|_| self.error(ErrorKind::Protocol, "invalid token endpoint"))?;
        self.failure.lock().take();
        let response = self.send(&request, self.deadline).await?;
        self.read(response).await
    }

    fn error(&self, kind: ErrorKind, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::new(kind, self.component.clone(), message)
    }
}

impl OAuthHttpClient for OAuthHttp {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move {
            self.failure.lock().take();
            self.execute_all(request).await.map_err(|error| {
                let summary = error.to_string();
                *self.failure.lock() = Some(error);
                OAuthHttpClientError::from(summary)
            })
        })
    }
}

/// Where a redirect that keeps the method leads, on the same host.
fn redirect(from: &Uri, response: &HttpResponse) -> Option<Uri> {
    let keeps_method =
        matches!(response.status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let location = response.headers.get(LOCATION).filter(|_| keeps_method)?.to_str().ok()?;
    let target: Uri = location.parse().ok()?;
    if target.authority().is_none() {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = target.path_and_query().cloned();
        return Uri::from_parts(parts).ok();
    }
    (target.scheme() == from.scheme() && target.authority() == from.authority()).then_some(target)
}
