//! The state of the runtime: on request, and once a second for pages that watch it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arshai::config::RollbackConfig;
use arshai::{Arshai, Deadline, Health};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::Service;

const PERIOD: Duration = Duration::from_secs(1);

/// What every watching page is shown: taken once for all of them, and not at all while nobody watches.
#[derive(Clone)]
pub(crate) struct Live {
    about: Arc<str>,
    states: watch::Sender<Arc<str>>,
}

impl Live {
    pub(crate) fn new(runtime: Arshai, about: Value) -> Self {
        let states = watch::Sender::new(Arc::from("[]"));
        tokio::spawn(sample(runtime, states.clone()));
        Self { about: about.to_string().into(), states }
    }
}

async fn sample(runtime: Arshai, states: watch::Sender<Arc<str>>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if states.receiver_count() > 0 {
            states.send_replace(snapshot(&runtime).await.to_string().into());
        }
    }
}

/// Health and limits of each component.
async fn snapshot(runtime: &Arshai) -> Value {
    let health = runtime.health(Deadline::after(PERIOD)).await;
    let components = runtime.stats().components.into_iter();
    components
        .filter_map(|component| {
            let health = shown(&component.name, health.get(&component.name)?.clone());
            Some(json!({"name": component.name, "health": health, "limits": component.limits}))
        })
        .collect()
}

/// The service can do without an MCP server that is not `required`, so its loss is `degraded`. The page shows the server,
/// which is unhealthy.
fn shown(component: &str, health: Health) -> Health {
    match health {
        Health::Degraded { reason } if component.starts_with("mcp:") => Health::unhealthy(reason),
        health => health,
    }
}

/// What does not change while the service runs.
pub(crate) fn about(model: &str, scripted: bool, rollback: &RollbackConfig) -> Value {
    let flag = |variable, effect, on| json!({"variable": variable, "effect": effect, "on": on});
    let all = rollback.disable_optimizations;
    json!({"model": model, "scripted": scripted, "flags": [
        flag("ARSHAI_USE_LEGACY_MEMORY", "unbounded conversation memory", rollback.use_legacy_memory),
        flag("ARSHAI_USE_LEGACY_CONNECTIONS", "earlier HTTP, Redis and MCP connections", rollback.use_legacy_connections),
        flag("ARSHAI_DISABLE_OPTIMIZATIONS", "both, and unbounded background tasks", all),
    ]})
}

/// Server-sent events: `about` once, `state` every second, `stopping` at the end.
pub(crate) async fn live(
    State(service): State<Service>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let event = |name, data: &str| Event::default().event(name).data(data);
    let about = event("about", &service.live.about);
    let states = stream::unfold(service.live.states.subscribe(), move |mut states| async move {
        states.changed().await.ok()?;
        let state = event("state", &states.borrow_and_update());
        Some((state, states))
    });
    // A stream without end would use up the grace period.
    let states = states.take_until(service.stopping.cancelled_owned());
    let events = stream::iter([about]).chain(states).chain(stream::iter([event("stopping", "{}")]));
    Sse::new(events.map(Ok)).keep_alive(KeepAlive::default())
}

pub(crate) async fn health(State(service): State<Service>) -> Response {
    let health = service.runtime.health(Deadline::after(PERIOD)).await;
    let status = if health.is_usable() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!(health))).into_response()
}

pub(crate) async fn stats(State(service): State<Service>) -> Json<Value> {
    Json(json!(service.runtime.stats()))
}
