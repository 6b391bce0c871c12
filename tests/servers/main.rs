//! The ground that tests of servers stand on: every kind of server comes up, does what it is told and goes away.

mod cluster;
mod milvus;
mod proxy;
mod python;
mod redis;
mod sentinel;

use std::net::SocketAddr;
use std::time::Duration;

use arshai_test_support::RawConnection;

/// Long enough that only a promise broken reaches it.
const LONG: Duration = Duration::from_secs(15);

/// Short, for what must really be waited for to see that it does not come.
const SHORT: Duration = Duration::from_millis(50);

fn client(address: SocketAddr) -> RawConnection {
    RawConnection::tcp(address, LONG).expect("it listens")
}
