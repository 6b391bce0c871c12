//! The client of one connection.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use milvus::proto::milvus::milvus_service_client::MilvusServiceClient;
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, EncodeBuf, Encoder, ProstCodec};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::COMPONENT;
use super::settings::{Headers, Settings};
use crate::{Error, ErrorKind, Result};

type Service = InterceptedService<Channel, Headers>;

/// Sends requests over one connection, which all clones share. The SDK's own `ClientV2` retries UNKNOWN, has a fixed
/// limit of 4 MiB for responses and keeps its caches in statics.
#[derive(Clone)]
pub(super) struct Client {
    service: Service,
    max_response_bytes: usize,
}

impl Client {
    /// Connects with its first request, and again after it broke.
    ///
    /// # Errors
    /// `Unsupported` outside a tokio runtime, `Config` for certificates that cannot be used.
    pub(super) fn connect_lazy(settings: &Settings) -> Result<Self> {
        if tokio::runtime::Handle::try_current().is_err() {
            let message = "no tokio runtime: requests to Milvus need a runtime context";
            return Err(Error::new(ErrorKind::Unsupported, COMPONENT, message).not_sent());
        }
        let channel = settings.endpoint()?.connect_lazy();
        let service = InterceptedService::new(channel, settings.headers());
        Ok(Self { service, max_response_bytes: settings.max_response_bytes })
    }

    /// The client that the SDK generates.
    pub(super) fn generated(self) -> MilvusServiceClient<Service> {
        MilvusServiceClient::new(self.service).max_decoding_message_size(self.max_response_bytes)
    }

    /// Sends a message that is encoded already.
    pub(super) async fn send_encoded<R: Message + Default + 'static>(
        self,
        path: &'static str,
        request: Request<Bytes>,
    ) -> Result<Response<R>, Status> {
        let mut grpc = Grpc::new(self.service).max_decoding_message_size(self.max_response_bytes);
        grpc.ready().await.map_err(|cause| Status::from_error(cause.into()))?;
        grpc.unary(request, PathAndQuery::from_static(path), Encoded(PhantomData)).await
    }
}

/// Requests that are bytes already.
struct Encoded<R>(PhantomData<R>);

impl<R: Message + Default + 'static> Codec for Encoded<R> {
    type Encode = Bytes;
    type Decode = R;
    type Encoder = Copy;
    type Decoder = <ProstCodec<(), R> as Codec>::Decoder;

    fn encoder(&mut self) -> Copy {
        Copy
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<(), R>::default().decoder()
    }
}

struct Copy;

impl Encoder for Copy {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.len());
        buffer.put(message);
        Ok(())
    }
}
