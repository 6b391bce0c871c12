//! OpenRouter.

use std::sync::Arc;

use super::{bearer, compatible_client, key, url};
use crate::config::OpenRouterConfig;
use crate::error::Result;
use crate::http::HttpTransport;
use crate::llm::compatible::{Compatible, Endpoint, header};

const COMPONENT: &str = "llm.openrouter";
const BASE_URL: &str = "https://openrouter.ai/api/v1";
const BAD_URL: &str = "OPENROUTER_BASE_URL is not a URL; expected one like https://openrouter.ai/api/v1";

/// Talks to the models behind OpenRouter. Retries and deadlines are those of
/// [`OpenAiClient`](super::OpenAiClient).
///
/// The site's URL and the application's name are sent as `HTTP-Referer` and `X-Title`, where they are set.
pub struct OpenRouterClient(Compatible);

compatible_client!(OpenRouterClient);

impl OpenRouterClient {
    /// A client of `model`, for example `openai/gpt-4o`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the key is missing or cannot be a header's value, or the
    /// base URL is not a URL; `InvalidInput` when the site or the name cannot be a header's value.
    pub fn new(
        config: &OpenRouterConfig,
        model: impl Into<String>,
        transport: Arc<dyn HttpTransport>,
    ) -> Result<Self> {
        let missing =
            "there is no key: set OPENROUTER_API_KEY, or llm.openrouter.api_key in the configuration";
        let unfit =
            "the key has characters that no header may hold; look for a line break in OPENROUTER_API_KEY";
        let key = key(COMPONENT, &config.api_key, missing)?;
        let base = config.base_url.as_deref().unwrap_or(BASE_URL).trim_end_matches('/');
        let mut headers = bearer(COMPONENT, key, unfit)?;
        for (name, value) in [("http-referer", &config.site_url), ("x-title", &config.app_name)] {
            if let Some(value) = value {
                headers.extend([header(COMPONENT, name, value)?]);
            }
        }
        let endpoint = Endpoint {
            component: COMPONENT,
            provider: "openrouter",
            chat: url(COMPONENT, &format!("{base}/chat/completions"), BAD_URL)?,
            embeddings: url(COMPONENT, &format!("{base}/embeddings"), BAD_URL)?,
            headers,
            key: key.clone(),
        };
        Ok(Self(Compatible::new(endpoint, model.into(), transport)))
    }
}
