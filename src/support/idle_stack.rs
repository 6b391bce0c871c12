//! Idle resources, the most recently used on top.

use std::time::Duration;

use tokio::time::Instant;

/// Idle resources with a key: last in, first out, so that those not needed grow old at the bottom.
///
/// Not synchronized: its owner keeps it behind a lock and drops what it returns outside that lock. Ages follow
/// tokio's clock.
#[derive(Debug)]
pub struct IdleStack<K, T> {
    /// Oldest first.
    entries: Vec<Entry<K, T>>,
}

#[derive(Debug)]
struct Entry<K, T> {
    key: K,
    since: Instant,
    value: T,
}

impl<K: PartialEq, T> IdleStack<K, T> {
    /// An empty stack.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Adds a resource that has just become idle.
    pub fn push(&mut self, key: K, value: T) {
        self.entries.push(Entry { key, since: Instant::now(), value });
    }

    /// Removes the resource of `key` that became idle last, and returns it with how long it was idle.
    pub fn pop(&mut self, key: &K) -> Option<(T, Duration)> {
        let index = self.entries.iter().rposition(|entry| entry.key == *key)?;
        let entry = self.entries.remove(index);
        Some((entry.value, entry.since.elapsed()))
    }

    /// Removes and returns those idle for at least `max_age`, and the oldest of the rest beyond `max_len`.
    pub fn trim(&mut self, max_age: Duration, max_len: usize) -> Vec<T> {
        let excess = self.count_idle_for(max_age).max(self.entries.len().saturating_sub(max_len));
        self.entries.drain(..excess).map(|entry| entry.value).collect()
    }

    /// Number of resources idle for at least `age`.
    #[must_use]
    pub fn count_idle_for(&self, age: Duration) -> usize {
        let now = Instant::now();
        self.entries.iter().take_while(|entry| now.duration_since(entry.since) >= age).count()
    }

    /// When the oldest resource became idle.
    #[must_use]
    pub fn oldest_since(&self) -> Option<Instant> {
        self.entries.first().map(|entry| entry.since)
    }

    /// Number of idle resources.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is idle.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<K: PartialEq, T> Default for IdleStack<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_used_leaves_first_and_the_oldest_are_trimmed() {
        let mut stack = IdleStack::new();
        stack.push("a", 1);
        tokio::time::advance(Duration::from_secs(5)).await;
        stack.push("b", 2);
        stack.push("a", 3);
        stack.push("a", 4);
        assert_eq!(stack.count_idle_for(Duration::from_secs(5)), 1);
        assert_eq!(stack.pop(&"a").map(|(value, _)| value), Some(4));
        assert_eq!(stack.trim(Duration::from_secs(5), 10), [1]);
        assert_eq!(stack.trim(Duration::from_secs(5), 1), [2]);
        assert_eq!(stack.pop(&"b"), None);
        assert_eq!(stack.len(), 1);
    }
}
