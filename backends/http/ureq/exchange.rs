//! The blocking side of one call.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::uri::Authority;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use ureq::{Body, Timeout};

use super::lanes::{Lane, Lanes};
use super::stats::Counters;
use crate::{Deadline, Error, ErrorKind, Result};

/// Bytes of one read from a body.
const CHUNK: usize = 16 * 1024;

pub(super) type Head = (http::StatusCode, http::HeaderMap);

/// What a thread needs to run one call.
pub(super) struct Exchange {
    pub request: http::Request<Bytes>,
    pub authority: Authority,
    pub lane: Lane,
    pub lanes: Arc<Lanes>,
    pub counters: Arc<Counters>,
    pub deadline: Deadline,
    pub max_body_bytes: u64,
    /// To wait, within the deadline, for a reader who is slower than the server.
    pub runtime: Handle,
    pub head: oneshot::Sender<Result<Head>>,
    pub chunks: mpsc::Sender<Result<Bytes>>,
}

impl Exchange {
    /// Sends the request, hands over the head and then the body. The lane goes back for reuse only when the body
    /// was read to its end.
    pub(super) fn run(self) {
        let Some(agent) = self.lane.agent() else { return };
        let sent = self.request.body().len() as u64;
        let response = match agent.run(self.request.map(Vec::<u8>::from)) {
            Ok(response) => response,
            Err(error) => {
                // A connection that failed is not used again.
                self.lane.finish();
                let _ = self.head.send(Err(transport_error(error)));
                return;
            }
        };
        self.counters.bytes_sent.fetch_add(sent, Ordering::Relaxed);
        let (parts, body) = response.into_parts();
        if self.head.send(Ok((parts.status, parts.headers))).is_err() {
            self.lane.cut();
            return;
        }
        let reading = Reading {
            chunks: &self.chunks,
            counters: &self.counters,
            deadline: self.deadline,
            max_body_bytes: self.max_body_bytes,
            runtime: &self.runtime,
        };
        let outcome = reading.read(body);
        // The agent first: whoever sees the body's end may send the next request on this connection.
        match (outcome, self.lane.finish()) {
            (Ok(true), Some(agent)) => self.lanes.put_back(agent, self.authority),
            (Err(error), _) => reading.hand_over(Err(error)).map_or((), drop),
            _ => {}
        }
    }
}

struct Reading<'a> {
    chunks: &'a mpsc::Sender<Result<Bytes>>,
    counters: &'a Counters,
    deadline: Deadline,
    max_body_bytes: u64,
    runtime: &'a Handle,
}

impl Reading<'_> {
    /// Reads the body to its end; false where the reader has gone.
    fn read(&self, body: Body) -> Result<bool> {
        let mut reader = body.into_reader();
        let mut total = 0;
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = reader.read(&mut chunk).map_err(|error| transport_error(error.into()))?;
            if read == 0 {
                return Ok(true);
            }
            total += read as u64;
            if total > self.max_body_bytes {
                let message = format!(
                    "the response is larger than {} bytes, decoded (http.max_body_bytes)",
                    self.max_body_bytes
                );
                return Err(Error::new(ErrorKind::TooLarge, "http.ureq", message));
            }
            chunk.truncate(read);
            self.counters.bytes_received.fetch_add(read as u64, Ordering::Relaxed);
            if self.hand_over(Ok(chunk.into())).is_none() {
                return Ok(false);
            }
        }
    }

    /// Gives a chunk to the reader, waiting for a slow one until the deadline; `None` where it has gone.
    fn hand_over(&self, chunk: Result<Bytes>) -> Option<()> {
        let chunk = match self.chunks.try_send(chunk) {
            Ok(()) => return Some(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return None,
            Err(mpsc::error::TrySendError::Full(chunk)) => chunk,
        };
        let sending = self.deadline.bound("http.ureq", "waiting for the reader", self.chunks.send(chunk));
        self.runtime.block_on(sending).ok()?.ok()
    }
}

/// ureq's error as ours. Neither holds headers, bodies or query strings.
fn transport_error(error: ureq::Error) -> Error {
    let (kind, message) = match &error {
        ureq::Error::Timeout(timeout) => (ErrorKind::Timeout, format!("timed out {}", step(*timeout))),
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            (ErrorKind::Timeout, "timed out waiting for the server".to_owned())
        }
        ureq::Error::HostNotFound => (ErrorKind::Unavailable, "the host's name was not found".to_owned()),
        ureq::Error::ConnectionFailed => (ErrorKind::Unavailable, "the connection failed".to_owned()),
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            (ErrorKind::Unavailable, "the connection was refused".to_owned())
        }
        ureq::Error::Http(_) | ureq::Error::BadUri(_) => {
            let message = "the request is not valid HTTP".to_owned();
            // Its cause may repeat the URL.
            return Error::new(ErrorKind::InvalidInput, "http.ureq", message);
        }
        _ => (ErrorKind::Transport, "the exchange failed".to_owned()),
    };
    Error::new(kind, "http.ureq", message).with_source(error)
}

fn step(timeout: Timeout) -> &'static str {
    match timeout {
        Timeout::Resolve => "looking up the host's name (http.connect_timeout)",
        Timeout::Connect => "connecting (http.connect_timeout)",
        Timeout::SendRequest | Timeout::SendBody | Timeout::PerWrite => {
            "sending the request (http.write_timeout)"
        }
        Timeout::PerRead => "waiting for the next bytes (http.read_timeout)",
        _ => "waiting for the response",
    }
}
