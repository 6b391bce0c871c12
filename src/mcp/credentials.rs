//! Where the credentials of authorized MCP servers are kept.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use parking_lot::Mutex;
use secrecy::SecretString;

use crate::error::Result;

/// Keeps what authorization servers issued: an application implements it over its own secret store, so that users need
/// not authorize again after a restart. Pass it to
/// [`ArshaiBuilder::mcp_credentials`](crate::ArshaiBuilder::mcp_credentials).
///
/// # Contract
/// - The credentials are opaque text, at most 1 MiB, and secret: access and refresh tokens.
/// - [`load`](Self::load) returns what was last [saved](Self::save) for the server. The manager caches it; it loads again
///   when the server rejects the token, so that a token renewed by another process is used.
/// - Futures that are dropped leave either the old or the new credentials.
#[async_trait]
pub trait McpCredentialStore: fmt::Debug + Send + Sync + 'static {
    /// The credentials of a server, if there are any.
    ///
    /// # Errors
    /// Of the store. Connecting then fails and is tried again later.
    async fn load(&self, server: &str) -> Result<Option<SecretString>>;

    /// Replaces the credentials of a server.
    ///
    /// # Errors
    /// Of the store.
    async fn save(&self, server: &str, credentials: SecretString) -> Result<()>;

    /// Removes the credentials of a server, which were rejected. Having none is fine.
    ///
    /// # Errors
    /// Of the store.
    async fn clear(&self, server: &str) -> Result<()>;
}

/// Keeps credentials in this process: the default.
#[derive(Default)]
pub struct InMemoryMcpCredentials(Mutex<HashMap<String, SecretString>>);

#[async_trait]
impl McpCredentialStore for InMemoryMcpCredentials {
    async fn load(&self, server: &str) -> Result<Option<SecretString>> {
        Ok(self.0.lock().get(server).cloned())
    }

    async fn save(&self, server: &str, credentials: SecretString) -> Result<()> {
        self.0.lock().insert(server.to_owned(), credentials);
        Ok(())
    }

    async fn clear(&self, server: &str) -> Result<()> {
        self.0.lock().remove(server);
        Ok(())
    }
}

/// Shows for how many servers there are credentials.
impl fmt::Debug for InMemoryMcpCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InMemoryMcpCredentials({})", self.0.lock().len())
    }
}
