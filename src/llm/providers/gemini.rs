//! Gemini, through Google's OpenAI-compatible endpoint.

use std::sync::Arc;

use super::{bearer, compatible_client, key, url};
use crate::config::GoogleConfig;
use crate::error::Result;
use crate::http::HttpTransport;
use crate::llm::compatible::{Compatible, Endpoint};

const COMPONENT: &str = "llm.gemini";
const BASE_URL: &str = "https://generativelanguage.googleapis.com/v1beta/openai";
const BAD_URL: &str = "llm.google.base_url is not a URL; expected one like \
                       https://generativelanguage.googleapis.com/v1beta/openai";

/// Talks to Gemini through Google's OpenAI-compatible endpoint. Retries and deadlines are those of
/// [`OpenAiClient`](super::OpenAiClient).
pub struct GeminiClient(Compatible);

compatible_client!(GeminiClient);

impl GeminiClient {
    /// A client of `model`, for example `gemini-2.5-flash`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the key is missing or cannot be a header's value, or the
    /// base URL is not a URL.
    pub fn new(
        config: &GoogleConfig,
        model: impl Into<String>,
        transport: Arc<dyn HttpTransport>,
    ) -> Result<Self> {
        let missing = "there is no key: set GOOGLE_API_KEY, or llm.google.api_key in the configuration";
        let unfit = "the key has characters that no header may hold; look for a line break in GOOGLE_API_KEY";
        let key = key(COMPONENT, &config.api_key, missing)?;
        let base = config.base_url.as_deref().unwrap_or(BASE_URL).trim_end_matches('/');
        let endpoint = Endpoint {
            component: COMPONENT,
            provider: "gemini",
            chat: url(COMPONENT, &format!("{base}/chat/completions"), BAD_URL)?,
            embeddings: url(COMPONENT, &format!("{base}/embeddings"), BAD_URL)?,
            headers: bearer(COMPONENT, key, unfit)?,
            key: key.clone(),
        };
        Ok(Self(Compatible::new(endpoint, model.into(), transport)))
    }
}
