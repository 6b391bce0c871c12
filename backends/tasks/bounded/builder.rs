//! Builder of the bounded executor.

use std::time::Duration;

use super::{BoundedExecutor, engine::Engine};
use crate::Config;
use crate::config::TaskConfig;
use crate::registry::BuildContext;
use crate::support::opaque_debug;
use crate::tasks::BackgroundFailureListener;

/// Builds a [`BoundedExecutor`].
#[derive(Clone)]
pub struct BoundedExecutorBuilder {
    config: TaskConfig,
    listener: Option<BackgroundFailureListener>,
}

impl BoundedExecutorBuilder {
    /// Maximum number of background tasks. Default 1 000.
    #[must_use]
    pub fn max_background_tasks(mut self, max: usize) -> Self {
        self.config.max_background_tasks = max;
        self
    }

    /// Percentage of the background task limit at which a warning is logged; 0 for never. Default 80.
    #[must_use]
    pub fn background_warning_percent(mut self, percent: u8) -> Self {
        self.config.background_warning_percent = percent;
        self
    }

    /// Maximum number of regular async calls that run concurrently. Default 64.
    #[must_use]
    pub fn max_concurrency(mut self, max: usize) -> Self {
        self.config.max_concurrency = max;
        self
    }

    /// Timeout of regular calls whose function has none. Default 60 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.timeout = timeout;
        self
    }

    /// Maximum size of a result, in bytes of JSON. Default 1 MiB.
    #[must_use]
    pub fn max_result_bytes(mut self, max: usize) -> Self {
        self.config.max_result_bytes = max;
        self
    }

    /// Maximum number of threads for blocking functions. Default 64.
    #[must_use]
    pub fn max_blocking_threads(mut self, max: usize) -> Self {
        self.config.max_blocking_threads = max;
        self
    }

    /// Sets the listener of failed background tasks.
    #[must_use]
    pub fn background_failure_listener(mut self, listener: BackgroundFailureListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// The executor. Starts no thread and no task.
    #[must_use]
    pub fn build(self) -> BoundedExecutor {
        BoundedExecutor::root(Engine::new(&self.config, self.listener))
    }
}

opaque_debug!(BoundedExecutorBuilder { config });

impl BoundedExecutor {
    /// Name in the configuration: `tasks.backend = "bounded"`.
    pub const NAME: &'static str = "bounded";

    /// A builder with the defaults of the configuration.
    #[must_use]
    pub fn builder() -> BoundedExecutorBuilder {
        BoundedExecutorBuilder { config: Config::default().tasks, listener: None }
    }

    /// The executor that the configuration describes.
    #[must_use]
    pub fn from_context(context: &BuildContext) -> Self {
        let config = context.config.tasks.clone();
        BoundedExecutorBuilder { config, listener: context.background_failure_listener.clone() }.build()
    }
}

impl Default for BoundedExecutor {
    fn default() -> Self {
        Self::builder().build()
    }
}
