//! A clock on tokio's time.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::Clock;

/// A clock that follows tokio's time, paused time included. It is read inside a tokio runtime.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    origin: Instant,
    wall: SystemTime,
}

impl TokioClock {
    /// A clock that starts at the current system time.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now(), wall: SystemTime::now() }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn system_time(&self) -> SystemTime {
        self.wall + self.now()
    }
}
