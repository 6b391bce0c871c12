//! What tests against the real world stand on: Redis servers of every kind and both Milvus engines, which a test
//! starts and stops itself, a network that misbehaves on command, independent servers of models and MCP tools, a browser,
//! and the Python package of the same name.
//!
//! Everything a test starts ends with its value, also when the test panics and also when the whole test process is
//! killed. A thing that does not come up within its deadline panics with what it logged.

mod browser;
mod cluster;
mod example;
mod log;
mod mcp;
mod milvus;
mod models;
mod port;
mod process;
mod proxy;
mod python;
mod redis;
mod resp;
mod sentinel;
mod slow_model;
mod tls;
mod tls_server;
mod wait;

pub use browser::Browser;
pub use cluster::Cluster;
pub use example::example;
pub use log::Log;
pub use mcp::McpServer;
pub use milvus::{MilvusServer, MilvusServerBuilder};
pub use models::ModelServer;
pub use port::ReservedPort;
pub use process::Process;
pub use proxy::Proxy;
pub use python::PythonPeer;
pub use redis::{RedisServer, RedisServerBuilder};
pub use resp::{RawConnection, Reply};
pub use sentinel::Sentinel;
pub use slow_model::SlowModel;
pub use tls_server::TlsServer;
pub use wait::{eventually, until};
