//! A small HTTP/1.1 server on loopback, scripted by a function from request to reply.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// An event on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A complete request arrived.
    Request,
    /// The client closed the connection, or the reply did.
    Closed,
}

/// A request: its head in lower case, and its body.
pub(super) struct Request {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

pub(super) enum Reply {
    /// Sends these bytes and reads the next request.
    Send(Vec<u8>),
    /// Like `Send`, but waits to be notified first.
    SendAfter(Arc<Notify>, Vec<u8>),
    /// Sends these bytes and closes.
    Close(Vec<u8>),
    /// Sends these bytes and nothing more until the client closes.
    Stall(Vec<u8>),
}

impl Reply {
    pub(super) fn ok(body: &str) -> Self {
        Self::status("200 OK", "", body.as_bytes())
    }

    pub(super) fn status(status: &str, headers: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        Self::Send([head.as_bytes(), body].concat())
    }
}

/// Runs on the current runtime until it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    events: mpsc::UnboundedReceiver<Event>,
    _accepting: AbortOnDropHandle<()>,
}

struct Shared {
    reply: Box<dyn Fn(&Request) -> Reply + Send + Sync>,
    requests: Mutex<Vec<Request>>,
    /// Requests that arrived and were not answered yet, and the peak.
    active: AtomicUsize,
    peak: AtomicUsize,
    events: mpsc::UnboundedSender<Event>,
}

impl Server {
    pub(super) async fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (sender, events) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            reply: Box::new(reply),
            requests: Mutex::default(),
            active: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            events: sender,
        });
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let mut connections = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        // An error means that the client is gone, which is what the event says.
                        let _ = shared.serve(stream).await;
                        let _ = shared.events.send(Event::Closed);
                    });
                }
            }
        });
        Self { address, shared, events, _accepting: AbortOnDropHandle::new(accepting) }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) async fn event(&mut self) -> Event {
        tokio::time::timeout(super::LONG, self.events.recv())
            .await
            .expect("the client neither sent nor closed anything")
            .expect("the server is running")
    }

    pub(super) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared.requests.lock())
    }

    /// Maximum number of requests that were active concurrently.
    pub(super) fn peak(&self) -> usize {
        self.shared.peak.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut buffer = Vec::new();
        while let Some(request) = read_request(&mut stream, &mut buffer).await? {
            let active = self.active.fetch_add(1, Ordering::SeqCst) + 1;
            self.peak.fetch_max(active, Ordering::SeqCst);
            let _ = self.events.send(Event::Request);
            // Other connections have time to break the limit.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            let reply = (self.reply)(&request);
            self.requests.lock().push(request);
            if let Reply::SendAfter(notify, _) = &reply {
                notify.notified().await;
            }
            // Before the reply, after which the client may send the next request on another connection.
            self.active.fetch_sub(1, Ordering::SeqCst);
            match reply {
                Reply::Send(bytes) | Reply::SendAfter(_, bytes) => stream.write_all(&bytes).await?,
                Reply::Close(bytes) => return stream.write_all(&bytes).await,
                Reply::Stall(bytes) => {
                    stream.write_all(&bytes).await?;
                    while stream.read(&mut [0; 64]).await? > 0 {}
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(Ok(0), |length| length.trim().parse()).map_err(io::Error::other)?;
    while buffer.len() < end + length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let rest = buffer.split_off(end + length);
    let body = std::mem::replace(buffer, rest).split_off(end);
    Ok(Some(Request { head, body }))
}
