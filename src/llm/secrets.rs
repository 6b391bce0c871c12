//! Secrets that must not be repeated in errors.

use std::fmt;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

/// Shorter secrets are not searched for in a provider's message: they would be found in any text.
const MIN_SECRET_LEN: usize = 6;

/// Strings that an error must not repeat from a provider's message.
#[derive(Clone, Default)]
pub(super) struct Secrets(Arc<[SecretString]>);

impl Secrets {
    pub(super) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let long = secrets.into_iter().filter(|secret| secret.len() >= MIN_SECRET_LEN);
        Self(long.map(SecretString::from).collect())
    }

    pub(super) fn appear_in(&self, text: &str) -> bool {
        self.0.iter().any(|secret| text.contains(secret.expose_secret()))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
