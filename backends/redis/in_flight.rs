//! The limit of commands, and of their bytes, that are sent or waiting.

use std::sync::Arc;

use super::COMPONENT;
use crate::support::UsageMeter;
use crate::{Error, ErrorKind, LimitUsage, Result};

/// Limits the commands in flight in number and in bytes.
#[derive(Debug)]
pub(super) struct InFlightLimit {
    commands: UsageMeter,
    bytes: UsageMeter,
}

/// A command in flight; dropping it releases its share.
#[derive(Debug)]
pub(super) struct InFlightGuard {
    limit: Arc<InFlightLimit>,
    bytes: u64,
}

impl InFlightLimit {
    pub(super) fn new(max_commands: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            commands: UsageMeter::new("redis.max_pending_commands", "commands", max_commands as u64),
            bytes: UsageMeter::new("redis.max_pending_bytes", "bytes", max_bytes as u64),
        })
    }

    /// Counts a command of `bytes` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Capacity`] where it would exceed a limit. Nothing is counted then.
    pub(super) fn try_acquire(self: &Arc<Self>, bytes: usize) -> Result<InFlightGuard> {
        let bytes = bytes as u64;
        if !self.commands.try_add(1) {
            return Err(limit_reached_error(&self.commands));
        }
        if !self.bytes.try_add(bytes) {
            self.commands.sub(1);
            return Err(limit_reached_error(&self.bytes));
        }
        Ok(InFlightGuard { limit: Arc::clone(self), bytes })
    }

    pub(super) fn limits(&self) -> [LimitUsage; 2] {
        [self.commands.usage(), self.bytes.usage()]
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.limit.commands.sub(1);
        self.limit.bytes.sub(self.bytes);
    }
}

fn limit_reached_error(meter: &UsageMeter) -> Error {
    let message = format!("{} ({}) reached; command not sent", meter.key(), meter.max());
    Error::new(ErrorKind::Capacity, COMPONENT, message).not_sent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_or_byte_beyond_the_limit_is_rejected_and_not_counted() {
        let limit = InFlightLimit::new(2, 100);
        let first = limit.try_acquire(60).expect("within both limits");
        assert_eq!(limit.try_acquire(41).expect_err("too many bytes").kind(), ErrorKind::Capacity);
        let second = limit.try_acquire(40).expect("exactly the limit");
        assert_eq!(limit.try_acquire(0).expect_err("too many commands").kind(), ErrorKind::Capacity);
        drop((first, second));
        assert!(limit.limits().iter().all(|usage| usage.used == 0));
        assert!(limit.try_acquire(100).is_ok());
    }
}
