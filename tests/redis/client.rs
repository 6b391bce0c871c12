//! The client against every kind of server.

use std::time::Duration;

use arshai::backends::redis::fred::interfaces::{KeysInterface, ListInterface};
use arshai::backends::redis::{Idempotency, RedisValue};
use arshai::{Component, Deadline, ErrorKind, Health, Outcome, Registry};
use arshai_test_support::{Cluster, Log, RedisServer, Sentinel, eventually};

use crate::{client, config, server};

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(2))
}

#[tokio::test]
async fn set_and_get_keep_text_json_and_bytes_and_expire() {
    let server = server();
    let client = client(config(&server.url()));
    client.set_key("text", "hello", None).await.expect("it sets");
    client.set_key("bytes", vec![0xff, 0xfe], Some(Duration::from_millis(1_500))).await.expect("it sets");
    client.set_key("empty", "", Some(Duration::from_secs(10))).await.expect("it sets");
    assert_eq!(client.get_key("text").await.expect("it reads"), Some(RedisValue::Text("hello".into())));
    assert_eq!(
        client.get_key("bytes").await.expect("it reads"),
        Some(RedisValue::Bytes(vec![0xff, 0xfe].into()))
    );
    assert_eq!(client.get_key("empty").await.expect("it reads"), Some(RedisValue::Text(String::new())));
    assert_eq!(client.get_key("missing").await.expect("it reads"), None);
    let left: i64 = client
        .run("PTTL", Idempotency::Idempotent, |redis| async move { redis.pttl("bytes").await })
        .await
        .expect("it answers");
    assert!((1..=1_500).contains(&left), "{left}");
    let error = client.set_key("now", "x", Some(Duration::ZERO)).await.expect_err("no time to live");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::InvalidInput, Outcome::NotSent));
    assert!(client.delete_key("text").await.expect("it deletes"));
    assert!(!client.delete_key("text").await.expect("it deletes nothing"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_and_dedicated_connections_never_exceed_the_limit_as_the_server_counts() {
    let server = server();
    let mut config = config(&server.url());
    config.pool.max_connections = 4;
    let client = client(config);
    let work = (0..200).map(|n| {
        let client = client.clone();
        tokio::spawn(async move {
            client.set_key(&format!("k{n}"), "x", None).await.expect("it sets");
            let mut dedicated = client.dedicated_connection(soon()).await.expect("in turn");
            let reply: Option<i64> =
                dedicated.run(soon(), |redis| async move { redis.incr("n").await }).await.expect("it counts");
            reply
        })
    });
    let work: Vec<_> = work.collect();
    let mut most = 0;
    while !work.iter().all(|task| task.is_finished()) {
        most = most.max(server.connections());
        tokio::task::yield_now().await;
    }
    assert!((3..=4).contains(&most), "{most}");
    assert_eq!(client.get_key("n").await.expect("it reads"), Some(RedisValue::Json(200.into())));
    drop(client);
    eventually("no connection", Duration::from_secs(1), || server.connections() == 0).await;
}

#[tokio::test]
async fn a_dedicated_connection_is_not_reused_after_cancelled_work() {
    let server = server();
    let mut config = config(&server.url());
    config.pool.max_connections = 2;
    let client = client(config);
    for _ in 0..5 {
        let mut dedicated = client.dedicated_connection(soon()).await.expect("there is room");
        let blocked = dedicated
            .run(Deadline::after(Duration::from_millis(20)), |redis| async move {
                redis.blpop::<Option<(String, String)>, _>("queue", 0.0).await
            })
            .await
            .expect_err("the queue is empty");
        assert_eq!(blocked.kind(), ErrorKind::Timeout);
        let again = dedicated.run(soon(), |redis| async move { redis.incr::<i64, _>("n").await }).await;
        assert_eq!(again.expect_err("unusable").kind(), ErrorKind::Closed);
    }
    client.set_key("n", "1", None).await.expect("the others go on");
    assert!(server.connections() <= 2);
}

#[tokio::test]
async fn a_blocking_command_on_a_dedicated_connection_may_last_until_its_own_deadline() {
    let server = server();
    let mut config = config(&server.url());
    config.redis.command_timeout = Duration::from_millis(50);
    let client = client(config);
    let mut dedicated = client.dedicated_connection(soon()).await.expect("there is room");
    let began = tokio::time::Instant::now();
    let popped = dedicated
        .run(soon(), |redis| async move { redis.blpop::<Option<(String, String)>, _>("queue", 0.2).await })
        .await;
    assert_eq!(popped.expect_err("the queue stays empty").kind(), ErrorKind::Timeout);
    assert!(began.elapsed() >= Duration::from_millis(200), "as long as the command asked for");
}

#[tokio::test]
async fn errors_say_whether_the_command_was_sent_rejected_or_may_have_taken_effect() {
    let server = server();
    let client = client(config(&server.url()));
    server.command(&["LPUSH", "list", "a"]);
    let rejected = client.get_key("list").await.expect_err("it is a list");
    assert_eq!((rejected.kind(), rejected.outcome()), (ErrorKind::Corrupt, Outcome::Rejected));
    server.stop_signal();
    let unknown = client.set_key("k", "v", None).await.expect_err("no response");
    assert_eq!((unknown.kind(), unknown.outcome()), (ErrorKind::Timeout, Outcome::Unknown));
    server.continue_signal();
    let unreachable = crate::client(config("redis://127.0.0.1:1/0"));
    let not_sent = unreachable.set_key("k", "v", None).await.expect_err("the port is closed");
    assert_eq!((not_sent.kind(), not_sent.outcome()), (ErrorKind::Unavailable, Outcome::NotSent));
    assert!(not_sent.to_string().contains("refused"), "the cause is named: {not_sent}");
}

#[tokio::test]
async fn a_write_is_retried_only_when_it_certainly_had_no_effect() {
    let server = server();
    let proxy = arshai_test_support::Proxy::start(server.address());
    let client = client(config(&server.url_at(proxy.port())));
    client.set_key("n", "0", None).await.expect("it sets");
    proxy.delay_replies(Duration::from_millis(100));
    let count = |idempotency| {
        let client = client.clone();
        tokio::spawn(async move {
            client.run("INCR", idempotency, |redis| async move { redis.incr::<i64, _>("n").await }).await
        })
    };
    let value = || server.command(&["GET", "n"]).text().to_owned();
    let once = count(Idempotency::NonIdempotent);
    eventually("it is sent", Duration::from_secs(1), || value() == "1").await;
    proxy.cut();
    let error = once.await.expect("no panic").expect_err("the response is lost");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Transport, Outcome::Unknown));
    let again = count(Idempotency::Idempotent);
    eventually("it is sent", Duration::from_secs(1), || value() == "2").await;
    proxy.cut();
    assert_eq!(again.await.expect("no panic").expect("it is sent again"), 3);
    assert_eq!((value().as_str(), client.stats().retries), ("3", 1));
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_an_authentication_error_that_does_not_show_it() {
    let server = RedisServer::builder().password("ada", "s3cr3t!").start();
    let right = client(config(&server.url()));
    right.set_key("k", "v", None).await.expect("the password is right");
    let wrong = client(config(&server.url().replace("s3cr3t", "hunter2")));
    let error = wrong.set_key("k", "v", None).await.expect_err("the password is wrong");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    let none = client(config(&format!("redis://127.0.0.1:{}/0", server.port())));
    let error_without = none.set_key("k", "v", None).await.expect_err("a password is wanted");
    assert_eq!(error_without.kind(), ErrorKind::Authentication, "{error_without}");
    let shown = format!("{error} {error:?} {error_without:?} {wrong:?} {right:?} {:?}", wrong.stats());
    assert!(!shown.contains("hunter2") && !shown.contains("s3cr3t"), "{shown}");
}

#[tokio::test]
async fn tls_trusts_only_the_configured_certificates() {
    let server = RedisServer::builder().tls().start();
    let mut trusting = config(&server.url());
    trusting.redis.ca_file = Some(server.ca_file().display().to_string());
    client(trusting).set_key("k", "v", None).await.expect("the authority is trusted");
    let stranger = client(config(&server.url()));
    let error = stranger.set_key("k", "v", None).await.expect_err("the authority is unknown");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Transport), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_lead_to_the_new_master_after_a_failover() {
    let mut sentinel = Sentinel::start();
    let mut config = config(&sentinel.url());
    config.redis.command_timeout = Duration::from_secs(10);
    let client = client(config);
    client.set_key("before", "1", None).await.expect("the master takes it");
    sentinel.kill_master();
    // Writes under way may be lost and say so; soon they are taken again.
    let again = async { while client.set_key("after", "2", None).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("the new master takes writes");
    assert_eq!(client.get_key("after").await.expect("it reads"), Some(RedisValue::Json(2.into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_serves_every_slot_and_one_that_moves() {
    let cluster = Cluster::start();
    let client = client(config(&cluster.url()));
    for n in 0..50 {
        client.set_key(&format!("k{n}"), format!("{n}"), None).await.expect("some node takes it");
    }
    let slot = cluster.slot("moving");
    client.set_key("moving", "here", None).await.expect("its node takes it");
    client.delete_key("moving").await.expect("it deletes");
    cluster.move_slot(slot, (cluster.owner(slot) + 1) % 3);
    client.set_key("moving", "there", None).await.expect("the client follows");
    assert_eq!(client.get_key("moving").await.expect("it reads"), Some(RedisValue::Text("there".into())));
    for n in 0..50 {
        assert!(client.get_key(&format!("k{n}")).await.expect("it reads").is_some());
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_unhealthy() {
    let server = server();
    assert_eq!(client(config(&server.url())).health_check(soon()).await, Health::Healthy);
    let nowhere = client(config("redis://127.0.0.1:1/0"));
    assert!(!nowhere.health_check(Deadline::after(Duration::from_millis(300))).await.is_usable());
}

#[tokio::test]
async fn every_pool_backend_serves_shared_and_dedicated_connections() {
    for backend in Registry::builtin().pool.names() {
        let server = server();
        let mut config = config(&server.url());
        config.pool.backend = backend.into();
        let client = client(config);
        client.set_key("k", "1", None).await.expect(backend);
        for n in 2..5_i64 {
            let mut dedicated = client.dedicated_connection(soon()).await.expect(backend);
            let count: Result<i64, _> =
                dedicated.run(soon(), |redis| async move { redis.incr("k").await }).await;
            assert_eq!(count.expect(backend), n, "{backend}");
        }
        assert_eq!(server.connections(), 2, "{backend}: one shared, one reused");
        assert!(client.close(soon()).await.is_clean(), "{backend}");
        assert_eq!(client.get_key("k").await.expect_err(backend).kind(), ErrorKind::Closed, "{backend}");
    }
}

#[tokio::test]
async fn a_command_is_a_span_with_its_name_and_without_keys_or_values() {
    let log = Log::default();
    let _subscribed = log.subscribe();
    let server = server();
    let client = client(config(&server.url()));
    client.set_key("hunter-key", "hunter-value", None).await.expect("it sets");
    let list =
        |redis: arshai::backends::redis::fred::clients::Client| async move { redis.llen("hunter-key").await };
    client.run::<i64, _, _>("LLEN", Idempotency::Idempotent, list).await.expect_err("it is no list");
    let log = log.text();
    let closed = |name: &str| {
        log.lines().any(|line| {
            line.contains("close")
                && line.contains("redis.command")
                && line.contains("db.system.name=\"redis\"")
                && line.contains(name)
        })
    };
    assert!(closed("db.operation.name=\"SET\"") && closed("db.operation.name=\"LLEN\" error.type="), "{log}");
    assert!(!log.contains("hunter"), "{log}");
}
