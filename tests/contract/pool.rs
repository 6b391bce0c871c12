//! Every pool keeps the contract.

use std::sync::Arc;
use std::time::Duration;

use arshai::contract::doubles::{ScriptedConnector, ScriptedOutcome};
use arshai::contract::pool::{Setup, stress, suite};
use arshai::pool::{ConnectionPool, Connector, PoolSettings};
use arshai::{BuildContext, Config, Deadline, ErrorKind, Health, Registry, Result};

const LONG: Duration = Duration::from_secs(60);

/// A pool of the backend `name`, built as a runtime builds it.
fn build(
    name: &str,
    connector: Arc<dyn Connector>,
    settings: PoolSettings,
) -> Result<Arc<dyn ConnectionPool>> {
    let context = BuildContext::new(Config::default());
    Registry::builtin().pool.build(name, &context)?.build(connector, settings)
}

macro_rules! pools_keep_the_contract {
    ($($(#[$feature:meta])? $name:ident),+) => {
        $(
            $(#[$feature])?
            mod $name {
                use super::*;

                async fn make(setup: Setup) -> Arc<dyn ConnectionPool> {
                    build(stringify!($name), setup.connector, setup.settings).expect("valid settings")
                }

                #[tokio::test(start_paused = true)]
                async fn keeps_the_contract() {
                    suite(make).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn keeps_its_limits_under_stress() {
                    stress(make).await;
                }
            }
        )+
    };
}

pools_keep_the_contract!(
    bounded,
    #[cfg(feature = "mobc")]
    mobc,
    legacy
);

#[cfg(not(feature = "mobc"))]
#[test]
fn without_its_feature_mobc_is_known_but_missing() {
    let context = BuildContext::new(Config::default());
    let error = Registry::builtin().pool.build("mobc", &context).map(|_| ()).expect_err("not compiled in");
    assert!(error.message().contains("needs the cargo feature \"mobc\""), "{error}");
}

fn settings(change: impl FnOnce(&mut PoolSettings)) -> PoolSettings {
    let mut settings = PoolSettings::new("test", &Config::default().pool);
    change(&mut settings);
    settings
}

/// A pool of each backend that has limits.
fn bounded_pools(
    change: fn(&mut PoolSettings),
) -> impl Iterator<Item = (Arc<dyn ConnectionPool>, ScriptedConnector)> {
    let names = Registry::builtin().pool.names().filter(|name| *name != "legacy").collect::<Vec<_>>();
    names.into_iter().map(move |name| {
        let connector = ScriptedConnector::new();
        (pool(name, &connector, settings(change)).expect("valid settings"), connector)
    })
}

fn pool(
    name: &str,
    connector: &ScriptedConnector,
    settings: PoolSettings,
) -> Result<Arc<dyn ConnectionPool>> {
    build(name, Arc::new(connector.clone()), settings)
}

fn config(vars: &[(&str, &str)]) -> Config {
    let vars = vars.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    Config::from_vars(vars).expect("valid variables")
}

#[test]
fn the_configuration_selects_the_pool_and_a_rollback_flag_overrides_it() {
    let is_bounded = |vars: &[(&str, &str)]| {
        let context = BuildContext::new(config(vars));
        let pool = context.build_pool(Arc::new(ScriptedConnector::new()), settings(|_| {}));
        pool.expect("a known name").capabilities().bounded
    };
    assert!(is_bounded(&[]));
    assert!(!is_bounded(&[("ARSHAI_POOL__BACKEND", "legacy")]));
    assert!(!is_bounded(&[("ARSHAI_USE_LEGACY_CONNECTIONS", "true")]));
}

#[test]
fn a_bounded_pool_needs_a_connection() {
    for name in Registry::builtin().pool.names().filter(|name| *name != "legacy") {
        let none = settings(|settings| settings.max_connections = 0);
        let error = pool(name, &ScriptedConnector::new(), none).expect_err("no connections");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(error.message(), "max_connections must be at least 1");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_full_pool_names_the_setting_to_raise() {
    let full = |settings: &mut PoolSettings| (settings.max_connections, settings.max_waiting) = (1, 1);
    for (pool, _connector) in bounded_pools(full) {
        let _held = pool.acquire(Deadline::after(LONG)).await.expect("a connection");
        let acquires = futures_util::future::join(
            pool.acquire(Deadline::after(LONG)),
            pool.acquire(Deadline::after(LONG)),
        );
        let (waiting, rejected) = acquires.await;
        assert_eq!(
            waiting.expect_err("none is returned").to_string(),
            "test: timed out: waiting for a connection \
             (waited: 60.000s, limit: 1, setting: pool.max_connections)",
        );
        assert_eq!(
            rejected.expect_err("one is waiting").to_string(),
            "test: queue is full: 1 callers are waiting for a connection (setting: pool.max_waiting)",
        );
    }
}

#[tokio::test(start_paused = true)]
async fn closing_ends_callers_that_connect_or_check() {
    for step in ["connecting", "checking"] {
        for (pool, connector) in bounded_pools(|_| {}) {
            if step == "checking" {
                drop(pool.acquire(Deadline::after(LONG)).await.expect("a connection"));
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            connector.set_connect_outcome(ScriptedOutcome::Hangs);
            connector.set_check_outcome(ScriptedOutcome::Hangs);
            let acquire = tokio::spawn({
                let pool = Arc::clone(&pool);
                async move { pool.acquire(Deadline::after(LONG)).await.map(|_| ()) }
            });
            tokio::task::yield_now().await;
            let began = tokio::time::Instant::now();
            assert!(pool.close(Deadline::after(LONG)).await.is_clean());
            assert_eq!(began.elapsed(), Duration::ZERO, "{step}");
            let error = acquire.await.expect("it ends").expect_err("closed");
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            assert_eq!(connector.open() + connector.connecting(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_check_drops_the_connections_that_were_idle_as_long() {
    let connector = ScriptedConnector::new();
    let pool =
        pool("bounded", &connector, settings(|settings| settings.check_timeout = LONG)).expect("valid");
    let held = [(); 4].map(|()| pool.acquire(Deadline::after(LONG)));
    drop(futures_util::future::join_all(held).await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    connector.set_check_outcome(ScriptedOutcome::Fails);
    let _replaced = pool.acquire(Deadline::after(LONG)).await.expect("another");
    assert_eq!((connector.checked(), connector.open()), (1, 1), "one check, not four");
    assert_eq!(pool.stats().discarded, 4);
}

#[tokio::test(start_paused = true)]
async fn connections_are_kept_for_waiting_callers_where_none_may_be_idle() {
    let connector = ScriptedConnector::new();
    let none_idle = settings(|settings| (settings.max_connections, settings.max_idle) = (2, 0));
    let pool = pool("bounded", &connector, none_idle).expect("valid");
    let callers = (0..50).map(|_| async {
        let connection = pool.acquire(Deadline::after(LONG)).await.expect("a connection");
        tokio::task::yield_now().await;
        drop(connection);
    });
    futures_util::future::join_all(callers).await;
    assert_eq!((connector.created(), connector.open()), (2, 0));
}

#[test]
fn a_pool_outlives_the_runtime_that_used_it_first() {
    for (pool, connector) in bounded_pools(|_| {}) {
        let paused = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().start_paused(true).build().expect("a runtime")
        };
        let acquire = || pool.acquire(Deadline::after(LONG));
        let first = paused();
        let held = first
            .block_on(async {
                drop(acquire().await);
                acquire().await
            })
            .expect("a connection");
        drop(first);
        drop(held);
        paused().block_on(async {
            drop(acquire().await.expect("a connection"));
            tokio::time::sleep(Duration::from_secs(40)).await;
            if pool.capabilities().reaps_idle {
                assert_eq!(connector.open(), 0, "the reaper runs on the second runtime");
            }
            assert_eq!(pool.health(Deadline::after(LONG)).await, Health::Healthy);
        });
    }
}
