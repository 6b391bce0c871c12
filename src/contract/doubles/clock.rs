//! A clock whose time is tokio's.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::Clock;

/// A clock that goes with tokio's, so that pausing tokio's time pauses it too. Read where tokio's time is: on a
/// runtime.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    origin: Instant,
    wall: SystemTime,
}

impl TokioClock {
    /// A clock that starts at the machine's wall time.
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
