//! The requests that are sent, with what each does and its response.

use std::future::Future;

use milvus::proto::common::Status as MilvusStatus;
use milvus::proto::milvus::*;
use tonic::{Request, Response, Status};

use super::client::Client;
use super::errors::{from_grpc, from_milvus};
use super::insert::EncodedInsert;
use crate::{Deadline, Result};

/// What a request does, which decides whether it may be repeated and whether closing the store aborts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing: repeated after any failure that can pass; aborted when the store is closed.
    None,
    /// The same when it is done twice: repeated likewise; closing waits for it.
    Idempotent,
    /// Another when it is done twice: repeated only if it was certainly not done; closing waits for it.
    Once,
}

/// A request of Milvus.
pub(super) trait Rpc: Send + Sync {
    type Reply: Send;
    /// Its name in errors.
    const STEP: &'static str;
    const EFFECT: Effect;

    /// Sends it once. The server is told the deadline.
    ///
    /// # Errors
    /// An error of the connection, or the one that the response's status carries.
    fn send(&self, client: Client, deadline: Deadline) -> impl Future<Output = Result<Self::Reply>> + Send;
}

fn timed<T>(message: T, deadline: Deadline) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline.remaining());
    request
}

fn checked<T>(
    answer: Result<Response<T>, Status>,
    status: impl Fn(&T) -> Option<&MilvusStatus>,
) -> Result<T> {
    let reply = answer.map_err(|status| from_grpc(&status))?.into_inner();
    from_milvus(status(&reply))?;
    Ok(reply)
}

/// `Request => method -> Reply, effect, step;` with the reply's status.
macro_rules! rpcs {
    ($($Message:ident => $method:ident -> $Reply:ident, $effect:ident, $step:literal, |$reply:ident| $status:expr;)+) => {$(
        impl Rpc for $Message {
            type Reply = $Reply;
            const STEP: &'static str = $step;
            const EFFECT: Effect = Effect::$effect;

            async fn send(&self, client: Client, deadline: Deadline) -> Result<$Reply> {
                let answer = client.generated().$method(timed(self.clone(), deadline)).await;
                checked(answer, |$reply: &$Reply| $status)
            }
        }
    )+};
}

rpcs! {
    CheckHealthRequest => check_health -> CheckHealthResponse, None, "checking the health", |reply| reply.status.as_ref();
    ConnectRequest => connect -> ConnectResponse, None, "connecting", |reply| reply.status.as_ref();
    GetVersionRequest => get_version -> GetVersionResponse, None, "asking for the version", |reply| reply.status.as_ref();
    CreateCollectionRequest => create_collection -> MilvusStatus, Once, "creating the collection", |reply| Some(reply);
    CreateIndexRequest => create_index -> MilvusStatus, Idempotent, "creating an index", |reply| Some(reply);
    DescribeCollectionRequest => describe_collection -> DescribeCollectionResponse, None, "describing the collection", |reply| reply.status.as_ref();
    DescribeIndexRequest => describe_index -> DescribeIndexResponse, None, "describing the indexes", |reply| reply.status.as_ref();
    DropCollectionRequest => drop_collection -> MilvusStatus, Once, "dropping the collection", |reply| Some(reply);
    ShowCollectionsRequest => show_collections -> ShowCollectionsResponse, None, "listing the collections", |reply| reply.status.as_ref();
    LoadCollectionRequest => load_collection -> MilvusStatus, Idempotent, "loading the collection", |reply| Some(reply);
    GetLoadStateRequest => get_load_state -> GetLoadStateResponse, None, "asking whether the collection is loaded", |reply| reply.status.as_ref();
    FlushRequest => flush -> FlushResponse, Idempotent, "flush", |reply| reply.status.as_ref();
    GetFlushStateRequest => get_flush_state -> GetFlushStateResponse, Idempotent, "asking whether the collection is flushed", |reply| reply.status.as_ref();
    DeleteRequest => delete -> MutationResult, Once, "delete", |reply| reply.status.as_ref();
    SearchRequest => search -> SearchResults, None, "search", |reply| reply.status.as_ref();
    HybridSearchRequest => hybrid_search -> SearchResults, None, "hybrid search", |reply| reply.status.as_ref();
    QueryRequest => query -> QueryResults, None, "query", |reply| reply.status.as_ref();
}

impl Rpc for EncodedInsert {
    type Reply = MutationResult;
    const STEP: &'static str = "insert";
    const EFFECT: Effect = Effect::Once;

    async fn send(&self, client: Client, deadline: Deadline) -> Result<MutationResult> {
        let request = timed(self.bytes.clone(), deadline);
        checked(client.send_encoded(EncodedInsert::PATH, request).await, |reply| reply.status.as_ref())
    }
}
