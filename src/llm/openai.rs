//! OpenAI-compatible chat completions.

/// To come.
#[derive(Debug)]
pub struct OpenAiClient;
