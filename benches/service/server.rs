//! The model: a process of its own, the same for all contenders.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream as BlockingStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use arshai_benches::http_server::{Connections, Request, Server};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The argument that makes this bench the server.
pub(crate) const ARGUMENT: &str = "--server";

/// Tokens of a streamed response, and the time between two.
pub(crate) const TOKENS: usize = 50;
const BETWEEN_TOKENS: Duration = Duration::from_millis(100);

const PEAK: &str = "/peak";

/// The running process.
pub(crate) struct ServerProcess {
    process: Child,
    pub(crate) address: String,
}

impl ServerProcess {
    pub(crate) fn start() -> Self {
        let exe = std::env::current_exe().expect("a running program has a path");
        let mut process =
            Command::new(exe).arg(ARGUMENT).stdout(Stdio::piped()).spawn().expect("it starts itself");
        let stdout = process.stdout.take().expect("it is piped");
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address).expect("it prints its address");
        Self { process, address: address.trim().to_owned() }
    }

    /// The most connections that were open at once since the last call.
    pub(crate) fn take_peak(&self) -> f64 {
        let mut stream = BlockingStream::connect(&self.address).expect("it listens");
        let request = format!("GET {PEAK} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        stream.shutdown(std::net::Shutdown::Write).expect("it is open");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("it answers");
        reply.rsplit("\r\n").next().and_then(|peak| peak.parse().ok()).expect("a number")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs the server until the process is killed.
pub(crate) fn run() -> ! {
    let server = Server::start(answer);
    println!("{}", server.address);
    loop {
        std::thread::park();
    }
}

/// The path begins with the delay in milliseconds.
async fn answer(stream: &mut TcpStream, request: Request, connections: &Connections) -> std::io::Result<()> {
    if request.path == PEAK {
        return send(stream, "text/plain", &connections.take_peak().to_string()).await;
    }
    let delay = request.path.split('/').nth(1).and_then(|delay| delay.parse().ok()).unwrap_or(0);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let body = String::from_utf8_lossy(&request.body);
    let last_role = body.rsplit("\"role\":\"").next().unwrap_or_default();
    match () {
        () if body.contains("\"stream\":true") => send_tokens(stream).await,
        () if body.contains("\"tools\":") && last_role.starts_with("user") => {
            send(stream, "application/json", &completion(&asking_for_tools(), "tool_calls")).await
        }
        () => {
            let text = json!({"role": "assistant", "content": "The weather is fine, and it is noon."});
            send(stream, "application/json", &completion(&text, "stop")).await
        }
    }
}

async fn send(stream: &mut TcpStream, content_type: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let reply =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(reply.as_bytes()).await
}

fn asking_for_tools() -> Value {
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    json!({"role": "assistant", "content": null, "tool_calls": [
        call("call_1", "weather", "{\"city\":\"Paris\"}"),
        call("call_2", "clock", "{\"zone\":\"Europe/Paris\"}"),
    ]})
}

fn completion(message: &Value, finish_reason: &str) -> String {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "m",
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52},
    })
    .to_string()
}

async fn send_tokens(stream: &mut TcpStream) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..TOKENS {
        tokio::time::sleep(BETWEEN_TOKENS).await;
        stream.write_all(event(r#"{"content":" token"}"#, "null").as_bytes()).await?;
    }
    let end = event("{}", "\"stop\"") + &chunk("data: [DONE]\n\n") + "0\r\n\r\n";
    stream.write_all(end.as_bytes()).await
}

/// An event of a streamed response, as OpenAI sends it.
fn event(delta: &str, finish_reason: &str) -> String {
    chunk(&format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",\
         \"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish_reason}}}]}}\n\n"
    ))
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}
