//! A cluster of masters.

use std::time::Duration;

use crate::port::ReservedPort;
use crate::redis::RedisServer;
use crate::wait::until;

const SLOTS: usize = 16_384;
const NODES: usize = 3;
const LIMIT: Duration = Duration::from_secs(15);

/// Three masters that share all slots.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<RedisServer>,
    /// Where the nodes talk to each other; kept for as long as they might come back.
    buses: Vec<ReservedPort>,
}

impl Cluster {
    /// Starts the nodes and returns when each of them says that the cluster works.
    ///
    /// # Panics
    ///
    /// If that takes longer than fifteen seconds; a node itself waits two before it takes part.
    pub fn start() -> Self {
        let buses: Vec<_> = (0..NODES).map(|_| ReservedPort::reserve()).collect();
        let cluster = Self { nodes: buses.iter().map(node).collect(), buses };
        cluster.assign_slots();
        cluster.introduce();
        until("every node says that the cluster works", LIMIT, || {
            cluster.nodes.iter().all(|node| cluster.works_for(node)).then_some(())
        });
        cluster
    }

    /// The URL that names every node.
    pub fn url(&self) -> String {
        let [first, rest @ ..] = self.nodes.as_slice() else { unreachable!("three were started") };
        let rest: Vec<_> = rest.iter().map(|node| format!("node=127.0.0.1:{}", node.port())).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", first.port(), rest.join("&"))
    }

    /// The nodes, always in the same order.
    pub fn nodes(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }

    /// The slot that `key` belongs to.
    pub fn slot(&self, key: &str) -> u16 {
        let slot = self.nodes[0].command(&["CLUSTER", "KEYSLOT", key]).integer();
        u16::try_from(slot).expect("a slot")
    }

    /// The place among [`nodes`](Self::nodes) of the one that holds `slot`.
    pub fn owner(&self, slot: u16) -> usize {
        let reply = self.nodes[0].command(&["CLUSTER", "SLOTS"]);
        let range = reply.array().iter().find_map(|range| {
            let [first, last, node, ..] = range.array() else { return None };
            (first.integer()..=last.integer()).contains(&slot.into()).then_some(node)
        });
        let port = range.expect("every slot is held").array()[1].integer();
        self.nodes.iter().position(|node| i64::from(node.port()) == port).expect("one of the nodes")
    }

    /// Moves `slot` and its keys to the node at `target`. Every node knows at once: a client that still asks the
    /// former one is told MOVED.
    pub fn move_slot(&self, slot: u16, target: usize) {
        let (from, to) = (&self.nodes[self.owner(slot)], &self.nodes[target]);
        let (from_id, to_id, slot) = (id(from), id(to), slot.to_string());
        ok(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        ok(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        move_keys(from, to, &slot);
        for node in [to, from].into_iter().chain(&self.nodes) {
            ok(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
    }

    fn assign_slots(&self) {
        for (place, node) in self.nodes.iter().enumerate() {
            let (first, end) = (place * SLOTS / NODES, (place + 1) * SLOTS / NODES);
            ok(node, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]);
            // Two nodes of one epoch would first have to settle which of them yields.
            ok(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(place + 1).to_string()]);
        }
    }

    fn introduce(&self) {
        for node in &self.nodes {
            for (other, bus) in
                self.nodes.iter().zip(&self.buses).filter(|(other, _)| other.port() != node.port())
            {
                let (port, bus) = (other.port().to_string(), bus.number().to_string());
                ok(node, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
            }
        }
    }

    fn works_for(&self, node: &RedisServer) -> bool {
        let info = node.command(&["CLUSTER", "INFO"]);
        let says = |line: &str| info.text().lines().any(|said| said == line);
        says("cluster_state:ok") && says("cluster_known_nodes:3") && says("cluster_size:3")
    }
}

fn node(bus: &ReservedPort) -> RedisServer {
    RedisServer::builder()
        .setting("cluster-enabled", "yes")
        .setting("cluster-port", &bus.number().to_string())
        .setting("cluster-node-timeout", "2000")
        .start()
}

fn move_keys(from: &RedisServer, to: &RedisServer, slot: &str) {
    let port = to.port().to_string();
    let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", slot, "1000000"]);
    for key in keys.array() {
        ok(from, &["MIGRATE", "127.0.0.1", &port, key.text(), "0", "5000"]);
    }
}

fn id(node: &RedisServer) -> String {
    node.command(&["CLUSTER", "MYID"]).text().to_owned()
}

fn ok(node: &RedisServer, command: &[&str]) {
    let reply = node.command(command);
    assert!(reply.is_ok(), "{command:?}: {reply:?}");
}
