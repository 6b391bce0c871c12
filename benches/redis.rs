//! Storing and retrieving a conversation of 1 KiB in Redis, against bare clients doing the same work by hand:
//! the same JSON, the same two commands.

use std::sync::Arc;

use arshai::backends::memory::RedisMemoryManager;
use arshai::backends::redis::fred;
use arshai::memory::{MemoryInput, MemoryManager};
use arshai::{BuildContext, Config};
use arshai_benches::{Bench, Better, Measured, Tails, measure};
use arshai_test_support::RedisServer;
use fred::interfaces::{ClientLike, KeysInterface};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const TTL: u64 = 43_200;

fn main() {
    let mut bench = Bench::from_args("redis");
    let server = RedisServer::start();
    for threads in ["multi", "current"] {
        for callers in [1, 50, 500] {
            store_and_retrieve(&mut bench, &server, threads, callers);
        }
    }
    bench.finish();
}

fn store_and_retrieve(bench: &mut Bench, server: &RedisServer, threads: &str, callers: usize) {
    let operations = if callers == 1 { 2_000 } else { 40_000 } / if bench.is_quick() { 4 } else { 1 };
    let runtime = || match threads {
        "multi" => tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build(),
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build(),
    };
    let [ours, fred, redis] = [(); 3].map(|()| runtime().expect("a runtime starts"));
    let mut config = Config::default();
    config.redis.url = server.url().into();
    let context = BuildContext::new(config);
    let memory = Arc::new(RedisMemoryManager::from_context(&context).expect("the URL is valid"));
    let bare = fred.block_on(async {
        let client = fred::clients::Client::new(
            fred::types::config::Config::from_url(&server.url()).expect("the URL is valid"),
            None,
            None,
            None,
        );
        client.init().await.expect("the server is there");
        client
    });
    let multiplexed = redis.block_on(async {
        let client = redis::Client::open(server.url()).expect("the URL is valid");
        client.get_multiplexed_async_connection().await.expect("the server is there")
    });
    let text: Arc<str> = "x".repeat(1_024).into();
    let case = format!("store_retrieve_1KiB_{callers}callers_{threads}");
    let (tails, each) = (Tails::default(), operations / callers);
    bench.compare(
        &case,
        "op/s",
        Better::Higher,
        vec![
            (
                "arshai",
                Box::new(|| {
                    let (memory, text) = (Arc::clone(&memory), Arc::clone(&text));
                    tails.note(
                        "arshai",
                        commands(&ours, callers, each, move |caller| {
                            let (memory, text) = (Arc::clone(&memory), Arc::clone(&text));
                            async move {
                                let input = MemoryInput::working_memory(caller.to_string());
                                memory
                                    .store(input.clone().with_data(arshai::memory::WorkingMemory::new(text)))
                                    .await
                                    .expect("it stores");
                                assert_eq!(memory.retrieve(&input).await.expect("it retrieves").len(), 1);
                            }
                        }),
                    )
                }),
            ),
            (
                "fred 10.1",
                Box::new(|| {
                    let (client, text) = (bare.clone(), Arc::clone(&text));
                    tails.note(
                        "fred 10.1",
                        commands(&fred, callers, each, move |caller| {
                            let (client, text) = (client.clone(), Arc::clone(&text));
                            async move {
                                let key = format!("memory:WORKING_MEMORY:{caller}");
                                let expire = fred::types::Expiration::EX(TTL as i64);
                                let () = client
                                    .set(&key, entry(&text), Some(expire), None, false)
                                    .await
                                    .expect("it sets");
                                let held: bytes::Bytes = client.get(&key).await.expect("it gets");
                                assert!(read(&held).is_some());
                            }
                        }),
                    )
                }),
            ),
            (
                "redis-rs 1.8 multiplexed",
                Box::new(|| {
                    let (connection, text) = (multiplexed.clone(), Arc::clone(&text));
                    tails.note(
                        "redis-rs 1.8 multiplexed",
                        commands(&redis, callers, each, move |caller| {
                            let (mut connection, text) = (connection.clone(), Arc::clone(&text));
                            async move {
                                let key = format!("memory:WORKING_MEMORY:{caller}");
                                let () = redis::cmd("SETEX")
                                    .arg(&key)
                                    .arg(TTL)
                                    .arg(entry(&text))
                                    .query_async(&mut connection)
                                    .await
                                    .expect("it sets");
                                let held: Vec<u8> = redis::cmd("GET")
                                    .arg(&key)
                                    .query_async(&mut connection)
                                    .await
                                    .expect("it gets");
                                assert!(read(&held).is_some());
                            }
                        }),
                    )
                }),
            ),
        ],
    );
    if threads == "multi" {
        bench.target("fred 10.1", 1.0);
        bench.target("redis-rs 1.8 multiplexed", if callers < 500 { 0.95 } else { 1.0 });
    }
    tails.record(bench, &case, "arshai");
    println!(
        "  connections as the server counts them: {} ({} of them arshai's)",
        server.connections(),
        memory.client().stats().pool.open
    );
}

/// The entry as a user of a bare client would write it.
fn entry(text: &str) -> String {
    let now = "2026-01-02T03:04:05.000006";
    json!({"data": {"working_memory": text}, "metadata": {}, "created_at": now, "last_update": now})
        .to_string()
}

fn read(held: &[u8]) -> Option<String> {
    let entry: Value = serde_json::from_slice(held).ok()?;
    entry["data"]["working_memory"].as_str().map(str::to_owned)
}

/// As [`measure`], each round being two commands.
fn commands<F, Fut>(runtime: &Runtime, callers: usize, each: usize, work: F) -> Measured
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut measured = measure(runtime, callers, each, work);
    measured.rate *= 2.0;
    measured
}
