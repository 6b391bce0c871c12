//! Building, limits, health and shutdown.

use std::sync::Arc;
use std::time::Duration;

use arshai::memory::MemoryInput;
use arshai::tasks::{Function, FunctionCall, FunctionExecutionInput, Functions};
use arshai::{Arshai, Config, Deadline, ErrorKind, Limits, Registry};
use serde_json::{Value, json};

fn defaults() -> Arshai {
    Arshai::builder(Config::default()).build().expect("the defaults build")
}

fn never_ending() -> Functions {
    let never = |_: Value| std::future::pending::<Result<Value, std::io::Error>>();
    Functions::new().with(Function::new("never", never))
}

async fn start_background(runtime: &Arshai, count: usize) {
    let calls = (0..count).map(|_| FunctionCall::new("never", json!({})).in_background()).collect();
    let input = FunctionExecutionInput::new(calls, Functions::new()).with_background_tasks(never_ending());
    assert_eq!(runtime.tasks().execute_functions(input).await.background_initiated.len(), count);
}

#[test]
fn a_runtime_on_defaults_needs_no_executor() {
    let runtime = defaults();
    let stats = runtime.stats();
    for (_, usage) in stats.limits() {
        assert!(usage.limit.is_some_and(|limit| usage.used < limit), "{usage:?}");
    }
    assert_eq!(runtime.memory().stats().entries, 0);
    assert_eq!(stats.get("tasks").expect("a component").counters["background_started"], 0);
}

#[test]
fn an_unknown_backend_is_refused_with_the_alternatives() {
    let mut config = Config::default();
    config.memory.backend = "in_memroy".into();
    let error = Arshai::builder(config).build().expect_err("no such backend");
    assert_eq!(error.kind(), ErrorKind::UnknownBackend);
    assert!(error.to_string().contains("memory.backend = \"in_memroy\""), "{error}");
    assert!(error.to_string().contains("in_memory"), "{error}");
}

#[test]
fn an_unknown_pool_is_refused_before_anything_connects() {
    let mut config = Config::default();
    config.pool.backend = "bouned".into();
    let error = Arshai::builder(config).build().expect_err("no such pool");
    assert_eq!(error.kind(), ErrorKind::UnknownBackend);
    assert!(error.message().contains("did you mean \"bounded\"?"), "{error}");
}

#[test]
fn a_missing_default_transport_is_an_error_only_when_it_is_used() {
    let mut registry = Registry::builtin();
    registry.http = Registry::empty().http;
    registry.http.register_unavailable("ureq", "ureq");
    let runtime = Arshai::builder(Config::default()).registry(registry).build().expect("HTTP is not used");
    let error = runtime.http().expect_err("not compiled in");
    assert!(error.message().contains("cargo feature \"ureq\""), "{error}");
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn connections_are_limited_without_an_http_transport() {
    use arshai::backends::redis::RedisExt;

    let mut registry = Registry::builtin();
    registry.http = Registry::empty().http;
    registry.http.register_unavailable("ureq", "ureq");
    let runtime = Arshai::builder(Config::default()).registry(registry).build().expect("HTTP is not used");
    let _client = runtime.redis().expect("nothing connects yet");
    runtime.set_limits(Limits::unchanged().max_connections(3)).expect("Redis has connections");
    let stats = runtime.stats();
    let limits: Vec<_> = stats.limits().filter(|(_, usage)| usage.key == "pool.max_connections").collect();
    assert!(!limits.is_empty() && limits.iter().all(|(_, usage)| usage.limit == Some(3)), "{limits:?}");
}

#[tokio::test]
async fn a_backend_given_by_value_is_used_whatever_the_configuration_says() {
    let memory = Arc::clone(defaults().memory());
    let mut config = Config::default();
    config.memory.backend = "there is none of this name".into();
    config.rollback.use_legacy_memory = true;
    let runtime =
        Arshai::builder(config).memory(Arc::clone(&memory)).build().expect("the name is not looked up");
    runtime.memory().store(MemoryInput::working_memory("c").with_data("x")).await.expect("stored");
    assert_eq!(memory.stats().entries, 1);
}

#[tokio::test]
async fn limits_change_all_together_or_not_at_all() {
    let mut config = Config::default();
    config.rollback.use_legacy_memory = true;
    let runtime = Arshai::builder(config).build().expect("it builds");
    let both = Limits::unchanged().max_background_tasks(1).max_entries(5);
    let error = runtime.set_limits(both).expect_err("legacy memory has no bound");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let stats = runtime.stats();
    let usage = stats.get("tasks").and_then(|tasks| tasks.limit("tasks.max_background_tasks"));
    assert_eq!(usage.and_then(|usage| usage.limit), Some(1_000));
}

#[test]
fn a_limit_of_zero_that_would_stop_all_work_is_refused() {
    let error = defaults().set_limits(Limits::unchanged().max_entries(0)).expect_err("zero");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.message().contains("max_entries"), "{error}");
}

#[test]
fn a_limit_raised_to_the_maximum_can_be_lowered_again() {
    let runtime = defaults();
    let all = |n: u64| {
        let limits = Limits::unchanged().max_entries(n).max_memory_mb(n);
        let n = usize::try_from(n).expect("64 bits");
        limits.max_background_tasks(n).max_connections(n)
    };
    runtime.set_limits(all(u64::MAX)).expect("bounded");
    assert!(runtime.stats().limits().all(|(_, usage)| usage.limit.is_some()));
    runtime.set_limits(all(3)).expect("still bounded");
    let stats = runtime.stats();
    let memory = stats.get("memory").expect("registered");
    assert_eq!(memory.limit("memory.max_entries").expect("listed").limit, Some(3));
    assert_eq!(memory.limit("memory.max_memory_mb").expect("listed").limit, Some(3 << 20));
}

#[tokio::test]
async fn lowering_a_limit_below_current_use_takes_effect_at_once() {
    let runtime = defaults();
    for n in 0..100 {
        runtime
            .memory()
            .store(MemoryInput::working_memory(format!("c{n}")).with_data("x"))
            .await
            .expect("stored");
    }
    start_background(&runtime, 10).await;
    let (entries, tasks) = (Limits::unchanged().max_entries(7), Limits::unchanged().max_background_tasks(3));
    runtime.set_limits(entries).expect("bounded");
    runtime.set_limits(tasks).expect("bounded");
    assert_eq!(runtime.memory().stats().entries, 7);
    assert_eq!(runtime.memory().stats().removals.over_max_entries, 93);
    // Running tasks are not dropped; new ones wait for room.
    assert_eq!(runtime.tasks().active_background_tasks_count(), 10);
    let calls = vec![FunctionCall::new("never", json!({})).in_background()];
    let input = FunctionExecutionInput::new(calls, Functions::new()).with_background_tasks(never_ending());
    assert_eq!(runtime.tasks().execute_functions(input).await.failed_functions.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn shutdown_returns_by_its_deadline_and_reports_what_it_aborted() {
    let runtime = defaults();
    start_background(&runtime, 4).await;
    let deadline = Deadline::after(Duration::from_secs(3));
    let report = runtime.shutdown(deadline).await;
    assert_eq!(report.get("tasks").map(|tasks| tasks.aborted), Some(4));
    assert!(!report.is_clean());
    assert!(
        Deadline::after(Duration::ZERO) <= Deadline::after(deadline.remaining() + Duration::from_secs(1))
    );
    // An aborted task is gone once its runtime has had a turn.
    while runtime.tasks().active_background_tasks_count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_idle_runtime_shuts_down_cleanly_and_twice() {
    let runtime = defaults();
    assert!(runtime.shutdown(Deadline::after(Duration::from_secs(1))).await.is_clean());
    assert!(runtime.shutdown(Deadline::after(Duration::from_secs(1))).await.is_clean());
}

#[tokio::test]
async fn dropping_the_last_handle_drops_the_background_tasks_with_it() {
    let held = Arc::new(());
    let weak = Arc::downgrade(&held);
    let hold = Function::new("hold", move |_: Value| {
        let held = Arc::clone(&held);
        async move {
            let _held = held;
            std::future::pending::<Result<Value, std::io::Error>>().await
        }
    });
    let runtime = defaults();
    let calls = vec![FunctionCall::new("hold", json!({})).in_background()];
    let input = FunctionExecutionInput::new(calls, Functions::new())
        .with_background_tasks(Functions::new().with(hold));
    runtime.tasks().execute_functions(input).await;
    drop(runtime);
    while weak.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_healthy_runtime_says_so_for_every_part() {
    let health = defaults().health(Deadline::after(Duration::from_secs(1))).await;
    assert!(health.is_usable(), "{health:?}");
}

#[tokio::test]
async fn a_snapshot_serialises_with_every_limit() {
    let runtime = defaults();
    runtime.set_limits(Limits::unchanged().max_entries(9)).expect("bounded");
    let stats = runtime.stats();
    let memory = stats.get("memory").expect("a component");
    assert_eq!(memory.limit("memory.max_entries").and_then(|usage| usage.limit), Some(9));
    let json = serde_json::to_value(&stats).expect("plain JSON");
    let names: Vec<_> = json["components"].as_array().expect("a list").iter().map(|c| &c["name"]).collect();
    assert!(names.iter().any(|name| **name == "memory"), "{json}");
    let table = stats.to_string();
    for key in ["memory.max_entries", "memory.max_memory_mb", "tasks.max_background_tasks"] {
        assert!(table.contains(key), "{table}");
    }
}

#[test]
fn an_unknown_limit_is_an_error_and_changes_nothing() {
    let runtime = defaults();
    let limits = Limits::unchanged().max_entries(5).set("memory.max_wishes", 3);
    let error = runtime.set_limits(limits).expect_err("no component has it");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("memory.max_wishes"), "{error}");
    let stats = runtime.stats();
    let usage = stats.get("memory").and_then(|memory| memory.limit("memory.max_entries"));
    assert_eq!(usage.and_then(|usage| usage.limit), Some(10_000));
}

#[test]
fn a_model_without_a_key_says_which_variable_is_missing() {
    let error = defaults().openai("gpt-4o").expect_err("there is no key");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("OPENAI_API_KEY"), "{error}");
}

#[test]
fn an_idle_runtime_shuts_down_outside_an_async_runtime() {
    let runtime = defaults();
    let report = runtime.shutdown(Deadline::after(Duration::from_secs(1)));
    let report = futures_util::FutureExt::now_or_never(report).expect("it has nothing to wait for");
    assert!(report.is_clean(), "{report:?}");
}
