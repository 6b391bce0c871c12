//! How many commands, and how many bytes of them, may be under way at once.

use std::sync::atomic::{AtomicU64, Ordering};

use super::COMPONENT;
use crate::{Error, ErrorKind, LimitUsage, Result};

/// Commands sent or waiting, bounded in number and in bytes. One more is refused at once.
#[derive(Debug)]
pub(super) struct Pending {
    commands: Gauge,
    bytes: Gauge,
}

#[derive(Debug)]
struct Gauge {
    used: AtomicU64,
    peak: AtomicU64,
    max: u64,
}

impl Gauge {
    fn new(max: u64) -> Self {
        Self { used: AtomicU64::new(0), peak: AtomicU64::new(0), max }
    }

    /// Takes `n`, or nothing where that would exceed the limit.
    fn take(&self, n: u64) -> bool {
        let used = self.used.fetch_add(n, Ordering::Relaxed).saturating_add(n);
        if used > self.max {
            self.used.fetch_sub(n, Ordering::Relaxed);
            return false;
        }
        if used > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(used, Ordering::Relaxed);
        }
        true
    }

    fn usage(&self, name: &'static str, unit: &'static str) -> LimitUsage {
        let (used, peak) = (self.used.load(Ordering::Relaxed), self.peak.load(Ordering::Relaxed));
        LimitUsage::new(name, unit, used.min(self.max), peak, Some(self.max))
    }
}

/// A command under way; dropping it makes room.
#[derive(Debug)]
pub(super) struct Entered<'a> {
    pending: &'a Pending,
    bytes: u64,
}

impl Pending {
    pub(super) fn new(max_commands: usize, max_bytes: usize) -> Self {
        Self { commands: Gauge::new(max_commands as u64), bytes: Gauge::new(max_bytes as u64) }
    }

    /// Makes room for a command that carries or may bring `bytes`.
    pub(super) fn enter(&self, bytes: usize) -> Result<Entered<'_>> {
        let bytes = bytes as u64;
        if !self.commands.take(1) {
            return Err(full("redis.max_pending_commands", self.commands.max));
        }
        if !self.bytes.take(bytes) {
            self.commands.used.fetch_sub(1, Ordering::Relaxed);
            return Err(full("redis.max_pending_bytes", self.bytes.max));
        }
        Ok(Entered { pending: self, bytes })
    }

    pub(super) fn limits(&self) -> [LimitUsage; 2] {
        [
            self.commands.usage("redis.max_pending_commands", "commands"),
            self.bytes.usage("redis.max_pending_bytes", "bytes"),
        ]
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.pending.commands.used.fetch_sub(1, Ordering::Relaxed);
        self.pending.bytes.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn full(name: &'static str, max: u64) -> Error {
    Error::new(ErrorKind::Capacity, COMPONENT, format!("{name} = {max} is reached; nothing was sent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_too_many_or_one_byte_too_many_is_refused_and_changes_nothing() {
        let pending = Pending::new(2, 100);
        let first = pending.enter(60).expect("there is room");
        assert_eq!(pending.enter(41).expect_err("too many bytes").kind(), ErrorKind::Capacity);
        let second = pending.enter(40).expect("it fits exactly");
        assert_eq!(pending.enter(0).expect_err("too many commands").kind(), ErrorKind::Capacity);
        drop((first, second));
        assert!(pending.limits().iter().all(|bound| bound.used == 0));
        assert!(pending.enter(100).is_ok());
    }
}
