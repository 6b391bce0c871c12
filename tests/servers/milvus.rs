use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arshai_test_support::{MilvusServer, RawConnection};

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
