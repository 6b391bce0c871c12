//! Every pool keeps the contract.

use std::sync::Arc;
use std::time::Duration;

use arshai::backends::pool::{lean, legacy};
use arshai::contract::doubles::{Scripted, ScriptedConnector, TokioClock};
use arshai::contract::pool::{crowd, suite};
use arshai::pool::{ConnectionPool, PoolFactory, PoolSettings};
use arshai::{BuildContext, Config, Deadline, ErrorKind, Health, Registry};

const LONG: Duration = Duration::from_secs(60);

fn factory(name: &str) -> Arc<dyn PoolFactory> {
    let context = BuildContext::new(Config::default()).with_clock(Arc::new(TokioClock::new()));
    Registry::builtin().pool.build(name, &context).expect("registered")
}

#[tokio::test(start_paused = true)]
async fn the_lean_pool_keeps_the_contract() {
    suite(factory(lean::NAME).as_ref()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_lean_pool_keeps_its_bounds_in_a_crowd() {
    crowd(factory(lean::NAME).as_ref()).await;
}

#[tokio::test(start_paused = true)]
async fn the_legacy_pool_keeps_the_contract() {
    suite(factory(legacy::NAME).as_ref()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_legacy_pool_loses_nothing_in_a_crowd() {
    crowd(factory(legacy::NAME).as_ref()).await;
}

#[cfg(feature = "mobc")]
#[tokio::test(start_paused = true)]
async fn the_mobc_pool_keeps_the_contract() {
    suite(factory("mobc").as_ref()).await;
}

#[cfg(feature = "mobc")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_mobc_pool_keeps_its_bounds_in_a_crowd() {
    crowd(factory("mobc").as_ref()).await;
}

#[cfg(not(feature = "mobc"))]
#[test]
fn without_its_feature_mobc_is_known_but_missing() {
    let context = BuildContext::new(Config::default());
    let error = Registry::builtin().pool.build("mobc", &context).map(|_| ()).expect_err("not compiled in");
    assert!(error.message().contains("needs the cargo feature \"mobc\""), "{error}");
}

/// The names of the pools that hold bounds.
fn bounded() -> Vec<&'static str> {
    Registry::builtin().pool.names().filter(|name| *name != legacy::NAME).collect()
}

fn settings(change: impl FnOnce(&mut PoolSettings)) -> PoolSettings {
    let mut settings = PoolSettings::new("test", &Config::default().pool);
    change(&mut settings);
    settings
}

fn pool(name: &str, connector: &ScriptedConnector, settings: PoolSettings) -> Arc<dyn ConnectionPool> {
    factory(name).build(Arc::new(connector.clone()), settings).expect("valid settings")
}

#[test]
fn the_configuration_chooses_the_pool_and_a_rollback_flag_overrides_it() {
    let bounded = |vars: &[(&str, &str)]| {
        let vars = vars.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let context = BuildContext::new(Config::from_vars(vars).expect("valid"));
        let pool = context.pool(Arc::new(ScriptedConnector::new()), settings(|_| {})).expect("a known name");
        pool.capabilities().bounded
    };
    assert!(bounded(&[]));
    assert!(!bounded(&[("ARSHAI_POOL__BACKEND", "legacy")]));
    assert!(!bounded(&[("ARSHAI_USE_LEGACY_CONNECTIONS", "true")]));
}

#[test]
fn a_bounded_pool_of_no_connections_is_a_mistake() {
    for name in bounded() {
        let none = settings(|settings| settings.max_connections = 0);
        let built = factory(name).build(Arc::new(ScriptedConnector::new()), none);
        assert_eq!(built.map(|_| ()).expect_err("no connections").kind(), ErrorKind::Config);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_at_the_deadline_says_how_full_the_pool_is() {
    for name in bounded() {
        let connector = ScriptedConnector::new();
        let pool = pool(name, &connector, settings(|settings| settings.max_connections = 1));
        let _held = pool.acquire(Deadline::after(LONG)).await.expect("a connection");
        let error = pool.acquire(Deadline::after(LONG)).await.expect_err("none comes free");
        assert_eq!(
            error.to_string(),
            "test: the deadline passed during waiting for a free connection \
             (waited: 60.000s, in_use: 1, limit: 1, waiting: 1)",
        );
    }
}

#[tokio::test(start_paused = true)]
async fn closing_cuts_short_whoever_is_connecting_or_checking() {
    for name in bounded() {
        for hangs in ["connecting", "checking"] {
            let connector = ScriptedConnector::new();
            let pool = pool(name, &connector, settings(|_| {}));
            if hangs == "checking" {
                drop(pool.acquire(Deadline::after(LONG)).await.expect("a connection"));
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            connector.connects(Scripted::Hangs);
            connector.checks(Scripted::Hangs);
            let acquiring = tokio::spawn({
                let pool = Arc::clone(&pool);
                async move { pool.acquire(Deadline::after(LONG)).await.map(|_| ()) }
            });
            tokio::task::yield_now().await;
            let began = tokio::time::Instant::now();
            assert_eq!(pool.close(Deadline::after(LONG)).await, 0);
            assert_eq!(began.elapsed(), Duration::ZERO, "{hangs}");
            let error = acquiring.await.expect("it ends").expect_err("closed");
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            assert_eq!(connector.open() + connector.connecting(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_check_takes_those_with_it_that_were_idle_for_longer() {
    for name in bounded() {
        let connector = ScriptedConnector::new();
        let pool = pool(name, &connector, settings(|settings| settings.check_timeout = LONG));
        let held = [(); 4].map(|()| pool.acquire(Deadline::after(LONG)));
        let held = futures_util::future::join_all(held).await;
        drop(held);
        tokio::time::sleep(Duration::from_secs(2)).await;
        connector.checks(Scripted::Fails);
        let _replaced = pool.acquire(Deadline::after(LONG)).await.expect("another");
        assert_eq!((connector.checked(), connector.open()), (1, 1), "{name}: one check, not four");
        assert_eq!(pool.status().discarded, 4);
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_kept_for_waiters_where_none_may_be_idle() {
    for name in bounded() {
        let connector = ScriptedConnector::new();
        let none_idle = settings(|settings| {
            settings.max_connections = 2;
            settings.max_idle = 0;
        });
        let pool = pool(name, &connector, none_idle);
        let turns = (0..50).map(|_| async {
            let connection = pool.acquire(Deadline::after(LONG)).await.expect("a connection");
            tokio::task::yield_now().await;
            drop(connection);
        });
        futures_util::future::join_all(turns).await;
        assert_eq!((connector.made(), connector.open()), (2, 0), "{name}");
    }
}

#[test]
fn a_pool_outlives_the_runtime_it_was_first_used_on() {
    for name in bounded() {
        let connector = ScriptedConnector::new();
        let pool = pool(name, &connector, settings(|_| {}));
        let paused = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().start_paused(true).build().expect("a runtime")
        };
        let acquire = || pool.acquire(Deadline::after(LONG));
        let first = paused();
        let kept = first
            .block_on(async {
                drop(acquire().await);
                acquire().await
            })
            .expect("a connection");
        drop(first);
        drop(kept);
        paused().block_on(async {
            drop(acquire().await.expect("a connection"));
            tokio::time::sleep(Duration::from_secs(40)).await;
            assert_eq!(connector.open(), 0, "{name}: a reaper runs on the second runtime");
            assert_eq!(pool.health(Deadline::after(LONG)).await, Health::Healthy);
        });
    }
}
