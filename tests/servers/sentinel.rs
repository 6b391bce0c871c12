use arshai_test_support::{Reply, Sentinel, until};

use crate::LONG;

#[test]
fn a_replica_takes_over_from_a_dead_master_with_its_data() {
    let mut sentinel = Sentinel::start();
    let [scheme, service] = ["redis-sentinel://127.0.0.1:", "&sentinelServiceName=mymaster"];
    let url = sentinel.url();
    assert!(url.starts_with(scheme) && url.ends_with(service) && url.matches("node=").count() == 2, "{url}");

    let first = sentinel.master_port().expect("they agree");
    let mut master = sentinel.node(first).raw();
    assert!(master.command(&["SET", "key", "kept"]).expect("it answers").is_ok());
    assert_eq!(master.command(&["WAIT", "2", "5000"]).expect("it answers").integer(), 2);
    assert_eq!(sentinel.node(first).connections(), 0, "neither replicas nor sentinels are clients");

    assert_eq!(sentinel.kill_master(), first);
    let second =
        until("another is the master", LONG, || sentinel.master_port().filter(|second| *second != first));
    assert_eq!(sentinel.node(second).command(&["GET", "key"]).text(), "kept");
    assert!(sentinel.node(second).command(&["SET", "key", "changed"]).is_ok());

    sentinel.node(first).restart();
    let first = sentinel.node(first);
    // It comes back as a master, and closes all connections when it is told otherwise.
    until("the first follows the second", LONG, || {
        let value = first.try_command(&["GET", "key"]).ok()?;
        let role = first.try_command(&["ROLE"]).ok()?.array()[0].text().to_owned();
        (role == "slave" && value == Reply::Bytes(b"changed".to_vec())).then_some(())
    });
}
