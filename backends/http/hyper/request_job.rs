//! One request, as a task.

use std::pin::{Pin, pin};
use std::sync::Arc;

use ::http::header::{ACCEPT, ACCEPT_ENCODING, HOST, PROXY_AUTHORIZATION, USER_AGENT};
use ::http::{HeaderValue, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::connect::{Proxy, Route};
use super::connection::{OpenConnection, PooledConnection};
use super::errors::from_hyper;
use super::gzip::GzipDecoder;
use crate::backends::http::connection_pool::ActiveCall;
use crate::backends::http::errors::{RequestPhase, error, shut_down_error, timed_out};
use crate::backends::http::response::{Head, ResponseSender};
use crate::backends::http::settings::{self, Settings};
use crate::support::OwnedPermit;
use crate::{Deadline, ErrorKind, Result};

/// Chunks up to this size are copied: each would keep the connection's whole read buffer of 8 KiB, and hyper would
/// allocate another one for the next.
const SMALL_CHUNK_BYTES: usize = 4 << 10;

/// A request, and where its response goes. Its permit is dropped last.
pub(super) struct RequestJob {
    pub(super) request: Request<Bytes>,
    pub(super) deadline: Deadline,
    pub(super) call: ActiveCall<PooledConnection>,
    pub(super) response: ResponseSender,
    pub(super) route: Route,
    pub(super) _permit: OwnedPermit,
}

impl RequestJob {
    /// Sends the request, delivers the head, then the body as it is read. `Ok` means that the body is complete.
    pub(super) async fn run(self) -> Result<()> {
        let Self { request, deadline, mut call, mut response, route, _permit } = self;
        let (aborted, phase) = (call.connection().aborted.clone(), Arc::clone(call.phase()));
        let began = Instant::now();
        let result = tokio::select! {
            biased;
            () = aborted.cancelled() => Err(shut_down_error(phase.get())),
            result = exchange(&mut call, request, &route, &mut response) => result,
            () = tokio::time::sleep_until(deadline.instant()) => Err(timed_out(phase.get(), began.elapsed())),
        };
        if result? {
            call.complete();
        }
        Ok(())
    }
}

/// Returns whether the connection can be reused.
async fn exchange(
    call: &mut ActiveCall<PooledConnection>,
    request: Request<Bytes>,
    route: &Route,
    sender: &mut ResponseSender,
) -> Result<bool> {
    let pool = Arc::clone(&call.pool);
    let (settings, phase) = (&*pool.settings, Arc::clone(call.phase()));
    pool.counters.sent(request.body().len());
    let decodes = !request.headers().contains_key(ACCEPT_ENCODING);
    let uri = request.uri().clone();
    let proxy = route.proxy.as_deref();
    let request = prepared(request, proxy)?;
    let mut silence = pin!(tokio::time::sleep(settings.first_byte_timeout));

    let open = &mut call.connection_mut().open;
    let response = send(open, request, &uri, route, settings, &phase, silence.as_mut()).await?;
    let (parts, body) = response.into_parts();
    if let Some(proxy) = proxy.filter(|_| parts.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED) {
        return Err(proxy.rejection(parts.status));
    }
    let (status, mut headers) = (parts.status, parts.headers);
    let decoder = if decodes { GzipDecoder::for_headers(&mut headers) } else { None };
    phase.set(RequestPhase::Body);
    sender.head(Head { status, headers })?;
    let open = open.as_mut().expect("it was sent on an open connection");
    receive(open, body, decoder, sender, &pool.counters, settings, silence).await?;
    Ok(open.is_reusable())
}

/// The request as it is sent: its path alone, unless a proxy passes it on, and the headers that it needs.
fn prepared(request: Request<Bytes>, proxy: Option<&Proxy>) -> Result<Request<Full<Bytes>>> {
    let (mut parts, body) = request.into_parts();
    let invalid = || error(ErrorKind::InvalidInput, "invalid URL or header").not_sent();
    let host = parts.uri.authority().map(|authority| HeaderValue::try_from(authority.as_str()));
    let host = host.and_then(std::result::Result::ok).ok_or_else(invalid)?;
    let headers = &mut parts.headers;
    headers.entry(HOST).or_insert(host);
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("gzip"));
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(settings::USER_AGENT));
    match proxy.filter(|_| parts.uri.scheme_str() == Some("http")) {
        Some(proxy) => {
            if let Some(authorization) = &proxy.authorization {
                headers.insert(PROXY_AUTHORIZATION, authorization.clone());
            }
        }
        None => {
            let path = parts.uri.path_and_query().cloned();
            parts.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        }
    }
    Ok(Request::from_parts(parts, Full::new(body)))
}

/// Sends the request, connecting first if there is no connection that still lives.
async fn send(
    open: &mut Option<OpenConnection>,
    mut request: Request<Full<Bytes>>,
    uri: &Uri,
    route: &Route,
    settings: &Settings,
    phase: &crate::backends::http::errors::AtomicRequestPhase,
    mut silence: Pin<&mut Sleep>,
) -> Result<Response<Incoming>> {
    if open.as_mut().is_some_and(|open| !open.is_reusable()) {
        *open = None;
    }
    loop {
        let is_reused = open.is_some();
        let OpenConnection { sender, driver } = match open {
            Some(open) => open,
            // Boxed: a task is as large as everything it might hold, and most connections are reused.
            None => open.insert(Box::pin(OpenConnection::open(uri, route, settings)).await?),
        };
        driver.activity.touch();
        phase.set(RequestPhase::Response);
        let sending = sender.try_send_request(request);
        match driver.drive(sending, settings, RequestPhase::Response, silence.as_mut()).await? {
            Ok(response) => return Ok(response),
            Err(mut failed) => {
                let unsent = failed.take_message();
                // The server closed an idle connection at this moment, and nothing of the request was sent.
                if let (true, Some(unsent)) = (is_reused, unsent) {
                    request = unsent;
                    phase.set(RequestPhase::Connecting);
                    *open = None;
                    continue;
                }
                return Err(from_hyper(failed.into_error(), RequestPhase::Response));
            }
        }
    }
}

/// Reads the body to its end and sends it in chunks, waiting for the caller to read them.
async fn receive(
    open: &mut OpenConnection,
    mut body: Incoming,
    mut decoder: Option<GzipDecoder>,
    sender: &mut ResponseSender,
    counters: &crate::backends::http::counters::Counters,
    settings: &Settings,
    mut silence: Pin<&mut Sleep>,
) -> Result<()> {
    let mut deliver = async |chunk: Bytes| {
        if chunk.is_empty() {
            return Ok(());
        }
        counters.received(chunk.len());
        sender.chunk(chunk).await
    };
    loop {
        let next = open.driver.drive(body.frame(), settings, RequestPhase::Body, silence.as_mut()).await?;
        let Some(frame) = next else { break };
        let frame = frame.map_err(|cause| from_hyper(cause, RequestPhase::Body))?;
        let Ok(chunk) = frame.into_data() else { continue };
        match &mut decoder {
            None if chunk.len() <= SMALL_CHUNK_BYTES => deliver(Bytes::copy_from_slice(&chunk)).await?,
            None => deliver(chunk).await?,
            Some(decoder) => {
                for piece in GzipDecoder::pieces(&chunk) {
                    deliver(decoder.decode(piece)?).await?;
                }
            }
        }
        // The time in which the caller did not read is no silence of the server.
        open.driver.activity.touch();
    }
    match decoder {
        Some(decoder) => deliver(decoder.finish()?).await,
        None => Ok(()),
    }
}
