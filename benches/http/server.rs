//! Replies of the server of all contenders, selected by the path.

use std::time::Duration;

use arshai_benches::http_server::{Connections, Request, Server};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const SLOW: &str = "/slow";
const TOKENS: &str = "/tokens/";
const TOOLS: &str = "/tools/";

/// Delay of a slow reply.
const SLOW_REPLY: Duration = Duration::from_millis(20);

pub(crate) fn start() -> Server {
    Server::start(answer)
}

async fn answer(stream: &mut TcpStream, request: Request, _: &Connections) -> std::io::Result<()> {
    let path = &*request.path;
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
