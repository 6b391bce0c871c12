//! A component of an application: a feed that the runtime reports, limits and closes like its own parts.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use arshai::memory::MemoryInput;
use arshai::support::UsageMeter;
use arshai::{
    Arshai, CloseReport, Component, Config, Deadline, Health, LimitUsage, Limits, Result, ShutdownPhase,
    unsupported_limit_error,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Counts its subscribers; at closing it notes what it could still read.
#[derive(Debug)]
struct Feed {
    subscribers: UsageMeter,
    phase: ShutdownPhase,
    order: Arc<Mutex<Vec<ShutdownPhase>>>,
}

impl Feed {
    fn new(phase: ShutdownPhase, order: &Arc<Mutex<Vec<ShutdownPhase>>>) -> Arc<Self> {
        let subscribers = UsageMeter::new("feed.max_subscribers", "subscribers", 10);
        Arc::new(Self { subscribers, phase, order: Arc::clone(order) })
    }
}

#[async_trait]
impl Component for Feed {
    fn name(&self) -> Cow<'_, str> {
        "feed:news".into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        self.phase
    }

    fn limits(&self) -> Vec<LimitUsage> {
        vec![self.subscribers.usage()]
    }

    fn counters(&self) -> Value {
        json!({ "subscribers": self.subscribers.used() })
    }

    async fn health(&self, _: Deadline) -> Health {
        match self.subscribers.used() {
            0 => Health::degraded("nobody subscribes"),
            _ => Health::Healthy,
        }
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        if key != self.subscribers.key() {
            return Err(unsupported_limit_error("feed", key));
        }
        self.subscribers.set_max(max);
        Ok(())
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        self.order.lock().push(self.phase);
        CloseReport::new(0, 0, vec!["one headline".into()])
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}

#[tokio::test]
async fn a_component_written_outside_is_seen_limited_and_closed_by_the_runtime() {
    let order = Arc::default();
    let feed = Feed::new(ShutdownPhase::Clients, &order);
    let runtime = Arshai::builder(Config::default()).component(feed.clone()).build().expect("it builds");
    assert!(feed.subscribers.try_add(3));

    let stats = runtime.stats();
    let seen = stats.get("feed:news").expect("it is a component");
    assert_eq!(seen.counters["subscribers"], 3);
    assert_eq!(seen.limit("feed.max_subscribers").and_then(|usage| usage.limit), Some(10));
    assert_eq!(runtime.health(soon()).await.get("feed:news"), Some(&Health::Healthy));

    runtime.set_limits(Limits::unchanged().set("feed.max_subscribers", 4)).expect("it has the limit");
    assert!(!feed.subscribers.try_add(2));

    let report = runtime.shutdown(soon()).await;
    assert_eq!(report.get("feed:news").map(|feed| feed.lost.len()), Some(1));
    assert!(!report.is_clean());
}

/// Rejects every change, and panics when it is asked or closed.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl Component for Broken {
    fn name(&self) -> Cow<'_, str> {
        "broken".into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Tasks
    }

    fn limits(&self) -> Vec<LimitUsage> {
        vec![LimitUsage::new("broken.max", "things", 0, 0, Some(1))]
    }

    async fn health(&self, _: Deadline) -> Health {
        panic!("out of cheese")
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        panic!("out of cheese")
    }
}

#[tokio::test]
async fn a_rejected_limit_evicts_nothing() {
    let runtime = Arshai::builder(Config::default()).component(Arc::new(Broken)).build().expect("it builds");
    for n in 0..10 {
        runtime
            .memory()
            .store(MemoryInput::working_memory(n.to_string()).with_data("x"))
            .await
            .expect("stored");
    }
    let limits = Limits::unchanged().max_entries(3).set("broken.max", 5);
    runtime.set_limits(limits).expect_err("one component rejects its limit");
    assert_eq!(runtime.memory().stats().entries, 10);
}

#[tokio::test]
async fn a_component_that_panics_stops_neither_health_nor_shutdown() {
    let order = Arc::default();
    let builder = Arshai::builder(Config::default()).component(Arc::new(Broken));
    let runtime =
        builder.component(Feed::new(ShutdownPhase::Connections, &order)).build().expect("it builds");
    let health = runtime.health(soon()).await;
    assert!(health.get("broken").is_some_and(|health| !health.is_usable()), "{health:?}");
    assert_eq!(health.get("memory"), Some(&Health::Healthy));
    let report = runtime.shutdown(soon()).await;
    assert!(
        report.get("broken").is_some_and(|broken| broken.lost[0].contains("out of cheese")),
        "{report:?}"
    );
    assert_eq!(*order.lock(), [ShutdownPhase::Connections]);
}

#[tokio::test]
async fn components_close_from_the_inside_out() {
    let order = Arc::default();
    let phases = [
        ShutdownPhase::Connections,
        ShutdownPhase::Tasks,
        ShutdownPhase::Stores,
        ShutdownPhase::Transports,
        ShutdownPhase::Clients,
    ];
    let builder = Arshai::builder(Config::default());
    let builder = phases.iter().fold(builder, |builder, phase| builder.component(Feed::new(*phase, &order)));
    let runtime = builder.build().expect("it builds");
    runtime.memory().store(MemoryInput::working_memory("c").with_data("x")).await.expect("stored");
    runtime.shutdown(soon()).await;
    let closed: Vec<_> = order.lock().clone();
    assert!(closed.is_sorted() && closed.len() == phases.len(), "{closed:?}");
}
