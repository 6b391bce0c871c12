//! A policy as a decorator over the built-in executor: it counts the turns that go through it.

use arshai::{CloseReport, Component, LimitUsage, ShutdownPhase};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arshai::backends::tasks::BoundedExecutor;
use arshai::contract::tasks::{Setup, contract};
use arshai::tasks::{
    FunctionCall, FunctionExecutionInput, FunctionExecutionResult, FunctionTask, Functions, TaskCapabilities,
    TaskExecutor, TaskStats,
};
use arshai::{Arshai, Config, Deadline, Health, Registry, Result};
use async_trait::async_trait;

#[derive(Debug)]
struct Counting {
    inner: Arc<dyn TaskExecutor>,
    turns: Arc<AtomicUsize>,
}

#[async_trait]
impl Component for Counting {
    fn name(&self) -> Cow<'_, str> {
        self.inner.name()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        self.inner.shutdown_phase()
    }

    fn limits(&self) -> Vec<LimitUsage> {
        self.inner.limits()
    }

    fn counters(&self) -> Value {
        self.inner.counters()
    }

    async fn health(&self, deadline: Deadline) -> Health {
        self.inner.health(deadline).await
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        self.inner.set_limit(key, max)
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.inner.close(deadline).await
    }
}

#[async_trait]
impl TaskExecutor for Counting {
    async fn execute_functions(&self, input: FunctionExecutionInput) -> FunctionExecutionResult {
        self.turns.fetch_add(1, Ordering::SeqCst);
        self.inner.execute_functions(input).await
    }

    fn execute_function_progressively(
        &self,
        call: FunctionCall,
        functions: &Functions,
        background_tasks: &Functions,
        deadline: Option<Deadline>,
    ) -> FunctionTask {
        self.inner.execute_function_progressively(call, functions, background_tasks, deadline)
    }

    fn active_background_tasks_count(&self) -> usize {
        self.inner.active_background_tasks_count()
    }

    async fn wait_for_background_tasks(&self, timeout: Option<Duration>) -> usize {
        self.inner.wait_for_background_tasks(timeout).await
    }

    fn stats(&self) -> TaskStats {
        self.inner.stats()
    }

    fn capabilities(&self) -> TaskCapabilities {
        self.inner.capabilities()
    }
}

fn counting(setup: Setup) -> Arc<dyn TaskExecutor> {
    let inner = BoundedExecutor::builder()
        .max_background_tasks(setup.max_background_tasks)
        .max_concurrency(setup.max_concurrency)
        .timeout(setup.timeout)
        .max_result_bytes(setup.max_result_bytes)
        .max_blocking_threads(setup.max_blocking_threads)
        .background_failure_listener(setup.listener)
        .build();
    Arc::new(Counting { inner: Arc::new(inner), turns: Arc::default() })
}

#[tokio::test]
async fn an_executor_written_outside_keeps_the_contract() {
    contract(&counting).await;
}

#[tokio::test]
async fn an_executor_written_outside_is_chosen_by_name() {
    let turns = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&turns);
    let mut registry = Registry::builtin();
    registry.tasks.register("counting", move |context| {
        let inner = BoundedExecutor::from_context(context);
        Ok(Arc::new(Counting { inner: Arc::new(inner), turns: Arc::clone(&counter) }))
    });
    let config = Config::from_vars([("ARSHAI_TASKS__BACKEND".into(), "counting".into())]).expect("valid");
    let runtime = Arshai::builder(config).registry(registry).build().expect("the name is known");
    runtime.tasks().execute_functions(FunctionExecutionInput::default()).await;
    assert_eq!(turns.load(Ordering::SeqCst), 1);
}
