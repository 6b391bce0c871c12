//! A small HTTP/1.1 server on loopback, on a separate thread, that counts its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

/// Number of open connections, and the peak.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    peak: AtomicUsize,
}

impl Connections {
    /// Maximum number of connections open concurrently.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    /// The peak so far; counts anew from the connections that are open.
    #[must_use]
    pub fn take_peak(&self) -> usize {
        self.peak.swap(self.open.load(Ordering::SeqCst), Ordering::SeqCst)
    }
}

/// A request.
#[derive(Debug)]
pub struct Request {
    /// Its path.
    pub path: String,
    /// Its body.
    pub body: Vec<u8>,
}

/// A server that runs until the process ends.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its connections.
    pub connections: Arc<Connections>,
}

impl Server {
    /// Starts a server that writes its replies with `answer`.
    ///
    /// # Panics
    /// Without loopback.
    pub fn start<F>(answer: F) -> Self
    where
        F: AsyncFn(&mut TcpStream, Request, &Connections) -> std::io::Result<()> + Clone + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        listener.set_nonblocking(true).expect("it can");
        let address = listener.local_addr().expect("it is bound");
        let connections = Arc::new(Connections::default());
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let tasks = tokio::task::LocalSet::new();
            let accepting = accept(listener, answer, counted);
            tasks.block_on(&runtime.expect("a runtime starts"), accepting);
        });
        Self { address, connections }
    }

    /// The URL of `path`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn accept<F>(listener: std::net::TcpListener, answer: F, connections: Arc<Connections>)
where
    F: AsyncFn(&mut TcpStream, Request, &Connections) -> std::io::Result<()> + Clone + 'static,
{
    let listener = TcpListener::from_std(listener).expect("it listens");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.open.fetch_add(1, Ordering::SeqCst);
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            // By then the ends of connections that were closed before this one was opened are read.
            tokio::time::sleep(Duration::from_millis(2)).await;
            counted.peak.fetch_max(counted.open.load(Ordering::SeqCst), Ordering::SeqCst);
        });
        let (counted, answer) = (Arc::clone(&connections), answer.clone());
        tokio::task::spawn_local(async move {
            // An error is a client that has gone.
            let _ = serve(stream, answer, &counted).await;
            counted.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve<F>(mut stream: TcpStream, answer: F, connections: &Connections) -> std::io::Result<()>
where
    F: AsyncFn(&mut TcpStream, Request, &Connections) -> std::io::Result<()>,
{
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(8 << 10);
    while let Some(request) = read(&mut stream, &mut buffer).await? {
        answer(&mut stream, request, connections).await?;
    }
    Ok(())
}

/// The next request, taken out of `buffer`.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Request>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
            let all = end + 4 + length;
            while buffer.len() < all {
                if stream.read_buf(buffer).await? == 0 {
                    return Ok(None);
                }
            }
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let body = buffer[end + 4..all].to_vec();
            buffer.drain(..all);
            return Ok(Some(Request { path, body }));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}
