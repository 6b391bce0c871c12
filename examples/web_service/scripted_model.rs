//! A scripted model behind an OpenAI-compatible API on loopback, so that the example runs without an API key.
//!
//! It replaces the model, not HTTP: requests use a real socket. It calls the tools that a question needs, tells what they
//! returned, and streams its text word by word.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::post};
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};

/// Time between two words.
const PACE: Duration = Duration::from_millis(40);

const INTRODUCTION: &str = "I am the scripted model of this example, so that it runs without an API key. I can tell the \
    time, calculate (6 * 7), count (count to 100), write some HTML, which this page shows as text, remember your first \
    message, and call the tools of your MCP servers when you name them. While I speak, a connection is in use; when I \
    have finished, the conversation takes a little more memory. Set OPENAI_API_KEY to talk to a real model.";

const MARKUP: &str = "Here is some HTML, and it stays text:\n<h1 onclick=\"alert(1)\">Hello</h1>\n\
    <img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\n<b>Nothing of it runs.</b>";

/// Starts the server on a free port, and returns its base URL. It ends with the process.
pub(crate) async fn start() -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1", listener.local_addr()?);
    let routes = Router::new().route("/v1/chat/completions", post(complete));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(url)
}

enum Reply {
    Text(String),
    Calls(Vec<Value>),
}

async fn complete(Json(request): Json<Value>) -> Response {
    let reply = reply(&request);
    let usage = usage(&request, &reply);
    if request["stream"] == true { stream_of(reply, usage).into_response() } else { whole(reply, usage) }
}

/// The whole script.
fn reply(request: &Value) -> Reply {
    let messages = list(&request["messages"]);
    let asked = |message: &&Value| message["role"] == "user";
    let question = messages.iter().rfind(asked).map(content).unwrap_or_default();
    let results: Vec<&Value> = messages.iter().rev().take_while(|message| !asked(message)).collect();
    let results: Vec<&Value> =
        results.into_iter().rev().filter(|message| message["role"] == "tool").collect();
    if !results.is_empty() {
        return Reply::Text(
            results.into_iter().map(content).map(|text| format!("The tool says: {text}\n")).collect(),
        );
    }
    let calls = calls(question, list(&request["tools"]));
    if !calls.is_empty() {
        return Reply::Calls(calls);
    }
    let lower = question.to_lowercase();
    Reply::Text(
        if let Some(end) = lower.strip_prefix("count to ").and_then(|end| end.trim().parse::<u32>().ok()) {
            (1..=end.min(10_000)).map(|number| format!("{number} ")).collect()
        } else if lower.contains("html") {
            MARKUP.to_owned()
        } else if lower.contains("first message") {
            let first = messages.iter().find(asked).map(content).unwrap_or_default();
            format!("Your first message was: {first}")
        } else {
            INTRODUCTION.to_owned()
        },
    )
}

/// The calls that `question` needs: the clock, the calculator, and every other tool whose name is a word of it.
fn calls(question: &str, tools: &[Value]) -> Vec<Value> {
    let words: Vec<&str> = question
        .split_whitespace()
        .map(|word| word.trim_matches(|c: char| c.is_ascii_punctuation() && !"+-*/".contains(c)))
        .collect();
    let numbers: Vec<f64> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let calls = tools.iter().map(|tool| &tool["function"]).filter_map(|tool| {
        let name = tool["name"].as_str()?;
        let arguments = match name {
            "clock" => words.contains(&"time").then(|| json!({}))?,
            "calculator" => calculation(&words)?,
            _ => words.contains(&name).then(|| arguments(&tool["parameters"], question, &numbers))?,
        };
        Some((name, arguments))
    });
    let calls = calls.enumerate().map(|(index, (name, arguments))| {
        let function = json!({"name": name, "arguments": arguments.to_string()});
        json!({"index": index, "id": format!("call_{index}"), "type": "function", "function": function})
    });
    calls.collect()
}

/// A number, an operator and a number in a row.
fn calculation(words: &[&str]) -> Option<Value> {
    words.windows(3).find_map(|three| {
        let (left, right) = (three[0].parse::<f64>().ok()?, three[2].parse::<f64>().ok()?);
        let operator = match three[1] {
            "×" | "x" => "*",
            operator if ["+", "-", "*", "/"].contains(&operator) => operator,
            _ => return None,
        };
        Some(json!({"left": left, "operator": operator, "right": right}))
    })
}

/// Arguments that a schema requires: the numbers of the question in their order, and the question for texts.
fn arguments(schema: &Value, question: &str, numbers: &[f64]) -> Value {
    let mut numbers = numbers.iter();
    let required = list(&schema["required"]).iter().filter_map(Value::as_str);
    let arguments = required.map(|name| {
        let value = match schema["properties"][name]["type"].as_str() {
            Some("integer") => numbers.next().map_or(json!(1), |number| json!(*number as i64)),
            Some("number") => numbers.next().map_or(json!(1), |number| json!(number)),
            Some("boolean") => json!(true),
            _ => json!(question),
        };
        (name.to_owned(), value)
    });
    Value::Object(arguments.collect::<Map<_, _>>())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn content(message: &Value) -> &str {
    message["content"].as_str().unwrap_or_default()
}

/// About four bytes are a token.
fn usage(request: &Value, reply: &Reply) -> Value {
    let answered = match reply {
        Reply::Text(text) => text.len(),
        Reply::Calls(calls) => calls.iter().map(|call| call.to_string().len()).sum(),
    };
    let (prompt, completion) = (request["messages"].to_string().len() / 4, answered / 4);
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

fn whole(reply: Reply, usage: Value) -> Response {
    let (message, finish) = match reply {
        Reply::Text(text) => (json!({"role": "assistant", "content": text}), "stop"),
        Reply::Calls(calls) => {
            (json!({"role": "assistant", "content": null, "tool_calls": calls}), "tool_calls")
        }
    };
    let choice = json!({"index": 0, "message": message, "finish_reason": finish});
    Json(json!({"id": "scripted", "object": "chat.completion", "model": "scripted", "choices": [choice], "usage": usage}))
        .into_response()
}

fn stream_of(reply: Reply, usage: Value) -> impl IntoResponse {
    let (deltas, finish): (Vec<Value>, _) = match reply {
        Reply::Text(text) => {
            (text.split_inclusive(' ').map(|word| json!({"content": word})).collect(), "stop")
        }
        Reply::Calls(calls) => (vec![json!({"tool_calls": calls})], "tool_calls"),
    };
    let chunk = |choices: Value, usage: Value| {
        json!({"id": "scripted", "object": "chat.completion.chunk", "model": "scripted", "choices": choices, "usage": usage})
            .to_string()
    };
    let mut events: Vec<String> = deltas
        .into_iter()
        .map(|delta| chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}]), Value::Null))
        .collect();
    events.push(chunk(json!([{"index": 0, "delta": {}, "finish_reason": finish}]), Value::Null));
    events.push(chunk(json!([]), usage));
    events.push("[DONE]".to_owned());
    Sse::new(stream::iter(events).then(|event| async {
        tokio::time::sleep(PACE).await;
        Ok::<_, Infallible>(Event::default().data(event))
    }))
}
