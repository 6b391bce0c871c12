//! A store without a server.

use std::time::{Duration, Instant};

use arshai::backends::vectors::MilvusStore;
use arshai::vectors::{CollectionConfig, VectorStore};
use arshai::{BuildContext, Config, Deadline, ErrorKind, Health, Outcome, Registry};
use arshai_test_support::Log;

fn config(port: u16) -> Config {
    let mut config = Config::default();
    config.vectors.backend = MilvusStore::NAME.into();
    (config.milvus.host, config.milvus.port) = ("127.0.0.1".into(), port);
    config.milvus.request_timeout = Duration::from_secs(1);
    config
}

/// A port that refuses connections for as long as the listener lives, which is never accepted from.
fn refused_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

#[test]
fn building_the_store_connects_to_nothing_and_needs_no_runtime() {
    let context = BuildContext::new(config(1));
    let store = Registry::builtin().vectors.build("milvus", &context).expect("registered by name");
    assert_eq!(store.limits()[0].limit, Some(1_000));
    assert!(store.capabilities().sparse, "an unknown server is taken for a current one");
    let mut invalid = config(1);
    invalid.milvus.host = "http://localhost".into();
    let error = MilvusStore::from_context(&BuildContext::new(invalid)).expect_err("a URL is not a host");
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_refused_connection_is_unavailable_and_nothing_was_sent() {
    let store = MilvusStore::from_context(&BuildContext::new(config(refused_port()))).expect("valid");
    let began = Instant::now();
    for error in [
        store.connect().await.expect_err("refused"),
        store.list_collections().await.expect_err("refused"),
        store.get_or_create_collection(&CollectionConfig::new("c", 2)).await.expect_err("refused"),
    ] {
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotSent), "{error}");
        assert!(error.is_retryable());
    }
    assert!(began.elapsed() < Duration::from_secs(10), "refusals are quick");
    let health = arshai::Component::health(&store, Deadline::after(Duration::from_secs(1))).await;
    assert!(matches!(health, Health::Unhealthy { .. }), "{health:?}");
}

#[tokio::test]
async fn a_request_is_a_span_with_its_operation_and_its_kind_of_error() {
    let log = Log::default();
    let _subscribed = log.subscribe();
    let store = MilvusStore::from_context(&BuildContext::new(config(refused_port()))).expect("valid");
    store.list_collections().await.expect_err("refused");
    let log = log.text();
    let closed = log.lines().find(|line| line.contains("close") && line.contains("milvus.request"));
    let closed = closed.unwrap_or_else(|| panic!("{log}"));
    assert!(closed.contains("db.system.name=\"milvus\""), "{closed}");
    assert!(closed.contains("db.operation.name=") && closed.contains("error.type=Unavailable"), "{closed}");
}
