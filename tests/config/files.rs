//! Configuration files: three formats, and everything that can be wrong with one.

use std::path::PathBuf;

use arshai::Config;
use arshai::config::ConfigLoader;

use super::{problems, vars};

const TOML: &str = "cleanup_interval = 60\n\n[memory]\nmax_entries = 77\nbackend = \"theirs\"\n\n[llm.openai]\nbase_url = \"https://models.example.com/v1\"\n\n[mcp]\nenabled = true\nservers = [{ name = \"search\", url = \"https://mcp.example.com\", timeout = 5 }]\n";
const YAML: &str = "cleanup_interval: 60\nmemory:\n  max_entries: 77\n  backend: theirs\nllm:\n  openai:\n    base_url: https://models.example.com/v1\nmcp:\n  enabled: true\n  servers:\n    - name: search\n      url: https://mcp.example.com\n      timeout: 5\n";
const JSON: &str = r#"{"cleanup_interval": 60,
 "memory": {"max_entries": 77, "backend": "theirs"},
 "llm": {"openai": {"base_url": "https://models.example.com/v1"}},
 "mcp": {"enabled": true, "servers": [{"name": "search", "url": "https://mcp.example.com", "timeout": 5}]}}"#;

struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(name: &str, text: &str) -> File {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("written");
    File { _folder: folder, path }
}

fn load(name: &str, text: &str) -> arshai::Result<Config> {
    ConfigLoader::new().file(&file(name, text).path).load()
}

#[test]
fn the_three_formats_say_the_same() {
    let values = |name, text| {
        let config = load(name, text).expect(name);
        assert_eq!(config.mcp.servers[0].timeout.as_secs(), 5);
        config.explain().values.into_iter().map(|value| (value.key, value.value)).collect::<Vec<_>>()
    };
    let toml = values("a.toml", TOML);
    assert!(
        toml.contains(&("memory.max_entries", "77".into()))
            && toml.contains(&("cleanup_interval", "60 s".into()))
    );
    assert_eq!(toml, values("a.yaml", YAML));
    assert_eq!(toml, values("a.yml", YAML));
    assert_eq!(toml, values("a.json", JSON));
}

#[test]
fn explain_says_which_line_a_value_stands_on() {
    for (name, text, line) in [("a.toml", TOML, 4), ("a.yaml", YAML, 3), ("a.json", JSON, 2)] {
        let explained = load(name, text).expect(name).explain();
        let source = explained.get("memory.max_entries").expect("explained").source.to_string();
        assert!(source.ends_with(&format!("{name}:{line}")), "{source}");
    }
}

#[test]
fn arshai_config_names_the_file_and_a_variable_beats_it() {
    let file = file("service.toml", TOML);
    let path = file.path.to_str().expect("UTF-8");
    let config =
        Config::from_vars(vars([("ARSHAI_CONFIG", path), ("ARSHAI_CLEANUP_INTERVAL", "5")])).expect("valid");
    assert_eq!(config.memory.max_entries, 77);
    assert_eq!(config.cleanup_interval.as_secs(), 5);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = folder.path().join("missing.toml");
    let directory = folder.path().join("folder.toml");
    std::fs::create_dir(&directory).expect("created");
    let not_text = folder.path().join("binary.toml");
    std::fs::write(&not_text, [0xff, 0xfe, 0x00]).expect("written");
    for path in [missing, directory, not_text] {
        let problems = problems(ConfigLoader::new().file(&path).load());
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].place, path.display().to_string());
        assert!(problems[0].expected.contains("cannot be read"), "{}", problems[0]);
    }
}

#[test]
fn a_malformed_file_is_an_error_in_every_format() {
    for (name, text) in [
        ("a.toml", "[memory\nmax_entries = 1"),
        ("a.yaml", "memory: [1, 2\nb: }"),
        ("a.json", "{\"memory\": "),
        ("a.ini", "memory=1"),
    ] {
        let problems = problems(load(name, text));
        assert_eq!(problems.len(), 1, "{name}");
        assert!(problems[0].place.ends_with(name), "{}", problems[0]);
    }
}

#[test]
fn a_malformed_file_is_not_repeated_since_it_may_hold_secrets() {
    for (name, text) in [
        ("a.toml", "[llm.openai]\napi_key = sk-sentinel\n"),
        ("b.toml", "# sentinel\nx = \"sentinel | sentinel\n"),
        ("a.yaml", "sk-sentinel"),
        ("b.yaml", "llm: {openai: {api_key: 'sk-sentinel}}"),
        ("a.json", "\"sk-sentinel\""),
        ("b.json", "{\"a\": sk-sentinel}"),
    ] {
        let error = load(name, text).expect_err(name);
        assert!(!format!("{error} {error:?}").contains("sentinel"), "{error}");
        assert!(error.to_string().contains("is not valid"), "{error}");
    }
    assert!(load("a.toml", "[memory]\nttl = 5 5").expect_err("malformed").to_string().contains("line 2"));
}

#[test]
fn an_empty_section_changes_nothing() {
    for (name, text) in [("a.toml", "[memory]\n"), ("a.yaml", "memory:\n"), ("a.json", "{\"memory\": null}")]
    {
        assert_eq!(load(name, text).expect(name).explain(), Config::default().explain());
    }
}

#[test]
fn an_empty_file_changes_nothing() {
    for name in ["a.toml", "a.yaml"] {
        assert_eq!(load(name, "").expect(name).explain(), Config::default().explain());
    }
}

#[test]
fn unknown_keys_are_errors_with_the_nearest_key_and_the_line() {
    let problems = problems(load("a.toml", "[memory]\nmax_entires = 5\nttl = 9\n[memroy]\nttl = 5\n"));
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(problems[0].name, "memory.max_entires");
    assert!(problems[0].expected.contains("did you mean memory.max_entries?"), "{}", problems[0]);
    assert!(problems[0].place.ends_with("a.toml:2"), "{}", problems[0]);
    assert!(problems[1].expected.contains("did you mean memory"), "{}", problems[1]);
}

#[test]
fn values_of_the_wrong_type_are_errors_that_show_what_was_found() {
    let text = "memory = 5\n[tasks]\nmax_concurrency = \"500\"\ntimeout = -1\n[rollback]\nuse_legacy_memory = 1\n[pool]\nmax_connections = 2.5\n";
    let found: Vec<_> =
        problems(load("a.toml", text)).into_iter().map(|problem| (problem.name, problem.found)).collect();
    let expected = [
        ("memory", None),
        ("pool.max_connections", Some("2.5")),
        ("rollback.use_legacy_memory", Some("1")),
        ("tasks.max_concurrency", Some("\"500\"")),
        ("tasks.timeout", Some("-1")),
    ];
    assert_eq!(found, expected.map(|(name, found)| (name.to_owned(), found.map(str::to_owned))));
}

#[test]
fn text_in_a_file_must_not_be_empty() {
    let problems = problems(load("a.toml", "[memory]\nbackend = \"\"\n[llm.openai]\napi_key = \" \"\n"));
    let names: Vec<_> = problems.iter().map(|problem| problem.name.as_str()).collect();
    assert_eq!(names, ["llm.openai.api_key", "memory.backend"]);
}

fn load_server(server: &str) -> arshai::Result<Config> {
    load("a.toml", &format!("[mcp]\nenabled = true\nconnection_timeout = 7\nservers = [{server}]\n"))
}

#[test]
fn what_is_wrong_with_an_mcp_server_is_named() {
    for (server, name) in [
        ("{ url = \"https://a\" }", "mcp.servers[0].name"),
        ("{ name = \" \", url = \"https://a\" }", "mcp.servers[0].name"),
        ("{ name = \"a\" }", "mcp.servers[0]"),
        ("{ name = \"a\", url = \"https://a\", command = \"b\" }", "mcp.servers[0]"),
        ("{ name = \"a\", url = \"https://a\", tiemout = 3 }", "mcp.servers[0].tiemout"),
        ("{ name = \"a\", url = \"https://a\", timeout = 0 }", "mcp.servers[0].timeout"),
        ("{ name = \"a\", url = \"https://a\", max_retries = -1 }", "mcp.servers[0].max_retries"),
        ("{ name = \"a\", url = \"ftp://a\" }", "mcp.servers[0].url"),
        ("{ name = \"a\", command = \"b\", env = { A = 1 } }", "mcp.servers[0].env"),
        ("{ name = \"a\", command = \"b\", args = \"-v\" }", "mcp.servers[0].args"),
        ("{ name = \"a\", command = \"b\" }, 5", "mcp.servers[1]"),
        ("{ name = \"a\", command = \"b\" }, { name = \"a\", command = \"c\" }", "mcp.servers"),
        ("", "mcp.servers"),
    ] {
        assert_eq!(problems(load_server(server))[0].name, name, "{server}");
    }
}

#[test]
fn an_mcp_server_is_reached_by_url_or_started_by_command() {
    let config = load_server(
        "{ name = \"a\", command = \"mcp-server\", args = [\"-v\"], env = { TOKEN = \"x\" } }, \
         { name = \"b\", url = \"https://b\", timeout = 5, max_retries = 0 }",
    );
    let servers = config.expect("valid").mcp.servers;
    assert_eq!(servers[0].args, ["-v"]);
    assert_eq!((servers[0].timeout.as_secs(), servers[1].timeout.as_secs()), (7, 5));
    assert_eq!((servers[0].max_retries, servers[1].max_retries), (None, Some(0)));
}
