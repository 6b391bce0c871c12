//! Fingerprints of tool definitions.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// `sha256:` and the hash of a tool's definition as the server sent it, without `_meta`, with its keys sorted.
pub(super) fn fingerprint(mut definition: Value) -> String {
    if let Some(fields) = definition.as_object_mut() {
        fields.remove("_meta");
    }
    definition.sort_all_objects();
    let hash = Sha256::digest(definition.to_string());
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fingerprint_is_of_the_definition_and_nothing_else() {
        let one = fingerprint(json!({"name": "t", "inputSchema": {"a": 1, "b": 2}, "_meta": {"seen": 1}}));
        assert_eq!(one, fingerprint(json!({"inputSchema": {"b": 2, "a": 1}, "name": "t"})));
        assert_ne!(one, fingerprint(json!({"name": "t", "inputSchema": {"a": 1, "b": 3}})));
        // What `sha256sum` says of the same text.
        let known = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(fingerprint(json!({})), known);
    }
}
