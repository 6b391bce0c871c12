//! Clients of the four providers, from the configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};

use super::adaptive::{AdaptiveClient, Concurrency, ConcurrencySettings, LlmStats};
use super::{AzureOpenAiClient, GeminiClient, LlmClient, OpenAiClient, OpenRouterClient};
use crate::config::{Config, LlmConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::http::HttpTransport;
use crate::registry::{BuildContext, Registry};

const COMPONENT: &str = "llm.factory";

/// The most pairs of model and key whose concurrency is remembered.
const MAX_CONCURRENCIES: usize = 256;

/// The oldest Azure API whose streams can give their usage.
const AZURE_WITH_USAGE: &str = "2024-09-01";

/// Makes clients of the four providers over one HTTP transport (Python: `SafeHttpClientFactory`). Clones share it, unless
/// they are given a registry or a transport of their own.
///
/// The transport is built when the first client is, as the configuration says. Where that fails, the factory falls
/// back, with a warning each, to the built-in transport with standard settings, and then with minimal ones; what
/// protects a request (https, the proxy, the allowed hosts, the caps) is the same at every level. A key or an address
/// that is missing or wrong is an error at once: no setting would mend it.
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

/// What clones share.
#[derive(Default)]
struct Shared {
    transport: Mutex<Option<(ClientLevel, Arc<dyn HttpTransport>)>>,
    concurrencies: Mutex<BTreeMap<(&'static str, String, u64), Concurrency>>,
    hasher: RandomState,
}

/// How good the settings are that a factory's clients have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ClientLevel {
    /// Few connections, 30 s of silence, one retry.
    Minimal,
    /// The default connections, 30 s of silence, two retries.
    Standard,
    /// As configured.
    Optimized,
}

impl HttpClientFactory {
    /// A factory with the built-in transports.
    pub fn new(config: impl Into<Arc<Config>>) -> Self {
        Self::from_context(BuildContext::new(config))
    }

    /// A factory with the configuration, clock and backends of `context`.
    #[must_use]
    pub fn from_context(context: BuildContext) -> Self {
        let settings = context.config.llm.clone();
        Self { context, settings, shared: Arc::default() }
    }

    /// Chooses the transport among these.
    #[must_use]
    pub fn with_registry(mut self, registry: Registry) -> Self {
        self.context = self.context.with_registry(registry);
        self.shared = Arc::default();
        self
    }

    /// Uses this transport.
    #[must_use]
    pub fn with_transport(mut self, transport: Arc<dyn HttpTransport>) -> Self {
        let transport = Mutex::new(Some((ClientLevel::Optimized, transport)));
        self.shared = Arc::new(Shared { transport, ..Shared::default() });
        self
    }

    /// Uses these keys and addresses in place of the configuration's; the transport stays shared.
    #[must_use]
    pub fn with_settings(mut self, settings: LlmConfig) -> Self {
        self.settings = settings;
        self
    }

    /// A client of OpenAI, or of whatever speaks its protocol (Python: `create_openai_client`).
    ///
    /// # Errors
    /// As [`OpenAiClient::new`]; whatever the transport fails to be built with at every level.
    pub fn openai(&self, model: impl Into<String>) -> Result<Arc<dyn LlmClient>> {
        let settings = &self.settings.openai;
        self.client("openai", &settings.api_key, |http, retries, timeout| {
            let client = OpenAiClient::new(settings, model, http)?;
            Ok(client.with_max_retries(retries).with_timeout(timeout))
        })
    }

    /// A client of the configured deployment of Azure OpenAI (Python: `create_azure_openai_client`).
    ///
    /// # Errors
    /// As [`AzureOpenAiClient::new`]; whatever the transport fails to be built with at every level.
    pub fn azure_openai(&self) -> Result<Arc<dyn LlmClient>> {
        let settings = &self.settings.azure;
        self.client("azure_openai", &settings.api_key, |http, retries, timeout| {
            let client = AzureOpenAiClient::new(settings, http)?;
            Ok(client.with_max_retries(retries).with_timeout(timeout))
        })
    }

    /// A client of OpenRouter (Python: `create_openrouter_client`).
    ///
    /// # Errors
    /// As [`OpenRouterClient::new`]; whatever the transport fails to be built with at every level.
    pub fn openrouter(&self, model: impl Into<String>) -> Result<Arc<dyn LlmClient>> {
        let settings = &self.settings.openrouter;
        self.client("openrouter", &settings.api_key, |http, retries, timeout| {
            let client = OpenRouterClient::new(settings, model, http)?;
            Ok(client.with_max_retries(retries).with_timeout(timeout))
        })
    }

    /// A client of Gemini (Python: `create_genai_client`).
    ///
    /// # Errors
    /// As [`GeminiClient::new`]; whatever the transport fails to be built with at every level.
    pub fn genai(&self, model: impl Into<String>) -> Result<Arc<dyn LlmClient>> {
        let settings = &self.settings.google;
        self.client("gemini", &settings.api_key, |http, retries, timeout| {
            let client = GeminiClient::new(settings, model, http)?;
            Ok(client.with_max_retries(retries).with_timeout(timeout))
        })
    }

    /// The level of the transport that the clients share; builds it if there is none yet.
    ///
    /// # Errors
    /// Whatever the transport fails to be built with at every level.
    pub fn level(&self) -> Result<ClientLevel> {
        Ok(self.transport()?.0)
    }

    /// What may not work as expected, in words for a person; logs each as a warning (Python: `check_compatibility`).
    /// Touches no network.
    #[must_use]
    pub fn check_compatibility(&self) -> Vec<String> {
        let config = &self.context.config;
        let mut doubts = Vec::new();
        let backend = config.http.backend.as_str();
        if self.shared.transport.lock().is_none() && !self.context.registry.http.contains(backend) {
            doubts.push(self.context.registry.http.unknown_backend_error(backend).message().to_owned());
        }
        if backend == "legacy" {
            doubts.push(
                "a rollback flag gives HTTP its earlier pool: 50 connections, unbounded waiting".into(),
            );
        }
        if let Some(version) = &self.settings.azure.api_version
            && version.as_str() < AZURE_WITH_USAGE
        {
            doubts.push(format!(
                "AZURE_API_VERSION = {version} may not give the usage of streams; use {AZURE_WITH_USAGE} or later"
            ));
        }
        for doubt in &doubts {
            tracing::warn!(component = COMPONENT, "{doubt}");
        }
        doubts
    }

    /// Builds the transport and a client of every provider that has a key, and throws the clients away (Python:
    /// `validate_configuration`). Touches no network.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with every problem found.
    pub fn validate_configuration(&self) -> Result<()> {
        let settings = &self.settings;
        let mut problems = Vec::new();
        let mut check = |has_key: bool, client: &dyn Fn() -> Result<Arc<dyn LlmClient>>| {
            if has_key && let Err(error) = client() {
                problems.push(error.to_string());
            }
        };
        check(settings.openai.api_key.is_some(), &|| self.openai("any"));
        check(settings.azure.api_key.is_some(), &|| self.azure_openai());
        check(settings.openrouter.api_key.is_some(), &|| self.openrouter("any"));
        check(settings.google.api_key.is_some(), &|| self.genai("any"));
        if let Err(error) = self.transport() {
            problems.push(error.to_string());
        }
        problems.dedup();
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Config, COMPONENT, problems.join("; "))),
        }
    }

    /// How many requests are in flight, waiting and allowed, for each model and key. Empty while adaptive concurrency
    /// is off.
    #[must_use]
    pub fn stats(&self) -> Vec<LlmStats> {
        self.shared.concurrencies.lock().values().map(Concurrency::stats).collect()
    }

    fn client<C: LlmClient + 'static>(
        &self,
        provider: &'static str,
        key: &Option<SecretString>,
        build: impl FnOnce(Arc<dyn HttpTransport>, u32, Duration) -> Result<C>,
    ) -> Result<Arc<dyn LlmClient>> {
        let config = &self.context.config;
        let (level, transport) = self.transport()?;
        let client = build(transport, level.retries(config), config.http.total_timeout)?;
        let is_adaptive = config.llm.adaptive_concurrency && self.settings.adaptive_concurrency;
        // A client that was built has a key.
        let Some(key) = key.as_ref().filter(|_| is_adaptive) else { return Ok(Arc::new(client)) };
        let concurrency = self.concurrency(provider, client.model(), key);
        Ok(Arc::new(AdaptiveClient::new(client, concurrency).with_timeout(config.http.total_timeout)))
    }

    /// The concurrency of a model and a key, the same for all clients of this factory.
    fn concurrency(&self, provider: &'static str, model: &str, key: &SecretString) -> Concurrency {
        let key = self.shared.hasher.hash_one(key.expose_secret());
        let mut known = self.shared.concurrencies.lock();
        let place = (provider, model.to_owned(), key);
        if let Some(concurrency) = known.get(&place) {
            return concurrency.clone();
        }
        let others = known.keys().filter(|(p, m, _)| *p == provider && m == model).count();
        let number = if others == 0 { String::new() } else { format!(" (key {})", others + 1) };
        let settings = ConcurrencySettings {
            max: self.settings.max_concurrency.min(self.context.config.llm.max_concurrency),
            max_waiting: self.context.config.http.max_waiting,
            ..ConcurrencySettings::default()
        };
        let concurrency = Concurrency::new(format!("{provider}/{model}{number}"), settings);
        if known.len() >= MAX_CONCURRENCIES {
            known.retain(|_, concurrency| !concurrency.is_unused());
        }
        if known.len() < MAX_CONCURRENCIES {
            known.insert(place, concurrency.clone());
        }
        concurrency
    }

    fn transport(&self) -> Result<(ClientLevel, Arc<dyn HttpTransport>)> {
        let mut transport = self.shared.transport.lock();
        if let Some(built) = &*transport {
            return Ok(built.clone());
        }
        let built = self.build_transport()?;
        *transport = Some(built.clone());
        Ok(built)
    }

    /// The transport of the best level that can be built.
    fn build_transport(&self) -> Result<(ClientLevel, Arc<dyn HttpTransport>)> {
        let mut first = None;
        for level in [ClientLevel::Optimized, ClientLevel::Standard, ClientLevel::Minimal] {
            let config = level.config(&self.context.config);
            let context = BuildContext::new(config).with_clock(Arc::clone(&self.context.clock));
            let name = match level {
                ClientLevel::Optimized => self.context.config.http.backend.as_str(),
                _ => "ureq",
            };
            match self.context.registry.http.build(name, &context) {
                Ok(transport) => return Ok((level, transport)),
                Err(error) => {
                    tracing::warn!(
                        component = COMPONENT,
                        ?level,
                        "HTTP cannot be had at this level: {error}"
                    );
                    first.get_or_insert(error);
                }
            }
        }
        // The first failure is of what was configured; the others follow from it.
        Err(first.unwrap_or_else(|| Error::new(ErrorKind::Internal, COMPONENT, "no level was tried")))
    }
}

impl ClientLevel {
    /// The configuration of a transport of this level.
    fn config(self, configured: &Arc<Config>) -> Arc<Config> {
        if self == Self::Optimized {
            return Arc::clone(configured);
        }
        let mut config = Config::clone(configured);
        let defaults = Config::default();
        config.pool = defaults.pool;
        config.http.connect_timeout = defaults.http.connect_timeout;
        config.http.write_timeout = defaults.http.write_timeout;
        config.http.pool_timeout = defaults.http.pool_timeout;
        config.http.read_timeout = Duration::from_secs(30);
        if self == Self::Minimal {
            config.pool.max_connections = 5;
            config.pool.max_idle = 1;
        }
        Arc::new(config)
    }

    fn retries(self, config: &Config) -> u32 {
        match self {
            Self::Optimized => config.http.max_retries,
            Self::Standard => config.http.max_retries.min(2),
            Self::Minimal => config.http.max_retries.min(1),
        }
    }
}

impl fmt::Debug for HttpClientFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClientFactory").field("settings", &self.settings).finish_non_exhaustive()
    }
}
