//! Two runtimes with different settings in one process.

use arshai::memory::MemoryInput;
use arshai::tasks::{Function, FunctionCall, FunctionExecutionInput, Functions};
use arshai::{Arshai, Config, Limits};
use serde_json::{Value, json};

fn runtime(change: impl FnOnce(&mut Config)) -> Arshai {
    let mut config = Config::default();
    change(&mut config);
    Arshai::builder(config).build().expect("it builds")
}

#[tokio::test]
async fn what_one_remembers_the_other_does_not() {
    let (one, other) = (runtime(|_| ()), runtime(|_| ()));
    let input = MemoryInput::working_memory("c").with_data("only here");
    one.memory().store(input.clone()).await.expect("stored");
    assert!(other.memory().retrieve(&input).await.expect("retrieved").is_empty());
    assert_eq!(other.memory().stats().entries, 0);
}

#[tokio::test]
async fn one_is_rolled_back_while_the_other_keeps_its_bounds() {
    let old = runtime(|config| config.rollback.disable_optimizations = true);
    let new = runtime(|_| ());
    assert!(!old.memory().capabilities().bounded && !old.tasks().capabilities().bounded);
    assert!(new.memory().capabilities().bounded && new.tasks().capabilities().bounded);
}

#[tokio::test]
async fn limits_of_one_do_not_touch_the_other() {
    let one = runtime(|_| ());
    let other = runtime(|_| ());
    one.set_limits(Limits::unchanged().max_entries(2).max_background_tasks(0)).expect("bounded");
    for conversation in ["a", "b", "c", "d"] {
        for runtime in [&one, &other] {
            runtime
                .memory()
                .store(MemoryInput::working_memory(conversation).with_data("x"))
                .await
                .expect("stored");
        }
    }
    assert_eq!(one.memory().stats().entries, 2);
    assert_eq!(other.memory().stats().entries, 4);

    let log =
        Functions::new().with(Function::new("log", |_: Value| async { Ok::<_, std::io::Error>(json!(1)) }));
    for (runtime, started) in [(&one, 0), (&other, 1)] {
        let calls = vec![FunctionCall::new("log", json!({})).in_background()];
        let input = FunctionExecutionInput::new(calls, Functions::new()).with_background_tasks(log.clone());
        let result = runtime.tasks().execute_functions(input).await;
        assert_eq!(result.background_initiated.len(), started);
    }
}
