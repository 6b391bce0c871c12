//! Copies in this process of memory in Redis: the contract, and what others change meanwhile.

use std::sync::Arc;
use std::time::Duration;

use arshai::backends::memory::{RedisMemoryManager, TieredMemoryManager};
use arshai::contract::memory::{self, Setup};
use arshai::memory::{MemoryInput, MemoryManager};
use arshai::{Arshai, BuildContext, Config, Deadline, ErrorKind};
use arshai_test_support::{Proxy, RedisServer, eventually};

use crate::{config, server};

const SECOND: Duration = Duration::from_secs(1);

fn tiered(config: Config) -> Arc<TieredMemoryManager> {
    Arc::new(TieredMemoryManager::from_context(&BuildContext::new(config)).expect("it is valid"))
}

fn plain(server: &RedisServer) -> RedisMemoryManager {
    RedisMemoryManager::from_context(&BuildContext::new(config(&server.url()))).expect("it is valid")
}

async fn read(memory: &dyn MemoryManager, id: &str) -> Option<String> {
    let found = memory.retrieve(&MemoryInput::new(id)).await.expect("it retrieves");
    found.first().map(|memory| memory.as_str().to_owned())
}

async fn store(memory: &dyn MemoryManager, id: &str, text: &str) {
    memory.store(MemoryInput::new(id).with_data(text)).await.expect("it stores");
}

/// Waits until a copy is what answers.
async fn copied(memory: &TieredMemoryManager, id: &str) {
    let before = memory.stats().local_hits;
    tokio::time::timeout(5 * SECOND, async {
        while memory.stats().local_hits == before {
            assert!(read(memory, id).await.is_some());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("a copy is kept");
}

/// Waits, no longer than news may take, until neither Redis nor a copy has it.
async fn gone(memory: &TieredMemoryManager, id: &str) {
    let gone = async {
        while read(memory, id).await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(3 * SECOND, gone).await.expect("the copy goes");
}

async fn suite() {
    let server = server();
    memory::suite(|setup: Setup| {
        server.command(&["FLUSHALL"]);
        let mut config = config(&server.url());
        config.memory.ttl = setup.ttl;
        config.memory.max_entries = setup.max_entries;
        config.memory.max_memory_mb = setup.max_bytes.div_ceil(1 << 20);
        let context = BuildContext::new(config).with_clock(Arc::clone(&setup.clock));
        Arc::new(TieredMemoryManager::from_context(&context).expect("it is valid"))
    })
    .await;
}

#[tokio::test]
async fn tiered_memory_keeps_the_contract() {
    suite().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tiered_memory_keeps_the_contract_on_many_threads() {
    suite().await;
}

#[tokio::test]
async fn a_copy_answers_without_redis() {
    let server = server();
    let memory = tiered(config(&server.url()));
    store(&*memory, "a", "text").await;
    copied(&memory, "a").await;
    let commands = memory.client().stats().commands;
    let (before, hits) = (memory.stats(), 100);
    for _ in 0..hits {
        assert_eq!(read(&*memory, "a").await.as_deref(), Some("text"));
    }
    let after = memory.stats();
    assert_eq!((after.local_hits - before.local_hits, after.hits - before.hits), (hits, hits));
    assert!(
        memory.client().stats().commands - commands <= 1,
        "nothing but perhaps a sign of life was asked for"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_does_is_soon_seen() {
    let server = server();
    let (memory, other) = (tiered(config(&server.url())), plain(&server));
    let mut redis = server.raw();
    for round in 0..50 {
        let (old, new) = (format!("old {round}"), format!("new {round}"));
        store(&*memory, "a", &old).await;
        copied(&memory, "a").await;
        match round % 3 {
            0 => store(&other, "a", &new).await,
            1 => other.update(MemoryInput::new("a").with_data(new.as_str())).await.expect("it updates"),
            _ => drop(redis.command(&["DEL", "memory:SHORT_TERM_MEMORY:a"]).expect("it answers")),
        }
        let expected = (round % 3 < 2).then_some(new);
        let seen = tokio::time::timeout(3 * SECOND, async {
            while read(&*memory, "a").await != expected {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        seen.await.expect("the change is seen");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn copies_are_the_entries_after_any_storm_of_writes_from_both_sides() {
    let server = server();
    let (one, two) = (tiered(config(&server.url())), tiered(config(&server.url())));
    let truth = plain(&server);
    for storm in 0..20 {
        let writers = (0..8).map(|writer| {
            let memory = Arc::clone(if writer % 2 == 0 { &one } else { &two });
            tokio::spawn(async move {
                for n in 0..40 {
                    let input = MemoryInput::new(format!("{}", n % 4));
                    let text = format!("{storm} {writer} {n}");
                    match (writer + n) % 5 {
                        0 => memory.delete(&input).await.expect("it deletes"),
                        1 => memory.update(input.with_data(text)).await.expect("it updates"),
                        2 => drop(memory.retrieve(&input).await.expect("it retrieves")),
                        // Given up at some moment on the way.
                        3 => drop(futures_util::poll!(Box::pin(memory.store(input.with_data(text))))),
                        _ => drop(memory.store(input.with_data(text)).await.expect("it stores")),
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("no writer panics");
        }
        // Commands that were given up may still be on their way, ahead of this one on the same connections.
        for memory in [&one, &two] {
            memory.client().health_check(Deadline::after(SECOND)).await;
        }
        tokio::time::timeout(3 * SECOND, async {
            for id in ["0", "1", "2", "3"] {
                loop {
                    let held = read(&truth, id).await;
                    if read(&*one, id).await == held && read(&*two, id).await == held {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        })
        .await
        .expect("both see what Redis holds");
    }
    assert!(one.stats().local_hits + two.stats().local_hits > 0);
}

#[tokio::test]
async fn an_entry_deleted_or_replaced_here_is_never_read_again() {
    let server = server();
    let memory = tiered(config(&server.url()));
    for n in 0..200 {
        let text = format!("text {n}");
        store(&*memory, "a", &text).await;
        assert_eq!(read(&*memory, "a").await, Some(text));
        memory.update(MemoryInput::new("a").with_data("updated")).await.expect("it updates");
        assert_eq!(read(&*memory, "a").await.as_deref(), Some("updated"));
        memory.delete(&MemoryInput::new("a")).await.expect("it deletes");
        assert_eq!(read(&*memory, "a").await, None);
    }
}

#[tokio::test]
async fn an_expired_entry_is_not_read_from_its_copy() {
    let server = server();
    let mut config = config(&server.url());
    config.memory.ttl = 60 * SECOND;
    let memory = tiered(config);
    store(&*memory, "a", "text").await;
    copied(&memory, "a").await;
    server.command(&["PEXPIRE", "memory:SHORT_TERM_MEMORY:a", "50"]);
    gone(&memory, "a").await;
}

#[tokio::test]
async fn a_flushed_database_takes_its_copies_with_it() {
    let server = server();
    let memory = tiered(config(&server.url()));
    store(&*memory, "a", "text").await;
    copied(&memory, "a").await;
    server.command(&["FLUSHALL"]);
    gone(&memory, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_redis_is_silent_copies_are_read_for_two_seconds_at_most() {
    let server = Arc::new(RedisServer::start());
    let mut config = config(&server.url());
    config.redis.command_timeout = SECOND / 2;
    let memory = tiered(config);
    store(&*memory, "a", "text").await;
    copied(&memory, "a").await;
    server.stop_signal();
    let stopped = tokio::time::Instant::now();
    loop {
        let asked = stopped.elapsed();
        if memory.retrieve(&MemoryInput::new("a")).await.is_err() {
            break;
        }
        assert!(asked < Duration::from_millis(2_100), "{asked:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.continue_signal();
    tokio::time::timeout(3 * SECOND, async {
        while memory.retrieve(&MemoryInput::new("a")).await.is_err() {}
    })
    .await
    .expect("it serves again");
    copied(&memory, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_that_a_cut_connection_did_not_bring_leaves_no_stale_copy() {
    let server = server();
    let proxy = Proxy::start(server.address());
    let memory = tiered(config(&format!("redis://{}", proxy.address())));
    let other = plain(&server);
    for round in 0..5 {
        store(&*memory, "a", "old").await;
        copied(&memory, "a").await;
        proxy.cut();
        let new = format!("new {round}");
        store(&other, "a", &new).await;
        let seen = tokio::time::timeout(4 * SECOND, async {
            loop {
                // Reads fail for a moment while it connects anew.
                let found = memory.retrieve(&MemoryInput::new("a")).await.unwrap_or_default();
                if found.first().is_some_and(|memory| memory.as_str() == new) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        seen.await.expect("the new text is seen");
        copied(&memory, "a").await;
        assert_eq!(read(&*memory, "a").await, Some(new), "and never the old one again");
    }
}

#[tokio::test]
async fn a_runtime_by_name_has_one_connection_tunes_its_copies_and_closes() {
    let server = server();
    let mut config = config(&server.url());
    config.memory.backend = "tiered".into();
    let runtime = Arshai::builder(config).build().expect("it builds");
    for n in 0..20 {
        store(&**runtime.memory(), &n.to_string(), "text").await;
    }
    assert_eq!(server.connections(), 1);
    runtime.set_limits(arshai::Limits::unchanged().max_entries(5)).expect("copies are bounded");
    let stats = runtime.stats().memory;
    assert_eq!((stats.entries, stats.bounds[0].limit), (5, Some(5)));
    for n in 0..20 {
        assert_eq!(
            read(&**runtime.memory(), &n.to_string()).await.as_deref(),
            Some("text"),
            "eviction loses nothing"
        );
    }
    let report = runtime.shutdown(Deadline::after(SECOND)).await;
    assert!(report.is_clean(), "{report:?}");
    eventually("no connection", SECOND, || server.connections() == 0).await;
}

#[tokio::test]
async fn the_flags_bring_back_what_was_before_without_losing_anything() {
    let server = server();
    for (round, (memory, connections)) in
        [(false, false), (true, false), (false, false), (true, true), (false, true)].into_iter().enumerate()
    {
        let mut config = config(&server.url());
        config.memory.backend = "tiered".into();
        config.rollback.use_legacy_memory = memory;
        config.rollback.use_legacy_connections = connections;
        let runtime = Arshai::builder(config).build().expect("it builds");
        let shown = format!("{:?}", runtime.memory());
        let expected = match (memory, connections) {
            (_, true) => "LegacyRedisMemoryManager",
            (true, false) => "RedisMemoryManager",
            _ => "TieredMemoryManager",
        };
        assert!(shown.starts_with(expected), "{shown}");
        if round > 0 {
            let held = read(&**runtime.memory(), "a").await;
            assert_eq!(held, Some(format!("round {}", round - 1)));
        }
        store(&**runtime.memory(), "a", &format!("round {round}")).await;
    }
}

#[test]
fn a_cluster_is_refused_with_what_to_do() {
    let context = BuildContext::new(config("redis-cluster://localhost:7000"));
    let error = TieredMemoryManager::from_context(&context).expect_err("it needs one primary");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("memory.backend = \"redis\""), "{error}");
}
