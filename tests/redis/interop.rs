//! Rust and Python arshai 1.15.0 share one Redis.

use std::sync::Arc;

use arshai::agent::{Agent as _, AgentInput};
use arshai::backends::memory::RedisMemoryManager;
use arshai::backends::redis::RedisValue;
use arshai::contract::doubles::ScriptedLlm;
use arshai::llm::{ChatResponse, Message};
use arshai::memory::{MemoryInput, MemoryManager, MemoryType, WorkingMemory};
use arshai::{Arshai, BuildContext, Config};
use arshai_test_support::{PythonPeer, RedisServer};
use serde_json::{Value, json};

use crate::config;

struct Both {
    rust: RedisMemoryManager,
    python: PythonPeer,
    server: RedisServer,
}

const TEXTS: [&str; 5] =
    ["plain", "", "\"quotes\" and \\ and 'single'", "سلام دنیا 👋 ünïcode", "line\nbreak\u{0}\t"];
const TYPES: [MemoryType; 3] =
    [MemoryType::ShortTermMemory, MemoryType::LongTermMemory, MemoryType::WorkingMemory];

impl Both {
    fn start() -> Self {
        let server = RedisServer::start();
        let mut config: Config = config(&server.url());
        config.memory.ttl = std::time::Duration::from_secs(1_000);
        let rust =
            RedisMemoryManager::from_context(&BuildContext::new(Arc::new(config))).expect("it is valid");
        Self { rust, python: PythonPeer::start(&server.url()), server }
    }

    fn python(&mut self, op: &str, kind: MemoryType, more: Value) -> Value {
        let mut request = json!({"op": op, "conversation_id": "a", "memory_type": kind.as_str(), "ttl": 500});
        request.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        let answer = self.python.call(&request);
        assert!(answer.get("error").is_none(), "{answer}");
        answer["ok"].clone()
    }

    async fn rust(&self, kind: MemoryType) -> Option<String> {
        let found =
            self.rust.retrieve(&MemoryInput::new("a").with_memory_type(kind)).await.expect("it retrieves");
        found.first().map(|memory| memory.as_str().to_owned())
    }

    async fn held(&self, kind: MemoryType) -> Value {
        let key = MemoryInput::new("a").with_memory_type(kind).key();
        match self.rust.client().get_key(&key).await.expect("it is read") {
            Some(RedisValue::Json(json)) => json,
            other => panic!("{other:?}"),
        }
    }

    async fn seconds_left(&self, kind: MemoryType) -> i64 {
        use arshai::backends::redis::{Idempotency, fred::interfaces::KeysInterface};
        let key = MemoryInput::new("a").with_memory_type(kind).key();
        let ttl = |redis: arshai::backends::redis::fred::clients::Client| {
            let key = key.clone();
            async move { redis.ttl(key).await }
        };
        self.rust.client().run("TTL", Idempotency::Idempotent, ttl).await.expect("it answers")
    }
}

#[tokio::test]
async fn what_rust_stores_python_reads_updates_and_deletes() {
    let mut both = Both::start();
    for (kind, text) in TYPES.into_iter().flat_map(|kind| TEXTS.map(|text| (kind, text))) {
        let metadata =
            json!({"n": 1, "deep": {"list": [1.5, null, "é"]}}).as_object().cloned().expect("an object");
        let input = MemoryInput::new("a").with_memory_type(kind).with_data(text);
        both.rust.store(input.with_metadata(metadata.clone())).await.expect("it stores");
        assert_eq!(both.python("retrieve", kind, json!({})), json!([text]));
        assert!((990..=1_000).contains(&both.seconds_left(kind).await));
        both.python("update", kind, json!({"data": ["by Python"]}));
        assert_eq!(both.rust(kind).await.as_deref(), Some("by Python"));
        assert_eq!(both.held(kind).await["metadata"], Value::Object(metadata));
        assert!((490..=500).contains(&both.seconds_left(kind).await), "Python's update renews");
        both.python("delete", kind, json!({}));
        assert_eq!(both.rust(kind).await, None);
    }
}

#[tokio::test]
async fn what_python_stores_rust_reads_updates_and_deletes() {
    let mut both = Both::start();
    for (kind, text) in TYPES.into_iter().flat_map(|kind| TEXTS.map(|text| (kind, text))) {
        for metadata in [json!({}), json!({"n": 1, "deep": {"list": [1.5, null, "é"]}})] {
            both.python("store", kind, json!({"data": [text], "metadata": metadata}));
            assert_eq!(both.rust(kind).await.as_deref(), Some(text));
            let before = both.held(kind).await;
            let update = MemoryInput::new("a").with_memory_type(kind).with_data("by Rust");
            both.rust.update(update).await.expect("it updates");
            assert_eq!(both.python("retrieve", kind, json!({})), json!(["by Rust"]));
            let after = both.held(kind).await;
            assert_eq!((&after["metadata"], &after["created_at"]), (&metadata, &before["created_at"]));
            let length = |value: &Value| value.as_str().map(str::len);
            assert_eq!(length(&after["last_update"]), Some("2026-01-02T03:04:05.000006".len()));
            assert!((990..=1_000).contains(&both.seconds_left(kind).await), "Rust's update renews");
            both.rust.delete(&MemoryInput::new("a").with_memory_type(kind)).await.expect("it deletes");
            assert_eq!(both.python("retrieve", kind, json!({})), json!([]));
        }
    }
}

#[tokio::test]
async fn numbers_and_texts_that_strict_json_forbids_are_read_and_kept() {
    let mut both = Both::start();
    let kind = MemoryType::ShortTermMemory;
    let text = "half a pair: \\ud83d";
    let metadata = r#"{"score": NaN, "most": [Infinity, -Infinity], "half": "\udc00"}"#;
    both.python("store", kind, json!({"data_json": format!("[\"{text}\"]"), "metadata_json": metadata}));
    assert_eq!(both.rust(kind).await.as_deref(), Some("half a pair: \u{fffd}"));
    let update = MemoryInput::new("a").with_memory_type(kind).with_data("by Rust");
    both.rust.update(update).await.expect("it updates");
    assert_eq!(both.python("retrieve", kind, json!({})), json!(["by Rust"]));
    let key = MemoryInput::new("a").with_memory_type(kind).key();
    let held = both.rust.client().get_key(&key).await.expect("it is read");
    let Some(RedisValue::Text(held)) = held else { panic!("strict JSON has no NaN: {held:?}") };
    for kept in ["\"score\": NaN", "[Infinity, -Infinity]", "\"\\udc00\""] {
        assert!(held.contains(kept), "{kept} in {held}");
    }
}

#[tokio::test]
async fn keys_read_the_same_from_both() {
    let mut both = Both::start();
    both.python.call(&json!({"op": "set_key", "key": "k", "value": "{\"a\": [1]}", "expire": 100}));
    let client = both.rust.client();
    assert_eq!(client.get_key("k").await.expect("it reads"), Some(RedisValue::Json(json!({"a": [1]}))));
    client.set_key("k", "سلام", None).await.expect("it sets");
    assert_eq!(both.python.call(&json!({"op": "get_key", "key": "k"}))["ok"], json!("سلام"));
    assert_eq!(both.rust.client().get_key("missing").await.expect("it reads"), None);
}

#[tokio::test]
async fn a_conversation_of_a_chat_agent_is_a_working_memory_that_python_reads_and_writes() {
    let mut both = Both::start();
    let model =
        Arc::new(ScriptedLlm::new(["hello Ada", "again"].map(|text| Ok(ChatResponse::from_text(text)))));
    let mut config: Config = config(both.server.url().as_str());
    config.memory.backend = "redis".into();
    let runtime = Arshai::builder(config).build().expect("the configuration is valid");
    let agent = runtime.chat_agent(Arc::clone(&model) as _, "be helpful");
    let say = |text: &str| agent.process(AgentInput::new(text).in_conversation("a"));
    assert_eq!(say("I am\nAda").await.expect("an answer").memory_error, None);
    let texts = both.python("retrieve", MemoryType::WorkingMemory, json!({}));
    let text = texts[0].as_str().expect("a text").to_owned();
    assert!(text.starts_with(WorkingMemory::initialize_memory().as_str().trim_end()), "{text}");
    assert!(text.contains(r#"I am\nAda"#) && text.contains("hello Ada"), "{text}");
    both.python("update", MemoryType::WorkingMemory, json!({"data": [format!("Ada likes tea\n\n{text}")]}));
    say("and?").await.expect("an answer");
    let request = &model.requests()[1];
    assert!(matches!(&request.messages[0], Message::System { content } if content.contains("Ada likes tea")));
    let earlier = [Message::user("I am\nAda"), Message::assistant("hello Ada"), Message::user("and?")];
    assert_eq!(request.messages[1..], earlier);
}
