use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use arshai_test_support::{Proxy, RawConnection, RedisServer, Reply, until};

use crate::{LONG, SHORT, client};

fn proxied() -> (RedisServer, Proxy) {
    let server = RedisServer::start();
    let proxy = Proxy::seeded(server.address(), 7);
    (server, proxy)
}

/// A client, and a value of `length` bytes on the server.
fn client_of_a_value(server: &RedisServer, proxy: &Proxy, length: usize) -> (RawConnection, Reply) {
    let value = (0..length).map(|n| b'a' + (n % 26) as u8).collect::<Vec<_>>();
    assert!(server.command(&[b"SET".as_slice(), b"key", &value]).is_ok());
    (client(proxy.address()), Reply::Bytes(value))
}

#[test]
fn it_passes_everything_on_and_counts_it() {
    let (server, proxy) = proxied();
    assert_eq!(server.url_at(proxy.port()), format!("redis://127.0.0.1:{}/0", proxy.port()));
    let (mut first, second) = (client(proxy.address()), client(proxy.address()));
    assert_eq!(first.command(&["PING"]).expect("it answers").text(), "PONG");

    until("both are counted", LONG, || (proxy.connections() == 2).then_some(()));
    until("the server sees both", LONG, || (server.connections() == 2).then_some(()));
    until("the bytes are counted", LONG, || {
        ((proxy.request_bytes(), proxy.reply_bytes()) == (14, 7)).then_some(())
    });
    drop((first, second));
    until("none is open", LONG, || (proxy.connections() == 0).then_some(()));
    until("the server sees none", LONG, || (server.connections() == 0).then_some(()));
    assert_eq!(proxy.connections_ever(), 2);
}

#[test]
fn a_delay_holds_every_byte_and_pipelined_ones_together() {
    let delay = Duration::from_millis(40);
    let (_server, proxy) = proxied();
    let mut client = client(proxy.address());
    proxy.delay_requests(delay);
    proxy.delay_replies(delay);

    let start = Instant::now();
    for _ in 0..20 {
        client.send(&["PING"]).expect("it takes them");
    }
    for _ in 0..20 {
        assert_eq!(client.read().expect("it answers").text(), "PONG");
    }
    let elapsed = start.elapsed();
    assert!(elapsed >= delay * 2, "{elapsed:?}");
    assert!(elapsed < delay * 20, "each was held after the other: {elapsed:?}");
}

#[test]
fn jitter_never_changes_the_order() {
    let (_server, proxy) = proxied();
    let mut client = client(proxy.address());
    proxy.jitter(Duration::from_millis(3));
    for number in 0..20 {
        client.send(&["ECHO", &number.to_string()]).expect("it takes them");
    }
    for number in 0..20 {
        assert_eq!(client.read().expect("it answers").integer(), number);
    }
}

#[test]
fn a_stall_forwards_nothing_until_it_passes() {
    let (_server, proxy) = proxied();
    proxy.stall();
    let mut client = RawConnection::tcp(proxy.address(), SHORT).expect("a stalled proxy accepts");
    let error = client.command(&["PING"]).expect_err("nothing comes");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(proxy.request_bytes(), 0);

    proxy.pass();
    let reply = until("the answer comes", LONG, || client.read().ok());
    assert_eq!(reply.text(), "PONG");
}

#[test]
fn a_stalled_proxy_sees_clients_leave() {
    let (_server, proxy) = proxied();
    proxy.stall();
    let mut client = client(proxy.address());
    client.send(&["PING"]).expect("it takes it");
    until("it is counted", LONG, || (proxy.connections() == 1).then_some(()));
    drop(client);
    until("it is no longer counted", LONG, || (proxy.connections() == 0).then_some(()));
}

#[test]
fn a_cut_resets_what_is_open_and_serves_what_comes() {
    let (server, proxy) = proxied();
    let mut cut = client(proxy.address());
    assert_eq!(cut.command(&["PING"]).expect("it answers").text(), "PONG");

    proxy.cut();
    let error = cut.read().expect_err("it is cut");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    until("the server has lost it too", LONG, || (server.connections() == 0).then_some(()));
    let mut next = client(proxy.address());
    assert_eq!(next.command(&["PING"]).expect("it answers").text(), "PONG");
}

#[test]
fn replies_end_after_exactly_the_bytes_allowed() {
    let (server, proxy) = proxied();
    assert!(server.command(&["SET", "key", "0123456789"]).is_ok());
    let mut stream = TcpStream::connect(proxy.address()).expect("it listens");
    proxy.truncate_replies_after(9);
    std::io::Write::write_all(&mut stream, b"GET key\r\n").expect("it takes it");

    let mut received = String::new();
    stream.read_to_string(&mut received).expect("it is closed in order");
    assert_eq!(received, "$10\r\n0123");
    proxy.pass();
    assert_eq!(client(proxy.address()).command(&["GET", "key"]).expect("it answers").text(), "0123456789");
}

#[test]
fn a_limit_on_replies_counts_from_the_order_on() {
    let (_server, proxy) = proxied();
    let mut client = client(proxy.address());
    assert_eq!(client.command(&["PING"]).expect("it answers").text(), "PONG");
    for _ in 0..2 {
        proxy.truncate_replies_after(7);
        assert_eq!(client.command(&["PING"]).expect("seven bytes are allowed").text(), "PONG");
    }
    let error = client.command(&["PING"]).expect_err("and no more");
    assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error:?}");
}

#[test]
fn refusing_turns_new_connections_away_and_keeps_open_ones() {
    let (_server, proxy) = proxied();
    let mut open = client(proxy.address());
    assert_eq!(open.command(&["PING"]).expect("it answers").text(), "PONG");

    proxy.refuse();
    let refused = RawConnection::tcp(proxy.address(), LONG).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(open.command(&["PING"]).expect("it answers").text(), "PONG");
    proxy.pass();
    assert_eq!(client(proxy.address()).command(&["PING"]).expect("it answers").text(), "PONG");
}

#[test]
fn shredded_replies_arrive_whole() {
    let (server, proxy) = proxied();
    let (mut client, value) = client_of_a_value(&server, &proxy, 100_000);
    proxy.shred_replies(500);
    assert_eq!(client.command(&["GET", "key"]).expect("it answers"), value);
}

#[test]
fn a_dead_server_resets_its_clients() {
    let (mut server, proxy) = proxied();
    server.kill9();
    let answer = RawConnection::tcp(proxy.address(), LONG).and_then(|mut client| client.command(&["PING"]));
    let error = answer.expect_err("nobody is behind it");
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error:?}");
}

#[test]
fn a_dropped_proxy_closes_its_connections() {
    let (server, proxy) = proxied();
    let mut client = client(proxy.address());
    assert_eq!(client.command(&["PING"]).expect("it answers").text(), "PONG");
    let address = proxy.address();
    drop(proxy);
    assert!(client.read().is_err());
    assert!(RawConnection::tcp(address, LONG).is_err());
    until("the server has lost it too", LONG, || (server.connections() == 0).then_some(()));
}
