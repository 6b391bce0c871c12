//! The four providers: where each is, and which headers it wants. The rest they share.

mod azure;
mod gemini;
mod openai;
mod openrouter;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, ErrorKind, Result};

pub use azure::AzureOpenAiClient;
pub use gemini::GeminiClient;
pub use openai::OpenAiClient;
pub use openrouter::OpenRouterClient;

/// What every client can be told and does alike.
macro_rules! compatible_client {
    ($client:ident) => {
        impl $client {
            /// Sets how often a safe failure is retried. Default: 3.
            #[must_use]
            pub fn with_max_retries(mut self, max: u32) -> Self {
                self.0.retries.max = max;
                self
            }

            /// Sets the deadline of requests that bring none of their own. Default: 600 s.
            #[must_use]
            pub fn with_timeout(mut self, timeout: std::time::Duration) -> Self {
                self.0.timeout = timeout;
                self
            }
        }

        #[async_trait::async_trait]
        impl crate::llm::LlmClient for $client {
            #[tracing::instrument(
                        name = "chat", skip_all,
                        fields(gen_ai.operation.name = "chat", gen_ai.request.model = %self.0.model,
                               gen_ai.provider.name = self.0.endpoint.provider)
                    )]
            async fn chat(
                &self,
                request: crate::llm::ChatRequest,
            ) -> crate::error::Result<crate::llm::ChatResponse> {
                self.0.chat(request).await
            }

            #[tracing::instrument(
                        name = "chat", skip_all,
                        fields(gen_ai.operation.name = "chat", gen_ai.request.model = %self.0.model,
                               gen_ai.provider.name = self.0.endpoint.provider)
                    )]
            async fn stream(
                &self,
                request: crate::llm::ChatRequest,
            ) -> crate::error::Result<crate::llm::ChatStream> {
                self.0.stream(request).await
            }

            #[tracing::instrument(
                        name = "embeddings", skip_all,
                        fields(gen_ai.operation.name = "embeddings", gen_ai.request.model = %self.0.model,
                               gen_ai.provider.name = self.0.endpoint.provider)
                    )]
            async fn embed(
                &self,
                request: crate::llm::EmbedRequest,
            ) -> crate::error::Result<crate::llm::EmbedResponse> {
                self.0.embed(request).await
            }

            fn model(&self) -> &str {
                &self.0.model
            }
        }

        impl std::fmt::Debug for $client {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}
use compatible_client;

fn wrong(component: &'static str, message: &'static str) -> Error {
    Error::new(ErrorKind::Config, component, message)
}

/// The key, or an error that says where to put it.
fn key<'a>(
    component: &'static str,
    key: &'a Option<SecretString>,
    missing: &'static str,
) -> Result<&'a SecretString> {
    key.as_ref().filter(|key| !key.expose_secret().is_empty()).ok_or_else(|| wrong(component, missing))
}

/// A header that holds the key and is never shown.
fn key_header(
    component: &'static str,
    name: HeaderName,
    prefix: &str,
    key: &SecretString,
    unfit: &'static str,
) -> Result<HeaderMap> {
    let mut value = HeaderValue::try_from(format!("{prefix}{}", key.expose_secret()))
        .map_err(|_| wrong(component, unfit))?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(name, value)]))
}

fn bearer(component: &'static str, key: &SecretString, unfit: &'static str) -> Result<HeaderMap> {
    key_header(component, AUTHORIZATION, "Bearer ", key, unfit)
}

fn url(component: &'static str, url: &str, unfit: &'static str) -> Result<Uri> {
    let parsed = url.parse::<Uri>().ok().filter(|url| url.scheme().is_some() && url.host().is_some());
    parsed.ok_or_else(|| wrong(component, unfit))
}
