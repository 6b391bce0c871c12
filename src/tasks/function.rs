//! What a model may call.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use figment::Figment;
use figment::providers::Serialized;
use hashlink::DefaultHashBuilder;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::pace::Pace;

/// The future of an async function's call.
pub type FunctionFuture = Pin<Box<dyn Future<Output = Result<Value, FunctionError>> + Send>>;

/// Why a function's call failed, in the function's own words; the model sees them.
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

    /// The arguments do not fit the function.
    pub fn bad_arguments(message: impl Into<String>) -> Self {
        Self { message: message.into(), bad_arguments: true }
    }

    /// What went wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the arguments were at fault.
    #[must_use]
    pub fn is_bad_arguments(&self) -> bool {
        self.bad_arguments
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
    /// On the async runtime; it must not block. One that does holds a worker of the runtime for as long.
    Async(Arc<dyn Fn(Value) -> FunctionFuture + Send + Sync>),
    /// On a thread from the executor's own bounded pool; it may block.
    Blocking(Arc<dyn Fn(Value) -> Result<Value, FunctionError> + Send + Sync>),
}

impl fmt::Debug for FunctionBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Async(_) => "Async",
            Self::Blocking(_) => "Blocking",
        })
    }
}

/// A function that a model may call: a name, what it is for, the schema of its arguments, and its body.
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
    waits_for_turn_end: bool,
    body: FunctionBody,
    pace: Pace,
}

impl Function {
    /// An async function on raw JSON arguments. Its schema accepts any object until
    /// [`with_parameters`](Self::with_parameters) says more.
    pub fn new<F, Fut, E>(name: impl Into<String>, function: F) -> Self
    where
        F: Fn(Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, E>> + Send + 'static,
        E: Into<FunctionError>,
    {
        let function = move |args| -> FunctionFuture {
            let call = function(args);
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
        let function = move |args| function(args).map_err(Into::into);
        Self::from_body(name, FunctionBody::Blocking(Arc::new(function)))
    }

    /// An async function on typed arguments: `A` gives the schema the model sees, and arguments that do not
    /// fit it fail with a message that says where.
    pub fn typed<A, R, F, Fut, E>(name: impl Into<String>, function: F) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        R: Serialize,
        F: Fn(A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        E: Into<FunctionError>,
    {
        let function = move |args| -> FunctionFuture {
            match parse::<A>(args) {
                Err(error) => Box::pin(std::future::ready(Err(error))),
                Ok(args) => {
                    let call = function(args);
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
        let function = move |args| to_value(function(parse::<A>(args)?).map_err(Into::into)?);
        Self::from_body(name, FunctionBody::Blocking(Arc::new(function))).with_schema_of::<A>()
    }

    fn from_body(name: impl Into<String>, body: FunctionBody) -> Self {
        Self(Arc::new(Inner {
            name: name.into(),
            description: String::new(),
            parameters: json!({"type": "object"}),
            metadata: Value::Null,
            timeout: None,
            waits_for_turn_end: false,
            body,
            pace: Pace::new(),
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

    /// Says what the function is for; the model decides by it.
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

    /// Sets metadata, handed to the listener of background failures.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Value) -> Self {
        Arc::make_mut(&mut self.0).metadata = metadata;
        self
    }

    /// Sets the deadline of each call, in place of the executor's default. For a background call, which has
    /// none by default, it counts from the start of the task.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        Arc::make_mut(&mut self.0).timeout = Some(timeout);
        self
    }

    /// Asks that its calls wait for the end of the model's turn instead of starting while it streams.
    #[must_use]
    pub fn waiting_for_turn_end(mut self) -> Self {
        Arc::make_mut(&mut self.0).waits_for_turn_end = true;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it is for.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.0.description
    }

    /// The JSON schema of its arguments.
    #[must_use]
    pub fn parameters(&self) -> &Value {
        &self.0.parameters
    }

    /// Its metadata; null unless set.
    #[must_use]
    pub fn metadata(&self) -> &Value {
        &self.0.metadata
    }

    /// The deadline of each call, if it has its own.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.0.timeout
    }

    /// Whether its calls wait for the end of the model's turn.
    #[must_use]
    pub fn waits_for_turn_end(&self) -> bool {
        self.0.waits_for_turn_end
    }

    /// How it runs: for executors.
    #[must_use]
    pub fn body(&self) -> &FunctionBody {
        &self.0.body
    }

    /// How its calls have begun so far: for executors.
    #[must_use]
    pub fn pace(&self) -> &Pace {
        &self.0.pace
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.0.name)
            .field("description", &self.0.description)
            .finish_non_exhaustive()
    }
}

fn parse<A: DeserializeOwned>(args: Value) -> Result<A, FunctionError> {
    A::deserialize(&args).map_err(|error| {
        let place = place_of_misfit::<A>(&args).map(|place| format!(" at {place}")).unwrap_or_default();
        FunctionError::bad_arguments(format!("the arguments do not fit{place}: {error}"))
    })
}

/// Where in `args` they do not fit `A`. serde_json does not say; figment does.
fn place_of_misfit<A: DeserializeOwned>(args: &Value) -> Option<String> {
    let error = Figment::from(Serialized::defaults(args)).extract::<A>().err()?;
    (!error.path.is_empty()).then(|| error.path.join("."))
}

fn to_value<R: Serialize>(result: R) -> Result<Value, FunctionError> {
    serde_json::to_value(result)
        .map_err(|error| FunctionError::new(format!("the result is not JSON: {error}")))
}

/// Functions by name. Cloning is cheap: clones share the set until one of them changes.
#[derive(Debug, Clone, Default)]
pub struct Functions(Arc<HashMap<String, Function, DefaultHashBuilder>>);

impl Functions {
    /// No functions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, function: Function) -> Self {
        Arc::make_mut(&mut self.0).insert(function.name().to_owned(), function);
        self
    }

    /// The function of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Function> {
        self.0.get(name)
    }

    /// All functions, sorted by name, so that a model sees them in the same order each time.
    pub fn iter(&self) -> impl Iterator<Item = &Function> {
        let mut all: Vec<_> = self.0.values().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all.into_iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Function> for Functions {
    fn from_iter<I: IntoIterator<Item = Function>>(functions: I) -> Self {
        functions.into_iter().fold(Self::new(), Self::with)
    }
}
