//! Sets of functions.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::{Function, ProgressListener};

/// Functions by name. Cloning is cheap: clones share the set until one of them changes.
#[derive(Clone, Default)]
pub struct Functions {
    by_name: Arc<HashMap<String, Function>>,
    progress: Option<ProgressListener>,
}

impl Functions {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, function: Function) -> Self {
        Arc::make_mut(&mut self.by_name).insert(function.name().to_owned(), function);
        self
    }

    /// Adds the functions of `others` whose names are not taken.
    #[must_use]
    pub fn with_others(mut self, others: Functions) -> Self {
        if others.is_empty() {
            return self;
        }
        let by_name = Arc::make_mut(&mut self.by_name);
        for (name, function) in Arc::unwrap_or_clone(others.by_name) {
            by_name.entry(name).or_insert(function);
        }
        self
    }

    /// Removes the function of that name, if there is one.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        Arc::make_mut(&mut self.by_name).remove(name);
        self
    }

    /// Sets the listener of [progress reports](super::CallContext::report_progress) of calls that use this set.
    #[must_use]
    pub fn with_progress_listener(mut self, listener: ProgressListener) -> Self {
        self.progress = Some(listener);
        self
    }

    /// The listener of progress reports: for executors.
    #[must_use]
    pub fn progress_listener(&self) -> Option<ProgressListener> {
        self.progress.clone()
    }

    /// The function of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Function> {
        self.by_name.get(name)
    }

    /// All functions, sorted by name, so that a model always sees them in the same order.
    pub fn iter(&self) -> impl Iterator<Item = &Function> {
        let mut all: Vec<_> = self.by_name.values().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all.into_iter()
    }

    /// The functions that models are [offered](Function::is_offered) now, sorted by name.
    pub fn offered(&self) -> impl Iterator<Item = &Function> {
        self.iter().filter(|function| function.is_offered())
    }

    /// Number of functions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Function::name)).finish()
    }
}

impl<const N: usize> From<[Function; N]> for Functions {
    fn from(functions: [Function; N]) -> Self {
        functions.into_iter().collect()
    }
}

impl From<Vec<Function>> for Functions {
    fn from(functions: Vec<Function>) -> Self {
        functions.into_iter().collect()
    }
}

impl FromIterator<Function> for Functions {
    fn from_iter<I: IntoIterator<Item = Function>>(functions: I) -> Self {
        functions.into_iter().fold(Self::new(), Self::with)
    }
}
