//! Clients of the four providers, from the configuration.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};

use super::limiter::Registered;
use super::{
    AdaptiveConcurrency, AdaptiveLimiter, AdaptiveLimiterConfig, LlmClient, OpenAiCompatibleClient, Retry,
};
use crate::config::{Config, LlmConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::http::HttpTransport;
use crate::registry::{BuildContext, Registry};
use crate::support::opaque_debug;

const COMPONENT: &str = "llm.factory";

/// The oldest Azure API version whose streams report their usage.
const AZURE_WITH_USAGE: &str = "2024-09-01";

/// Builds clients of the four providers over one HTTP transport (Python: `SafeHttpClientFactory`). Clones share it, unless
/// they are given a separate registry or transport.
///
/// The transport is the one of the runtime that it belongs to; without one it is built with the first client, from the
/// configuration. A client is an [`OpenAiCompatibleClient`] under
/// [`Retry`] and [`AdaptiveConcurrency`]; clients of one model with one API key share a limiter, which is a component
/// named `llm:MODEL` for as long as one of them exists.
///
/// ```
/// use arshai::llm::HttpClientFactory;
/// use arshai::Config;
///
/// let mut config = Config::default();
/// # if cfg!(feature = "ureq") {
/// config.llm.openai.api_key = Some("sk-secret".into());
/// let client = HttpClientFactory::new(config).openai("gpt-4o-mini")?;
/// assert_eq!(client.model(), "gpt-4o-mini");
/// # }
/// # Ok::<_, arshai::Error>(())
/// ```
#[doc(alias = "SafeHttpClientFactory")]
#[derive(Clone)]
pub struct HttpClientFactory {
    context: BuildContext,
    settings: LlmConfig,
    shared: Arc<Shared>,
}

/// State that clones share.
#[derive(Default)]
struct Shared {
    transport: Mutex<Option<Arc<dyn HttpTransport>>>,
    limiters: Mutex<BTreeMap<LimiterKey, Weak<Registered>>>,
    hasher: RandomState,
}

impl Shared {
    fn with_transport(transport: Option<Arc<dyn HttpTransport>>) -> Arc<Self> {
        Arc::new(Self { transport: Mutex::new(transport), ..Self::default() })
    }
}

/// Provider, model and hash of the API key.
type LimiterKey = (&'static str, String, u64);

impl HttpClientFactory {
    /// A factory with the built-in transports.
    pub fn new(config: impl Into<Arc<Config>>) -> Self {
        Self::from_context(BuildContext::new(config))
    }

    /// A factory with the configuration, clock, backends and transport of `context`. Limiters are registered in it.
    #[must_use]
    pub fn from_context(context: BuildContext) -> Self {
        let settings = context.config.llm.clone();
        let shared = Shared::with_transport(context.http.clone());
        Self { context, settings, shared }
    }

    /// Builds the transport anew, chosen among these.
    #[must_use]
    pub fn with_registry(mut self, registry: Registry) -> Self {
        self.context = self.context.with_registry(registry);
        self.shared = Shared::with_transport(None);
        self
    }

    /// Uses this transport.
    #[must_use]
    pub fn with_transport(mut self, transport: Arc<dyn HttpTransport>) -> Self {
        self.shared = Shared::with_transport(Some(transport));
        self
    }

    /// Uses these API keys and addresses instead of the configuration's; the transport stays shared.
    #[must_use]
    pub fn with_settings(mut self, settings: LlmConfig) -> Self {
        self.settings = settings;
        self
    }

    /// A client of OpenAI, or of any server that implements its API (Python: `create_openai_client`).
    ///
    /// # Errors
    /// As [`OpenAiCompatibleClient::openai`]; errors of building the transport.
    pub fn openai(&self, model: impl Into<String>) -> Result<Arc<dyn LlmClient>> {
        let settings = &self.settings.openai;
        let client = OpenAiCompatibleClient::openai(settings, model, self.transport()?)?;
        Ok(self.decorate("openai", settings.api_key.as_ref(), client))
    }

    /// A client of the configured deployment of Azure OpenAI (Python: `create_azure_openai_client`).
    ///
    /// # Errors
    /// As [`OpenAiCompatibleClient::azure_openai`]; errors of building the transport.
    pub fn azure_openai(&self) -> Result<Arc<dyn LlmClient>> {
        let settings = &self.settings.azure;
        let client = OpenAiCompatibleClient::azure_openai(settings, self.transport()?)?;
        Ok(self.decorate("azure_openai", settings.api_key.as_ref(), client))
    }

    /// A client of OpenRouter (Python: `create_openrouter_client`).
    ///
    /// # Errors
    /// As [`OpenAiCompatibleClient::openrouter`]; errors of building the transport.
    pub fn openrouter(&self, model: impl Into<String>) -> Result<Arc<dyn LlmClient>> {
        let settings = &self.settings.openrouter;
        let client = OpenAiCompatibleClient::openrouter(settings, model, self.transport()?)?;
        Ok(self.decorate("openrouter", settings.api_key.as_ref(), client))
    }

    /// A client of Gemini (Python: `create_genai_client`).
    ///
    /// # Errors
    /// As [`OpenAiCompatibleClient::genai`]; errors of building the transport.
    pub fn genai(&self, model: impl Into<String>) -> Result<Arc<dyn LlmClient>> {
        let settings = &self.settings.google;
        let client = OpenAiCompatibleClient::genai(settings, model, self.transport()?)?;
        Ok(self.decorate("gemini", settings.api_key.as_ref(), client))
    }

    /// Warnings about settings that may not work as expected; logs each of them (Python: `check_compatibility`).
    /// Touches no network.
    #[must_use]
    pub fn check_compatibility(&self) -> Vec<String> {
        let config = &self.context.config;
        let mut warnings = Vec::new();
        let backend = config.http.backend.as_str();
        if self.shared.transport.lock().is_none() && !self.context.registry.http.contains(backend) {
            warnings.push(self.context.registry.http.unknown_backend_error(backend).message().to_owned());
        }
        if backend == "legacy" {
            let warning = "a rollback flag selects the legacy HTTP pool: 50 connections, unlimited queue";
            warnings.push(warning.to_owned());
        }
        if let Some(version) = &self.settings.azure.api_version
            && version.as_str() < AZURE_WITH_USAGE
        {
            warnings.push(format!(
                "AZURE_API_VERSION = {version} may not report the usage of streams; use {AZURE_WITH_USAGE} or later"
            ));
        }
        for warning in &warnings {
            tracing::warn!(component = COMPONENT, "{warning}");
        }
        warnings
    }

    /// Builds the transport and a client of every provider with an API key, and drops the clients (Python:
    /// `validate_configuration`). Touches no network.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with every problem found.
    pub fn validate_configuration(&self) -> Result<()> {
        let settings = &self.settings;
        let mut problems = Vec::new();
        if let Err(error) = self.transport() {
            problems.push(error.to_string());
        }
        let mut check = |has_key: bool, client: &dyn Fn() -> Result<Arc<dyn LlmClient>>| {
            if has_key && let Err(error) = client() {
                problems.push(error.to_string());
            }
        };
        check(settings.openai.api_key.is_some(), &|| self.openai("any"));
        check(settings.azure.api_key.is_some(), &|| self.azure_openai());
        check(settings.openrouter.api_key.is_some(), &|| self.openrouter("any"));
        check(settings.google.api_key.is_some(), &|| self.genai("any"));
        problems.dedup();
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Config, COMPONENT, problems.join("; "))),
        }
    }

    fn decorate(
        &self,
        provider: &'static str,
        api_key: Option<&SecretString>,
        client: OpenAiCompatibleClient,
    ) -> Arc<dyn LlmClient> {
        let config = &self.context.config;
        let (retries, timeout) = (config.http.max_retries, config.http.total_timeout);
        if config.llm.adaptive_concurrency && self.settings.adaptive_concurrency {
            let limiter = self.limiter(provider, client.model(), api_key);
            let client = AdaptiveConcurrency::new(client, limiter);
            Arc::new(Retry::new(client, retries).with_timeout(timeout))
        } else {
            Arc::new(Retry::new(client, retries).with_timeout(timeout))
        }
    }

    /// The limiter of a model and an API key, the same for all clients of this factory.
    fn limiter(
        &self,
        provider: &'static str,
        model: &str,
        api_key: Option<&SecretString>,
    ) -> AdaptiveLimiter {
        let api_key = self.shared.hasher.hash_one(api_key.map(|key| key.expose_secret()));
        let key: LimiterKey = (provider, model.to_owned(), api_key);
        let mut limiters = self.shared.limiters.lock();
        if let Some(limiter) = limiters.get(&key).and_then(AdaptiveLimiter::upgrade) {
            return limiter;
        }
        limiters.retain(|_, limiter| limiter.strong_count() > 0);
        let name = self.unused_name(model, limiters.values().filter_map(AdaptiveLimiter::upgrade));
        let limiter = AdaptiveLimiter::registered(&name, self.limiter_config(), &self.context);
        limiters.insert(key, limiter.downgrade());
        limiter
    }

    /// `MODEL`, or `MODEL#2` where another provider or API key has a limiter of that model.
    fn unused_name(&self, model: &str, limiters: impl Iterator<Item = AdaptiveLimiter>) -> String {
        let used: Vec<String> = limiters.map(|limiter| limiter.name().to_owned()).collect();
        let numbered = (2..).map(|number| format!("{model}#{number}"));
        let mut names = std::iter::once(model.to_owned()).chain(numbered);
        names.find(|name| !used.contains(&format!("llm:{name}"))).unwrap_or_default()
    }

    /// A limit above the transport's connections would only move the queue from here to there.
    fn limiter_config(&self) -> AdaptiveLimiterConfig {
        let configured = self.settings.max_concurrency.min(self.context.config.llm.max_concurrency);
        let transport = self.shared.transport.lock().clone();
        let limits = transport.map(|transport| transport.limits()).unwrap_or_default();
        let connections =
            limits.iter().find(|limit| limit.unit == "connections").and_then(|limit| limit.limit);
        let connections = connections.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
        let mut config = AdaptiveLimiterConfig {
            max: configured.min(connections),
            max_waiting: self.context.config.http.max_waiting,
            ..AdaptiveLimiterConfig::default()
        };
        // The configuration is capped by it already.
        if connections <= configured {
            config.setting = "pool.max_connections, and llm.max_concurrency if it is lower";
        }
        config
    }

    fn transport(&self) -> Result<Arc<dyn HttpTransport>> {
        let mut transport = self.shared.transport.lock();
        if let Some(built) = &*transport {
            return Ok(Arc::clone(built));
        }
        let backend = &self.context.config.http.backend;
        let built = self.context.registry.http.build(backend, &self.context)?;
        *transport = Some(Arc::clone(&built));
        Ok(built)
    }
}

opaque_debug!(HttpClientFactory { settings });
