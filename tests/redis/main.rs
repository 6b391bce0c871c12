//! Redis: the client and the memory in it, against real servers, a faulty network and the real Python package.

mod client;
mod connecting;
mod faults;
mod interop;
mod memory;
mod seed;

use std::sync::Arc;
use std::time::Duration;

use arshai::backends::redis::RedisClient;
use arshai::{BuildContext, Config};
use arshai_test_support::RedisServer;

/// A configuration for that URL, with a deadline that tests can wait for.
fn config(url: &str) -> Config {
    let mut config = Config::default();
    config.redis.url = url.into();
    config.redis.command_timeout = Duration::from_secs(2);
    config
}

fn client(config: Config) -> RedisClient {
    RedisClient::from_context(&BuildContext::new(config)).expect("the configuration is valid")
}

/// A server shared by the clients of one test.
fn server() -> Arc<RedisServer> {
    Arc::new(RedisServer::start())
}
