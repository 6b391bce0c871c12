//! How long each step took.

use std::fmt;
use std::time::{Duration, Instant};

pub(crate) struct Steps {
    began: Instant,
    ended: Vec<(String, Duration)>,
}

impl Steps {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), ended: Vec::new() }
    }

    /// Ends the step that began when the one before ended.
    pub(crate) fn end(&mut self, step: impl Into<String>) {
        let before: Duration = self.ended.iter().map(|(_, took)| *took).sum();
        self.ended.push((step.into(), self.began.elapsed() - before));
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "How long each step took:")?;
        for (step, took) in &self.ended {
            writeln!(f, "  {step:<32} {:>8.1} ms", took.as_secs_f64() * 1000.0)?;
        }
        Ok(())
    }
}
