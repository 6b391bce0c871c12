//! A server that does not answer is a timeout at the deadline, whatever was asked.

use std::time::Duration;

use arshai::vectors::{
    BulkInsertOptions, Collection, CollectionConfig, Filter, HybridSearchRequest, SearchRequest, VectorStore,
    entity_stream,
};
use arshai::{Component, Deadline, Error, ErrorKind, Result};
use arshai_test_support::MilvusServer;
use tokio::time::Instant;

use super::{config, entities, entity, everything, legacy, store};

const TIMEOUT: Duration = Duration::from_millis(1_500);
/// What a call may take beyond its deadline.
const BOUND: Duration = Duration::from_millis(100);
/// What one of them takes where other processes keep this one from running.
const LOADED: Duration = Duration::from_secs(4);
const ROUNDS: u64 = 5;

/// Accepts connections for as long as the listener lives, by the kernel; nothing is read.
fn silent() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a free port")
}

/// On tokio's clock, which stands still while anything can run: no load of the machine is measured.
#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_a_timeout_exactly_at_the_deadline() {
    let server = silent();
    let mut settings = arshai::Config::default();
    settings.milvus.host = "127.0.0.1".into();
    settings.milvus.port = server.local_addr().expect("bound").port();
    (settings.milvus.request_timeout, settings.milvus.load_timeout) = (TIMEOUT, 2 * TIMEOUT);
    let current = store(settings.clone());
    let earlier = legacy(settings);
    for store in [&current as &dyn VectorStore, &earlier] {
        let schema = CollectionConfig::new("pages", 4);
        timed_out("connect", TIMEOUT, store.connect()).await;
        timed_out("list", TIMEOUT, store.list_collections()).await;
        timed_out("drop", TIMEOUT, store.drop_collection("pages")).await;
        let (began, health) = (Instant::now(), store.health(Deadline::after(TIMEOUT)).await);
        assert!(!health.is_usable() && began.elapsed() <= TIMEOUT + BOUND, "{health:?}");
        let began = Instant::now();
        let error = store.get_or_create_collection(&schema).await.expect_err("silent");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(began.elapsed() <= 2 * TIMEOUT + BOUND, "creating: {:?}", began.elapsed());
    }
}

async fn timed_out<T: std::fmt::Debug>(
    step: &str,
    timeout: Duration,
    work: impl Future<Output = Result<T>>,
) -> Error {
    let began = Instant::now();
    let error = work.await.expect_err(step);
    assert_eq!(error.kind(), ErrorKind::Timeout, "{step}: {error}");
    assert!(began.elapsed() <= timeout + BOUND, "{step} took {:?}", began.elapsed());
    error
}

/// A real server, halted where it stands, and the real clock. A loaded machine delays single calls; a call that is late
/// by itself is late in every round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_to_a_halted_server_ends_at_its_deadline() {
    let server = MilvusServer::small();
    let roomy = store(config(&server));
    let schema = CollectionConfig::new("pages", 4);
    let hybrid = CollectionConfig::new("hybrid", 4).hybrid();
    let pages = roomy.get_or_create_collection(&schema).await.expect("created");
    pages.insert_entities(entities(0..10)).await.expect("inserted");
    roomy.get_or_create_collection(&hybrid).await.expect("created");
    let mut short = config(&server);
    short.milvus.request_timeout = TIMEOUT;
    let store = store(short);
    let pages = store.get_collection("pages").await.expect("it is there");
    let hybrid = store.get_collection("hybrid").await.expect("it is there");
    store.connect().await.expect("the engine is known");
    server.pause();
    let mut fastest = [LOADED; 9];
    for _ in 0..ROUNDS {
        for (fastest, took) in fastest.iter_mut().zip(every_call(&store, &*pages, &*hybrid).await) {
            *fastest = took.min(*fastest);
        }
    }
    assert!(fastest.iter().all(|took| *took <= TIMEOUT + BOUND), "{fastest:?}");
    server.resume();
    let found = pages.query_by_expr(everything()).await.expect("usable again");
    assert!(found.len() >= 10, "acknowledged entities are there");
    assert_eq!(store.limits()[0].used, 0, "nothing is pending");
}

/// How long each call takes; all of them at once.
async fn every_call(
    store: &dyn VectorStore,
    pages: &dyn Collection,
    hybrid: &dyn Collection,
) -> [Duration; 9] {
    let vector = || vec![1.0, 0.0, 0.0, 0.0];
    let nothing = Filter::parse("metadata['number'] == 99").expect("valid");
    let bulk = async {
        let options = BulkInsertOptions::default().with_flush(false);
        pages.bulk_insert_optimized(entity_stream((20..30).map(entity)), options).await.into_result()
    };
    let (a, b, c, d, e, f, g, h, i) = tokio::join!(
        halted(pages.search_by_vector(SearchRequest::new(vector()))),
        halted(hybrid.hybrid_search(HybridSearchRequest::new(vector(), [(1, 1.0)].into()))),
        halted(pages.query_by_expr(everything())),
        halted(pages.insert_entity(entity(10))),
        halted(bulk),
        halted(pages.delete_entity(&nothing)),
        halted(pages.get_collection_stats()),
        halted(store.list_collections()),
        halted(store.drop_collection("absent")),
    );
    [a, b, c, d, e, f, g, h, i]
}

async fn halted<T: std::fmt::Debug>(work: impl Future<Output = Result<T>>) -> Duration {
    let began = Instant::now();
    let error = work.await.expect_err("halted");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let took = began.elapsed();
    assert!(took <= TIMEOUT + LOADED, "{error} took {took:?}");
    took
}
