//! Section 4 of the document that started the project (MCP server connection management), and the configuration and the
//! errors of Python arshai's manager: the same dictionary, the same methods, the same conditions under which it refuses.

use std::time::{Duration, Instant};

use arshai::config::ConfigLoader;
use arshai::mcp::{McpCall, McpServerHealth};
use arshai::{Config, Deadline, ErrorKind, Result};
use serde_json::{Value, json};

use crate::support::{arguments, connected, python, runtime_with, soon};

/// Python's dictionary, with one server's URL.
fn dictionary(url: &str) -> Value {
    json!({ "mcp": {
        "enabled": true, "connection_timeout": 30, "default_max_retries": 3,
        "servers": [{ "name": "taloan", "url": url, "timeout": 20, "max_retries": 2, "description": "Loans" }],
    } })
}

/// Loads the dictionary from a file of the format that `extension` names.
fn load(extension: &str, text: &str, url: Option<&str>) -> Result<Config> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(format!("config.{extension}"));
    std::fs::write(&path, text).expect("it is written");
    let variables = url.map(|url| ("MCP_SERVER_URL".into(), url.into()));
    ConfigLoader::new().vars(variables).file(&path).load()
}

#[test]
fn the_dictionary_of_python_is_read_from_json_yaml_and_toml() {
    let json = dictionary("https://mcp.example.com/mcp/").to_string();
    let yaml = "mcp:\n  enabled: true\n  connection_timeout: 30\n  default_max_retries: 3\n  servers:\n    - name: taloan\n      \
                url: https://mcp.example.com/mcp/\n      timeout: 20\n      max_retries: 2\n      description: Loans\n";
    let toml = "[mcp]\nenabled = true\nconnection_timeout = 30\ndefault_max_retries = 3\n[[mcp.servers]]\n\
                name = \"taloan\"\nurl = \"https://mcp.example.com/mcp/\"\ntimeout = 20\nmax_retries = 2\n\
                description = \"Loans\"\n";
    for (extension, text) in [("json", json.as_str()), ("yaml", yaml), ("toml", toml)] {
        let mcp = load(extension, text, None).unwrap_or_else(|error| panic!("{extension}: {error}")).mcp;
        assert!(mcp.enabled);
        assert_eq!((mcp.connection_timeout, mcp.default_max_retries), (Duration::from_secs(30), 3));
        let server = &mcp.servers[0];
        assert_eq!(server.name, "taloan");
        assert_eq!(server.url.as_deref(), Some("https://mcp.example.com/mcp/"));
        assert_eq!((server.timeout, server.max_retries), (Duration::from_secs(20), Some(2)));
        assert_eq!(server.description.as_deref(), Some("Loans"));
    }
}

#[test]
fn keys_of_pythons_connection_pools_are_warned_about_and_change_nothing() {
    let mut dictionary = dictionary("https://mcp.example.com/mcp");
    dictionary["mcp"]["servers"][0]["max_connections"] = 10.into();
    let config = load("json", &dictionary.to_string(), None).expect("a warning is no error");
    assert!(config.warnings()[0].contains("mcp.servers[0].max_connections"), "{:?}", config.warnings());
}

#[test]
fn a_server_takes_the_timeout_and_the_retries_of_the_section_where_it_has_none() {
    let text = r#"{"mcp": {"enabled": true, "connection_timeout": 7, "servers": [{"name": "a", "url": "https://a"}]}}"#;
    let mcp = load("json", text, None).expect("it is valid").mcp;
    assert_eq!(mcp.servers[0].timeout, Duration::from_secs(7));
    assert_eq!((mcp.servers[0].max_retries, mcp.default_max_retries), (None, 3));
}

#[test]
fn the_variable_is_the_server_named_default_where_none_is_listed() {
    let text = r#"{"mcp": {"enabled": true, "servers": []}}"#;
    let mcp = load("json", text, Some("https://mcp.example.com/mcp")).expect("it is valid").mcp;
    assert_eq!(mcp.servers.len(), 1);
    assert_eq!(mcp.servers[0].name, "default");
    let listed = dictionary("https://other.example.com/mcp").to_string();
    let mcp = load("json", &listed, Some("https://mcp.example.com/mcp")).expect("it is valid").mcp;
    assert_eq!(mcp.servers[0].name, "taloan");
}

/// What Python says, and the words of ours that say the same and where.
#[test]
fn what_python_refuses_is_refused_with_the_key_and_what_is_expected() {
    for (pythons, change, words) in [
        (
            "Server name is required and cannot be empty",
            json!({"name": " "}),
            ["mcp.servers[0].name", "non-empty"],
        ),
        ("Invalid URL format for MCP server", json!({"url": "ftp://a"}), ["mcp.servers[0].url", "http"]),
        ("URL is required for MCP server", json!({"url": " "}), ["mcp.servers[0].url", "URL"]),
        (
            "Timeout must be positive for server",
            json!({"timeout": 0}),
            ["mcp.servers[0].timeout", "at least 1"],
        ),
        (
            "Timeout must be positive for server",
            json!({"timeout": -5}),
            ["mcp.servers[0].timeout", "at least 1"],
        ),
        (
            "Max retries cannot be negative",
            json!({"max_retries": -1}),
            ["mcp.servers[0].max_retries", "from 0"],
        ),
    ] {
        let mut dictionary = dictionary("https://mcp.example.com/mcp");
        for (key, value) in change.as_object().expect("an object") {
            dictionary["mcp"]["servers"][0][key] = value.clone();
        }
        let error = load("json", &dictionary.to_string(), None).expect_err(pythons);
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{pythons}: {text}");
    }
}

#[test]
fn duplicate_names_missing_fields_and_no_servers_are_refused() {
    let server = json!({"name": "twice", "url": "https://a"});
    for (pythons, servers, words) in [
        ("Duplicate server names found: twice", json!([server, server]), ["duplicate", "twice"]),
        (
            "Missing required field in server configuration",
            json!([{"url": "https://a"}]),
            ["servers[0].name", "name"],
        ),
        ("Missing required field in server configuration", json!([{"name": "a"}]), ["servers[0]", "`url`"]),
        ("Server configuration must be a dictionary", json!(["https://a"]), ["servers[0]", "table"]),
        ("At least one MCP server must be configured", json!([]), ["mcp.enabled", "MCP_SERVER_URL"]),
    ] {
        let text = json!({"mcp": {"enabled": true, "servers": servers}}).to_string();
        let text = load("json", &text, None).expect_err(pythons).to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{pythons}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn original_usage_of_the_manager_works_as_it_did() {
    let (runtime, manager) = connected([python("python")]).await;
    assert!(manager.is_enabled());
    let tools = serde_json::to_value(manager.get_all_available_tools()).expect("they are JSON");
    let add =
        tools.as_array().expect("a list").iter().find(|tool| tool["name"] == "add").expect("it is there");
    assert_eq!(add["description"], "Adds two numbers.");
    assert_eq!(add["inputSchema"]["type"], "object");
    assert_eq!((&add["server_name"], &add["server_url"]), (&json!("python"), &Value::Null));
    let call = McpCall::new("python", "add").with_arguments(arguments(json!({"a": 2, "b": 3})));
    // Python's `call_tool` returns the first text.
    assert_eq!(manager.call_tool(call).await.expect("it adds").first_text(), Some("5"));
    let health = serde_json::to_value(manager.health_check(soon()).await).expect("it is JSON");
    assert_eq!(health[0]["health"], "healthy");
    assert_eq!(manager.connected_servers(), ["python"]);
    assert!(manager.failed_servers().is_empty());
    runtime.shutdown(soon()).await;
    assert!(manager.connected_servers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_attempt_hangs_and_a_failed_one_says_why() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("bound"));
    let mut hanging = arshai::config::McpServerConfig::http("hanging", url);
    hanging.max_retries = Some(1);
    let runtime =
        runtime_with([hanging], |config| config.mcp.connection_timeout = Duration::from_millis(600));
    let manager = runtime.mcp().expect("compiled in");
    let began = Instant::now();
    manager.initialize(soon()).await.expect("it is not required");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let failed = manager.failed_servers();
    assert_eq!((failed[0].name.as_str(), failed[0].health), ("hanging", McpServerHealth::Error));
    let reason = failed[0].error.as_deref().unwrap_or_default();
    assert!(reason.contains("timed out"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_is_not_enabled_has_no_servers_and_says_so() {
    let runtime = runtime_with([python("python")], |config| config.mcp.enabled = false);
    let manager = runtime.mcp().expect("compiled in");
    assert!(!manager.is_enabled());
    manager.initialize(Deadline::after(Duration::from_secs(5))).await.expect("nothing to do");
    assert!(manager.get_all_available_tools().is_empty());
    let unknown = manager.call_tool(McpCall::new("python", "add")).await.expect_err("there is none");
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    // Python: "Unknown MCP server: 'python'".
    assert!(unknown.to_string().contains("unknown MCP server \"python\""), "{unknown}");
}
