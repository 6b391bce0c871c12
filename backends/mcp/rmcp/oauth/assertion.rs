//! Client credentials with a private key (`private_key_jwt`, RFC 7523): the client signs an assertion instead of sending a
//! secret. rmcp's own way brings a second library of cryptography, and its future is not `Send`.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};
use rmcp::transport::auth::StoredCredentials;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{Inner, MAX_REMOTE_TEXT};
use crate::config::{McpAuth, McpSigningAlgorithm};
use crate::support::truncated;
use crate::{ErrorKind, Result};

/// Lifetime of an assertion, which is used at once.
const LIFETIME_SECS: u64 = 300;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

impl Inner {
    /// Exchanges an assertion for a token, which is kept.
    pub(super) async fn exchange_assertion(&self, challenge: Option<&str>) -> Result<()> {
        let McpAuth::PrivateKeyJwt { client_id, private_key, algorithm, audience, scopes } = &self.auth
        else {
            return Ok(());
        };
        let (manager, http) = self.manager().await?;
        let resolution = manager.resolve_metadata_from_challenge(challenge).await;
        let metadata = resolution.map_err(|error| self.auth_error(error, &http))?.metadata;
        let (issuer, endpoint) = (metadata.issuer, metadata.token_endpoint);
        let audience = audience.as_deref().or(issuer.as_deref()).unwrap_or(&endpoint);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let assertion = sign(*algorithm, private_key.expose_secret(), client_id, audience, now);
        let assertion = assertion.map_err(|problem| {
            self.error(ErrorKind::Authentication, format!("auth.private_key {problem}")).not_sent()
        })?;
        let response = http.post_form(&endpoint, form(&assertion, &scopes.join(" "), &self.url)).await?;
        if let Some(failure) = http.take_failure() {
            return Err(failure);
        }
        let answer: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        if !response.status().is_success() {
            let reason = format!("{} {}", answer["error"], answer["error_description"]);
            let message = format!("the private key was rejected: {}", truncated(&reason, MAX_REMOTE_TEXT));
            return Err(self.error(ErrorKind::Authentication, message).not_sent());
        }
        let granted: Vec<_> = answer["scope"].as_str().unwrap_or_default().split_whitespace().collect();
        let stored = json!({ "client_id": client_id, "granted_scopes": granted, "issuer": issuer,
            "token_received_at": now, "token_response": answer });
        let stored: StoredCredentials = serde_json::from_value(stored).map_err(|_| {
            self.error(ErrorKind::Protocol, "the authorization server's answer has no token").not_sent()
        })?;
        self.credentials.keep(stored).await
    }
}

fn form(assertion: &str, scope: &str, resource: &str) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials")
        .append_pair("client_assertion_type", ASSERTION_TYPE)
        .append_pair("client_assertion", assertion)
        .append_pair("resource", resource);
    if !scope.is_empty() {
        form.append_pair("scope", scope);
    }
    form.finish()
}

/// A JWT that says that its bearer is the client; the error completes the sentence "the key …" without showing it.
fn sign(
    algorithm: McpSigningAlgorithm,
    pem: &str,
    client_id: &str,
    audience: &str,
    now: u64,
) -> Result<String, &'static str> {
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).map_err(|_| "cannot be used: the system has no random numbers")?;
    let header = json!({ "alg": algorithm.as_str(), "typ": "client-authentication+jwt" });
    let claims = json!({ "iss": client_id, "sub": client_id, "aud": audience, "iat": now,
        "exp": now + LIFETIME_SECS, "jti": URL_SAFE_NO_PAD.encode(id) });
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let message = format!("{}.{}", encode(&header), encode(&claims));
    let (label, key) = decode_pem(pem).ok_or("is not a key in PEM")?;
    let signature = match algorithm.as_str() {
        "ES256" => sign_ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, message.as_bytes())?,
        "ES384" => sign_ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, &key, message.as_bytes())?,
        "RS256" => sign_rsa(&RSA_PKCS1_SHA256, label, &key, message.as_bytes())?,
        "RS384" => sign_rsa(&RSA_PKCS1_SHA384, label, &key, message.as_bytes())?,
        "RS512" => sign_rsa(&RSA_PKCS1_SHA512, label, &key, message.as_bytes())?,
        _ => return Err("has an unknown algorithm"),
    };
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn sign_ecdsa(
    algorithm: &'static EcdsaSigningAlgorithm,
    key: &[u8],
    message: &[u8],
) -> Result<Vec<u8>, &'static str> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(algorithm, key, &random)
        .map_err(|_| "is not an elliptic curve key (PKCS#8) for its algorithm")?;
    let signature = key.sign(&random, message).map_err(|_| "cannot sign")?;
    Ok(signature.as_ref().to_vec())
}

fn sign_rsa(
    encoding: &'static dyn RsaEncoding,
    label: &str,
    key: &[u8],
    message: &[u8],
) -> Result<Vec<u8>, &'static str> {
    let key = match label {
        "RSA PRIVATE KEY" => RsaKeyPair::from_der(key),
        _ => RsaKeyPair::from_pkcs8(key),
    };
    let key = key.map_err(|_| "is not an RSA key (PKCS#8 or PKCS#1) of 2048 bits or more")?;
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(encoding, &SystemRandom::new(), message, &mut signature).map_err(|_| "cannot sign")?;
    Ok(signature)
}

/// The label and the bytes of the first block.
fn decode_pem(pem: &str) -> Option<(&str, Vec<u8>)> {
    let (label, rest) = pem.split_once("-----BEGIN ")?.1.split_once("-----")?;
    let body: String = rest.split_once("-----END ")?.0.split_whitespace().collect();
    Some((label, STANDARD.decode(body).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_does_not_fit_is_named_by_what_was_expected_and_never_shown() {
        let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let sign = |algorithm, pem: &str| sign(algorithm, pem, "client", "https://as", 0);
        assert_eq!(sign(McpSigningAlgorithm::Es256, &key).expect("it fits").split('.').count(), 3);
        for (algorithm, pem, expected) in [
            (McpSigningAlgorithm::Es384, key.as_str(), "elliptic curve"),
            (McpSigningAlgorithm::Rs256, key.as_str(), "RSA"),
            (McpSigningAlgorithm::Es256, "hunter2", "PEM"),
            (McpSigningAlgorithm::Es256, "-----BEGIN X-----hunter2", "PEM"),
        ] {
            let problem = sign(algorithm, pem).expect_err("it does not fit");
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
