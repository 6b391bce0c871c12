use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arshai_test_support::{RawConnection, RedisServer, Reply, eventually, until};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::{LONG, SHORT, client};

#[test]
fn a_server_counts_the_connections_of_clients_and_not_its_own() {
    let server = RedisServer::start();
    let _own = server.raw();
    assert_eq!(server.connections(), 0);

    let clients: Vec<_> = (0..3).map(|_| client(server.address())).collect();
    until("three are counted", LONG, || (server.connections() == 3).then_some(()));
    drop(clients);
    until("none is left", LONG, || (server.connections() == 0).then_some(()));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_server_works_where_time_is_paused() {
    let server = RedisServer::start();
    let _client = client(server.address());
    eventually("one is counted", LONG, || server.connections() == 1).await;
}

#[test]
fn a_server_with_a_password_asks_for_it() {
    let server = RedisServer::builder().password("arshai", "secret").start();
    assert_eq!(server.url(), format!("redis://arshai:secret@127.0.0.1:{}/0", server.port()));
    let mut client = client(server.address());

    let refused = client.command(&["PING"]).expect("it answers");
    assert!(refused.error().expect("an error").starts_with("NOAUTH"), "{refused:?}");
    let wrong = client.command(&["AUTH", "arshai", "wrong"]).expect("it answers");
    assert!(wrong.error().expect("an error").starts_with("WRONGPASS"), "{wrong:?}");
    assert!(client.command(&["AUTH", "arshai", "secret"]).expect("it answers").is_ok());
    assert!(client.command(&["AUTH", "secret"]).expect("the default user's too").is_ok());
}

#[test]
fn a_server_with_tls_is_trusted_through_its_own_authority_alone() {
    let (server, other) = (RedisServer::builder().tls().start(), RedisServer::builder().tls().start());
    assert_eq!(server.url(), format!("rediss://127.0.0.1:{}/0", server.port()));

    for name in ["localhost", "127.0.0.1"] {
        assert_eq!(ping_over_tls(&server, name, server.ca_file()).expect("trusted"), *b"+PONG\r\n");
    }
    let distrusted = ping_over_tls(&server, "localhost", other.ca_file()).expect_err("another authority");
    assert!(distrusted.to_string().contains("invalid peer certificate"), "{distrusted}");
    let misnamed = ping_over_tls(&server, "example.org", server.ca_file()).expect_err("another name");
    assert!(misnamed.to_string().contains("invalid peer certificate"), "{misnamed}");
    assert!(client(server.address()).command(&["PING"]).is_err(), "it must not speak in the clear");
}

fn ping_over_tls(server: &RedisServer, name: &'static str, authority: &Path) -> io::Result<[u8; 7]> {
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_file(authority).expect("PEM")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions of TLS").with_root_certificates(trusted).with_no_client_auth();
    let name = ServerName::try_from(name).expect("a name");
    let tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;

    let mut stream = StreamOwned::new(tls, TcpStream::connect(server.address())?);
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[test]
fn what_an_appendonly_server_has_answered_survives_its_death() {
    let mut server = RedisServer::builder().appendonly_always().start();
    let address = server.address();
    assert!(server.command(&["SET", "key", "kept"]).is_ok());

    server.kill9();
    let refused = RawConnection::tcp(address, LONG).expect_err("nobody is there");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    server.restart();
    assert_eq!(server.address(), address);
    assert_eq!(server.command(&["GET", "key"]), Reply::Bytes(b"kept".to_vec()));
}

#[test]
fn without_appendonly_a_restarted_server_is_empty() {
    let mut server = RedisServer::start();
    assert!(server.command(&["SET", "key", "lost"]).is_ok());
    server.restart();
    assert_eq!(server.command(&["GET", "key"]), Reply::Nil);
}

#[test]
fn a_stopped_server_answers_nothing_until_it_goes_on() {
    let server = RedisServer::start();
    let mut client = RawConnection::tcp(server.address(), SHORT).expect("it listens");

    server.stop_signal();
    let error = client.command(&["PING"]).expect_err("nothing comes");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    server.continue_signal();
    let reply = until("the answer comes", LONG, || client.read().ok());
    assert_eq!(reply.text(), "PONG");
}

#[test]
fn a_full_server_refuses_writes_and_evicts_nothing() {
    let server = RedisServer::builder().maxmemory_noeviction(4 << 20).start();
    assert!(server.command(&["SET", "small", "kept"]).is_ok());
    let large = vec![b'x'; 64 << 10];
    let refused = (0..100).find_map(|number| {
        let key = format!("large:{number}");
        server.command(&[b"SET", key.as_bytes(), &large]).error().map(str::to_owned)
    });
    let refused = refused.expect("a hundred do not fit");
    assert!(refused.starts_with("OOM"), "{refused}");
    assert_eq!(server.command(&["GET", "small"]).text(), "kept");
}

#[test]
fn a_panicking_test_leaves_no_server_behind() {
    let mut address = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let server = RedisServer::start();
        address = Some(server.address());
        server.stop_signal();
        panic!("as a failing test does");
    }));
    assert!(panicked.is_err());
    let refused = RawConnection::tcp(address.expect("it was started"), LONG).expect_err("nobody is there");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
#[should_panic(expected = "Bad directive or wrong number of arguments")]
fn a_server_that_does_not_start_says_why() {
    RedisServer::builder().setting("no-such-setting", "1").start();
}
