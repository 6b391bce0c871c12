//! Every HTTP transport keeps the contract.

use std::sync::Arc;

use arshai::BuildContext;
use arshai::backends::http::{HyperTransport, UreqTransport};
use arshai::contract::http::{Setup, suite};
use arshai::http::HttpTransport;

async fn ureq(setup: Setup) -> Arc<dyn HttpTransport> {
    Arc::new(UreqTransport::from_context(&BuildContext::new(setup.config)).expect("valid settings"))
}

async fn legacy(setup: Setup) -> Arc<dyn HttpTransport> {
    Arc::new(UreqTransport::legacy(&BuildContext::new(setup.config)).expect("valid settings"))
}

async fn hyper(setup: Setup) -> Arc<dyn HttpTransport> {
    Arc::new(HyperTransport::from_context(&BuildContext::new(setup.config)).expect("valid settings"))
}

#[tokio::test]
async fn ureq_keeps_the_contract() {
    suite(ureq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ureq_keeps_the_contract_on_many_threads() {
    suite(ureq).await;
}

#[tokio::test]
async fn the_legacy_transport_keeps_the_contract() {
    suite(legacy).await;
}

#[tokio::test]
async fn hyper_keeps_the_contract() {
    suite(hyper).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hyper_keeps_the_contract_on_many_threads() {
    suite(hyper).await;
}
