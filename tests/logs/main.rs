//! What the libraries underneath write to the `log` crate, whose one logger is the whole process's: so this is a
//! test binary of its own.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use arshai::backends::http::UreqTransport;
use arshai::http::{HttpRequest, HttpTransport};
use arshai::{BuildContext, Config};
use arshai_test_support::TlsServer;
use bytes::Bytes;

const SENTINEL: &str = "sk-sentinel";

/// Keeps every record.
struct Kept(Arc<Mutex<String>>);

impl log::Log for Kept {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}\n", record.target(), record.args());
        self.0.lock().expect("nobody panics with it").push_str(&line);
    }

    fn flush(&self) {}
}

/// The URL of a server that answers one request with an empty success.
fn answering_once() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client comes");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).expect("a request comes");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("it is there");
    });
    url
}

#[tokio::test]
async fn no_record_holds_a_key_a_header_or_a_query() {
    let records = Arc::new(Mutex::new(String::new()));
    log::set_boxed_logger(Box::new(Kept(Arc::clone(&records)))).expect("the only logger");
    log::set_max_level(log::LevelFilter::Debug);
    let transport = UreqTransport::from_context(&BuildContext::new(Config::default())).expect("the defaults");
    let untrusted = TlsServer::start();
    for (url, is_answered) in [(answering_once(), true), (untrusted.url(), false)] {
        let request = http::Request::post(format!("{url}/v1?key={SENTINEL}"))
            .header("authorization", format!("Bearer {SENTINEL}"))
            .header("x-api-key", SENTINEL)
            .body(Bytes::from(SENTINEL))
            .expect("a URL");
        assert_eq!(transport.send(HttpRequest::new(request)).await.is_ok(), is_answered);
    }
    let records = records.lock().expect("nobody panics with it");
    assert!(records.contains("ureq::run POST http"), "the library writes of both requests: {records}");
    assert!(!records.contains(SENTINEL), "{records}");
}
