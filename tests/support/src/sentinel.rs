//! A master, its replicas, and the sentinels that watch over them.

use std::time::Duration;

use crate::redis::RedisServer;
use crate::wait::until;

const MASTER: &str = "mymaster";
const LIMIT: Duration = Duration::from_secs(10);

/// One master with two replicas under three sentinels, two of which must agree; a dead master is noticed after half
/// a second.
#[derive(Debug)]
pub struct Sentinel {
    nodes: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl Sentinel {
    /// Starts everything and returns when every sentinel knows both replicas and the two other sentinels.
    ///
    /// # Panics
    ///
    /// If that takes longer than ten seconds.
    pub fn start() -> Self {
        let master = RedisServer::start();
        let replica =
            || RedisServer::builder().setting("replicaof", &format!("127.0.0.1 {}", master.port())).start();
        let replicas = [replica(), replica()];
        until("the replicas are in step", LIMIT, || {
            replicas.iter().all(|replica| replica.info("master_link_status") == "up").then_some(())
        });
        let sentinels = (0..3).map(|_| sentinel(master.port())).collect();
        let started = Self { nodes: [master].into_iter().chain(replicas).collect(), sentinels };
        until("the sentinels know each other and the replicas", LIMIT, || {
            started.sentinels.iter().all(knows_all).then_some(())
        });
        started
    }

    /// The URL of database 0 of whichever server is the master.
    pub fn url(&self) -> String {
        let [first, rest @ ..] = self.sentinels.as_slice() else { unreachable!("three were started") };
        let rest: String =
            rest.iter().map(|sentinel| format!("node=127.0.0.1:{}&", sentinel.port())).collect();
        format!("redis-sentinel://127.0.0.1:{}/0?{rest}sentinelServiceName={MASTER}", first.port())
    }

    /// The master's port, once all sentinels name the same.
    pub fn master_port(&self) -> Option<u16> {
        let mut named = self.sentinels.iter().map(named_port);
        let port = named.next()?;
        named.all(|other| other == port).then_some(port)
    }

    /// The server on `port`: the master or a replica.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn node(&mut self, port: u16) -> &mut RedisServer {
        self.nodes.iter_mut().find(|node| node.port() == port).expect("a port of one of the servers")
    }

    /// Kills the master and returns its port; the sentinels then make a replica the master.
    ///
    /// # Panics
    ///
    /// If the sentinels do not agree on the master.
    pub fn kill_master(&mut self) -> u16 {
        let port = self.master_port().expect("the sentinels agree");
        self.node(port).kill9();
        port
    }
}

fn sentinel(master: u16) -> RedisServer {
    let server = RedisServer::builder()
        .sentinel()
        .setting("sentinel monitor", &format!("{MASTER} 127.0.0.1 {master} 2"))
        .setting("sentinel down-after-milliseconds", &format!("{MASTER} 500"))
        .setting("sentinel failover-timeout", &format!("{MASTER} 1500"))
        .setting("sentinel parallel-syncs", &format!("{MASTER} 2"))
        .start();
    // Sentinels tell each other of themselves every two seconds and ask the servers every ten; tests are in a hurry.
    let periods = ["SENTINEL", "DEBUG", "PUBLISH-PERIOD", "100", "INFO-PERIOD", "200", "ASK-PERIOD", "100"];
    let reply = server.command(&periods);
    assert!(reply.is_ok(), "{reply:?}");
    server
}

fn knows_all(sentinel: &RedisServer) -> bool {
    let reply = sentinel.command(&["SENTINEL", "MASTER", MASTER]);
    let fields = reply.array();
    let field = |name: &str| {
        let pair = fields.chunks(2).find(|pair| pair[0].text() == name).expect("sentinels tell this");
        pair[1].text()
    };
    field("flags") == "master" && field("num-slaves") == "2" && field("num-other-sentinels") == "2"
}

fn named_port(sentinel: &RedisServer) -> u16 {
    let reply = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
    u16::try_from(reply.array()[1].integer()).expect("a port")
}
