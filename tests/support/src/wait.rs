//! Waiting for a real server: it has its own time, so it is asked again and again until a deadline.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(5);

/// Asks until `attempt` gives something, on the calling thread.
///
/// # Panics
///
/// Naming `what` did not happen, when `limit` has passed.
pub fn until<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(reached) = attempt() {
            return reached;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// As [`until`], leaving the thread to other tasks between the questions. The limit is real time, also where
/// tokio's is paused.
///
/// # Panics
///
/// Naming `what` did not happen, when `limit` has passed.
pub async fn eventually(what: &str, limit: Duration, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
