//! Access tokens of a server that wants authorization.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::http_client::HttpSettings;
use crate::config::McpServerConfig;
use crate::mcp::McpCredentialStore;
use crate::{Deadline, Error, ErrorKind, Result};

/// Gets, renews and keeps the access token of one server. One flow runs at a time; the others wait for its result.
#[async_trait]
pub(super) trait Authorization: Send + Sync {
    /// The token for the next request, renewed if it expires soon; `None` until there is one.
    async fn token(&self, deadline: Deadline) -> Result<Option<SecretString>>;

    /// A token in place of the `rejected` one, after the server sent `challenge`. `None` where only a user can
    /// authorize.
    async fn renew(
        &self,
        rejected: Option<&SecretString>,
        challenge: &str,
        deadline: Deadline,
    ) -> Result<Option<SecretString>>;

    /// Starts an authorization by a user and returns the URL to open.
    async fn begin(&self, redirect_url: &str, challenge: Option<&str>, deadline: Deadline) -> Result<String>;

    /// Ends it with the URL that the browser was redirected to.
    async fn complete(&self, callback_url: &str, deadline: Deadline) -> Result<()>;
}

/// The authorization that the server's configuration asks for.
pub(super) fn authorization(
    config: &McpServerConfig,
    http: &HttpSettings,
    store: &Arc<dyn McpCredentialStore>,
    stop: &CancellationToken,
) -> Result<Option<Arc<dyn Authorization>>> {
    let (Some(auth), Some(url)) = (&config.auth, &config.url) else { return Ok(None) };
    #[cfg(feature = "mcp-oauth")]
    {
        let store = Arc::clone(store);
        let oauth = super::oauth::OAuth::new(&config.name, url, auth.clone(), http, store, stop.clone());
        Ok(Some(Arc::new(oauth)))
    }
    #[cfg(not(feature = "mcp-oauth"))]
    {
        let _ = (http, store, stop, url);
        let message = format!("auth = {auth:?} needs the cargo feature \"mcp-oauth\" of arshai");
        Err(Error::new(ErrorKind::Unsupported, format!("mcp:{}", config.name), message))
    }
}

/// The error of an authorization that the configuration does not provide for.
pub(super) fn not_configured(server: &str) -> Error {
    let message = "no authorization by a user is configured; set auth = { type = \"oauth\" }";
    Error::new(ErrorKind::Unsupported, format!("mcp:{server}"), message).not_sent()
}
