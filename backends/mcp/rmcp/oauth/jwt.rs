//! Algorithms of client assertions.

use rmcp::transport::auth::JwtSigningAlgorithm;

use crate::config::McpSigningAlgorithm;

/// rmcp's name of an algorithm.
pub(super) fn signing_algorithm(algorithm: McpSigningAlgorithm) -> Option<JwtSigningAlgorithm> {
    Some(match algorithm.as_str() {
        "RS256" => JwtSigningAlgorithm::RS256,
        "RS384" => JwtSigningAlgorithm::RS384,
        "RS512" => JwtSigningAlgorithm::RS512,
        "ES256" => JwtSigningAlgorithm::ES256,
        "ES384" => JwtSigningAlgorithm::ES384,
        _ => return None,
    })
}
