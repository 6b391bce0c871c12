//! The Redis part of the validation script of the document that started the project. The rest is in
//! `tests/runtime/seed.rs`.

use arshai::backends::redis::{RedisExt, RedisValue};
use arshai::{Arshai, Config};

use arshai_test_support::Reply;

use super::server;

#[tokio::test]
async fn original_usage_of_the_redis_client_works_as_it_did() {
    let server = server();
    // Another database than that of the default URL.
    let url = format!("{}/3", server.url().trim_end_matches("/0"));
    let config = Config::from_vars([("REDIS_URL".into(), url.into())]).expect("valid");
    let runtime = Arshai::builder(config).build().expect("it builds");
    let client = runtime.redis().expect("a valid URL");
    client.set_key("test_key", "test_value", None).await.expect("set");
    let value = client.get_key("test_key").await.expect("read");
    assert_eq!(value, Some(RedisValue::Text("test_value".into())));
    assert_eq!(server.command(&["GET", "test_key"]), Reply::Nil, "not in the default database");
    runtime.shutdown(arshai::Deadline::after(std::time::Duration::from_secs(5))).await;
    let error = client.get_key("test_key").await.expect_err("closed with its runtime");
    assert_eq!(error.kind(), arshai::ErrorKind::Closed);
}
