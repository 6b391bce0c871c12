//! A small OpenAI-compatible server on loopback, used without an API key: it asks for the search tool, then
//! answers with the sentences of the tool's results that share most words with the question.
//!
//! It replaces the model, not HTTP: requests use a real socket.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::embedding::words;

/// Sentences that are this close to the best one are part of the answer.
const CLOSE: f64 = 0.9;

/// Starts the server on a free port; it ends with the process.
pub(crate) fn start() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

/// Answers the requests of one connection until it closes.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(body) = read_request(&mut reader)? {
        let answer = match serde_json::from_slice::<Value>(&body) {
            Ok(request) => complete(&request),
            Err(error) => json!({"error": {"message": error.to_string()}}),
        };
        let text = answer.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// The body of the next request; `None` when the client has closed.
fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = 0;
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    while !line.trim_end().is_empty() {
        line.clear();
        reader.read_line(&mut line)?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(body))
}

/// One chat completion: tool calls first, an answer once their results are there.
fn complete(request: &Value) -> Value {
    let none = Vec::new();
    let messages = request["messages"].as_array().unwrap_or(&none);
    let question = messages.iter().rfind(|message| message["role"] == "user");
    let question = question.and_then(|message| message["content"].as_str()).unwrap_or_default();
    let results: Vec<&str> = messages
        .iter()
        .rev()
        .take_while(|message| message["role"] != "user")
        .filter(|message| message["role"] == "tool")
        .filter_map(|message| message["content"].as_str())
        .collect();
    let message = if results.is_empty() {
        json!({"role": "assistant", "content": null, "tool_calls": [
            call("call_search", "search", &json!({"query": question})),
            call("call_log", "log_interaction", &json!({"message": question})),
        ]})
    } else {
        json!({"role": "assistant", "content": answer(question, &results)})
    };
    let finish = if results.is_empty() { "tool_calls" } else { "stop" };
    let tokens = |value: &Value| value.to_string().len() / 4;
    let (sent, answered) = (tokens(&request["messages"]), tokens(&message));
    json!({
        "id": "chatcmpl-loopback",
        "object": "chat.completion",
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": sent, "completion_tokens": answered, "total_tokens": sent + answered},
    })
}

fn call(id: &str, name: &str, arguments: &Value) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments.to_string()}})
}

/// The sentence of the search results that says most about the question, and those that say nearly as much, with their
/// sources. A word that few of the sentences have says more than one that most have.
fn answer(question: &str, results: &[&str]) -> String {
    let wanted: BTreeSet<String> = words(question).collect();
    let mut sentences = Vec::new();
    for hit in results.iter().filter_map(|text| serde_json::from_str::<Value>(text).ok()) {
        for passage in hit["passages"].as_array().into_iter().flatten() {
            let source = passage["source"].as_str().unwrap_or_default();
            for sentence in sentences_of(passage["text"].as_str().unwrap_or_default()) {
                let found: BTreeSet<String> = words(&sentence).filter(|word| wanted.contains(word)).collect();
                sentences.push((found, sentence, source.to_owned()));
            }
        }
    }
    let count = |word: &String| sentences.iter().filter(|(found, ..)| found.contains(word)).count() as f64;
    let score = |(found, sentence, _): &(BTreeSet<String>, String, String)| {
        let said: f64 = found.iter().map(|word| (1.0 + sentences.len() as f64 / count(word)).ln()).sum();
        said / (8.0 + words(sentence).count() as f64).ln()
    };
    let mut scored: Vec<_> = sentences.iter().map(|sentence| (score(sentence), sentence)).collect();
    // Stores may order passages of equal score differently.
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.2.cmp(&b.1.2)));
    let best = scored.first().map_or(0.0, |(score, _)| *score);
    if best == 0.0 {
        return "The documents say nothing about that.".to_owned();
    }
    let close = scored.iter().take_while(|(score, _)| *score >= CLOSE * best).take(3);
    close.map(|(_, (_, text, source))| format!("{text} [{source}]")).collect::<Vec<_>>().join("\n")
}

/// Prose by sentences; each item of a list for itself; no headings and no code.
fn sentences_of(text: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut prose = String::new();
    let mut in_code = false;
    for line in text.lines().map(str::trim).chain([""]) {
        in_code ^= line.starts_with("```");
        let item = line.strip_prefix("- ").or_else(|| line.strip_prefix("* "));
        let skipped = line.is_empty() || line.starts_with('#') || line.starts_with("```") || in_code;
        if skipped || item.is_some() {
            sentences.extend(prose.split_inclusive(". ").map(|sentence| sentence.trim().to_owned()));
            prose.clear();
        }
        if !skipped {
            prose.push_str(item.unwrap_or(line));
            prose.push(' ');
        }
    }
    sentences.retain(|sentence| sentence.split(' ').count() > 3);
    sentences
}
