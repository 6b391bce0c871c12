//! The server of all contenders: HTTP/1.1 on loopback, on a separate thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Paths that select a reply.
const SLOW: &str = "/slow";
const TOKENS: &str = "/tokens/";
const TOOLS: &str = "/tools/";

/// Delay of a slow reply.
const SLOW_REPLY: Duration = Duration::from_millis(20);

/// Number of open connections, and the peak.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: AtomicUsize,
    peak: AtomicUsize,
}

impl Connections {
    /// Maximum number of connections open concurrently.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<Connections>,
}

impl Server {
    /// It runs until the process ends.
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        listener.set_nonblocking(true).expect("it can");
        let address = listener.local_addr().expect("it is bound");
        let connections = Arc::new(Connections::default());
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(async move {
                let listener = TcpListener::from_std(listener).expect("it listens");
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    counted.open.fetch_add(1, Ordering::SeqCst);
                    let later = Arc::clone(&counted);
                    tokio::spawn(async move {
                        // By then the ends of connections that were closed before this one was opened are read.
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        later.peak.fetch_max(later.open.load(Ordering::SeqCst), Ordering::SeqCst);
                    });
                    let counted = Arc::clone(&counted);
                    tokio::spawn(async move {
                        // An error is a client that has gone.
                        let _ = serve(stream).await;
                        counted.open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
        });
        Self { address, connections }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(8 << 10);
    loop {
        let Some((path, length)) = request(&mut stream, &mut buffer).await? else { return Ok(()) };
        buffer.drain(..length);
        answer(&mut stream, &path).await?;
    }
}

/// The path of the next request, and how many bytes it has.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<(String, usize)>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let body = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let body: usize = body.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
            let length = end + 4 + body;
            while buffer.len() < length {
                if stream.read_buf(buffer).await? == 0 {
                    return Ok(None);
                }
            }
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            return Ok(Some((path, length)));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

async fn answer(stream: &mut TcpStream, path: &str) -> std::io::Result<()> {
    // Clients of models add their own end to the path.
    let count = |after: &str| -> Option<u64> {
        path.strip_prefix(after)?.split('/').next().and_then(|count| count.parse().ok())
    };
    if let Some(tokens) = count(TOKENS) {
        return send_tokens(stream, tokens).await;
    }
    if let Some(millis) = count(TOOLS) {
        return send_tools(stream, Duration::from_millis(millis)).await;
    }
    if path.starts_with(SLOW) {
        tokio::time::sleep(SLOW_REPLY).await;
    }
    const BODY: &str = r#"{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}"#;
    let reply = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    stream.write_all(reply.as_bytes()).await
}

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(event: &str) -> String {
    let event = format!("data: {event}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len())
}

/// An event of a streamed answer, as OpenAI sends it.
fn delta(delta: &str, finish_reason: &str) -> String {
    chunk(&format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","system_fingerprint":"fp","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish_reason}}}]}}"#
    ))
}

fn end(reason: &str) -> String {
    delta("{}", &format!("\"{reason}\"")) + &chunk("[DONE]") + "0\r\n\r\n"
}

/// So many tokens, as fast as they are taken.
async fn send_tokens(stream: &mut TcpStream, tokens: u64) -> std::io::Result<()> {
    let token = delta(r#"{"content":" token"}"#, "null");
    stream.write_all((EVENTS.to_owned() + &token).as_bytes()).await?;
    const BATCH: u64 = 64;
    let batch = token.repeat(BATCH as usize);
    let mut left = tokens.saturating_sub(1);
    while left > 0 {
        let now = left.min(BATCH);
        stream.write_all(&batch.as_bytes()[..token.len() * now as usize]).await?;
        left -= now;
    }
    stream.write_all(end("stop").as_bytes()).await
}

/// Two tool calls immediately, then text until `lasts` have passed.
async fn send_tools(stream: &mut TcpStream, lasts: Duration) -> std::io::Result<()> {
    let began = tokio::time::Instant::now();
    let mut head = EVENTS.to_owned();
    for call in 0..2 {
        head += &delta(
            &format!(
                r#"{{"tool_calls":[{{"index":{call},"id":"call-{call}","type":"function","function":{{"name":"work","arguments":"{{}}"}}}}]}}"#
            ),
            "null",
        );
    }
    stream.write_all(head.as_bytes()).await?;
    for part in 1..=10 {
        tokio::time::sleep_until(began + lasts * part / 10).await;
        stream.write_all(delta(r#"{"content":" token"}"#, "null").as_bytes()).await?;
    }
    stream.write_all(end("tool_calls").as_bytes()).await
}
