//! Each failure to connect has its own kind and cause.

use std::time::{Duration, Instant};

use arshai::{Config, Error, ErrorKind, Outcome};
use arshai_test_support::{Proxy, RedisServer};

use crate::{client, config};

/// A configuration that trusts the authority of `server`.
fn trusting(url: &str, server: &RedisServer) -> Config {
    let mut config = config(url);
    config.redis.ca_file = Some(server.ca_file().display().to_string());
    config
}

/// The error of the first command, and whether it came at once and not at the deadline.
async fn failure(mut config: Config) -> (Error, bool) {
    config.redis.command_timeout = Duration::from_secs(20);
    let began = Instant::now();
    let error = client(config).set_key("k", "v", None).await.expect_err("there is no connection");
    assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
    (error, began.elapsed() < Duration::from_secs(10))
}

#[tokio::test]
async fn what_another_attempt_cannot_cure_fails_at_once_with_its_cause() {
    let tls = RedisServer::builder().tls().setting("bind", "127.0.0.1 127.0.0.2").start();
    let mutual = RedisServer::builder().tls().setting("tls-auth-clients", "yes").start();
    let plain = RedisServer::start();
    let other_name = tls.url().replace("127.0.0.1", "127.0.0.2");
    let other_database = format!("redis://127.0.0.1:{}/16", plain.port());
    let cases = [
        (config(&tls.url()), ErrorKind::Transport, "UnknownIssuer"),
        (trusting(&other_name, &tls), ErrorKind::Transport, "NotValidForName"),
        (trusting(&mutual.url(), &mutual), ErrorKind::Transport, "CertificateRequired"),
        (config("redis://no-such-host.invalid:6379/0"), ErrorKind::Unavailable, "unknown host"),
        (config(&other_database), ErrorKind::Config, "database"),
    ];
    for (config, kind, cause) in cases {
        let (error, at_once) = failure(config).await;
        assert_eq!((error.kind(), error.is_retryable()), (kind, false), "{error}");
        assert!(error.to_string().contains(cause), "{cause} in {error}");
        assert!(at_once, "{error}");
    }
}

#[tokio::test]
async fn every_caller_of_an_outage_gets_the_same_kind_of_error() {
    let proxy = Proxy::start("127.0.0.1:1".parse().expect("an address"));
    let mut config = config(&format!("redis://127.0.0.1:{}/0", proxy.port()));
    config.redis.command_timeout = Duration::from_millis(500);
    proxy.stall();
    let client = client(config);
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get_key("k").await.expect_err("nothing answers") })
        })
        .collect();
    for call in calls {
        let error = call.await.expect("no panic");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotSent), "{error}");
    }
}
