//! Streamed answers: the first token, tokens per second, what they allocate, and a turn with tools.

use std::alloc::System;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arshai::agent::{AgentEvent, AgentInput};
use arshai::llm::{ChatEvent, ChatRequest, LlmClient, Message, OpenAiCompatibleClient};
use arshai::tasks::{Function, FunctionError, Functions};
use arshai::{Arshai, Config};
use arshai_benches::http_server::Server;
use arshai_benches::{Bench, Better};
use eventsource_stream::Eventsource;
use futures_util::StreamExt;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use crate::{config, runtime};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const OURS: &str = "arshai";
const BY_HAND: &str = "reqwest, eventsource-stream, serde_json";

/// Duration of a tool call, and of the stream.
const TOOL: Duration = Duration::from_millis(200);
const STREAM: Duration = Duration::from_secs(1);

pub(crate) fn measure(bench: &mut Bench, server: &Server) {
    first_token(bench, server);
    tokens(bench, server);
    allocations(bench, server);
    turn_with_tools(bench, server);
}

/// A runtime of ours whose models are at that path of the server.
fn arshai(server: &Server, path: &str) -> Arshai {
    let mut config: Config = config();
    config.llm.openai.base_url = Some(server.url(path));
    config.llm.openai.api_key = Some("key".into());
    // 200 000 tokens are 46 MB on the wire.
    config.http.max_body_bytes = 1 << 30;
    Arshai::builder(config).build().expect("it builds")
}

fn model(arshai: &Arshai) -> OpenAiCompatibleClient {
    let transport = Arc::clone(arshai.http().expect("it is there"));
    OpenAiCompatibleClient::openai(&arshai.config().llm.openai, "m", transport).expect("it is valid")
}

fn request() -> ChatRequest {
    ChatRequest::new(vec![Message::user("hello")])
}

/// Microseconds from asking to the first token of an answer, on a connection that is there already.
fn first_token(bench: &mut Bench, server: &Server) {
    let (ours, raw) = (runtime(), runtime());
    let arshai = arshai(server, "/tokens/1");
    let model = model(&arshai);
    let times = if bench.is_quick() { 500 } else { 2_000 };
    let mut socket = raw.block_on(tokio::net::TcpStream::connect(server.address)).expect("it is there");
    socket.set_nodelay(true).expect("it can");
    bench.compare("first_token", "us", Better::Lower, vec![
        (OURS, Box::new(|| {
            ours.block_on(async {
                let mut spent = Duration::ZERO;
                for _ in 0..times {
                    let began = Instant::now();
                    let mut stream = model.stream(request()).await.expect("it streams");
                    let first = stream.next().await.expect("it goes well");
                    spent += began.elapsed();
                    assert!(matches!(first, Some(ChatEvent::Text(_))));
                    while stream.next().await.expect("it goes well").is_some() {}
                }
                micros(spent, times)
            })
        })),
        ("raw socket", Box::new(|| {
            raw.block_on(async {
                let mut spent = Duration::ZERO;
                let mut buffer = Vec::with_capacity(16 << 10);
                for _ in 0..times {
                    let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}],"stream":true}"#;
                    let began = Instant::now();
                    let head = format!(
                        "POST /tokens/1 HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    socket.write_all(head.as_bytes()).await.expect("it is sent");
                    buffer.clear();
                    while !contains(&buffer, b"token") {
                        socket.read_buf(&mut buffer).await.expect("it answers");
                    }
                    spent += began.elapsed();
                    while !contains(&buffer, b"[DONE]") || !buffer.ends_with(b"0\r\n\r\n") {
                        socket.read_buf(&mut buffer).await.expect("it answers");
                    }
                }
                micros(spent, times)
            })
        })),
    ]);
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn micros(spent: Duration, times: u32) -> f64 {
    spent.as_nanos() as f64 / 1_000.0 / f64::from(times)
}

/// Tokens per second of one answer that comes as fast as it is read.
fn tokens(bench: &mut Bench, server: &Server) {
    let (ours, by_hand) = (runtime(), runtime());
    let count = if bench.is_quick() { 50_000 } else { 200_000 };
    let path = format!("/tokens/{count}");
    let arshai = arshai(server, &path);
    let model = model(&arshai);
    let client = reqwest::Client::new();
    let url = server.url(&path);
    bench.compare("tokens", "token/s", Better::Higher, vec![
        (OURS, Box::new(|| rate(count, || ours.block_on(async {
            let mut stream = model.stream(request()).await.expect("it streams");
            let mut tokens = 0;
            while let Some(event) = stream.next().await.expect("it goes well") {
                tokens += usize::from(matches!(event, ChatEvent::Text(_)));
            }
            tokens
        })))),
        (BY_HAND, Box::new(|| rate(count, || by_hand.block_on(async {
            let body = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": true});
            let response = client.post(&url).json(&body).send().await.expect("it answers");
            let mut events = response.bytes_stream().eventsource();
            let mut tokens = 0;
            while let Some(event) = events.next().await {
                let event = event.expect("it goes well");
                if event.data == "[DONE]" {
                    break;
                }
                let chunk: Value = serde_json::from_str(&event.data).expect("it is JSON");
                tokens += usize::from(chunk["choices"][0]["delta"]["content"].as_str().is_some());
            }
            tokens
        })))),
    ]);
}

fn rate(count: usize, read: impl FnOnce() -> usize) -> f64 {
    let began = Instant::now();
    assert_eq!(read(), count);
    count as f64 / began.elapsed().as_secs_f64()
}

/// Bytes allocated per token of a long response beside a short one, and the peak of bytes held meanwhile. The
/// server runs in the same process, but allocates nothing for each token.
fn allocations(bench: &mut Bench, server: &Server) {
    let runtime = runtime();
    let [short, long] = [1_000, 100_000].map(|count| allocated(&runtime, server, count));
    let row = |bench: &mut Bench, case: &str, long, short, target| {
        let peers = BTreeMap::from([("of 1 000 tokens".to_owned(), short)]);
        bench.record(case, "bytes", Better::Lower, long, peers);
        bench.target("of 1 000 tokens", target);
    };
    row(bench, "allocated_per_token_of_100k", long.0, short.0, 1.1);
    // A hundred times as much comes; what is held varies with how far the reader is behind, within its bound.
    row(bench, "held_at_most_of_100k", long.1, short.1, 2.0);
}

/// Bytes allocated per token, and the peak of bytes held.
fn allocated(runtime: &Runtime, server: &Server, count: usize) -> (f64, f64) {
    let arshai = arshai(server, &format!("/tokens/{count}"));
    let model = model(&arshai);
    let read = || {
        runtime.block_on(async {
            let mut stream = model.stream(request()).await.expect("it streams");
            let region = Region::new(ALLOCATOR);
            let mut most = 0;
            while stream.next().await.expect("it goes well").is_some() {
                let change = region.change();
                most = most.max(change.bytes_allocated.saturating_sub(change.bytes_deallocated));
            }
            (region.change().bytes_allocated as f64 / count as f64, most as f64)
        })
    };
    // The first time other things are set up as well.
    read();
    read()
}

/// Seconds of a turn with two tools that the model asks for as it begins to stream.
fn turn_with_tools(bench: &mut Bench, server: &Server) {
    let runtime = runtime();
    let arshai = arshai(server, &format!("/tools/{}", STREAM.as_millis()));
    let work = || async {
        tokio::time::sleep(TOOL).await;
        Ok::<_, FunctionError>(Value::Null)
    };
    let functions = Functions::new().with(Function::new("work", move |_: Value| work()));
    let model = Arc::new(model(&arshai));
    bench.compare(
        "turn_of_1s_stream_and_2_tools",
        "s",
        Better::Lower,
        vec![
            (
                OURS,
                Box::new(|| {
                    let agent =
                        arshai.chat_agent(Arc::clone(&model) as _, "").with_functions(functions.clone());
                    runtime.block_on(async {
                        let began = Instant::now();
                        let mut turn = agent.stream(AgentInput::new("hello"));
                        let mut ended = 0;
                        while let Some(event) = turn.next().await.expect("it goes well") {
                            ended += usize::from(matches!(event, AgentEvent::ToolEnded { .. }));
                            if ended == 2 {
                                break;
                            }
                        }
                        began.elapsed().as_secs_f64()
                    })
                }),
            ),
            (
                "tools after the stream",
                Box::new(|| {
                    runtime.block_on(async {
                        let began = Instant::now();
                        let response = model.stream(request()).await.expect("it streams").collect().await;
                        let response = response.expect("it goes well");
                        let tools = response.tool_calls.iter().map(|_| work());
                        futures_util::future::join_all(tools).await;
                        began.elapsed().as_secs_f64()
                    })
                }),
            ),
        ],
    );
}
