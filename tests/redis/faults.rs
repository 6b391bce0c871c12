//! A Redis that stalls, dies, is full, or answers late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use arshai::backends::memory::RedisMemoryManager;
use arshai::backends::redis::fred::interfaces::ClientLike;
use arshai::backends::redis::fred::types::{ClusterHash, CustomCommand};
use arshai::backends::redis::{Idempotency, RedisClient, RedisValue};
use arshai::memory::{MemoryInput, MemoryManager as _, WorkingMemory};
use arshai::{BuildContext, Component as _, Deadline, ErrorKind, Outcome};
use arshai_test_support::{Proxy, RedisServer, eventually};
use tokio::time::Instant;

use crate::{client, config};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_no_acknowledged_write_and_serves_again_after_its_restart() {
    let mut server = RedisServer::builder().appendonly_always().start();
    let client = client(config(&server.url()));
    let writers: Vec<_> = (0..20)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0.. {
                    let key = format!("{writer}:{n}");
                    match client.set_key(&key, key.clone(), None).await {
                        Ok(()) => acknowledged.push(key),
                        Err(error) => return (acknowledged, error),
                    }
                }
                unreachable!("the server dies")
            })
        })
        .collect();
    eventually("some writes", 5 * SECOND, || client.stats().commands > 2_000).await;
    server.kill9();
    let mut acknowledged = Vec::new();
    for writer in writers {
        let (keys, error) = writer.await.expect("no panic");
        let kinds = [ErrorKind::Transport, ErrorKind::Unavailable, ErrorKind::Timeout];
        assert!(kinds.contains(&error.kind()), "{error}");
        acknowledged.extend(keys);
    }
    server.restart();
    let restarted = Instant::now();
    client.set_key("again", "1", None).await.expect("it serves again");
    assert!(restarted.elapsed() < 2 * SECOND, "{:?}", restarted.elapsed());
    for key in acknowledged {
        assert_eq!(client.get_key(&key).await.expect("it reads"), Some(RedisValue::Text(key)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_to_a_stopped_server_ends_in_time_and_calls_succeed_once_it_resumes() {
    stopped_for(3).await;
}

#[tokio::test]
async fn the_same_on_one_thread() {
    stopped_for(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half a minute: the promise above at its full length"]
async fn the_same_for_half_a_minute() {
    stopped_for(30).await;
}

/// How late the machine itself is with a timer of that length, busy as it is.
async fn lag(length: Duration) -> Duration {
    let due = Instant::now() + length;
    tokio::time::sleep_until(due).await;
    due.elapsed()
}

async fn stopped_for(seconds: usize) {
    let server = Arc::new(RedisServer::start());
    let mut config = config(&server.url());
    config.redis.command_timeout = SECOND;
    config.pool.max_connections = 4;
    let client = client(config);
    client.set_key("k", "v", None).await.expect("it sets");
    server.stop_signal();
    for _ in 0..seconds {
        let lag = tokio::spawn(lag(SECOND));
        let calls: Vec<_> = (0..1_000)
            .map(|n| {
                let client = client.clone();
                tokio::spawn(async move {
                    let began = Instant::now();
                    let result = if n % 2 == 0 {
                        client.get_key("k").await.map(|_| ())
                    } else {
                        client.set_key("k", "v", None).await
                    };
                    (began.elapsed(), result.expect_err("the server is stopped").kind())
                })
            })
            .collect();
        let lag = lag.await.expect("no panic");
        for call in calls {
            let (took, kind) = call.await.expect("no panic");
            assert!(took <= SECOND + Duration::from_millis(100) + lag, "{took:?}, the machine {lag:?} of it");
            assert!(
                matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Transport),
                "{kind:?}"
            );
        }
        assert!(client.stats().pool.open <= 4);
    }
    server.continue_signal();
    let resumed = Instant::now();
    while client.set_key("k", "v", None).await.is_err() {}
    assert!(resumed.elapsed() < 2 * SECOND, "{:?}", resumed.elapsed());
    eventually("few connections", SECOND, || server.connections() <= 4).await;
}

#[tokio::test]
async fn a_full_server_and_a_replica_are_distinguished() {
    let full = RedisServer::builder().maxmemory_noeviction(1 << 20).start();
    let full_client = client(config(&full.url()));
    let mut error = None;
    for n in 0..100 {
        if let Err(rejected) = full_client.set_key(&n.to_string(), vec![b'x'; 100_000], None).await {
            error = Some(rejected);
            break;
        }
    }
    let error = error.expect("1 MiB is full");
    assert_eq!(error.kind(), ErrorKind::Capacity);
    assert!(error.context().any(|fact| fact == ("code", "OOM")), "{error}");
    let master = RedisServer::start();
    let replica = RedisServer::start();
    replica.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    let error = client(config(&replica.url())).set_key("k", "v", None).await.expect_err("it is a replica");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.context().any(|fact| fact == ("code", "READONLY")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_response_is_never_returned_for_another_key() {
    late_answers(20, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: the promise above for a million reads"]
async fn the_same_for_a_million_reads() {
    late_answers(5_000, 200).await;
}

async fn late_answers(readers: usize, reads: usize) {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    let mut config = config(&server.url_at(proxy.port()));
    config.redis.command_timeout = Duration::from_millis(400);
    let client = client(config);
    for n in 0..readers {
        client.set_key(&format!("k{n}"), format!("value {n}"), None).await.expect("it sets");
    }
    // Round trips take 100 to 460 ms: some responses are late, on a connection that is never silent for long.
    proxy.delay_replies(Duration::from_millis(100));
    proxy.jitter(Duration::from_millis(180));
    let readers: Vec<_> = (0..readers)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                // Readers in step would all wait at the same time, and the connection would seem dead.
                tokio::time::sleep(Duration::from_millis(20 * (n % 20) as u64)).await;
                let (mut read, mut late) = (0, 0);
                for _ in 0..reads {
                    match client.get_key(&format!("k{n}")).await {
                        Ok(found) => {
                            assert_eq!(found, Some(RedisValue::Text(format!("value {n}"))));
                            read += 1;
                        }
                        Err(_) => late += 1,
                    }
                }
                (read, late)
            })
        })
        .collect();
    let (mut read, mut late) = (0, 0);
    for reader in readers {
        let counts = reader.await.expect("never another key's value");
        (read, late) = (read + counts.0, late + counts.1);
    }
    assert!(read > 0 && late > 0, "{read} in time, {late} late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_is_replaced_and_reads_succeed() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    let client = client(config(&server.url_at(proxy.port())));
    client.set_key("k", "v", None).await.expect("it sets");
    for _ in 0..20 {
        proxy.cut();
        assert!(client.get_key("k").await.expect("it is asked again").is_some());
    }
    assert!(client.stats().pool.open <= 2);
}

/// The server leaves out the reply to `CLIENT REPLY SKIP` and to the command after it, so that all later ones answer
/// earlier commands.
#[tokio::test]
async fn replies_out_of_step_end_every_command_in_flight_and_the_connection() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    let client = client(config(&server.url_at(proxy.port())));
    client.set_key("mine", "my text", None).await.expect("it sets");
    let began = Instant::now();
    let (_, set, first, second) = tokio::join!(
        skip_replies(&client),
        client.set_key("mine", "my new text", None),
        client.delete_key("not there"),
        client.delete_key("neither"),
    );
    let set = set.expect_err("a number is no reply to SET");
    assert_eq!((set.kind(), set.outcome()), (ErrorKind::Protocol, Outcome::Unknown), "{set}");
    assert_eq!(first.expect_err("its reply went to another").kind(), ErrorKind::Transport);
    assert_eq!(second.expect_err("so did its").kind(), ErrorKind::Transport);
    assert!(began.elapsed() < SECOND, "at once: {:?}", began.elapsed());
    let text = client.get_key("mine").await.expect("a new connection");
    assert_eq!(text, Some(RedisValue::Text("my new text".into())));
    assert_eq!(proxy.connections_ever(), 2);
}

/// All replies have the same type, so that nothing but a question of its own can show whose they are.
#[tokio::test]
async fn reads_whose_replies_are_out_of_step_are_noticed_and_the_connection_closes() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    let context = BuildContext::new(config(&server.url_at(proxy.port())));
    let client = RedisClient::from_context(&context).expect("it is valid");
    let memory = RedisMemoryManager::new(client.clone(), &context).expect("it is valid");
    let ids: Vec<_> = (0..20).map(|n| format!("conversation {n}")).collect();
    for id in &ids {
        memory.store(MemoryInput::working_memory(id).with_data(&**id)).await.expect("it stores");
    }
    let retrieve = async |id: &String| memory.retrieve(&MemoryInput::working_memory(id)).await;
    let read_until_noticed = async |id| {
        while proxy.connections_ever() == 1 {
            let _ = retrieve(id).await;
        }
    };
    let reads = futures_util::future::join_all(ids.iter().map(read_until_noticed));
    let _ = tokio::join!(skip_replies(&client), reads);
    for id in &ids {
        assert_eq!(retrieve(id).await.expect("a new connection"), [WorkingMemory::new(id.as_str())]);
    }
    assert_eq!(proxy.connections_ever(), 2);
}

async fn skip_replies(client: &RedisClient) -> arshai::Result<()> {
    let skip = CustomCommand::new_static("CLIENT", ClusterHash::FirstKey, false);
    client
        .run("CLIENT", Idempotency::NonIdempotent, |redis| {
            let skip = skip.clone();
            async move { redis.custom(skip, vec!["REPLY", "SKIP"]).await }
        })
        .await
}

#[tokio::test]
async fn closing_while_a_connection_is_made_ends_the_call_and_leaves_no_connection() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    proxy.stall();
    let client = client(config(&server.url_at(proxy.port())));
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.get_key("k").await }
    });
    eventually("it connects", SECOND, || proxy.connections() == 1).await;
    client.close(Deadline::after(SECOND)).await;
    let error = call.await.expect("no panic").expect_err("it is closed");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::NotSent), "{error}");
    proxy.pass();
    eventually("no connection", SECOND, || proxy.connections() == 0).await;
    assert_eq!(client.get_key("k").await.expect_err("it is closed").kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn every_operation_of_the_memory_ends_within_one_deadline() {
    let server = RedisServer::start();
    let mut config = config(&server.url());
    config.redis.command_timeout = SECOND;
    let memory = RedisMemoryManager::from_context(&BuildContext::new(config)).expect("it is valid");
    let input = || MemoryInput::working_memory("a").with_data("text");
    memory.store(input()).await.expect("it stores");
    server.stop_signal();
    let lag = tokio::spawn(lag(SECOND));
    let (began, input) = (Instant::now(), &input());
    let ended =
        |result: arshai::Result<()>| (began.elapsed(), result.expect_err("the server is stopped").kind());
    let (store, retrieve, update, delete) = tokio::join!(
        async { ended(memory.store(input.clone()).await.map(drop)) },
        async { ended(memory.retrieve(input).await.map(drop)) },
        async { ended(memory.update(input.clone()).await.map(drop)) },
        async { ended(memory.delete(input).await.map(drop)) },
    );
    let lag = lag.await.expect("no panic");
    let all = [("store", store), ("retrieve", retrieve), ("update", update), ("delete", delete)];
    for (operation, (took, kind)) in all {
        assert_eq!(kind, ErrorKind::Timeout, "{operation}");
        assert!(took <= SECOND + Duration::from_millis(100) + lag, "{operation}: {took:?}");
    }
}

/// Dropped after one poll, after two, and so on until it is done: before, between and after its two commands.
#[tokio::test]
async fn an_update_dropped_at_any_step_leaves_the_entry_whole_and_the_client_usable() {
    let server = RedisServer::start();
    let context = BuildContext::new(config(&server.url()));
    let metadata = serde_json::json!({"user": "ada"});
    let input = |text: &str| MemoryInput::working_memory("a").with_data(text);
    let stored = input("old").with_metadata(metadata.as_object().cloned().expect("an object"));
    for memory in [RedisMemoryManager::from_context(&context), RedisMemoryManager::legacy(&context)] {
        let memory = memory.expect("it is valid");
        for polls in 1.. {
            memory.store(stored.clone()).await.expect("it stores");
            let done = poll_times(polls, memory.update(input("new"))).await;
            let found = memory.retrieve(&input("")).await.expect("the client is usable");
            let is_new = found == [WorkingMemory::new("new")];
            assert!(is_new || found == [WorkingMemory::new("old")], "{found:?}");
            let entry = server.command(&["GET", "memory:WORKING_MEMORY:a"]);
            let entry: serde_json::Value = serde_json::from_str(entry.text()).expect("JSON");
            assert_eq!(entry["metadata"], metadata);
            if let Some(done) = done {
                done.expect("it updates");
                assert!(polls > 2 && is_new, "{polls}");
                break;
            }
        }
    }
}

/// The output of `work`, or nothing once it was polled `polls` times in vain.
async fn poll_times<T>(mut polls: usize, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| {
        polls -= 1;
        match work.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn a_stalled_connection_is_replaced_even_when_every_caller_gives_up_early() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    let mut config = config(&server.url_at(proxy.port()));
    config.redis.command_timeout = SECOND;
    let client = client(config);
    client.set_key("k", "v", None).await.expect("it sets");
    proxy.stall();
    let replaced = async {
        while tokio::time::timeout(SECOND / 20, client.get_key("k")).await.is_err() {
            if proxy.connections_ever() > 1 {
                proxy.pass();
            }
        }
    };
    tokio::time::timeout(20 * SECOND, replaced).await.expect("a new connection serves again");
}

#[tokio::test]
async fn abandoned_commands_count_against_the_limits_until_they_are_done() {
    let server = RedisServer::start();
    let mut config = config(&server.url());
    config.redis.command_timeout = 20 * SECOND;
    config.redis.max_pending_commands = 10;
    let client = client(config);
    client.set_key("k", "v", None).await.expect("it sets");
    server.stop_signal();
    for _ in 0..10 {
        assert!(tokio::time::timeout(Duration::from_millis(1), client.get_key("k")).await.is_err());
    }
    let error = client.get_key("k").await.expect_err("the ten are still queued");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Capacity, Outcome::NotSent), "{error}");
    server.continue_signal();
    let served = async {
        while client.get_key("k").await.is_err() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(20 * SECOND, served).await.expect("they are done and count no longer");
}

#[tokio::test]
async fn what_is_read_counts_against_the_limit_of_bytes() {
    let server = RedisServer::start();
    let mut config = config(&server.url());
    config.redis.command_timeout = 20 * SECOND;
    config.redis.max_pending_bytes = 3 << 20;
    config.redis.max_value_bytes = 2 << 20;
    let client = client(config);
    let values =
        [0, 1, 100, 4 << 10, (4 << 10) + 1, 100 << 10, (2 << 20) - 1, 2 << 20].map(|size| "x".repeat(size));
    for value in &values {
        client.set_key("k", value.clone(), None).await.expect("it sets");
        let read = client.get_key("k").await.expect("it reads");
        assert_eq!(read, Some(RedisValue::Text(value.clone())), "{} bytes", value.len());
    }
    server.command(&["SETRANGE", "k", &(2 << 20).to_string(), "x"]);
    assert_eq!(client.get_key("k").await.expect_err("a byte too many").kind(), ErrorKind::TooLarge);

    // Callers that ask for less at once still get it.
    client.set_key("k", values[7].clone(), None).await.expect("it sets");
    let reads = (0..20).map(|_| client.get_key("k"));
    let results = futures_util::future::join_all(reads).await;
    let (read, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert!(!read.is_empty() && !refused.is_empty(), "{} read, {} refused", read.len(), refused.len());
    for error in refused.into_iter().filter_map(Result::err) {
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Capacity, Outcome::NotSent), "{error}");
        assert!(error.message().contains("redis.max_pending_bytes"), "{error}");
    }
    assert!(
        client.limits().iter().filter(|limit| limit.key.starts_with("redis.")).all(|limit| limit.used == 0)
    );
}

/// fred allocates a channel of pushes for each client: at 4 096 places, 3.4 MB.
#[tokio::test]
async fn a_connection_costs_less_than_half_a_megabyte() {
    const CONNECTIONS: usize = 100;
    let server = RedisServer::start();
    let mut config = config(&server.url());
    config.pool.max_connections = CONNECTIONS + 1;
    let client = client(config);
    client.set_key("k", "v", None).await.expect("it sets");
    let before = resident_bytes();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let deadline = Deadline::after(20 * SECOND);
        connections.push(client.dedicated_connection(deadline).await.expect("a connection"));
    }
    let each = resident_bytes().saturating_sub(before) / CONNECTIONS as u64;
    assert!(each < 500_000, "{each} bytes");
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("a Linux machine");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a second field") * 4096
}

#[tokio::test]
async fn the_next_call_reaches_a_server_that_was_away_for_long() {
    let mut server = RedisServer::start();
    let mut config = config(&server.url());
    config.redis.command_timeout = SECOND / 2;
    let client = client(config);
    server.kill9();
    for _ in 0..3 {
        let error = client.get_key("k").await.expect_err("it is away");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    server.restart();
    client.set_key("k", "v", None).await.expect("the next call works");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discarded_connections_leave_no_socket_and_no_task() {
    discarded(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half a minute: the promise above for ten thousand"]
async fn the_same_for_ten_thousand() {
    discarded(10_000).await;
}

async fn discarded(connections: u64) {
    let server = RedisServer::start();
    let client = client(config(&server.url()));
    let deadline = arshai::Deadline::after(300 * SECOND);
    client.set_key("k", "v", None).await.expect("it sets");
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..connections {
        client.dedicated_connection(deadline).await.expect("there is room").discard();
    }
    eventually("no tasks left over", SECOND, || tasks() <= before).await;
    eventually("no sockets left over", SECOND, || server.connections() <= 2).await;
    assert_eq!(client.stats().pool.discarded, connections);
}

fn has_code(error: &arshai::Error, code: &str) -> bool {
    error.context().any(|(name, value)| (name, value) == ("code", code))
}

#[tokio::test]
async fn commands_are_retried_while_the_server_loads_its_data() {
    let server = RedisServer::builder()
        .setting("enable-debug-command", "yes")
        .setting("loading-process-events-interval-bytes", "1024")
        .start();
    let client = client(config(&server.url()));
    for n in 0..600 {
        client.set_key(&n.to_string(), "x".repeat(100), None).await.expect("it sets");
    }
    // Loading now takes 3 s, in which the server responds every 0.3 s.
    server.command(&["CONFIG", "SET", "key-load-delay", "5000"]);
    let mut loading = server.raw();
    loading.send(&["DEBUG", "RELOAD"]).expect("it is sent");
    let error = loop {
        match client.set_key("k", "v", None).await {
            // It has not begun.
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(has_code(&error, "LOADING"), "{error}");
    assert_eq!(client.stats().retries, 3);
    let used = async { while client.set_key("k", "v", None).await.is_err() {} };
    tokio::time::timeout(20 * SECOND, used).await.expect("it takes writes again");
}

#[tokio::test]
async fn a_server_that_cannot_save_rejects_writes_and_serves_reads() {
    let server = RedisServer::start();
    let client = client(config(&server.url()));
    client.set_key("k", "v", None).await.expect("it sets");
    let folder = server.command(&["CONFIG", "GET", "dir"]).array()[1].text().to_owned();
    // A folder where the file should be.
    std::fs::create_dir(std::path::Path::new(&folder).join("dump.rdb")).expect("the folder is ours");
    server.command(&["CONFIG", "SET", "save", "3600 1000"]);
    server.command(&["BGSAVE"]);
    eventually("saving fails", 5 * SECOND, || server.info("rdb_last_bgsave_status") == "err").await;
    let error = client.set_key("k", "new", None).await.expect_err("it takes no writes");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(has_code(&error, "MISCONF"), "{error}");
    assert!(client.get_key("k").await.expect("it still reads").is_some());
}

#[tokio::test]
async fn a_cluster_node_used_as_a_single_server_is_a_configuration_error() {
    let mut cluster = arshai_test_support::Cluster::start();
    let elsewhere = (cluster.owner(cluster.slot("k")) + 1) % 3;
    let client = client(config(&cluster.nodes()[elsewhere].url()));
    let error = client.set_key("k", "v", None).await.expect_err("another node has the slot");
    assert!(has_code(&error, "MOVED"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_during_a_failover_end_in_time_and_the_new_master_takes_them() {
    let mut sentinel = arshai_test_support::Sentinel::start();
    let client = client(config(&sentinel.url()));
    client.set_key("before", "1", None).await.expect("the master takes it");
    let killed = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..10)
        .map(|writer| {
            let (client, killed) = (client.clone(), Arc::clone(&killed));
            tokio::spawn(async move {
                // Ten in a row that only the new master can have taken.
                let mut taken = 0;
                while taken < 10 {
                    let (began, is_killed) = (Instant::now(), killed.load(Ordering::SeqCst));
                    let result = client.set_key(&format!("{writer}"), "x", None).await;
                    assert!(began.elapsed() < 3 * SECOND, "in time: the limit is two seconds");
                    match result {
                        Ok(()) => taken += usize::from(is_killed),
                        Err(error) => {
                            let kinds = [ErrorKind::Transport, ErrorKind::Unavailable, ErrorKind::Timeout];
                            assert!(kinds.contains(&error.kind()), "{error}");
                            taken = 0;
                        }
                    }
                }
            })
        })
        .collect();
    eventually("writes in flight", SECOND, || client.stats().commands > 500).await;
    sentinel.kill_master();
    killed.store(true, Ordering::SeqCst);
    for writer in writers {
        tokio::time::timeout(30 * SECOND, writer)
            .await
            .expect("the new master takes writes")
            .expect("no panic");
    }
}
