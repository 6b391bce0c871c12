//! A small HTTP/1.1 server on loopback that can misbehave.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

/// An event on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A complete request arrived.
    Request,
    /// The client closed a connection that was waiting for a response or could have been reused.
    Closed,
}

/// A request: its head in lower case, and its body.
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// How the server responds.
pub(crate) enum Reply {
    /// Sends these bytes and reads the next request.
    Bytes(Vec<u8>),
    /// Sends these bytes and closes.
    Last(Vec<u8>),
    /// Sends these bytes and nothing more until the client closes.
    Stall(Vec<u8>),
    /// Resets the connection.
    Reset,
    /// Sends these bytes one by one, each after this pause.
    Drip(Vec<u8>, Duration),
    /// Sends these bytes again and again until the client closes.
    Endless(Vec<u8>, Vec<u8>),
}

impl Reply {
    pub(crate) fn ok(body: &str) -> Self {
        Self::status("200 OK", "", body.as_bytes())
    }

    pub(crate) fn status(status: &str, headers: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        Self::Bytes([head.as_bytes(), body].concat())
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Server {
    pub(crate) fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (sender, events) = mpsc::unbounded_channel();
        let (accepted, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped, reply) = (Arc::clone(&accepted), Arc::clone(&stop), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let (reply, sender) = (Arc::clone(&reply), sender.clone());
                std::thread::spawn(move || {
                    // An error means that the client is gone, which is what the event says.
                    let _ = serve(stream, reply.as_ref(), &sender);
                    let _ = sender.send(Event::Closed);
                });
            }
        });
        Self { address, accepted, stop, events }
    }

    /// A server that accepts connections and never reads.
    pub(crate) fn start_deaf() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (_, events) = mpsc::unbounded_channel();
        let (accepted, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                connections.push(stream);
            }
        });
        Self { address, accepted, stop, events }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(crate) async fn event(&mut self) -> Event {
        self.events.recv().await.expect("the server is running")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener so that it sees the flag.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    mut stream: TcpStream,
    reply: &dyn Fn(&Request) -> Reply,
    events: &mpsc::UnboundedSender<Event>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = read_request(&mut reader)? {
        let _ = events.send(Event::Request);
        match reply(&request) {
            Reply::Bytes(bytes) => stream.write_all(&bytes)?,
            Reply::Last(bytes) => return stream.write_all(&bytes),
            Reply::Stall(bytes) => {
                stream.write_all(&bytes)?;
                // Ends when the client closes.
                return io::copy(&mut reader, &mut io::sink()).map(drop);
            }
            // Closing without lingering resets the connection.
            Reply::Reset => return socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
            Reply::Drip(bytes, pause) => {
                for byte in bytes {
                    std::thread::sleep(pause);
                    stream.write_all(&[byte])?;
                }
            }
            Reply::Endless(head, again) => {
                stream.write_all(&head)?;
                loop {
                    stream.write_all(&again)?;
                }
            }
        }
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let start = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
        let line = head[start..].trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { head: head.to_ascii_lowercase(), body }))
}
