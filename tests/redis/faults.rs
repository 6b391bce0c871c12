//! A Redis that stalls, dies, is full, or answers late.

use std::sync::Arc;
use std::time::Duration;

use arshai::ErrorKind;
use arshai::backends::redis::RedisValue;
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
async fn every_call_to_a_stopped_server_ends_in_time_and_it_serves_again_when_it_goes_on() {
    let server = Arc::new(RedisServer::start());
    let mut config = config(&server.url());
    config.redis.command_timeout = SECOND;
    config.pool.max_connections = 4;
    let client = client(config);
    client.set_key("k", "v", None).await.expect("it sets");
    server.stop_signal();
    for _ in 0..3 {
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
        for call in calls {
            let (took, kind) = call.await.expect("no panic");
            assert!(took <= SECOND + Duration::from_millis(100), "{took:?}");
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
async fn a_full_server_and_one_that_is_a_replica_are_told_apart() {
    let full = RedisServer::builder().maxmemory_noeviction(1 << 20).start();
    let full_client = client(config(&full.url()));
    let mut error = None;
    for n in 0..100 {
        if let Err(refused) = full_client.set_key(&n.to_string(), vec![b'x'; 100_000], None).await {
            error = Some(refused);
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
async fn a_late_answer_is_never_given_to_another_key() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    let mut config = config(&server.url_at(proxy.port()));
    config.redis.command_timeout = Duration::from_millis(400);
    let client = client(config);
    for n in 0..20 {
        client.set_key(&format!("k{n}"), format!("value {n}"), None).await.expect("it sets");
    }
    // Answers come now in time, now late.
    proxy.delay_replies(Duration::from_millis(100));
    proxy.jitter(Duration::from_millis(500));
    let readers: Vec<_> = (0..20)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                let (mut read, mut late) = (0, 0);
                for _ in 0..10 {
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
async fn a_cut_connection_is_replaced_and_reads_do_not_notice() {
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

#[tokio::test]
async fn a_server_that_was_away_for_long_is_found_by_the_next_call() {
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
    let server = RedisServer::start();
    let client = client(config(&server.url()));
    let deadline = arshai::Deadline::after(60 * SECOND);
    client.set_key("k", "v", None).await.expect("it sets");
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..1_000 {
        client.connection(deadline).await.expect("there is room").discard();
    }
    eventually("no tasks left over", SECOND, || tasks() <= before).await;
    eventually("no sockets left over", SECOND, || server.connections() <= 2).await;
    assert_eq!(client.stats().pool.discarded, 1_000);
}
