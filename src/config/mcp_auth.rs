//! `auth` of an MCP server: how it is authorized, besides a fixed bearer token.

use std::fmt;

use figment::value::{Dict, Value};
use secrecy::{ExposeSecret, SecretString};

use super::setting::ValueError;

const KEYS: [&str; 8] = [
    "type",
    "client_id",
    "client_secret",
    "client_metadata_url",
    "private_key",
    "algorithm",
    "audience",
    "scopes",
];

/// How requests to an MCP server are authorized. Needs the cargo feature `mcp-oauth`.
#[derive(Clone)]
#[non_exhaustive]
pub enum McpAuth {
    /// The service itself is the client: its id and secret are exchanged for access tokens.
    ClientCredentials {
        /// Client id.
        client_id: String,
        /// Client secret.
        client_secret: SecretString,
        /// Scopes to ask for.
        scopes: Vec<String>,
    },
    /// The service itself is the client, and signs its requests for access tokens with its private key
    /// (`private_key_jwt`) instead of sending a secret.
    PrivateKeyJwt {
        /// Client id.
        client_id: String,
        /// The key, as PEM: RSA (PKCS#1 or PKCS#8) or elliptic curve (PKCS#8).
        private_key: SecretString,
        /// The algorithm, which must be one for the key.
        algorithm: McpSigningAlgorithm,
        /// For whom the signed assertion is (`aud`); the authorization server's issuer if unset.
        audience: Option<String>,
        /// Scopes to ask for.
        scopes: Vec<String>,
    },
    /// A user authorizes the client in a browser; see
    /// [`begin_authorization`](crate::mcp::McpServerManager::begin_authorization).
    OAuth {
        /// Id of a client that was registered with the authorization server; without one, the client registers itself
        /// where the server allows it.
        client_id: Option<String>,
        /// Secret of that client.
        client_secret: Option<SecretString>,
        /// URL of a client id metadata document, for authorization servers that accept it in place of a registration.
        client_metadata_url: Option<String>,
        /// Scopes to ask for; those that the server asks for if empty.
        scopes: Vec<String>,
    },
}

/// How an assertion is signed; see [`McpAuth::PrivateKeyJwt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum McpSigningAlgorithm {
    /// RSA with SHA-256.
    Rs256,
    /// RSA with SHA-384.
    Rs384,
    /// RSA with SHA-512.
    Rs512,
    /// P-256 with SHA-256.
    Es256,
    /// P-384 with SHA-384.
    Es384,
}

impl McpSigningAlgorithm {
    const ALL: [(&str, Self); 5] = [
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
    ];

    /// Its name in a JWT: `ES256`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, algorithm)| algorithm)
    }
}

impl McpAuth {
    /// Client credentials without scopes.
    pub fn client_credentials(client_id: impl Into<String>, client_secret: impl Into<SecretString>) -> Self {
        Self::ClientCredentials {
            client_id: client_id.into(),
            client_secret: client_secret.into(),
            scopes: Vec::new(),
        }
    }

    /// Client credentials with a private key in PEM instead of a secret, without scopes.
    pub fn private_key_jwt(
        client_id: impl Into<String>,
        private_key: impl Into<SecretString>,
        algorithm: McpSigningAlgorithm,
    ) -> Self {
        let (client_id, private_key) = (client_id.into(), private_key.into());
        Self::PrivateKeyJwt { client_id, private_key, algorithm, audience: None, scopes: Vec::new() }
    }

    /// Authorization by a user, with a client that registers itself.
    #[must_use]
    pub fn oauth() -> Self {
        Self::OAuth { client_id: None, client_secret: None, client_metadata_url: None, scopes: Vec::new() }
    }

    /// Reads the key `auth` of a server.
    pub(super) fn parse(value: &Value) -> Result<Self, ValueError> {
        let expected =
            "expected a table whose `type` is \"client_credentials\", \"private_key_jwt\" or \"oauth\"";
        let dict = value.as_dict().ok_or_else(|| ValueError::new(expected))?;
        if let Some(unknown) = dict.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(ValueError::new(format!("unknown key; known: {}", KEYS.join(", "))).at_key(unknown));
        }
        let scopes = scopes(dict)?;
        let required = |key| text(dict, key)?.ok_or_else(|| ValueError::new("is required").at_key(key));
        match dict.get("type").and_then(Value::as_str) {
            Some("client_credentials") => Ok(Self::ClientCredentials {
                client_id: required("client_id")?,
                client_secret: required("client_secret")?.into(),
                scopes,
            }),
            Some("private_key_jwt") => Ok(Self::PrivateKeyJwt {
                client_id: required("client_id")?,
                private_key: required("private_key")?.into(),
                algorithm: McpSigningAlgorithm::parse(&required("algorithm")?).ok_or_else(|| {
                    let names = McpSigningAlgorithm::ALL.map(|(name, _)| name).join(", ");
                    ValueError::new(format!("expected one of {names}")).at_key("algorithm")
                })?,
                audience: text(dict, "audience")?,
                scopes,
            }),
            Some("oauth") => Ok(Self::OAuth {
                client_id: text(dict, "client_id")?,
                client_secret: text(dict, "client_secret")?.map(Into::into),
                client_metadata_url: text(dict, "client_metadata_url")?,
                scopes,
            }),
            _ => Err(ValueError::new(expected).at_key("type")),
        }
    }

    /// All values, secrets included, to compare configurations.
    pub(super) fn exposed(&self) -> String {
        match self {
            Self::ClientCredentials { client_id, client_secret, scopes } => {
                format!("secret {:?}", (client_id, client_secret.expose_secret(), scopes))
            }
            Self::PrivateKeyJwt { client_id, private_key, algorithm, audience, scopes } => {
                format!("key {:?}", (client_id, private_key.expose_secret(), algorithm, audience, scopes))
            }
            Self::OAuth { client_id, client_secret, client_metadata_url, scopes } => {
                let secret = client_secret.as_ref().map(ExposeSecret::expose_secret);
                format!("user {:?}", (client_id, secret, client_metadata_url, scopes))
            }
        }
    }
}

/// Shows only the kind.
impl fmt::Debug for McpAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientCredentials { .. } => "ClientCredentials",
            Self::PrivateKeyJwt { .. } => "PrivateKeyJwt",
            Self::OAuth { .. } => "OAuth",
        })
    }
}

fn text(dict: &Dict, key: &str) -> Result<Option<String>, ValueError> {
    let Some(value) = dict.get(key) else { return Ok(None) };
    match value.as_str().filter(|text| !text.is_empty()) {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(ValueError::new("expected a non-empty string").at_key(key)),
    }
}

fn scopes(dict: &Dict) -> Result<Vec<String>, ValueError> {
    let Some(value) = dict.get("scopes") else { return Ok(Vec::new()) };
    let list = value
        .as_array()
        .and_then(|list| list.iter().map(|scope| scope.as_str().map(str::to_owned)).collect());
    list.ok_or_else(|| ValueError::new("expected a list of strings").at_key("scopes"))
}
