//! The client against every kind of server.

use std::time::Duration;

use arshai::backends::redis::fred::interfaces::{KeysInterface, ListInterface};
use arshai::backends::redis::{Effect, RedisValue};
use arshai::{Deadline, ErrorKind, Health};
use arshai_test_support::{Cluster, RedisServer, Sentinel, eventually};

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
        .run("PTTL", Effect::Read, |redis| async move { redis.pttl("bytes").await })
        .await
        .expect("it answers");
    assert!((1..=1_500).contains(&left), "{left}");
    let error = client.set_key("now", "x", Some(Duration::ZERO)).await.expect_err("it would be gone at once");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(client.delete_key("text").await.expect("it deletes"));
    assert!(!client.delete_key("text").await.expect("it deletes nothing"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_shared_and_ones_own_are_never_more_than_the_limit_as_the_server_counts() {
    let server = server();
    let mut config = config(&server.url());
    (config.pool.max_connections, config.redis.shared_connections) = (4, 2);
    let client = client(config);
    let work = (0..200).map(|n| {
        let client = client.clone();
        tokio::spawn(async move {
            client.set_key(&format!("k{n}"), "x", None).await.expect("it sets");
            let mut own = client.connection(soon()).await.expect("in turn");
            let reply: Option<i64> =
                own.run(soon(), |redis| async move { redis.incr("n").await }).await.expect("it counts");
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
async fn work_cut_short_on_a_connection_of_ones_own_is_given_to_nobody_else() {
    let server = server();
    let mut config = config(&server.url());
    (config.pool.max_connections, config.redis.shared_connections) = (2, 1);
    let client = client(config);
    for _ in 0..5 {
        let mut own = client.connection(soon()).await.expect("there is room");
        let blocked = own
            .run(Deadline::after(Duration::from_millis(20)), |redis| async move {
                redis.blpop::<Option<(String, String)>, _>("queue", 0.0).await
            })
            .await
            .expect_err("the queue is empty");
        assert_eq!(blocked.kind(), ErrorKind::Timeout);
        let again = own.run(soon(), |redis| async move { redis.incr::<i64, _>("n").await }).await;
        assert_eq!(again.expect_err("it is spent").kind(), ErrorKind::Closed);
    }
    client.set_key("n", "1", None).await.expect("the others go on");
    assert!(server.connections() <= 2);
}

#[tokio::test]
async fn a_password_is_used_and_a_wrong_one_is_told_apart_and_never_shown() {
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
async fn tls_trusts_the_file_it_is_given_and_nothing_else() {
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
async fn health_tells_a_server_that_answers_from_one_that_is_not_there() {
    let server = server();
    assert_eq!(client(config(&server.url())).health_check(soon()).await, Health::Healthy);
    let nowhere = client(config("redis://127.0.0.1:1/0"));
    assert!(!nowhere.health_check(Deadline::after(Duration::from_millis(300))).await.is_usable());
}
