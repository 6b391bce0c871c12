use arshai_test_support::Cluster;

#[test]
fn a_node_answers_moved_for_a_slot_of_another_also_after_it_moved() {
    let mut cluster = Cluster::start();
    let url = cluster.url();
    assert!(url.starts_with("redis-cluster://127.0.0.1:") && url.matches("node=").count() == 2, "{url}");

    let slot = cluster.slot("key");
    let owner = cluster.owner(slot);
    let next = (owner + 1) % 3;
    let ports: Vec<_> = cluster.nodes().iter().map(|node| node.port()).collect();
    let moved_to = |place: usize| format!("MOVED {slot} 127.0.0.1:{}", ports[place]);

    assert!(cluster.nodes()[owner].command(&["SET", "key", "kept"]).is_ok());
    let reply = cluster.nodes()[next].command(&["GET", "key"]);
    assert_eq!(reply.error(), Some(moved_to(owner).as_str()));

    cluster.move_slot(slot, next);
    assert_eq!(cluster.owner(slot), next);
    assert_eq!(cluster.nodes()[next].command(&["GET", "key"]).text(), "kept");
    for other in (0..3).filter(|place| *place != next) {
        let reply = cluster.nodes()[other].command(&["GET", "key"]);
        assert_eq!(reply.error(), Some(moved_to(next).as_str()));
    }
}
