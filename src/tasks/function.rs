//! Functions that a model may call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{CallContext, FailureKind, FunctionOffer, FunctionOutput};
use crate::support::opaque_debug;
use crate::support::truncated;

/// The future of an async function's call.
pub type FunctionFuture = Pin<Box<dyn Future<Output = Result<FunctionOutput, FunctionError>> + Send>>;

/// An error of a function. The model sees its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionError {
    message: String,
    bad_arguments: bool,
}

impl FunctionError {
    /// A failure of the function itself.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), bad_arguments: false }
    }

    /// The arguments do not match the function's.
    pub fn bad_arguments(message: impl Into<String>) -> Self {
        Self { message: message.into(), bad_arguments: true }
    }

    /// The error message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the arguments were invalid.
    #[must_use]
    pub fn is_bad_arguments(&self) -> bool {
        self.bad_arguments
    }

    pub(super) fn kind(&self) -> FailureKind {
        if self.bad_arguments { FailureKind::BadArguments } else { FailureKind::Failed }
    }
}

impl<E: std::error::Error> From<E> for FunctionError {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// How a function runs.
#[derive(Clone)]
pub enum FunctionBody {
    /// On the async runtime; it must not block. One that does occupies a worker of the runtime.
    Async(Arc<dyn Fn(CallContext, Value) -> FunctionFuture + Send + Sync>),
    /// On a thread from the executor's bounded pool; it may block.
    Blocking(Arc<dyn Fn(CallContext, Value) -> Result<FunctionOutput, FunctionError> + Send + Sync>),
}

impl fmt::Debug for FunctionBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Async(_) => "Async",
            Self::Blocking(_) => "Blocking",
        })
    }
}

/// A function that a model may call: a name, a description, the JSON schema of its arguments, and a body.
///
/// ```
/// use std::time::Duration;
///
/// use arshai::tasks::{Function, FunctionError};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Order {
///     /// The number on the invoice.
///     number: u32,
/// }
///
/// async fn status(order: Order) -> Result<String, FunctionError> {
///     match order.number {
///         17 => Ok("shipped".to_owned()),
///         number => Err(FunctionError::new(format!("there is no order {number}"))),
///     }
/// }
///
/// let function = Function::typed("order_status", status)
///     .with_description("The status of an order")
///     .with_timeout(Duration::from_secs(10));
/// assert_eq!(function.parameters()["properties"]["number"]["description"], "The number on the invoice.");
/// ```
///
/// Cloning is cheap: clones share everything.
#[derive(Clone)]
pub struct Function(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    name: String,
    description: String,
    parameters: Value,
    metadata: Value,
    timeout: Option<Duration>,
    max_result_bytes: Option<usize>,
    is_deferred: bool,
    /// Whether a function that is offered on demand is offered by now.
    offer: Option<FunctionOffer>,
    body: FunctionBody,
}

impl Function {
    /// An async function on raw JSON arguments. Its schema accepts any object unless
    /// [`with_parameters`](Self::with_parameters) sets another.
    pub fn new<F, Fut, E>(name: impl Into<String>, function: F) -> Self
    where
        F: Fn(Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, E>> + Send + 'static,
        E: Into<FunctionError>,
    {
        Self::new_with_context(name, move |_, args| function(args))
    }

    /// An async function that also takes the [context](CallContext) of its call.
    pub fn new_with_context<F, Fut, E>(name: impl Into<String>, function: F) -> Self
    where
        F: Fn(CallContext, Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, E>> + Send + 'static,
        E: Into<FunctionError>,
    {
        let output = move |context, args| {
            let call = function(context, args);
            async move { call.await.map(FunctionOutput::from) }
        };
        Self::new_with_output(name, output)
    }

    /// An async function that may return images, audio and files besides its value.
    ///
    /// ```
    /// use arshai::llm::Attachment;
    /// use arshai::tasks::{Function, FunctionError, FunctionOutput};
    ///
    /// let plot = Function::new_with_output("plot", |_context, _args| async {
    ///     let png = b"...";
    ///     let output = FunctionOutput::new("the plot is attached");
    ///     Ok::<_, FunctionError>(output.with_attachment(Attachment::image("image/png", png)))
    /// });
    /// # let _ = plot;
    /// ```
    pub fn new_with_output<F, Fut, E>(name: impl Into<String>, function: F) -> Self
    where
        F: Fn(CallContext, Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<FunctionOutput, E>> + Send + 'static,
        E: Into<FunctionError>,
    {
        let function = move |context, args| -> FunctionFuture {
            let call = function(context, args);
            Box::pin(async move { call.await.map_err(Into::into) })
        };
        Self::from_body(name, FunctionBody::Async(Arc::new(function)))
    }

    /// A blocking function on raw JSON arguments; it runs on a thread from the executor's bounded pool.
    pub fn blocking<F, E>(name: impl Into<String>, function: F) -> Self
    where
        F: Fn(Value) -> Result<Value, E> + Send + Sync + 'static,
        E: Into<FunctionError>,
    {
        Self::blocking_with_context(name, move |_, args| function(args))
    }

    /// A blocking function that also takes the [context](CallContext) of its call.
    pub fn blocking_with_context<F, E>(name: impl Into<String>, function: F) -> Self
    where
        F: Fn(CallContext, Value) -> Result<Value, E> + Send + Sync + 'static,
        E: Into<FunctionError>,
    {
        let function =
            move |context, args| function(context, args).map(FunctionOutput::from).map_err(Into::into);
        Self::from_body(name, FunctionBody::Blocking(Arc::new(function)))
    }

    /// An async function on typed arguments: the model sees the schema of `A`, and arguments that do not match it fail
    /// with the path of the mismatch.
    pub fn typed<A, R, F, Fut, E>(name: impl Into<String>, function: F) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        R: Serialize,
        F: Fn(A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        E: Into<FunctionError>,
    {
        Self::typed_with_context(name, move |_, args| function(args))
    }

    /// An async function on typed arguments that also takes the [context](CallContext) of its call.
    pub fn typed_with_context<A, R, F, Fut, E>(name: impl Into<String>, function: F) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        R: Serialize,
        F: Fn(CallContext, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        E: Into<FunctionError>,
    {
        let function = move |context, args| -> FunctionFuture {
            match parse::<A>(&args) {
                Err(error) => Box::pin(std::future::ready(Err(error))),
                Ok(args) => {
                    let call = function(context, args);
                    Box::pin(async move { to_value(call.await.map_err(Into::into)?) })
                }
            }
        };
        Self::from_body(name, FunctionBody::Async(Arc::new(function))).with_schema_of::<A>()
    }

    /// A blocking function on typed arguments.
    pub fn typed_blocking<A, R, F, E>(name: impl Into<String>, function: F) -> Self
    where
        A: DeserializeOwned + JsonSchema + 'static,
        R: Serialize,
        F: Fn(A) -> Result<R, E> + Send + Sync + 'static,
        E: Into<FunctionError>,
    {
        let function = move |_, args: Value| to_value(function(parse::<A>(&args)?).map_err(Into::into)?);
        Self::from_body(name, FunctionBody::Blocking(Arc::new(function))).with_schema_of::<A>()
    }

    fn from_body(name: impl Into<String>, body: FunctionBody) -> Self {
        Self(Arc::new(Inner {
            name: name.into(),
            description: String::new(),
            parameters: json!({"type": "object"}),
            metadata: Value::Null,
            timeout: None,
            max_result_bytes: None,
            is_deferred: false,
            offer: None,
            body,
        }))
    }

    fn with_schema_of<A: JsonSchema>(self) -> Self {
        let mut schema = schemars::schema_for!(A).to_value();
        if let Some(object) = schema.as_object_mut() {
            // Providers want the bare object: no meta-schema, no type name.
            object.remove("$schema");
            object.remove("title");
        }
        self.with_parameters(schema)
    }

    /// Sets the description, by which the model decides whether to call the function.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).description = description.into();
        self
    }

    /// Sets the JSON schema of the arguments that the model sees. It is not checked against the arguments.
    #[must_use]
    pub fn with_parameters(mut self, schema: Value) -> Self {
        Arc::make_mut(&mut self.0).parameters = schema;
        self
    }

    /// Sets metadata, passed to the listener of background failures.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Value) -> Self {
        Arc::make_mut(&mut self.0).metadata = metadata;
        self
    }

    /// Sets the timeout of each call, instead of the executor's default. For a background call, which has none by
    /// default, it counts from the start of the task.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        Arc::make_mut(&mut self.0).timeout = Some(timeout);
        self
    }

    /// Sets the maximum size of a result, in bytes of JSON, instead of the executor's.
    #[must_use]
    pub fn with_max_result_bytes(mut self, max: usize) -> Self {
        Arc::make_mut(&mut self.0).max_result_bytes = Some(max);
        self
    }

    /// Offers the function to models only once `offer` says so, for example because a search has found it. It can be
    /// called before.
    #[must_use]
    pub fn with_offer(mut self, offer: FunctionOffer) -> Self {
        Arc::make_mut(&mut self.0).offer = Some(offer);
        self
    }

    /// Defers calls until the model's response is complete, instead of starting them while it streams.
    #[must_use]
    pub fn with_deferred_start(mut self) -> Self {
        Arc::make_mut(&mut self.0).is_deferred = true;
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The description.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.0.description
    }

    /// The JSON schema of the arguments.
    #[must_use]
    pub fn parameters(&self) -> &Value {
        &self.0.parameters
    }

    /// The metadata; null unless set.
    #[must_use]
    pub fn metadata(&self) -> &Value {
        &self.0.metadata
    }

    /// The timeout of each call, if set.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.0.timeout
    }

    /// The maximum size of a result, if set.
    #[must_use]
    pub fn max_result_bytes(&self) -> Option<usize> {
        self.0.max_result_bytes
    }

    /// Whether models are offered it now.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        self.0.offer.as_ref().is_none_or(FunctionOffer::is_made)
    }

    /// Whether calls are deferred until the model's response is complete.
    #[must_use]
    pub fn is_deferred(&self) -> bool {
        self.0.is_deferred
    }

    /// The body: for executors.
    #[must_use]
    pub fn body(&self) -> &FunctionBody {
        &self.0.body
    }
}

opaque_debug!(Function(self) { name: self.0.name, description: self.0.description });

/// Maximum number of bytes of serde's message, which may repeat the arguments.
const MAX_MISMATCH_BYTES: usize = 300;

fn parse<A: DeserializeOwned>(args: &Value) -> Result<A, FunctionError> {
    serde_path_to_error::deserialize(args).map_err(|error| {
        let path = error.path().to_string();
        let at =
            if path == "." { String::new() } else { format!(" at {}", truncated(&path, MAX_MISMATCH_BYTES)) };
        let message = error.inner().to_string();
        FunctionError::bad_arguments(format!(
            "invalid arguments{at}: {}",
            truncated(&message, MAX_MISMATCH_BYTES)
        ))
    })
}

fn to_value<R: Serialize>(result: R) -> Result<FunctionOutput, FunctionError> {
    serde_json::to_value(result)
        .map(FunctionOutput::from)
        .map_err(|error| FunctionError::new(format!("failed to serialize the result: {error}")))
}
