//! The examples on Milvus: the quickstart, unchanged, and `milvus_search`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use arshai_test_support::MilvusServer;

#[test]
fn the_quickstart_gives_the_same_answers_with_milvus_as_without() {
    let embedded = quickstart(&[]);
    assert!(embedded.contains("passages of") && embedded.contains("model calls"), "{embedded}");
    for server in [MilvusServer::small(), MilvusServer::full()] {
        let port = server.port().to_string();
        let variables =
            [("ARSHAI_VECTOR_BACKEND", "milvus"), ("MILVUS_HOST", "127.0.0.1"), ("MILVUS_PORT", &port)];
        assert_eq!(quickstart(&variables), embedded);
        assert!(server.log().is_empty() || !server.log().contains("panic"), "{}", server.log());
    }
}

#[test]
fn the_quickstart_answers_its_questions_from_the_documents() {
    let printed = quickstart(&[]);
    for (question, answer) in [
        ("What does arshai limit in an LLM service?", "a hard limit on every resource"),
        (
            "Which variable limits the memory of conversations, and what is its default?",
            "`ARSHAI_MAX_MEMORY_MB`",
        ),
        ("What does a rollback flag change and what does it never change?", "never where it is stored"),
    ] {
        let first = printed.split(question).nth(1).and_then(|rest| rest.trim_start().lines().next());
        assert!(first.is_some_and(|first| first.contains(answer)), "{question}: {first:?}");
    }
}

/// What it prints of documents, questions and answers: neither the model server's address nor how busy it was. Scores
/// may differ by a rounding, and with their digits the number of tokens and the size of what is remembered.
fn quickstart(variables: &[(&str, &str)]) -> String {
    let output = Command::new(example("quickstart"))
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    assert!(text.contains("Shut down cleanly."), "{text}");
    let answers = text.split("The conversation is remembered").next().unwrap_or_default();
    let without_tokens = |line: &str| line.split(" tool results, ").next().unwrap_or_default().to_owned();
    answers.lines().skip(1).map(|line| without_tokens(line) + "\n").collect()
}

#[test]
fn the_example_inserts_once_and_says_what_to_do_without_a_server() {
    let mut server = MilvusServer::small();
    let port = server.port().to_string();
    let run = || {
        let mut command = Command::new(example("milvus_search"));
        command
            .env_clear()
            .envs([("MILVUS_HOST", "127.0.0.1"), ("MILVUS_PORT", &*port)])
            .args(["red", "apples"]);
        let output = command.output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (succeeds, first, errors) = run();
    assert!(succeeds && first.contains("inserted 8 entities"), "{first}{errors}");
    assert!(first.contains(r#"0.71  "red apples, two kilograms" (3.5)"#), "{first}");
    let (succeeds, second, errors) = run();
    assert!(succeeds, "{errors}");
    assert_eq!(second, first.replace("inserted 8 entities\n", ""));
    server.stop();
    let (succeeds, _, errors) = run();
    assert!(!succeeds && errors.contains(&format!("There is no Milvus at 127.0.0.1:{port}")), "{errors}");
}

/// Examples lie beside the tests' own folder; `cargo test --examples` builds them.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let profile = test.ancestors().nth(2).expect("tests lie in a folder of the profile's");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "{path:?} is missing; `cargo build --all-features --examples` builds it");
    path
}
