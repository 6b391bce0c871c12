//! Texts in, vectors out.

use std::collections::BTreeMap;
use std::fmt;

use super::{RetryListener, Usage};
use crate::deadline::Deadline;

/// Texts to turn into vectors.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct EmbedRequest {
    /// The texts, none of them empty.
    pub inputs: Vec<String>,
    /// The length of the vectors, for models that offer a choice.
    pub dimensions: Option<u32>,
    /// Headers for this call alone.
    pub extra_headers: BTreeMap<String, String>,
    /// When the exchange must have ended.
    pub deadline: Option<Deadline>,
    /// Told of every failed attempt that is tried again.
    pub retry_listener: RetryListener,
}

impl EmbedRequest {
    /// A request for one vector of each text.
    pub fn new(inputs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { inputs: inputs.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Sets the length of the vectors.
    #[must_use]
    pub fn with_dimensions(mut self, dimensions: u32) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    /// Sets the deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Deadline>) -> Self {
        self.deadline = deadline;
        self
    }
}

/// Shows how many texts there are; never the texts, nor a header's value.
impl fmt::Debug for EmbedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbedRequest")
            .field("inputs", &self.inputs.len())
            .field("dimensions", &self.dimensions)
            .field("extra_headers", &self.extra_headers.keys().collect::<Vec<_>>())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// One vector for each text, in the texts' order.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct EmbedResponse {
    /// The vectors.
    pub embeddings: Vec<Vec<f32>>,
    /// What it cost.
    pub usage: Usage,
}

impl EmbedResponse {
    /// A response of `embeddings`: for clients and test doubles.
    #[must_use]
    pub fn new(embeddings: Vec<Vec<f32>>, usage: Usage) -> Self {
        Self { embeddings, usage }
    }
}

/// Shows how many vectors there are and how long they are.
impl fmt::Debug for EmbedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbedResponse")
            .field("embeddings", &self.embeddings.len())
            .field("dimensions", &self.embeddings.first().map_or(0, Vec::len))
            .field("usage", &self.usage)
            .finish()
    }
}
