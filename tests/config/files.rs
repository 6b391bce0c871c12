//! Configuration files: three formats, and everything that can be wrong with one.

use arshai::Config;
use arshai::config::ConfigLoader;

use super::{file, load_file, problems, vars};

const TOML: &str = "cleanup_interval = 60\n\n[memory]\nmax_entries = 77\nbackend = \"theirs\"\n\n[llm.openai]\nbase_url = \"https://models.example.com/v1\"\n\n[mcp]\nenabled = true\nservers = [{ name = \"search\", url = \"https://mcp.example.com\", timeout = 5 }]\n";
const YAML: &str = "cleanup_interval: 60\nmemory:\n  max_entries: 77\n  backend: theirs\nllm:\n  openai:\n    base_url: https://models.example.com/v1\nmcp:\n  enabled: true\n  servers:\n    - name: search\n      url: https://mcp.example.com\n      timeout: 5\n";
const JSON: &str = r#"{"cleanup_interval": 60,
 "memory": {"max_entries": 77, "backend": "theirs"},
 "llm": {"openai": {"base_url": "https://models.example.com/v1"}},
 "mcp": {"enabled": true, "servers": [{"name": "search", "url": "https://mcp.example.com", "timeout": 5}]}}"#;

#[test]
fn the_three_formats_say_the_same() {
    let values = |name, text| {
        let config = load_file(name, text).expect(name);
        assert_eq!(config.mcp.servers[0].timeout.as_secs(), 5);
        config.explain().values.into_iter().map(|value| (value.key, value.value)).collect::<Vec<_>>()
    };
    let toml = values("a.toml", TOML);
    assert!(
        toml.contains(&("memory.max_entries".into(), "77".into()))
            && toml.contains(&("cleanup_interval".into(), "60 s".into()))
    );
    assert_eq!(toml, values("a.yaml", YAML));
    assert_eq!(toml, values("a.yml", YAML));
    assert_eq!(toml, values("a.json", JSON));
}

#[test]
fn explain_says_which_line_a_value_stands_on() {
    for (name, text, line) in [("a.toml", TOML, 4), ("a.yaml", YAML, 3), ("a.json", JSON, 2)] {
        let explained = load_file(name, text).expect(name).explain();
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
        assert_eq!(problems[0].location, path.display().to_string());
        assert!(problems[0].expected.contains("cannot read file"), "{}", problems[0]);
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
        let problems = problems(load_file(name, text));
        assert_eq!(problems.len(), 1, "{name}");
        assert!(problems[0].location.ends_with(name), "{}", problems[0]);
    }
}

#[test]
fn an_empty_section_changes_nothing() {
    for (name, text) in [("a.toml", "[memory]\n"), ("a.yaml", "memory:\n"), ("a.json", "{\"memory\": null}")]
    {
        assert_eq!(load_file(name, text).expect(name).explain(), Config::default().explain());
    }
}

#[test]
fn an_empty_file_changes_nothing() {
    for name in ["a.toml", "a.yaml"] {
        assert_eq!(load_file(name, "").expect(name).explain(), Config::default().explain());
    }
}

#[test]
fn an_unknown_key_is_a_warning_with_the_closest_key_and_the_line_and_an_error_in_strict_mode() {
    let text = "[memory]\nmax_entires = 5\nttl = 9\n[memroy]\nttl = 5\n[quantum]\nfoam = 1\n";
    let file = file("a.toml", text);
    let config = ConfigLoader::new().file(&file.path).load().expect("a newer file does not stop it");
    assert_eq!(config.memory.ttl.as_secs(), 9);
    let path = file.path.display();
    let expected = [
        format!("unknown key memory.max_entires in {path}:2 (ignored); did you mean memory.max_entries?"),
        format!("unknown key memroy in {path}:4 (ignored); did you mean memory?"),
        format!("unknown key quantum in {path}:6 (ignored)"),
    ];
    assert_eq!(config.warnings(), expected);

    let problems = problems(ConfigLoader::new().file(&file.path).strict(true).load());
    let names: Vec<_> = problems.iter().map(|problem| problem.name.as_str()).collect();
    assert_eq!(names, ["memory.max_entires", "memroy", "quantum"]);
    assert_eq!(problems[0].location, format!("{path}:2"));
    assert_eq!(problems[0].expected, "unknown key; did you mean memory.max_entries?");
}

#[test]
fn many_and_long_unknown_keys_cost_and_print_little() {
    let many: String = (0..20_000).map(|n| format!("unknown_{n} = 1\n")).collect();
    let long = format!("{} = 1\n", "x".repeat(500_000));
    let began = std::time::Instant::now();
    let config = load_file("a.toml", &(many + &long)).expect("only warnings");
    // Quadratic work would take minutes.
    assert!(began.elapsed().as_secs() < 10);
    let warnings = config.warnings().join("\n");
    assert!(warnings.len() < 10_000 && warnings.contains("more unknown names"), "{warnings}");
    let config = load_file("b.toml", &long).expect("only a warning");
    assert!(config.warnings()[0].len() < 300, "{:?}", config.warnings());
}

#[test]
fn a_key_that_appears_twice_is_an_error_in_every_format() {
    for (name, text) in [
        ("a.toml", "[memory]\nttl = 1\nttl = 2\n"),
        ("a.yaml", "memory:\n  ttl: 1\n  ttl: 2\n"),
        ("b.yaml", "memory:\n  ttl: 1\nmemory:\n  ttl: 2\n"),
        ("a.json", "{\"memory\": {\"ttl\": 1, \"ttl\": 2}}"),
        ("b.json", "{\"memory\": {}, \"memory\": {}}"),
        ("c.json", "{\"mcp\": {\"servers\": [{\"name\": \"a\", \"name\": \"b\"}]}}"),
    ] {
        let error = load_file(name, text).expect_err(name).to_string();
        assert!(error.contains("duplicate key"), "{name}: {error}");
    }
}

#[test]
fn a_byte_order_mark_is_ignored_in_every_format() {
    for (name, text) in [("a.toml", TOML), ("a.yaml", YAML), ("a.json", JSON)] {
        let config = load_file(name, &format!("\u{feff}{text}")).expect(name);
        assert_eq!((config.memory.max_entries, config.warnings().len()), (77, 0), "{name}");
    }
}

#[test]
fn a_yaml_merge_key_is_an_error_rather_than_ignored() {
    let text = "memory: &m\n  ttl: 1\nhttp:\n  <<: *m\n";
    let error = load_file("a.yaml", text).expect_err("not merged").to_string();
    assert!(error.contains("merge keys (<<) are not supported"), "{error}");
}

#[test]
fn a_file_that_is_not_regular_or_too_large_is_an_error() {
    for special in ["/dev/zero", "/proc/self/fd"] {
        let problems = problems(ConfigLoader::new().file(special).load());
        assert!(problems[0].expected.contains("not a regular file"), "{}", problems[0]);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pipe = folder.path().join("pipe.toml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    assert!(problems(ConfigLoader::new().file(&pipe).load())[0].expected.contains("not a regular file"));
    let error = load_file("a.toml", &" ".repeat((1 << 20) + 1)).expect_err("too large").to_string();
    assert!(error.contains("larger than 1048576 bytes"), "{error}");
}

#[test]
fn a_whole_number_has_no_fraction() {
    for name in ["ttl", "max_entries"] {
        let error =
            load_file("a.toml", &format!("[memory]\n{name} = 5.0\n")).expect_err("a fraction").to_string();
        assert!(error.contains("5.0 is not a whole number; expected a whole number"), "{error}");
    }
}

#[test]
fn values_of_the_wrong_type_are_errors_that_show_what_was_found() {
    let text = "memory = 5\n[tasks]\nmax_concurrency = \"500\"\ntimeout = -1\n[rollback]\nuse_legacy_memory = 1\n[pool]\nmax_connections = 2.5\n";
    let found: Vec<_> = problems(load_file("a.toml", text))
        .into_iter()
        .map(|problem| (problem.name, problem.found))
        .collect();
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
    let problems = problems(load_file("a.toml", "[memory]\nbackend = \"\"\n[llm.openai]\napi_key = \" \"\n"));
    let names: Vec<_> = problems.iter().map(|problem| problem.name.as_str()).collect();
    assert_eq!(names, ["llm.openai.api_key", "memory.backend"]);
}

#[test]
fn an_unknown_key_of_an_mcp_server_is_a_warning() {
    let config = load_server("{ name = \"a\", url = \"https://a\", tiemout = 3 }").expect("a warning");
    let warning = &config.warnings()[0];
    assert!(warning.starts_with("unknown key mcp.servers[0].tiemout"), "{warning}");
    assert!(warning.ends_with("did you mean mcp.servers[0].timeout?"), "{warning}");
}

fn load_server(server: &str) -> arshai::Result<Config> {
    load_file("a.toml", &format!("[mcp]\nenabled = true\nconnection_timeout = 7\nservers = [{server}]\n"))
}

#[test]
fn what_is_wrong_with_an_mcp_server_is_named() {
    for (server, name) in [
        ("{ url = \"https://a\" }", "mcp.servers[0].name"),
        ("{ name = \" \", url = \"https://a\" }", "mcp.servers[0].name"),
        ("{ name = \"a\" }", "mcp.servers[0]"),
        ("{ name = \"a\", url = \"https://a\", command = \"b\" }", "mcp.servers[0]"),
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

#[test]
fn guards_are_set_for_all_mcp_servers_and_for_one() {
    let text = "[mcp]\nenabled = true\nguards = { max_tools = 20, max_pages = 7 }\n\
                servers = [{ name = \"a\", url = \"https://a\", guards = { max_tools = 5 } }, { name = \"b\", url = \"https://b\" }]\n";
    let config = load_file("a.toml", text).expect("valid");
    let guards: Vec<_> =
        config.mcp.servers.iter().map(|server| config.mcp.guards.with_overrides(&server.guards)).collect();
    assert_eq!([guards[0].max_tools, guards[1].max_tools], [5, 20]);
    assert_eq!([guards[0].max_pages, guards[1].max_pages], [7, 7]);
    assert_eq!(config.explain().get("mcp.guards.max_tools").expect("explained").value, "20");
    assert_eq!(config.explain().get("mcp.servers").expect("explained").value, "a (guards.max_tools = 5), b");
}

#[test]
fn an_invalid_guard_of_an_mcp_server_is_named() {
    for (guards, name) in [
        ("{ max_tools = 0 }", "mcp.servers[0].guards.max_tools"),
        ("{ max_schema_bytes = \"many\" }", "mcp.servers[0].guards.max_schema_bytes"),
        ("7", "mcp.servers[0].guards"),
    ] {
        let problems =
            problems(load_server(&format!("{{ name = \"a\", url = \"https://a\", guards = {guards} }}")));
        assert_eq!(problems[0].name, name, "{}", problems[0]);
    }
    let config =
        load_server("{ name = \"a\", url = \"https://a\", guards = { max_tols = 3 } }").expect("a warning");
    assert!(config.warnings()[0].contains("mcp.servers[0].guards.max_tols"), "{}", config.warnings()[0]);
    assert!(
        config.warnings()[0].ends_with("did you mean mcp.servers[0].guards.max_tools?"),
        "{}",
        config.warnings()[0]
    );
}
