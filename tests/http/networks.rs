//! Certificates, proxies and hosts over plain `http`.

use arshai::{ErrorKind, Outcome};

use crate::support::*;
use crate::tls_server::{Authority, Listener, ProxyServer};

/// Too long for a label: no resolver is asked.
fn unresolvable_host() -> String {
    format!("{}.invalid", "a".repeat(64))
}

fn https(server: &Listener) -> String {
    format!("https://localhost:{}/", server.address.port())
}

over_each_transport! {

#[tokio::test]
async fn a_server_of_a_private_authority_is_trusted_with_ca_file() {
    let authority = Authority::new();
    let server = authority.serve("localhost", false);
    let distrusting = transport(|_| ());
    let error = fetch(&*distrusting, get(&https(&server))).await.expect_err("unknown authority");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Transport, Outcome::NotSent), "{error}");
    assert!(error.message().contains("http.ca_file"), "it says what to do: {error}");
    assert!(!error.is_retryable());
    let trusting = transport(|config| config.http.ca_file = Some(authority.file("ca.pem")));
    for _ in 0..2 {
        assert_eq!(fetch(&*trusting, get(&https(&server))).await.expect("trusted"), "hello");
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_rejected_whoever_issued_it() {
    let authority = Authority::new();
    let server = authority.serve("other.internal", false);
    let transport = transport(|config| config.http.ca_file = Some(authority.file("ca.pem")));
    let error = fetch(&*transport, get(&https(&server))).await.expect_err("another name");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Transport, Outcome::NotSent), "{error}");
    assert!(error.message().contains("not valid for this host"), "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_gets_it_or_the_error_says_so() {
    let authority = Authority::new();
    let server = authority.serve("localhost", true);
    authority.issue("client", "client.internal");
    let without = transport(|config| config.http.ca_file = Some(authority.file("ca.pem")));
    let error = fetch(&*without, get(&https(&server))).await.expect_err("no certificate");
    assert_eq!(error.kind(), ErrorKind::Transport, "{error:?}");
    assert!(error.message().contains("http.client_cert"), "it says what to do: {error:?}");
    assert!(!error.is_retryable());
    let with = transport(|config| {
        config.http.ca_file = Some(authority.file("ca.pem"));
        config.http.client_cert = Some(authority.file("client.pem"));
        config.http.client_key = Some(authority.file("client.key"));
    });
    assert_eq!(fetch(&*with, get(&https(&server))).await.expect("accepted"), "hello");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_names_its_setting_when_the_transport_is_built() {
    let authority = Authority::new();
    authority.issue("client", "client.internal");
    let client = authority.file("client.pem");
    authority.issue("other", "client.internal");
    let files = |ca: Option<&str>, cert: Option<String>, key: Option<String>| {
        config(|config| {
            config.http.ca_file = ca.map(str::to_owned);
            (config.http.client_cert, config.http.client_key) = (cert, key);
        })
    };
    for (config, setting) in [
        (files(Some("/nonexistent.pem"), None, None), "http.ca_file: /nonexistent.pem"),
        (files(Some(&authority.file("client.key")), None, None), "http.ca_file"),
        (files(None, Some(client.clone()), None), "http.client_cert needs http.client_key"),
        (files(None, None, Some(authority.file("client.key"))), "http.client_key needs http.client_cert"),
        (files(None, Some(client.clone()), Some(client.clone())), "http.client_key"),
        (files(None, Some(client.clone()), Some(authority.file("other.key"))), "not the key of http.client_cert"),
    ] {
        let error = build(config).expect_err(setting);
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.message().contains(setting), "{setting}: {error}");
    }
}

#[tokio::test]
async fn a_host_with_several_addresses_is_reached_at_any_of_them() {
    // `localhost` is ::1 too where the system has IPv6, and the server is not there.
    let server = Listener::plain();
    let url = format!("http://localhost:{}/", server.address.port());
    assert_eq!(fetch(&*transport(|_| ()), get(&url)).await.expect("one of them"), "hello");
}

#[tokio::test]
async fn https_goes_through_the_proxy_in_a_tunnel_with_its_credentials() {
    let authority = Authority::new();
    let server = authority.serve("models.test", false);
    // user:p@ss
    let proxy = ProxyServer::start(server.address, Some("Basic dXNlcjpwQHNz"));
    let transport = transport(|config| {
        config.http.ca_file = Some(authority.file("ca.pem"));
        config.http.proxy = Some(proxy.url("user:p%40ss@").into());
    });
    for _ in 0..2 {
        assert_eq!(fetch(&*transport, get("https://models.test/v1")).await.expect("a tunnel"), "hello");
    }
    let heads = proxy.heads();
    assert_eq!(heads.len(), 1, "the tunnel is reused: {heads:?}");
    assert!(heads[0].starts_with("CONNECT models.test:443 HTTP/1.1\r\n"), "{heads:?}");
}

#[tokio::test]
async fn plain_http_goes_through_the_proxy_too() {
    let server = Listener::plain();
    let proxy = ProxyServer::start(server.address, None);
    let transport = transport(|config| {
        config.http.insecure_hosts = vec!["models.test:8000".into()];
        config.http.proxy = Some(proxy.url("").into());
    });
    assert_eq!(fetch(&*transport, get("http://models.test:8000/v1")).await.expect("a response"), "hello");
    let heads = proxy.heads();
    assert!(heads[0].contains("models.test:8000"), "{heads:?}");
    let error = fetch(&*transport, get("http://models.test/v1")).await.expect_err("another port");
    assert_eq!((error.kind(), proxy.heads().len()), (ErrorKind::InvalidInput, 1), "{error}");
}

#[tokio::test]
async fn a_proxy_that_wants_credentials_says_so_and_what_to_do() {
    let server = Listener::plain();
    let proxy = ProxyServer::start(server.address, Some("Basic dXNlcjpwQHNz"));
    for (credentials, says) in [("", "requires a user and password"), ("user:hunter2@", "rejected the user")] {
        let transport = transport(|config| {
            config.http.insecure_hosts = vec!["*".into()];
            config.http.proxy = Some(proxy.url(credentials).into());
        });
        for url in ["https://models.test/v1", "http://models.test/v1"] {
            let error = fetch(&*transport, get(url)).await.expect_err("407");
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Authentication, Outcome::NotSent), "{error:?}");
            assert!(error.message().contains(says) && error.message().contains("407"), "{error}");
            assert!(!error.is_retryable() && !everything(&error).contains("hunter2"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn loopback_and_the_hosts_of_no_proxy_are_reached_without_the_proxy() {
    let server = Listener::plain();
    let proxy = ProxyServer::start(server.address, Some("never"));
    let transport = transport(|config| {
        config.http.proxy = Some(proxy.url("").into());
        config.http.no_proxy = vec![".invalid".into()];
    });
    let loopback = format!("http://{}/", server.address);
    assert_eq!(fetch(&*transport, get(&loopback)).await.expect("directly"), "hello");
    let url = format!("https://{}/", unresolvable_host());
    let error = fetch(&*transport, get(&url)).await.expect_err("it is looked up, and does not exist");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(proxy.heads().is_empty(), "{:?}", proxy.heads());
}

#[tokio::test]
async fn a_proxy_that_is_down_is_unavailable_and_nothing_was_sent() {
    let down = Listener::plain().address;
    let transport = transport(|config| {
        config.http.proxy = Some(format!("http://user:hunter2@{down}").into());
        config.http.connect_timeout = LONG;
    });
    // The listener's thread has ended, or ends when it accepts this connection.
    let error = fetch(&*transport, get("https://models.test/v1")).await.expect_err("it is down");
    assert_eq!(error.outcome(), Outcome::NotSent, "{error:?}");
    assert!(error.is_retryable() && !everything(&error).contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn an_insecure_host_may_name_a_port_and_an_invalid_one_is_refused_when_the_transport_is_built() {
    let host = unresolvable_host();
    let transport = transport(|config| config.http.insecure_hosts = vec![format!("{host}:8000")]);
    let error = fetch(&*transport, get(&format!("http://{host}:8000/"))).await.expect_err("no such host");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "it was allowed: {error}");
    let error = fetch(&*transport, get(&format!("http://{host}:8001/"))).await.expect_err("another port");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    for (hosts, setting) in [("http://models.internal", "http.insecure_hosts"), ("a b", "http.no_proxy")] {
        let config = config(|config| match setting {
            "http.no_proxy" => config.http.no_proxy = vec![hosts.into()],
            _ => config.http.insecure_hosts = vec![hosts.into()],
        });
        let error = build(config).expect_err("not a host");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(setting) && error.message().contains(hosts), "{error}");
    }
}

}
