//! What the program of each page prints.

use std::process::{Command, Output};

use arshai_test_support::{ModelServer, RedisServer};

use crate::workspace::Workspace;

/// What a page promises, and the check of its program.
pub(crate) type Promise = (&'static str, fn(&Workspace));

pub(crate) const PROGRAMS: [Promise; 16] = [
    ("readme_streams_an_answer_after_a_tool_call", readme),
    ("readme_without_a_key_says_which_variable_to_set", without_a_key),
    ("readme_without_a_server_says_which_one_and_why", without_a_server),
    ("backends_stores_in_the_custom_backend", backends),
    ("configuration_explains_values_mistakes_and_rollback", configuration),
    ("filters_select_entities", filters),
    ("http_prints_the_status_and_the_size", http),
    ("mcp_calls_a_tool_though_another_server_is_down", mcp),
    ("memory_in_redis_outlives_the_process", memory),
    ("models_answers_as_a_type_and_as_a_stream", models),
    ("observability_prints_every_limit", observability),
    ("pools_hands_out_a_connection", pools),
    ("python_reads_what_python_stored", python),
    ("redis_keeps_a_key", redis),
    ("tools_run_beside_the_model_and_in_the_background", tools),
    ("vectors_finds_documents", vectors),
];

fn readme(workspace: &Workspace) {
    let server = models_server();
    let printed = output(with_model(&mut workspace.program("readme"), &server));
    assert_eq!(printed, "[weather]\nYes: it is raining in Oslo.\n");
}

fn without_a_key(workspace: &Workspace) {
    let failed = workspace.program("readme").output().expect("it starts");
    let error = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(error, "Error: llm.openai: missing API key: set OPENAI_API_KEY or llm.openai.api_key\n");
}

fn without_a_server(workspace: &Workspace) {
    let mut program = workspace.program("readme");
    program.env("OPENAI_API_KEY", "sk-test").env("OPENAI_BASE_URL", "http://127.0.0.1:1/v1");
    let error = String::from_utf8_lossy(&program.output().expect("it starts").stderr).into_owned();
    let (first, cause) = error.split_once('\n').expect("two lines");
    assert_eq!(first, "Error: http: connection failed (host: 127.0.0.1:1, attempts: 4)");
    assert!(cause.starts_with("  caused by: Connection refused"), "{error}");
}

fn backends(workspace: &Workspace) {
    let printed = output(&mut workspace.program("backends"));
    assert!(printed.starts_with("MapMemory") && printed.ends_with(": likes tea\n"), "{printed}");
}

fn configuration(workspace: &Workspace) {
    let line = |printed: &str, key: &str| {
        let line = printed.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let mut program = workspace.program("configuration");
    let printed = output(program.env("ARSHAI_MAX_ENTRIES", "50000"));
    assert!(line(&printed, "memory.max_entries").starts_with("memory.max_entries 50000"), "{printed}");
    let printed = output(program.env("ARSHAI_DISABLE_OPTIMIZATIONS", "true"));
    assert!(line(&printed, "memory.max_entries").contains("unlimited"), "{printed}");
    let failed = program.env("ARSHAI_MAX_ENTRIES", "many").output().expect("it starts");
    let error = String::from_utf8_lossy(&failed.stderr);
    assert!(!failed.status.success() && error.contains("ARSHAI_MAX_ENTRIES = \"many\""), "{error}");
}

fn filters(workspace: &Workspace) {
    assert_eq!(output(&mut workspace.program("filters")), "1 \"hello\"\n2 \"hei\"\n");
    assert_eq!(output(workspace.program("filters").arg("' or true")), "1 \"hello\"\n");
}

fn http(workspace: &Workspace) {
    let server = models_server();
    let printed = output(workspace.program("http").arg(server.url("/v1/models")));
    assert!(printed.starts_with("200 OK: ") && printed.ends_with(" bytes\n"), "{printed}");
}

fn mcp(workspace: &Workspace) {
    // Here `npx` finds what tests/all.sh has installed, and downloads nothing.
    let mut program = workspace.program("mcp");
    let printed = output(program.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/target/node")));
    assert!(printed.contains("everything: Healthy, ") && printed.contains("search: "), "{printed}");
    assert!(printed.ends_with("Echo: hello\n"), "{printed}");
}

fn memory(workspace: &Workspace) {
    let server = RedisServer::start();
    let run = || {
        let mut program = workspace.program("memory");
        output(program.env("ARSHAI_MEMORY_BACKEND", "redis").env("REDIS_URL", server.url()))
    };
    assert_eq!(run(), "nothing is remembered yet\n");
    assert_eq!(run(), "remembered: The user prefers short answers.\n");
}

fn models(workspace: &Workspace) {
    let server = models_server();
    let printed = output(with_model(&mut workspace.program("models"), &server));
    assert_eq!(printed, "Paris, France\nOnce upon a time, a request met its deadline.\n");
}

fn observability(workspace: &Workspace) {
    let printed = output(&mut workspace.program("observability"));
    assert!(printed.contains(r#"arshai_used{component="memory",key="memory.max_entries"} 0"#), "{printed}");
}

fn pools(workspace: &Workspace) {
    let printed = output(&mut workspace.program("pools"));
    assert!(printed.starts_with("hello\n") && printed.contains("pool.max_connections"), "{printed}");
}

fn python(workspace: &Workspace) {
    let server = RedisServer::start();
    let stored = r#"{"data": {"working_memory": "from Python"}, "metadata": {}, "created_at": "2026-01-01T00:00:00.000001", "last_update": "2026-01-01T00:00:00.000001"}"#;
    server.command(&["SET", "memory:WORKING_MEMORY:conversation-1", stored]);
    let run = || output(workspace.program("python").env("REDIS_URL", server.url()));
    assert_eq!(run(), "from Python\n");
    assert_eq!(run(), "### USER CONTEXT:\nLikes tea.\n");
}

fn redis(workspace: &Workspace) {
    let server = RedisServer::start();
    let run = || output(workspace.program("redis").env("REDIS_URL", server.url()));
    assert_eq!(run(), "last question: None\n");
    assert_eq!(run(), "last question: Some(Text(\"Where is order 17?\"))\n");
}

fn tools(workspace: &Workspace) {
    let server = models_server();
    let mut program = workspace.program("tools");
    let done = with_model(&mut program, &server).output().expect("it starts");
    let printed = String::from_utf8_lossy(&done.stdout);
    for line in [
        "[log_question started]",
        "[order_status started]",
        "[order_status ended: None]",
        "It was shipped on Monday.",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} is missing in:\n{printed}");
    }
    assert_eq!(String::from_utf8_lossy(&done.stderr), "audit: somebody asked for order 17\n");
}

fn vectors(workspace: &Workspace) {
    let server = models_server();
    let printed = output(with_model(&mut workspace.program("vectors"), &server));
    assert_eq!(printed.lines().count(), 2, "{printed}");
    assert!(printed.contains("shipping.md") && !printed.contains("returns.md"), "{printed}");
}

fn models_server() -> ModelServer {
    ModelServer::start_with("tests/newcomer/answers.json")
}

fn with_model<'a>(program: &'a mut Command, server: &ModelServer) -> &'a mut Command {
    program.env("OPENAI_API_KEY", "sk-test").env("OPENAI_BASE_URL", server.url("/v1"))
}

/// What a program that succeeds prints.
fn output(program: &mut Command) -> String {
    let Output { status, stdout, stderr } = program.output().expect("it starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{program:?} ended with {status}:\n{stdout}{stderr}");
    stdout.into_owned()
}
