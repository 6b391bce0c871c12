//! Servers that want authorization: client credentials, a user's authorization, renewal, and no loop on 401.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arshai::config::{ConfigLoader, McpAuth, McpSigningAlgorithm};
use arshai::mcp::{InMemoryMcpCredentials, McpCall, McpCredentialStore, McpServerHealth};
use arshai::{Deadline, ErrorKind, Outcome};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use serde_json::json;

use crate::scripted::{Reply, Request, Scripted, reply, text};
use crate::support::{connected, connected_with_store, soon};

/// An MCP server that is its own authorization server. Tokens are `token-N`; `valid` says which are accepted.
fn protected(
    expires_in: u64,
    valid: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> (Scripted, Arc<AtomicUsize>) {
    let issued = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&issued);
    let server = Scripted::start("protected", move |request, _| {
        let origin = format!("http://{}", request.header("host").expect("a host"));
        match request.path.as_str() {
            "/mcp" => match request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")) {
                Some(token) if valid(token) => Reply::Well,
                _ => Reply::Now(challenge(&origin)),
            },
            "/metadata" => Reply::Now(
                Json(json!({"resource": format!("{origin}/mcp"), "authorization_servers": [origin]}))
                    .into_response(),
            ),
            "/.well-known/oauth-authorization-server" => Reply::Now(
                Json(json!({
                    "issuer": origin, "authorization_endpoint": format!("{origin}/authorize"),
                    "token_endpoint": format!("{origin}/token"),
                    "registration_endpoint": format!("{origin}/register"),
                    "response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"],
                    "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "none"],
                }))
                .into_response(),
            ),
            "/register" => Reply::Now(
                (StatusCode::CREATED, Json(json!({"client_id": "registered", "redirect_uris": ["http://127.0.0.1/cb"]})))
                    .into_response(),
            ),
            "/token" => {
                let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
                // Slow enough that whoever needs a token meanwhile has to wait for this one.
                let token = json!({"access_token": format!("token-{number}"), "token_type": "Bearer",
                    "expires_in": expires_in, "refresh_token": format!("refresh-{number}")});
                Reply::After(Duration::from_millis(100), Json(token).into_response())
            }
            _ => Reply::Now(StatusCode::NOT_FOUND.into_response()),
        }
    });
    (server, issued)
}

fn challenge(origin: &str) -> Response {
    let challenge = format!("Bearer resource_metadata=\"{origin}/metadata\", scope=\"tools\"");
    (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response()
}

fn form(request: &Request) -> HashMap<String, String> {
    let pairs = request.body.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn tokens(server: &Scripted) -> Vec<Request> {
    server.seen("POST").into_iter().filter(|request| request.path == "/token").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_credentials_are_exchanged_for_a_token_once_however_many_call() {
    let (server, issued) = protected(3_600, |_| true);
    let mut config = server.config.clone();
    config.auth = Some(McpAuth::ClientCredentials {
        client_id: "service".into(),
        client_secret: "hunter2".into(),
        scopes: vec!["tools".into()],
    });
    let (runtime, manager) = connected([config]).await;
    assert_eq!(manager.connected_servers(), ["protected"], "{:?}", manager.servers());
    let calls = (0..20).map(|_| manager.call_tool(McpCall::new("protected", "pay")));
    for result in futures_util::future::join_all(calls).await {
        assert_eq!(result.expect("authorized").first_text(), Some("done"));
    }
    assert_eq!(issued.load(Ordering::SeqCst), 1);
    let form = form(&tokens(&server)[0]);
    assert_eq!((form["grant_type"].as_str(), form["client_id"].as_str()), ("client_credentials", "service"));
    assert_eq!(form["scope"], "tools");
    let sent = runtime.http().expect("compiled in").stats().responses;
    assert_eq!(sent, server.answered(), "every request went over the runtime's own transport");
    let shown = format!("{:?} {:?} {:?}", runtime.config().explain(), manager.servers(), runtime.stats());
    assert!(!shown.contains("hunter2") && !shown.contains("token-1"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_key_signs_the_exchange_and_is_not_sent() {
    let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let (server, issued) = protected(3_600, |_| true);
    let mut config = server.config.clone();
    config.auth = Some(McpAuth::private_key_jwt("service", key.clone(), McpSigningAlgorithm::Es256));
    let (runtime, manager) = connected([config]).await;
    assert_eq!(manager.connected_servers(), ["protected"], "{:?}", manager.servers());
    manager.call_tool(McpCall::new("protected", "pay")).await.expect("authorized");
    assert_eq!(issued.load(Ordering::SeqCst), 1);
    let request = tokens(&server).remove(0);
    let form = form(&request);
    assert_eq!(form["grant_type"], "client_credentials");
    assert!(form["client_assertion_type"].ends_with("jwt-bearer"), "{form:?}");
    let claims = form["client_assertion"].split('.').nth(1).expect("a JWT");
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).expect("base64");
    let claims: serde_json::Value = serde_json::from_slice(&claims).expect("JSON");
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("service"), &json!("service")));
    assert_eq!(claims["aud"], server.origin, "the authorization server's issuer");
    let secret = key.lines().nth(1).expect("its body");
    let shown = format!("{:?} {:?} {:?}", runtime.config().explain(), manager.servers(), runtime.stats());
    assert!(!shown.contains(secret) && !request.body.contains(secret), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_key_that_is_none_needs_authorization_and_is_not_shown() {
    let (server, _) = protected(3_600, |_| true);
    let mut config = server.config.clone();
    config.auth = Some(McpAuth::private_key_jwt("service", "hunter2", McpSigningAlgorithm::Rs256));
    let (_runtime, manager) = connected([config]).await;
    let status = &manager.servers()[0];
    assert_eq!(status.health, McpServerHealth::NeedsAuthorization, "{status:?}");
    assert!(status.error.as_ref().is_some_and(|error| error.contains("key")), "{status:?}");
    assert!(!format!("{status:?}").contains("hunter2"), "{status:?}");
    assert!(tokens(&server).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_token_is_renewed_once_for_all_callers_and_the_rejected_calls_are_sent_again() {
    // The first token is rejected once the second was issued.
    let accepted = Arc::new(AtomicUsize::new(1));
    let newest = Arc::clone(&accepted);
    let valid = move |token: &str| token == format!("token-{}", newest.load(Ordering::SeqCst));
    let (server, issued) = protected(3_600, valid);
    let mut config = server.config.clone();
    config.auth = Some(McpAuth::client_credentials("service", "secret"));
    let (_runtime, manager) = connected([config]).await;
    accepted.store(2, Ordering::SeqCst);
    let calls = (0..10).map(|_| manager.call_tool(McpCall::new("protected", "pay")));
    for result in futures_util::future::join_all(calls).await {
        assert_eq!(result.expect("renewed").first_text(), Some("done"));
    }
    assert_eq!(issued.load(Ordering::SeqCst), 2, "one renewal at a time");
    assert_eq!(manager.servers()[0].connects, 1, "the connection stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_rejects_every_token_needs_authorization_and_is_asked_no_more() {
    let (server, issued) = protected(3_600, |_| false);
    let mut config = server.config.clone();
    config.auth = Some(McpAuth::client_credentials("service", "secret"));
    let (_runtime, manager) = connected([config]).await;
    let status = &manager.servers()[0];
    assert_eq!(status.health, McpServerHealth::NeedsAuthorization, "{status:?}");
    assert!(status.challenge.as_ref().is_some_and(|challenge| challenge.contains("resource_metadata")));
    assert_eq!(status.next_attempt, None);
    let (posts, exchanges) = (server.seen("server/discover").len(), issued.load(Ordering::SeqCst));
    assert_eq!((posts, exchanges), (2, 1), "once without a token and once with it");
    for _ in 0..3 {
        let error = manager.call_tool(McpCall::new("protected", "pay")).await.expect_err("not authorized");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Authentication, Outcome::NotSent), "{error}");
        assert!(error.to_string().contains("challenge"), "{error}");
    }
    assert_eq!(server.seen("server/discover").len(), posts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authorization_server_that_is_down_is_no_missing_authorization() {
    let server = Scripted::start("protected", |request, _| {
        let origin = format!("http://{}", request.header("host").expect("a host"));
        Reply::Now(match request.path.as_str() {
            "/mcp" => challenge(&origin),
            _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        })
    });
    let mut config = server.config.clone();
    config.auth = Some(McpAuth::client_credentials("service", "secret"));
    config.max_retries = Some(1);
    let (_runtime, manager) = connected([config]).await;
    let status = &manager.servers()[0];
    assert_eq!(status.health, McpServerHealth::Error, "{status:?}");
    assert!(status.next_attempt.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_the_authorization_server_refuses_needs_authorization() {
    let server = Scripted::start("protected", |request, _| {
        let origin = format!("http://{}", request.header("host").expect("a host"));
        Reply::Now(match request.path.as_str() {
            "/mcp" => challenge(&origin),
            "/token" => (StatusCode::UNAUTHORIZED, Json(json!({"error": "invalid_client"}))).into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        })
    });
    let mut config = server.config.clone();
    config.auth = Some(McpAuth::client_credentials("service", "hunter2"));
    let (_runtime, manager) = connected([config]).await;
    let status = &manager.servers()[0];
    assert_eq!(status.health, McpServerHealth::NeedsAuthorization, "{status:?}");
    assert!(status.error.as_ref().is_some_and(|error| error.contains("invalid_client")), "{status:?}");
    assert!(status.challenge.is_some() && !format!("{status:?}").contains("hunter2"), "{status:?}");
    assert_eq!(tokens(&server).len(), 1, "asked once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_authorizes_and_the_server_is_connected_then_and_after_a_restart() {
    let (server, issued) = protected(3_600, |token| token.starts_with("token-"));
    let mut config = server.config.clone();
    config.auth = Some(McpAuth::oauth());
    let store: Arc<dyn McpCredentialStore> = Arc::new(InMemoryMcpCredentials::default());
    let (_runtime, manager) = connected_with_store([config.clone()], Arc::clone(&store)).await;
    assert_eq!(manager.servers()[0].health, McpServerHealth::NeedsAuthorization, "{:?}", manager.servers());

    let url = manager
        .begin_authorization("protected", "http://127.0.0.1:1/callback", soon())
        .await
        .expect("the server registers clients");
    assert!(url.starts_with(&format!("{}/authorize?", server.origin)), "{url}");
    assert!(url.contains("client_id=registered") && url.contains("code_challenge_method=S256"), "{url}");
    assert!(url.contains("scope=tools"), "the scope of the challenge is asked for: {url}");
    let state = url.split("state=").nth(1).and_then(|rest| rest.split('&').next()).expect("a state");

    let forged =
        manager.complete_authorization("protected", "http://127.0.0.1:1/callback?code=x&state=y", soon());
    assert!(forged.await.is_err(), "a callback of another authorization");
    let callback = format!("http://127.0.0.1:1/callback?code=abc&state={state}");
    manager.complete_authorization("protected", &callback, soon()).await.expect("authorized and connected");
    assert_eq!(manager.servers()[0].health, McpServerHealth::Healthy, "{:?}", manager.servers());
    let form = form(&tokens(&server)[0]);
    assert_eq!((form["grant_type"].as_str(), form["code"].as_str()), ("authorization_code", "abc"));
    let done = manager.call_tool(McpCall::new("protected", "pay")).await.expect("authorized");
    assert_eq!(done.first_text(), Some("done"));

    let (_restarted, manager) = connected_with_store([config], store).await;
    assert_eq!(manager.servers()[0].health, McpServerHealth::Healthy, "{:?}", manager.servers());
    assert_eq!(issued.load(Ordering::SeqCst), 1, "the kept token is used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_for_users_that_is_a_script_a_file_or_a_program_is_not_opened() {
    for page in ["javascript:alert(1)", "file:///etc/passwd", "ms-settings:x", "data:text/html,x"] {
        let server = Scripted::start("protected", move |request, _| {
            let origin = format!("http://{}", request.header("host").expect("a host"));
            Reply::Now(match request.path.as_str() {
                "/mcp" => challenge(&origin),
                "/.well-known/oauth-authorization-server" => Json(json!({
                    "issuer": origin, "authorization_endpoint": page, "token_endpoint": format!("{origin}/token"),
                    "response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"],
                }))
                .into_response(),
                "/metadata" => {
                    Json(json!({"resource": format!("{origin}/mcp"), "authorization_servers": [origin]})).into_response()
                }
                _ => StatusCode::NOT_FOUND.into_response(),
            })
        });
        let mut config = server.config.clone();
        config.auth = Some(McpAuth::OAuth {
            client_id: Some("client".into()),
            client_secret: None,
            client_metadata_url: None,
            scopes: Vec::new(),
        });
        let (_runtime, manager) = connected([config]).await;
        let begun = manager.begin_authorization("protected", "http://127.0.0.1:1/cb", soon()).await;
        assert_eq!(begun.expect_err(page).kind(), ErrorKind::Authentication, "{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_is_refreshed_before_it_is_used() {
    // Without a life: renewed for every use.
    let (server, issued) = protected(0, |token| token.starts_with("token-"));
    let mut config = server.config.clone();
    config.auth = Some(McpAuth::oauth());
    let (_runtime, manager) = connected([config]).await;
    let begun =
        manager.begin_authorization("protected", "http://127.0.0.1:1/cb", soon()).await.expect("a URL");
    let state = begun.split("state=").nth(1).and_then(|rest| rest.split('&').next()).expect("a state");
    let callback = format!("http://127.0.0.1:1/cb?code=abc&state={state}");
    manager.complete_authorization("protected", &callback, soon()).await.expect("authorized");
    let before = issued.load(Ordering::SeqCst);
    manager.call_tool(McpCall::new("protected", "pay")).await.expect("refreshed");
    assert!(issued.load(Ordering::SeqCst) > before);
    let last = tokens(&server).pop().expect("there are some");
    assert_eq!(form(&last)["grant_type"], "refresh_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_own_token_that_is_rejected_concerns_that_call_alone() {
    let server = Scripted::start("server", |request, _| match request.header("authorization") {
        Some("Bearer stolen") => {
            Reply::Now((StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer")]).into_response())
        }
        Some(own) if request.method() == "tools/call" => Reply::Now(reply(request, text(own))),
        _ => Reply::Well,
    });
    let (_runtime, manager) = connected([server.config.clone()]).await;
    let stolen = manager.call_tool(McpCall::new("server", "pay").with_token("stolen".to_owned()));
    let error = stolen.await.expect_err("rejected");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Authentication, Outcome::Rejected), "{error}");
    let alice = manager.call_tool(McpCall::new("server", "pay").with_token("alice".to_owned())).await;
    assert_eq!(alice.expect("hers is good").first_text(), Some("Bearer alice"));
    let status = &manager.servers()[0];
    assert_eq!((status.health, status.connects), (McpServerHealth::Healthy, 1), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_that_one_tool_lacks_fails_that_call_and_is_asked_for_next() {
    let (inner, _) = protected(3_600, |_| true);
    let origin = inner.origin.clone();
    let server = Scripted::start("server", move |request, _| match request.method() {
        "tools/call" => {
            let challenge = format!(
                "Bearer error=\"insufficient_scope\", scope=\"admin\", resource_metadata=\"{origin}/metadata\""
            );
            Reply::Now((StatusCode::FORBIDDEN, [("www-authenticate", challenge)]).into_response())
        }
        _ => Reply::Well,
    });
    let (_runtime, manager) = connected([server.config.clone()]).await;
    let error = manager.call_tool(McpCall::new("server", "pay")).await.expect_err("not permitted");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Authentication, Outcome::Rejected), "{error}");
    assert!(error.to_string().contains("insufficient_scope"), "{error}");
    assert_eq!(manager.servers()[0].health, McpServerHealth::Healthy);
    let begun = manager.begin_authorization(
        "server",
        "http://127.0.0.1:1/cb",
        Deadline::after(Duration::from_secs(5)),
    );
    assert_eq!(begun.await.expect_err("not configured").kind(), ErrorKind::Unsupported);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_is_forbidden_without_a_challenge_fails_that_call_only() {
    let server = Scripted::start("server", |request, before| match request.method() {
        "tools/call" if before == 0 => Reply::Now(StatusCode::FORBIDDEN.into_response()),
        _ => Reply::Well,
    });
    let (_runtime, manager) = connected([server.config.clone()]).await;
    let error = manager.call_tool(McpCall::new("server", "pay")).await.expect_err("not permitted");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Authentication, Outcome::Rejected), "{error}");
    manager.call_tool(McpCall::new("server", "pay")).await.expect("another call is permitted");
    let status = &manager.servers()[0];
    assert_eq!((status.health, status.connects), (McpServerHealth::Healthy, 1), "{status:?}");
}

#[test]
fn auth_is_read_from_a_file_and_its_secrets_are_not_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let load = |auth: &str| {
        let path = folder.path().join("arshai.toml");
        let text = format!(
            "[mcp]\nenabled = true\n[[mcp.servers]]\nname = \"s\"\nurl = \"https://mcp.example.com\"\n{auth}\n"
        );
        std::fs::write(&path, text).expect("a file");
        ConfigLoader::new().file(path).load()
    };
    let config = load(
        "auth = { type = \"client_credentials\", client_id = \"a\", client_secret = \"hunter2\", scopes = [\"x\"] }",
    );
    let config = config.expect("valid");
    assert!(
        matches!(&config.mcp.servers[0].auth, Some(McpAuth::ClientCredentials { client_id, .. }) if client_id == "a")
    );
    assert!(!format!("{config:?} {}", config.explain()).contains("hunter2"));
    assert!(load("auth = { type = \"oauth\" }").is_ok());
    for (wrong, named) in [
        ("auth = { type = \"magic\" }", "auth.type"),
        ("auth = { type = \"client_credentials\", client_id = \"a\" }", "auth.client_secret"),
        ("auth = { type = \"oauth\", secret = \"hunter2\" }", "auth.secret"),
        (
            "auth = { type = \"private_key_jwt\", client_id = \"a\", private_key = \"hunter2\", algorithm = \"none\" }",
            "auth.algorithm",
        ),
        ("token = \"t\"\nauth = { type = \"oauth\" }", "auth"),
    ] {
        let error = load(wrong).expect_err(wrong).to_string();
        assert!(error.contains(named) && !error.contains("hunter2"), "{wrong}: {error}");
    }
}

#[tokio::test]
async fn a_store_of_the_application_is_asked_by_the_name_of_the_server() {
    let store = InMemoryMcpCredentials::default();
    store.save("a", "secret".to_owned().into()).await.expect("in memory");
    assert!(store.load("b").await.expect("in memory").is_none());
    assert!(!format!("{store:?}").contains("secret"));
    store.clear("a").await.expect("in memory");
    assert!(store.load("a").await.expect("in memory").is_none());
}
