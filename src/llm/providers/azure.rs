//! Azure OpenAI.

use std::sync::Arc;

use http::HeaderName;

use super::{compatible_client, key, key_header, url, wrong};
use crate::config::AzureConfig;
use crate::error::Result;
use crate::http::HttpTransport;
use crate::llm::compatible::{Compatible, Endpoint};

const COMPONENT: &str = "llm.azure";
const BAD_URL: &str =
    "AZURE_OPENAI_ENDPOINT is not a URL; expected one like https://my-resource.openai.azure.com";

/// Talks to one deployment of an Azure OpenAI resource. Retries and deadlines are those of
/// [`OpenAiClient`](super::OpenAiClient). The model's name is the deployment's.
pub struct AzureOpenAiClient(Compatible);

compatible_client!(AzureOpenAiClient);

impl AzureOpenAiClient {
    /// A client of the configured deployment.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the endpoint, key, deployment or API version is missing
    /// or not what it should be.
    pub fn new(config: &AzureConfig, transport: Arc<dyn HttpTransport>) -> Result<Self> {
        let missing = "there is no key: set AZURE_OPENAI_API_KEY, or llm.azure.api_key in the configuration";
        let unfit =
            "the key has characters that no header may hold; look for a line break in AZURE_OPENAI_API_KEY";
        let key = key(COMPONENT, &config.api_key, missing)?;
        let endpoint = config.endpoint.as_deref().ok_or_else(|| {
            wrong(COMPONENT, "there is no endpoint: set AZURE_OPENAI_ENDPOINT, or llm.azure.endpoint")
        })?;
        let deployment = part(
            &config.deployment,
            "there is no deployment: set AZURE_DEPLOYMENT, or llm.azure.deployment",
            "AZURE_DEPLOYMENT is not a deployment's name; expected letters, digits, '-', '_' and '.'",
        )?;
        let version = part(
            &config.api_version,
            "there is no API version: set AZURE_API_VERSION, or llm.azure.api_version",
            "AZURE_API_VERSION is not a version; expected one like 2024-10-21",
        )?;
        let base = endpoint.trim_end_matches('/');
        let address = |what: &str| {
            let address = format!("{base}/openai/deployments/{deployment}/{what}?api-version={version}");
            url(COMPONENT, &address, BAD_URL)
        };
        let endpoint = Endpoint {
            component: COMPONENT,
            provider: "azure_openai",
            chat: address("chat/completions")?,
            embeddings: address("embeddings")?,
            headers: key_header(COMPONENT, HeaderName::from_static("api-key"), "", key, unfit)?,
            key: key.clone(),
        };
        Ok(Self(Compatible::new(endpoint, deployment.to_owned(), transport)))
    }
}

/// A part of the address that must not change its meaning.
fn part<'a>(part: &'a Option<String>, missing: &'static str, unfit: &'static str) -> Result<&'a str> {
    let part = part.as_deref().ok_or_else(|| wrong(COMPONENT, missing))?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !part.is_empty() && part.chars().all(fits) {
        true => Ok(part),
        false => Err(wrong(COMPONENT, unfit)),
    }
}
