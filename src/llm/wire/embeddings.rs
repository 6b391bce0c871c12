//! Embeddings.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::decode_error;
use super::lenient::or_default;
use super::provider_error::body_error;
use super::response::WireUsage;
use crate::error::{Error, ErrorKind, Result};
use crate::llm::EmbedResponse;
use crate::llm::openai_compatible::Secrets;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Embeddings {
    data: Option<Vec<Embedding>>,
    #[serde(deserialize_with = "or_default")]
    usage: Option<WireUsage>,
    error: Option<Value>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

#[derive(Deserialize)]
struct Embedding {
    #[serde(default)]
    index: Option<usize>,
    embedding: Vec<f32>,
}

/// Decodes one vector for each of `count` inputs, in their order.
pub(in crate::llm) fn decode_embeddings(
    component: &'static str,
    body: &[u8],
    count: usize,
    secrets: &Secrets,
) -> Result<EmbedResponse> {
    let decoded: Embeddings = serde_json::from_slice(body)
        .map_err(|error| decode_error(component, &error, "response is not a list of embeddings"))?;
    if let Some(error) = decoded.error.filter(|error| !error.is_null()) {
        return Err(body_error(component, &error, secrets));
    }
    let mut ordered = vec![None; count];
    for (position, embedding) in decoded.data.into_iter().flatten().enumerate() {
        if let Some(vector) = ordered.get_mut(embedding.index.unwrap_or(position)) {
            *vector = Some(embedding.embedding);
        }
    }
    let embeddings = ordered.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| {
        let message = "number of embeddings differs from number of inputs";
        Error::new(ErrorKind::Protocol, component, message).with_context("inputs", count)
    })?;
    let mut response = EmbedResponse::new(embeddings, decoded.usage.unwrap_or_default().into());
    response.extra = decoded.extra;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::llm::Usage;

    #[test]
    fn vectors_are_in_the_order_of_the_inputs_one_for_each() {
        let body = json!({"data": [{"index": 1, "embedding": [3.0]}, {"index": 0, "embedding": [1.0, 2.0]}],
                          "model": "m", "usage": {"prompt_tokens": 4, "total_tokens": 4}})
        .to_string();
        let decode = |count| decode_embeddings("test", body.as_bytes(), count, &Secrets::default());
        let response = decode(2).expect("two");
        assert_eq!(response.embeddings, [vec![1.0, 2.0], vec![3.0]]);
        assert_eq!((response.usage, &response.extra["model"]), (Usage::new(4, 0), &json!("m")));
        assert_eq!(decode(3).expect_err("one is missing").kind(), ErrorKind::Protocol);
    }
}
