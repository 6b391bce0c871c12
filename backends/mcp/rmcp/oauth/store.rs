//! The application's credential store, as rmcp's.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::Mutex;
use rmcp::transport::auth::{AuthError, CredentialStore, StoredCredentials};
use secrecy::{ExposeSecret, SecretString};

use crate::mcp::McpCredentialStore;
use crate::{Error, ErrorKind, Result};

/// A token is renewed when it expires within this time, or half its life if that is shorter.
const RENEW_BEFORE_SECS: u64 = 30;

/// The credentials of one server, cached.
#[derive(Clone)]
pub(super) struct Credentials {
    server: String,
    store: Arc<dyn McpCredentialStore>,
    cached: Arc<Mutex<Option<Stored>>>,
}

/// Credentials, and what requests need of them.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) credentials: StoredCredentials,
    pub(super) access_token: Option<SecretString>,
    /// Seconds since the Unix epoch.
    renew_at: Option<u64>,
}

impl Stored {
    fn new(credentials: StoredCredentials) -> Self {
        let token = serde_json::to_value(&credentials.token_response).unwrap_or_default();
        let expires_in = token["expires_in"].as_u64();
        let renew_at = expires_in.zip(credentials.token_received_at).map(|(expires_in, received)| {
            let margin = RENEW_BEFORE_SECS.min(expires_in / 2).max(1);
            received.saturating_add(expires_in.saturating_sub(margin))
        });
        let access_token = token["access_token"].as_str().map(SecretString::from);
        Self { credentials, access_token, renew_at }
    }

    /// Whether the token has expired or is about to.
    pub(super) fn expires_soon(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.renew_at.is_some_and(|renew_at| now >= renew_at)
    }
}

impl Credentials {
    pub(super) fn new(server: &str, store: Arc<dyn McpCredentialStore>) -> Self {
        Self { server: server.to_owned(), store, cached: Arc::default() }
    }

    /// The credentials, from the cache if they are there.
    pub(super) async fn get(&self) -> Result<Option<Stored>> {
        let cached = self.cached.lock().clone();
        match cached {
            Some(cached) => Ok(Some(cached)),
            None => self.reload().await,
        }
    }

    /// The credentials as the application's store has them now.
    pub(super) async fn reload(&self) -> Result<Option<Stored>> {
        let stored = self.store.load(&self.server).await?;
        // What cannot be read is as good as none: the user authorizes again.
        let stored = stored.and_then(|text| serde_json::from_str(text.expose_secret()).ok()).map(Stored::new);
        self.cached.lock().clone_from(&stored);
        Ok(stored)
    }

    /// Keeps them, in the application's store too.
    pub(super) async fn keep(&self, credentials: StoredCredentials) -> Result<()> {
        let text = serde_json::to_string(&credentials).map_err(|error| {
            Error::new(ErrorKind::Internal, format!("mcp:{}", self.server), error.to_string())
        })?;
        *self.cached.lock() = Some(Stored::new(credentials));
        self.store.save(&self.server, text.into()).await
    }

    pub(super) async fn remove(&self) -> Result<()> {
        self.cached.lock().take();
        self.store.clear(&self.server).await
    }
}

#[async_trait]
impl CredentialStore for Credentials {
    async fn load(&self) -> Result<Option<StoredCredentials>, AuthError> {
        let stored = self.get().await.map_err(store_error)?;
        Ok(stored.map(|stored| stored.credentials))
    }

    async fn save(&self, credentials: StoredCredentials) -> Result<(), AuthError> {
        self.keep(credentials).await.map_err(store_error)
    }

    async fn clear(&self) -> Result<(), AuthError> {
        self.remove().await.map_err(store_error)
    }
}

fn store_error(error: crate::Error) -> AuthError {
    AuthError::CredentialStoreError(error.to_string())
}
