//! OAuth as rmcp offers it: authorization code with PKCE, client credentials, discovery and registration.
//!
//! Every request goes over the runtime's [`HttpTransport`]: rmcp takes an HTTP client of ours. (Its cargo feature still
//! compiles reqwest, without TLS; nothing is sent through it.)

mod assertion;
mod http;
mod store;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rmcp::transport::auth::{
    AuthError, AuthorizationManager, AuthorizationRequest, AuthorizationSession, ClientCredentialsConfig,
    OAuthClientConfig,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use self::http::OAuthHttp;
use self::store::{Credentials, Stored};
use super::authorization::{Authorization, not_configured};
use super::http_client::HttpSettings;
use super::http_response::challenge_parameter;
use crate::config::McpAuth;
use crate::http::HttpTransport;
use crate::mcp::McpCredentialStore;
use crate::support::truncated;
use crate::{Deadline, Error, ErrorKind, Result};

/// A flow ends by then, whoever still waits for it: a refresh token that was sent may be used up.
const FLOW_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest part of a remote error that is repeated.
const MAX_REMOTE_TEXT: usize = 300;
const CLIENT_NAME: &str = "arshai";

/// The authorization of one server. Cloning returns another handle to the same one.
#[derive(Clone)]
pub(super) struct OAuth(Arc<Inner>);

struct Inner {
    server: String,
    url: String,
    auth: McpAuth,
    http: Arc<dyn HttpTransport>,
    deny_private_addresses: bool,
    credentials: Credentials,
    stop: CancellationToken,
    /// Held while a flow runs; holds the authorization that waits for its callback.
    flow: Mutex<Option<Pending>>,
}

struct Pending {
    session: AuthorizationSession,
    http: Arc<OAuthHttp>,
}

impl OAuth {
    pub(super) fn new(
        server: &str,
        url: &str,
        auth: McpAuth,
        http: &HttpSettings,
        store: Arc<dyn McpCredentialStore>,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            server: server.to_owned(),
            url: url.to_owned(),
            auth,
            http: Arc::clone(&http.calls),
            deny_private_addresses: http.deny_private_addresses,
            credentials: Credentials::new(server, store),
            stop,
            flow: Mutex::new(None),
        }))
    }

    /// Runs a flow to its end, even if the caller gives up: dropping it half-way could lose a refresh token.
    async fn run_flow<T: Send + 'static>(
        &self,
        deadline: Deadline,
        flow: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let stop = self.0.stop.clone();
        let task = tokio::spawn(async move {
            let bounded = Deadline::after(FLOW_TIMEOUT).run("mcp", "authorizing", flow);
            match stop.run_until_cancelled(bounded).await {
                Some(ended) => ended?,
                None => Err(Error::new(ErrorKind::Closed, "mcp", "closed").not_sent()),
            }
        });
        let ended = deadline.run("mcp", "authorizing", task).await.map_err(Error::not_sent)?;
        ended.unwrap_or_else(|error| Err(self.0.error(ErrorKind::Internal, error.to_string())))
    }
}

#[async_trait]
impl Authorization for OAuth {
    async fn token(&self, deadline: Deadline) -> Result<Option<SecretString>> {
        let Some(stored) = self.0.credentials.get().await? else { return Ok(None) };
        if !stored.expires_soon() {
            return Ok(stored.access_token);
        }
        let (inner, rejected) = (Arc::clone(&self.0), stored.access_token);
        self.run_flow(deadline, async move { inner.renew(rejected, None).await }).await
    }

    async fn renew(
        &self,
        rejected: Option<&SecretString>,
        challenge: &str,
        deadline: Deadline,
    ) -> Result<Option<SecretString>> {
        let (inner, rejected) = (Arc::clone(&self.0), rejected.cloned());
        let challenge = challenge.to_owned();
        self.run_flow(deadline, async move { inner.renew(rejected, Some(&challenge)).await }).await
    }

    async fn begin(&self, redirect_url: &str, challenge: Option<&str>, deadline: Deadline) -> Result<String> {
        let (inner, redirect_url) = (Arc::clone(&self.0), redirect_url.to_owned());
        let challenge = challenge.map(str::to_owned);
        self.run_flow(deadline, async move { inner.begin(redirect_url, challenge.as_deref()).await }).await
    }

    async fn complete(&self, callback_url: &str, deadline: Deadline) -> Result<()> {
        let (inner, callback_url) = (Arc::clone(&self.0), callback_url.to_owned());
        self.run_flow(deadline, async move { inner.complete(&callback_url).await }).await
    }
}

impl Inner {
    async fn renew(
        &self,
        rejected: Option<SecretString>,
        challenge: Option<&str>,
    ) -> Result<Option<SecretString>> {
        let _one_at_a_time = self.flow.lock().await;
        let stored = self.credentials.reload().await?;
        let rejected = rejected.as_ref().map(ExposeSecret::expose_secret);
        // Another caller, or another process, may have renewed it meanwhile.
        if let Some(stored) = stored.as_ref().filter(|stored| !stored.expires_soon())
            && let Some(token) = &stored.access_token
            && Some(token.expose_secret()) != rejected
        {
            return Ok(Some(token.clone()));
        }
        match &self.auth {
            McpAuth::ClientCredentials { client_id, client_secret, scopes } => {
                let config = ClientCredentialsConfig::ClientSecret {
                    client_id: client_id.clone(),
                    client_secret: client_secret.expose_secret().to_owned(),
                    scopes: scopes.clone(),
                    resource: Some(self.url.clone()),
                };
                self.exchange(&config, challenge).await?;
            }
            McpAuth::PrivateKeyJwt { .. } => self.exchange_assertion(challenge).await?,
            _ => match stored {
                Some(stored) if self.refresh(&stored).await? => {}
                _ => return Ok(None),
            },
        }
        Ok(self.credentials.get().await?.and_then(|stored| stored.access_token))
    }

    async fn exchange(&self, config: &ClientCredentialsConfig, challenge: Option<&str>) -> Result<()> {
        let (mut manager, http) = self.manager().await?;
        let exchanged = async {
            let resolution = manager.resolve_metadata_from_challenge(challenge).await?;
            manager.set_metadata(resolution.metadata);
            manager.validate_client_credentials_metadata(config)?;
            manager.configure_client_credentials(config)?;
            manager.exchange_client_credentials(config).await
        };
        exchanged.await.map(drop).map_err(|error| self.auth_error(error, &http))
    }

    /// Whether the refresh token was exchanged for a new access token; it may be missing or rejected.
    async fn refresh(&self, stored: &Stored) -> Result<bool> {
        let (mut manager, http) = self.manager().await?;
        let refreshed = async {
            if !manager.initialize_from_store().await? {
                return Err(AuthError::AuthorizationRequired);
            }
            if let McpAuth::OAuth { client_id: Some(id), client_secret: Some(secret), .. } = &self.auth
                && *id == stored.credentials.client_id
            {
                let client = OAuthClientConfig::new(id, &self.url).with_client_secret(secret.expose_secret());
                manager.configure_client(client)?;
            }
            manager.refresh_token().await
        };
        match refreshed.await {
            Ok(_) => Ok(true),
            Err(AuthError::AuthorizationRequired | AuthError::TokenRefreshRejected(_)) => {
                self.credentials.remove().await?;
                Ok(false)
            }
            Err(error) => Err(self.auth_error(error, &http)),
        }
    }

    async fn begin(&self, redirect_url: String, challenge: Option<&str>) -> Result<String> {
        let McpAuth::OAuth { client_id, client_secret, client_metadata_url, scopes } = &self.auth else {
            return Err(not_configured(&self.server));
        };
        let mut pending = self.flow.lock().await;
        let (mut manager, http) = self.manager().await?;
        let resolution = manager.resolve_metadata_from_challenge(challenge).await;
        manager.set_metadata(resolution.map_err(|error| self.auth_error(error, &http))?.metadata);
        let mut request = AuthorizationRequest::new(redirect_url)
            .with_initial_scope_selection()
            .with_client_name(CLIENT_NAME)
            .with_scopes(self.scopes(scopes, challenge).await?);
        if let Some(id) = client_id {
            request = request.with_preregistered_client(id);
        }
        if let Some(secret) = client_secret {
            request = request.with_client_secret(secret.expose_secret());
        }
        if let Some(url) = client_metadata_url {
            request = request.with_client_metadata_url(url);
        }
        let session = AuthorizationSession::new(manager, request).await;
        let session = session.map_err(|(_, error)| self.auth_error(error, &http))?;
        let url = session.get_authorization_url().to_owned();
        // It is opened in a browser: no script, file or program.
        if !["https://", "http://"].iter().any(|scheme| url.starts_with(scheme)) {
            let message = "the authorization server's page for users is none of http or https";
            return Err(self.error(ErrorKind::Authentication, message).not_sent());
        }
        *pending = Some(Pending { session, http });
        Ok(url)
    }

    /// The scopes to ask for; empty leaves it to the server. Where a call needed more than was granted, both together.
    async fn scopes(&self, configured: &[String], challenge: Option<&str>) -> Result<Vec<String>> {
        let parameter = |name| challenge.and_then(|challenge| challenge_parameter(challenge, name));
        let mut scopes = configured.to_vec();
        if parameter("error").as_deref() == Some("insufficient_scope") {
            if let Some(stored) = self.credentials.get().await? {
                scopes.extend(stored.credentials.granted_scopes);
            }
            scopes.extend(
                parameter("scope").iter().flat_map(|scope| scope.split_whitespace()).map(str::to_owned),
            );
        }
        let mut seen = std::collections::HashSet::new();
        scopes.retain(|scope| seen.insert(scope.clone()));
        Ok(scopes)
    }

    async fn complete(&self, callback_url: &str) -> Result<()> {
        let mut pending = self.flow.lock().await;
        let Some(Pending { session, http }) = pending.as_ref() else {
            return Err(self.error(ErrorKind::InvalidInput, "no authorization was begun").not_sent());
        };
        // A forged callback fails here and leaves the authorization to the real one.
        let done = session.handle_callback_url(callback_url).await;
        done.map_err(|error| self.auth_error(error, http))?;
        *pending = None;
        Ok(())
    }

    async fn manager(&self) -> Result<(AuthorizationManager, Arc<OAuthHttp>)> {
        let (transport, deny) = (Arc::clone(&self.http), self.deny_private_addresses);
        let http = Arc::new(OAuthHttp::new(&self.server, transport, deny, Deadline::after(FLOW_TIMEOUT)));
        let client = Arc::clone(&http) as _;
        let manager = AuthorizationManager::new_with_oauth_http_client(self.url.as_str(), client).await;
        let mut manager = manager.map_err(|error| self.auth_error(error, &http))?;
        manager.set_credential_store(self.credentials.clone());
        Ok((manager, http))
    }

    /// Why a flow failed: the authorization server could not be asked, or it said no.
    fn auth_error(&self, error: AuthError, http: &OAuthHttp) -> Error {
        if let Some(failure) = http.take_failure() {
            return failure;
        }
        let kind = match error {
            AuthError::CredentialStoreError(_) => ErrorKind::Unavailable,
            _ => ErrorKind::Authentication,
        };
        let text = error.to_string();
        let message = format!("authorization failed: {}", truncated(&text, MAX_REMOTE_TEXT));
        self.error(kind, message).not_sent()
    }

    fn error(&self, kind: ErrorKind, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::new(kind, format!("mcp:{}", self.server), message)
    }
}
