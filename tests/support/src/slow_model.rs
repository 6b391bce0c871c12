//! A model server whose answers take their time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Streams tokens to every request that ends with JSON, on the runtime and the clock of the test.
#[derive(Debug)]
pub struct SlowModel {
    address: SocketAddr,
    peak: Arc<AtomicUsize>,
}

impl SlowModel {
    /// Tokens of a stream: one letter each.
    pub const TOKENS: usize = 5;

    /// A server whose streams last `stream`, until the runtime ends.
    ///
    /// # Panics
    /// Without loopback.
    pub async fn start(stream: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (open, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let most = Arc::clone(&peak);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let open = Arc::clone(&open);
                tokio::spawn(async move {
                    // An error is a client that has gone.
                    let _ = serve(socket, stream).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, peak }
    }

    /// The URL of `path`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The most connections that were open at once.
    #[must_use]
    pub fn peak_connections(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }
}

async fn serve(mut socket: TcpStream, stream: Duration) -> std::io::Result<()> {
    let mut request = Vec::new();
    loop {
        // Requests come one after the other and end with their JSON.
        while !request.ends_with(b"}") {
            if socket.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        request.clear();
        socket
            .write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            )
            .await?;
        for _ in 0..SlowModel::TOKENS {
            tokio::time::sleep(stream / SlowModel::TOKENS as u32).await;
            send(&mut socket, r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#).await?;
        }
        send(&mut socket, r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#).await?;
        send(&mut socket, "[DONE]").await?;
        socket.write_all(b"0\r\n\r\n").await?;
    }
}

async fn send(socket: &mut TcpStream, event: &str) -> std::io::Result<()> {
    let event = format!("data: {event}\n\n");
    socket.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await
}
