//! OpenAI, and whatever speaks its protocol.

use std::sync::Arc;

use super::{bearer, compatible_client, key, url};
use crate::config::OpenAiConfig;
use crate::error::Result;
use crate::http::HttpTransport;
use crate::llm::compatible::{Compatible, Endpoint};

const COMPONENT: &str = "llm.openai";
const BASE_URL: &str = "https://api.openai.com/v1";
const BAD_URL: &str = "OPENAI_BASE_URL is not a URL; expected one like https://api.openai.com/v1";

/// Talks to OpenAI, or to anything that speaks its chat completions protocol.
///
/// Connecting failures and the statuses 408, 409, 429 and 5xx are retried, up to `max_retries` times, with pauses of
/// 0.5 s doubling to 8 s, shortened at random by up to a half, or as long as the provider asks. All attempts and
/// pauses spend the request's one deadline; a pause that would outlast it is not begun. An exchange that broke after
/// the request was sent is not retried: the provider may have answered, and charged, already. Nor is a stream that
/// has begun.
pub struct OpenAiClient(Compatible);

compatible_client!(OpenAiClient);

impl OpenAiClient {
    /// A client of `model` as the configuration says where and with which key.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the key is missing or cannot be a header's value, or the
    /// base URL is not a URL.
    pub fn new(
        config: &OpenAiConfig,
        model: impl Into<String>,
        transport: Arc<dyn HttpTransport>,
    ) -> Result<Self> {
        let missing = "there is no key: set OPENAI_API_KEY, or llm.openai.api_key in the configuration";
        let unfit = "the key has characters that no header may hold; look for a line break in OPENAI_API_KEY";
        let key = key(COMPONENT, &config.api_key, missing)?;
        let base = config.base_url.as_deref().unwrap_or(BASE_URL).trim_end_matches('/');
        let endpoint = Endpoint {
            component: COMPONENT,
            provider: "openai",
            chat: url(COMPONENT, &format!("{base}/chat/completions"), BAD_URL)?,
            embeddings: url(COMPONENT, &format!("{base}/embeddings"), BAD_URL)?,
            headers: bearer(COMPONENT, key, unfit)?,
            key: key.clone(),
        };
        Ok(Self(Compatible::new(endpoint, model.into(), transport)))
    }
}
