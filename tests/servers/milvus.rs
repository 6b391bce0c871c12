use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arshai_test_support::{MilvusServer, PythonPeer, RawConnection};
use serde_json::{Value, json};

use crate::{LONG, client};

#[test]
fn the_small_milvus_stops_dies_and_comes_back_on_its_port() {
    stops_dies_and_comes_back(MilvusServer::small());
}

#[test]
fn the_full_milvus_stops_dies_and_comes_back_on_its_port() {
    stops_dies_and_comes_back(MilvusServer::full());
}

fn stops_dies_and_comes_back(mut server: MilvusServer) {
    let address = server.address();
    assert_eq!(server.uri(), format!("http://{address}"));
    for end in [MilvusServer::stop, MilvusServer::kill9] {
        client(address);
        assert!(server.runs());
        end(&mut server);
        assert!(!server.runs());
        assert_eq!(refusal(address), io::ErrorKind::ConnectionRefused);
        server.restart();
        assert_eq!(server.address(), address);
    }
    server.pause();
    client(address);
    server.resume();
}

#[test]
fn two_full_milvus_servers_run_beside_each_other() {
    let servers = [MilvusServer::full(), MilvusServer::builder().authorization().tls().start()];
    let [plain, secured] = &servers;
    assert_ne!(plain.port(), secured.port());
    assert!(secured.uri().starts_with("https://") && secured.ca_file().exists());
    for server in &servers {
        client(server.address());
    }
}

#[test]
fn a_panicking_test_leaves_no_milvus_behind() {
    for start in [MilvusServer::small, MilvusServer::full] {
        let mut address = None;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let server = start();
            address = Some(server.address());
            server.pause();
            panic!("as a failing test does");
        }));
        assert!(panicked.is_err());
        assert_eq!(refusal(address.expect("it was started")), io::ErrorKind::ConnectionRefused);
    }
}

#[test]
#[should_panic(expected = "before it answered; its log:")]
fn a_milvus_that_does_not_start_says_why() {
    MilvusServer::builder().setting("proxy_port", "none").start();
}

fn refusal(address: std::net::SocketAddr) -> io::ErrorKind {
    RawConnection::tcp(address, LONG).expect_err("nobody is there").kind()
}

#[test]
fn python_fills_and_searches_a_collection_of_the_milvus_it_is_given() {
    let server = MilvusServer::small();
    let mut python = PythonPeer::on_milvus(&server);
    let config = json!({"collection_name": "c", "dense_dim": 2, "text_field": "text", "is_hybrid": true});
    let mut call = |op: &str, more: Value| {
        let mut request = json!({"op": op, "config": config});
        request.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        python.call(&request)
    };
    let entity = json!({"content": "ü", "metadata": {"f": 1.5, "i": 7, "id": {"$uuid": UUID}}});
    let embedding = json!({"dense": [1.0, 0.0], "sparse": {"7": 0.5}});
    let inserted = call("insert_entity", json!({"entity": entity, "embedding": embedding}));
    assert_eq!(inserted, json!({"ok": null}));

    let found = call("search_by_vector", json!({"query_vectors": [[1.0, 0.0]]}));
    let hit = &found["ok"][0][0];
    assert_eq!(hit["fields"]["text"], "ü", "{found}");
    assert_eq!(hit["fields"]["metadata"], json!({"f": "1.5", "i": 7, "id": UUID}));
    let found = call("search_by_vector", json!({"query_vectors": [[1.0]]}));
    assert_eq!(found["error"], "MilvusException", "{found}");
    assert_eq!(python.call(&json!({"op": "drop", "collection": "c"})), json!({"ok": null}), "it goes on");
}

const UUID: &str = "12345678-1234-5678-1234-567812345678";
