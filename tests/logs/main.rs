//! Records that dependencies write to the `log` crate. Its logger is global to the process, hence a separate test
//! binary.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use arshai::backends::http::UreqTransport;
use arshai::http::{HttpRequest, HttpTransport};
use arshai::{BuildContext, Config};
use arshai_test_support::TlsServer;
use bytes::Bytes;

const SENTINEL: &str = "sk-sentinel";

/// Collects every record.
struct Collector(Arc<Mutex<String>>);

impl log::Log for Collector {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}\n", record.target(), record.args());
        self.0.lock().expect("not poisoned").push_str(&line);
    }

    fn flush(&self) {}
}

/// The URL of a server that responds to one request with an empty 200.
fn responding_once() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).expect("a request");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("the client waits");
    });
    url
}

#[tokio::test]
async fn no_record_holds_a_key_a_header_or_a_query() {
    let records = Arc::new(Mutex::new(String::new()));
    log::set_boxed_logger(Box::new(Collector(Arc::clone(&records)))).expect("the only logger");
    log::set_max_level(log::LevelFilter::Debug);
    let transport =
        UreqTransport::from_context(&BuildContext::new(Config::default())).expect("valid settings");
    let untrusted = TlsServer::start();
    for (url, succeeds) in [(responding_once(), true), (untrusted.url(), false)] {
        let request = http::Request::post(format!("{url}/v1?key={SENTINEL}"))
            .header("authorization", format!("Bearer {SENTINEL}"))
            .header("x-api-key", SENTINEL)
            .body(Bytes::from(SENTINEL))
            .expect("a URL");
        assert_eq!(transport.send(HttpRequest::new(request)).await.is_ok(), succeeds);
    }
    let records = records.lock().expect("not poisoned");
    assert!(records.contains("ureq::run POST http"), "ureq logs requests: {records}");
    assert!(!records.contains(SENTINEL), "{records}");
}
