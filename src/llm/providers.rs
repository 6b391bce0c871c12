//! The address and headers of each provider.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use secrecy::{ExposeSecret, SecretString};

use super::OpenAiCompatibleClient;
use super::openai_compatible::{Endpoint, parse_header};
use crate::config::{AzureConfig, GoogleConfig, OpenAiConfig, OpenRouterConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::http::HttpTransport;

const OPENAI_URL: &str = "https://api.openai.com/v1";
const OPENROUTER_URL: &str = "https://openrouter.ai/api/v1";
const GEMINI_URL: &str = "https://generativelanguage.googleapis.com/v1beta/openai";

impl OpenAiCompatibleClient {
    /// A client of `model` at OpenAI, or at `base_url` with any server that implements its chat completions API. A
    /// server at a `base_url` needs no API key.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the API key is missing or not a header value, or the base URL is invalid.
    pub fn openai(
        config: &OpenAiConfig,
        model: impl Into<String>,
        transport: Arc<dyn HttpTransport>,
    ) -> Result<Self> {
        let key = Setting { component: "llm.openai", key: "llm.openai.api_key", env_var: "OPENAI_API_KEY" };
        let url = Setting { key: "llm.openai.base_url", env_var: "OPENAI_BASE_URL", ..key };
        let api_key = match (&config.api_key, &config.base_url) {
            (None, Some(_)) => None,
            (api_key, _) => Some(key.require_secret(api_key)?),
        };
        let base = config.base_url.as_deref().unwrap_or(OPENAI_URL);
        let headers = api_key.map_or_else(|| Ok(HeaderMap::new()), |api_key| key.bearer_header(api_key))?;
        let endpoint = Endpoint {
            component: key.component,
            provider: "openai",
            chat_url: url.join(base, "chat/completions", OPENAI_URL)?,
            embeddings_url: url.join(base, "embeddings", OPENAI_URL)?,
            headers,
            api_key: api_key.cloned(),
        };
        Ok(Self::new(endpoint, model.into(), transport))
    }

    /// A client of the configured deployment of Azure OpenAI. The model's name is the deployment's.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the endpoint, API key, deployment or API version is missing or invalid.
    pub fn azure_openai(config: &AzureConfig, transport: Arc<dyn HttpTransport>) -> Result<Self> {
        let key =
            Setting { component: "llm.azure", key: "llm.azure.api_key", env_var: "AZURE_OPENAI_API_KEY" };
        let url = Setting { key: "llm.azure.endpoint", env_var: "AZURE_OPENAI_ENDPOINT", ..key };
        let deployment = Setting { key: "llm.azure.deployment", env_var: "AZURE_DEPLOYMENT", ..key }
            .path_segment("deployment", config.deployment.as_deref())?;
        let version = Setting { key: "llm.azure.api_version", env_var: "AZURE_API_VERSION", ..key }
            .path_segment("API version", config.api_version.as_deref())?;
        let api_key = key.require_secret(&config.api_key)?;
        let base = config.endpoint.as_deref().ok_or_else(|| url.missing("endpoint"))?;
        let address = |operation: &str| {
            let path = format!("openai/deployments/{deployment}/{operation}?api-version={version}");
            url.join(base, &path, "https://my-resource.openai.azure.com")
        };
        let endpoint = Endpoint {
            component: key.component,
            provider: "azure_openai",
            chat_url: address("chat/completions")?,
            embeddings_url: address("embeddings")?,
            headers: key.secret_header(HeaderName::from_static("api-key"), api_key.expose_secret())?,
            api_key: Some(api_key.clone()),
        };
        Ok(Self::new(endpoint, deployment.to_owned(), transport))
    }

    /// A client of `model` at OpenRouter, for example `openai/gpt-4o`. The site's URL and the application's name are
    /// sent as `HTTP-Referer` and `X-Title`, where they are set.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the API key is missing or not a header value, or the base URL is invalid;
    /// `InvalidInput` when the site or the name is not a header value.
    pub fn openrouter(
        config: &OpenRouterConfig,
        model: impl Into<String>,
        transport: Arc<dyn HttpTransport>,
    ) -> Result<Self> {
        let key = Setting {
            component: "llm.openrouter",
            key: "llm.openrouter.api_key",
            env_var: "OPENROUTER_API_KEY",
        };
        let url = Setting { key: "llm.openrouter.base_url", env_var: "OPENROUTER_BASE_URL", ..key };
        let api_key = key.require_secret(&config.api_key)?;
        let base = config.base_url.as_deref().unwrap_or(OPENROUTER_URL);
        let mut headers = key.bearer_header(api_key)?;
        for (name, value) in [("http-referer", &config.site_url), ("x-title", &config.app_name)] {
            if let Some(value) = value {
                headers.extend([parse_header(key.component, name, value)?]);
            }
        }
        let endpoint = Endpoint {
            component: key.component,
            provider: "openrouter",
            chat_url: url.join(base, "chat/completions", OPENROUTER_URL)?,
            embeddings_url: url.join(base, "embeddings", OPENROUTER_URL)?,
            headers,
            api_key: Some(api_key.clone()),
        };
        Ok(Self::new(endpoint, model.into(), transport))
    }

    /// A client of `model` at Gemini's OpenAI-compatible endpoint, for example `gemini-2.5-flash`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the API key is missing or not a header value, or the base URL is invalid.
    pub fn genai(
        config: &GoogleConfig,
        model: impl Into<String>,
        transport: Arc<dyn HttpTransport>,
    ) -> Result<Self> {
        let key = Setting { component: "llm.gemini", key: "llm.google.api_key", env_var: "GOOGLE_API_KEY" };
        let url = Setting { key: "llm.google.base_url", env_var: "ARSHAI_LLM__GOOGLE__BASE_URL", ..key };
        let api_key = key.require_secret(&config.api_key)?;
        let base = config.base_url.as_deref().unwrap_or(GEMINI_URL);
        let endpoint = Endpoint {
            component: key.component,
            provider: "gemini",
            chat_url: url.join(base, "chat/completions", GEMINI_URL)?,
            embeddings_url: url.join(base, "embeddings", GEMINI_URL)?,
            headers: key.bearer_header(api_key)?,
            api_key: Some(api_key.clone()),
        };
        Ok(Self::new(endpoint, model.into(), transport))
    }
}

/// A setting of a provider, for its errors.
#[derive(Clone, Copy)]
struct Setting {
    component: &'static str,
    key: &'static str,
    env_var: &'static str,
}

impl Setting {
    fn config_error(self, message: String) -> Error {
        Error::new(ErrorKind::Config, self.component, message)
    }

    fn missing(self, what: &str) -> Error {
        self.config_error(format!("missing {what}: set {} or {}", self.env_var, self.key))
    }

    fn invalid(self, expected: &str) -> Error {
        self.config_error(format!("invalid {} ({}); expected {expected}", self.env_var, self.key))
    }

    fn require_secret(self, secret: &Option<SecretString>) -> Result<&SecretString> {
        let secret = secret.as_ref().filter(|secret| !secret.expose_secret().is_empty());
        secret.ok_or_else(|| self.missing("API key"))
    }

    /// A header that holds the secret and is never shown.
    fn secret_header(self, name: HeaderName, value: &str) -> Result<HeaderMap> {
        let mut value = HeaderValue::try_from(value).map_err(|_| {
            let message = "API key is not a valid header value; check";
            self.config_error(format!("{message} {} for a trailing newline", self.env_var))
        })?;
        value.set_sensitive(true);
        Ok(HeaderMap::from_iter([(name, value)]))
    }

    fn bearer_header(self, api_key: &SecretString) -> Result<HeaderMap> {
        self.secret_header(AUTHORIZATION, &format!("Bearer {}", api_key.expose_secret()))
    }

    fn join(self, base: &str, path: &str, example: &str) -> Result<Uri> {
        let url = format!("{}/{path}", base.trim_end_matches('/')).parse::<Uri>().ok();
        let url = url.filter(|url| url.scheme().is_some() && url.host().is_some());
        url.ok_or_else(|| self.invalid(&format!("a URL, e.g. {example}")))
    }

    /// A part of the address that must not change its meaning.
    fn path_segment<'a>(self, what: &str, value: Option<&'a str>) -> Result<&'a str> {
        let value = value.ok_or_else(|| self.missing(what))?;
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match value.chars().all(is_allowed) && value.chars().any(|c| c != '.') {
            true => Ok(value),
            false => Err(self.invalid("letters, digits, '-', '_' and '.'")),
        }
    }
}
