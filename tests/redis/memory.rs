//! Memory in Redis keeps the contract, and its own promises.

use std::sync::Arc;
use std::time::Duration;

use arshai::agent::{Agent, AgentInput};
use arshai::backends::memory::RedisMemoryManager;
use arshai::contract::doubles::ScriptedLlm;
use arshai::contract::memory::{self, Setup};
use arshai::llm::{ChatResponse, Message, ToolCall};
use arshai::memory::{MemoryInput, MemoryManager};
use arshai::tasks::{Function, Functions};
use arshai::{Arshai, BuildContext, Config, Deadline, ErrorKind};
use serde_json::{Value, json};

use arshai_test_support::RedisServer;

use crate::{config, server};

fn context(url: &str, setup: &Setup) -> BuildContext {
    let mut config = config(url);
    config.memory.ttl = setup.ttl;
    BuildContext::new(config).with_clock(Arc::clone(&setup.clock))
}

async fn redis(server: &RedisServer, setup: Setup) -> Arc<dyn MemoryManager> {
    server.command(&["FLUSHALL"]);
    Arc::new(RedisMemoryManager::from_context(&context(&server.url(), &setup)).expect("it is valid"))
}

async fn legacy_redis(server: &RedisServer, setup: Setup) -> Arc<dyn MemoryManager> {
    server.command(&["FLUSHALL"]);
    let mut context = context(&server.url(), &setup);
    let mut config = Config::clone(&context.config);
    config.pool.backend = "legacy".into();
    context.config = Arc::new(config);
    Arc::new(RedisMemoryManager::legacy(&context).expect("it is valid"))
}

#[tokio::test]
async fn memory_in_redis_keeps_the_contract() {
    let server = server();
    memory::suite(|setup| redis(&server, setup)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_in_redis_keeps_the_contract_on_many_threads() {
    let server = server();
    memory::suite(|setup| redis(&server, setup)).await;
}

#[tokio::test]
async fn the_legacy_commands_keep_the_contract() {
    let server = server();
    memory::suite(|setup| legacy_redis(&server, setup)).await;
}

fn manager(config: Config) -> Arc<RedisMemoryManager> {
    Arc::new(RedisMemoryManager::from_context(&BuildContext::new(config)).expect("it is valid"))
}

#[tokio::test]
async fn update_renews_the_ttl_and_keeps_unknown_fields() {
    let server = server();
    let memory = manager(config(&server.url()));
    let held = r#"{"data": {"working_memory": "old", "extra": [1]}, "metadata": {"a": {"b": null}}, "created_at": "then", "last_update": "then", "added": 1}"#;
    let client = memory.client();
    client.set_key("memory:WORKING_MEMORY:a", held, Some(Duration::from_secs(100))).await.expect("it is set");
    memory.update(MemoryInput::working_memory("a").with_data("new")).await.expect("it updates");
    let Some(arshai::backends::redis::RedisValue::Json(value)) =
        client.get_key("memory:WORKING_MEMORY:a").await.expect("it is there")
    else {
        panic!("it is JSON")
    };
    assert_eq!(value["data"], json!({"working_memory": "new", "extra": [1]}));
    assert_eq!((&value["metadata"], &value["added"]), (&json!({"a": {"b": null}}), &json!(1)));
    assert_eq!(value["created_at"], json!("then"));
    assert_ne!(value["last_update"], json!("then"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_update_never_brings_back_what_was_deleted_meanwhile() {
    let server = server();
    let memory = manager(config(&server.url()));
    let input = MemoryInput::working_memory("a");
    for round in 0..200 {
        memory.store(input.clone().with_data("old")).await.expect("it stores");
        let update = tokio::spawn({
            let (memory, input) = (Arc::clone(&memory), input.clone());
            async move { memory.update(input.with_data("new")).await }
        });
        memory.delete(&input).await.expect("it deletes");
        update.await.expect("no panic").expect("updating what is gone is no error");
        // The update came wholly before the delete, or found nothing.
        let found = memory.retrieve(&input).await.expect("it retrieves");
        assert!(found.is_empty(), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_updates_end_as_one_of_them_whole_and_lose_no_metadata() {
    let server = server();
    let memory = manager(config(&server.url()));
    let input = MemoryInput::working_memory("a");
    let metadata = json!({"owner": "ada"}).as_object().cloned().expect("an object");
    memory.store(input.clone().with_data("0").with_metadata(metadata)).await.expect("it stores");
    let updates = (0..20).map(|n| {
        let (memory, input) = (Arc::clone(&memory), input.clone());
        tokio::spawn(async move { memory.update(input.with_data(format!("{n}").repeat(2_000))).await })
    });
    for update in updates.collect::<Vec<_>>() {
        update.await.expect("no panic").expect("it updates");
    }
    let held = memory.client().get_key(&input.key()).await.expect("it is there");
    let Some(arshai::backends::redis::RedisValue::Json(value)) = held else { panic!("it is JSON") };
    assert_eq!(value["metadata"], json!({"owner": "ada"}));
    let text = value["data"]["working_memory"].as_str().expect("a text");
    assert!((0..20).any(|n| text == format!("{n}").repeat(2_000)), "one of them, whole");
}

#[tokio::test]
async fn an_invalid_value_affects_only_its_conversation() {
    let server = server();
    let mut config = config(&server.url());
    config.redis.max_value_bytes = 1 << 20;
    let memory = manager(config);
    memory.store(MemoryInput::new("sound").with_data("text")).await.expect("it stores");
    let key = MemoryInput::new("damaged").key();
    let huge = "x".repeat(100 << 20);
    let deep = "[".repeat(100_000);
    let damaged: [(&[u8], ErrorKind); 5] = [
        (b"{\"data\": {\"working_mem", ErrorKind::Corrupt),
        (deep.as_bytes(), ErrorKind::Corrupt),
        (b"\xff\xfe\xfd", ErrorKind::Corrupt),
        (b"null", ErrorKind::Corrupt),
        (huge.as_bytes(), ErrorKind::TooLarge),
    ];
    let mut inspector = server.raw();
    inspector.command(&["SELECT", "0"]).expect("it answers");
    for (value, kind) in damaged {
        inspector.command(&[b"SET", key.as_bytes(), value]).expect("it answers");
        let error = memory.retrieve(&MemoryInput::new("damaged")).await.expect_err("it is damaged");
        assert_eq!(error.kind(), kind);
        let error =
            memory.update(MemoryInput::new("damaged").with_data("new")).await.expect_err("it is damaged");
        assert_eq!(error.kind(), kind);
        assert_eq!(
            memory.retrieve(&MemoryInput::new("sound")).await.expect("it is sound")[0].as_str(),
            "text"
        );
    }
    inspector.command(&["DEL", &key]).expect("it answers");
    inspector.command(&["LPUSH", &key, "a"]).expect("it answers");
    let error = memory.retrieve(&MemoryInput::new("damaged")).await.expect_err("it is a list");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.context().any(|(name, value)| (name, value) == ("code", "WRONGTYPE")), "{error}");
    memory.store(MemoryInput::new("damaged").with_data("mended")).await.expect("store puts it right");
    assert_eq!(memory.retrieve(&MemoryInput::new("damaged")).await.expect("mended")[0].as_str(), "mended");
}

#[tokio::test]
async fn a_runtime_reports_limits_and_closes_its_redis_connections() {
    let server = server();
    let mut config = config(&server.url());
    config.memory.backend = "redis".into();
    let runtime = Arshai::builder(config).build().expect("it builds");
    assert_eq!(server.connections(), 0, "nothing connects before it is needed");
    let input = MemoryInput::working_memory("a").with_data("text");
    runtime.memory().store(input.clone()).await.expect("it stores");
    let open = || {
        let stats = runtime.stats();
        let redis = stats.components.iter().find(|component| component.name == "redis").expect("registered");
        redis.counters["pool"]["open"].as_u64()
    };
    assert_eq!(open(), Some(server.connections() as u64));
    runtime.set_limits(arshai::Limits::unchanged().max_connections(1)).expect("it is bounded");
    let stats = runtime.stats();
    let mut limits = stats.limits().filter(|(component, _)| *component == "redis");
    assert!(limits.any(|(_, usage)| usage.key == "pool.max_connections" && usage.limit == Some(1)));
    assert_eq!(runtime.memory().retrieve(&input).await.expect("it retrieves").len(), 1);
    let report = runtime.shutdown(Deadline::after(Duration::from_secs(1))).await;
    assert!(report.is_clean(), "{report:?}");
    arshai_test_support::eventually("no connection", Duration::from_secs(1), || server.connections() == 0)
        .await;
    let error = runtime.memory().retrieve(&input).await.expect_err("it is closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn the_runtime_and_its_memory_share_one_client() {
    use arshai::backends::redis::RedisExt as _;

    let server = server();
    let mut config = config(&server.url());
    config.memory.backend = "redis".into();
    let runtime = Arshai::builder(config).build().expect("the configuration is valid");
    let key = runtime.memory().store(MemoryInput::new("a").with_data("hello")).await.expect("it stores");
    let entry = runtime.redis().expect("there is a client").get_key(&key).await.expect("it reads");
    assert!(format!("{entry:?}").contains("hello"), "{entry:?}");
    assert_eq!(runtime.stats().components.iter().filter(|component| component.name == "redis").count(), 1);
    assert_eq!(server.connections(), 1);
    runtime.shutdown(Deadline::after(Duration::from_secs(5))).await;
    let closed =
        runtime.redis().expect("it is there").get_key(&key).await.expect_err("closed with the runtime");
    assert_eq!(closed.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn switching_the_connection_flag_at_a_restart_loses_nothing_both_ways() {
    let server = server();
    let input = MemoryInput::working_memory("a");
    for (round, legacy) in [false, true, false].into_iter().enumerate() {
        let mut config = config(&server.url());
        config.memory.backend = "redis".into();
        config.rollback.use_legacy_connections = legacy;
        let runtime = Arshai::builder(config).build().expect("it builds");
        if round > 0 {
            let found = runtime.memory().retrieve(&input).await.expect("it retrieves");
            assert_eq!(found[0].as_str(), format!("round {}", round - 1));
        }
        runtime.memory().store(input.clone().with_data(format!("round {round}"))).await.expect("it stores");
    }
}

#[tokio::test]
async fn the_documented_acl_is_enough() {
    let server = server();
    let rule = include_str!("../../docs/redis.md").lines().find(|line| line.starts_with("ACL SETUSER"));
    server.command(&rule.expect("docs/redis.md has it").split_whitespace().collect::<Vec<_>>());
    let url = server.url().replace("redis://", "redis://arshai:password@").replace("/0", "/1");
    let context = BuildContext::new(config(&url));
    for build in [RedisMemoryManager::from_context, RedisMemoryManager::legacy] {
        let memory = build(&context).expect("it is valid");
        let input = MemoryInput::working_memory("a");
        memory.store(input.clone().with_data("old")).await.expect("it stores");
        memory.update(input.clone().with_data("new")).await.expect("it updates");
        assert_eq!(memory.retrieve(&input).await.expect("it retrieves")[0].as_str(), "new");
        memory.delete(&input).await.expect("it deletes");
        assert_eq!(memory.client().get_key(&input.key()).await.expect("it reads"), None);
        let outside = memory.client().set_key("other", "x", None).await.expect_err("not the key pattern");
        assert_eq!(outside.kind(), ErrorKind::Authentication, "{outside}");
    }
}

/// The second turn of a conversation, as the model sees it, is the same on every backend of memory.
#[tokio::test]
async fn a_conversation_is_the_same_messages_on_every_backend() {
    let server = server();
    for backend in ["in_memory", "legacy", "redis", "redis_legacy"] {
        let calls = vec![ToolCall::new("1", "echo", "{\"line\": \"a\\nb\"}")];
        let model = Arc::new(ScriptedLlm::new([
            Ok(ChatResponse::from_tool_calls(calls.clone())),
            Ok(ChatResponse::from_text("```rust\nfn main() {}\n```")),
            Ok(ChatResponse::from_text("again")),
        ]));
        let mut config = config(&server.url());
        config.memory.backend = backend.into();
        let runtime = Arshai::builder(config).build().expect("the configuration is valid");
        let echo =
            Function::new("echo", |arguments: Value| async move { Ok::<_, std::io::Error>(arguments) });
        let agent = runtime
            .chat_agent(Arc::clone(&model) as _, "be helpful")
            .with_functions(Functions::new().with(echo));
        for message in ["I am\n  Ada", "and?"] {
            let input = AgentInput::new(message).in_conversation(backend);
            assert_eq!(agent.process(input).await.expect("an answer").memory_error, None, "{backend}");
        }
        let expected = [
            Message::user("I am\n  Ada"),
            ChatResponse::from_tool_calls(calls).to_message(),
            Message::tool("1", "{\"line\":\"a\\nb\"}"),
            Message::assistant("```rust\nfn main() {}\n```"),
            Message::user("and?"),
        ];
        assert_eq!(model.requests()[2].messages[1..], expected, "{backend}");
    }
}
