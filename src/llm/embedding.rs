//! Embeddings: strings in, vectors out.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Usage;
use crate::deadline::Deadline;
use crate::support::opaque_debug;

/// A request for embeddings. Cloning shares the inputs.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct EmbedRequest {
    /// The inputs, none of them empty.
    pub inputs: Arc<[String]>,
    /// Dimensions of the vectors, for models that offer a choice.
    pub dimensions: Option<u32>,
    /// Further fields of the request; they override fields of the same name.
    pub extra_body: Map<String, Value>,
    /// Headers for this call only.
    pub extra_headers: BTreeMap<String, String>,
    /// Deadline of the call, retries included.
    pub deadline: Option<Deadline>,
}

impl EmbedRequest {
    /// A request for one vector of each input.
    pub fn new(inputs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { inputs: inputs.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Sets the dimensions of the vectors.
    #[must_use]
    pub fn with_dimensions(mut self, dimensions: u32) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    /// Sends a further field, instead of any field of the same name.
    #[must_use]
    pub fn with_extra(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra_body.insert(name.into(), value.into());
        self
    }

    /// Sets the deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Deadline>) -> Self {
        self.deadline = deadline;
        self
    }
}

// Shows the number of inputs; never the inputs, nor a header's value.
opaque_debug!(EmbedRequest(self) {
    inputs: self.inputs.len(),
    dimensions: self.dimensions,
    extra_headers: self.extra_headers.keys().collect::<Vec<_>>(),
    deadline: self.deadline,
});

/// One vector for each input, in the order of the inputs.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct EmbedResponse {
    /// The vectors.
    pub embeddings: Vec<Vec<f32>>,
    /// Token counts.
    pub usage: Usage,
    /// Further fields of the response: `model`, …
    pub extra: Map<String, Value>,
}

impl EmbedResponse {
    /// A response of `embeddings`.
    #[must_use]
    pub fn new(embeddings: Vec<Vec<f32>>, usage: Usage) -> Self {
        Self { embeddings, usage, extra: Map::new() }
    }
}

// Shows the number of vectors and their dimensions.
opaque_debug!(EmbedResponse(self) {
    embeddings: self.embeddings.len(),
    dimensions: self.embeddings.first().map_or(0, Vec::len),
    usage: self.usage,
});
