//! Resuming streams, not too often: a server may end a stream in order and ask to be resumed after 10 ms, for ever.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rmcp::transport::common::client_side_sse::SseRetryPolicy;
use rmcp::transport::streamable_http_client::SseError;
use sse_stream::Sse;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::Backoff;

/// Shortest time between two openings of one stream.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Delays while a stream that is resumed brings no message.
const FRUITLESS: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// Streams that are remembered; a server that numbers more gets them resumed without delay once.
const MAX_STREAMS: usize = 256;

/// Resuming ends with the connection: rmcp waits for the answer to a handshake, and resumes its stream, for as long as this
/// permits. The pace is that of [`Resumes`].
#[derive(Debug)]
pub(super) struct UntilClosed(pub(super) CancellationToken);

impl SseRetryPolicy for UntilClosed {
    fn retry(&self, _: usize) -> Option<Duration> {
        (!self.0.is_cancelled()).then_some(Duration::ZERO)
    }
}

/// The streams of a connection by their last event id, which is what they are resumed by.
#[derive(Default)]
pub(super) struct Resumes(Mutex<HashMap<Option<String>, Stream>>);

#[derive(Clone, Copy)]
struct Stream {
    opened: Instant,
    /// Openings since the last message.
    fruitless: u32,
}

/// A stream that was opened, under the id it is known by now.
pub(super) type Opened = Arc<Mutex<Option<String>>>;

impl Resumes {
    /// Waits until the stream that ended with `id` may be opened. The first time it may be at once.
    pub(super) async fn pace(&self, id: Option<String>) -> Opened {
        let now = Instant::now();
        let stream = match self.0.lock().get(&id) {
            None => Stream { opened: now, fruitless: 0 },
            Some(before) => {
                let delay = match before.fruitless {
                    0 => MIN_INTERVAL,
                    fruitless => FRUITLESS.delay(fruitless).max(MIN_INTERVAL),
                };
                Stream { opened: (before.opened + delay).max(now), fruitless: before.fruitless + 1 }
            }
        };
        self.insert(id.clone(), stream);
        tokio::time::sleep_until(stream.opened).await;
        Arc::new(Mutex::new(id))
    }

    /// Follows the ids of a stream's events.
    pub(super) fn observe(&self, opened: &Opened, event: &Result<Sse, SseError>) {
        let Ok(event) = event else { return };
        let mut id = opened.lock();
        let Some(mut stream) = self.0.lock().get(&*id).copied() else { return };
        if event.data.as_ref().is_some_and(|data| !data.is_empty()) {
            stream.fruitless = 0;
        }
        if event.id.is_some() && event.id != *id {
            self.0.lock().remove(&*id);
            id.clone_from(&event.id);
        }
        self.insert(id.clone(), stream);
    }

    fn insert(&self, id: Option<String>, stream: Stream) {
        let mut streams = self.0.lock();
        if streams.len() >= MAX_STREAMS {
            streams.clear();
        }
        streams.insert(id, stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, data: &str) -> Result<Sse, SseError> {
        let mut event = Sse::default();
        event.id = Some(id.to_owned());
        event.data = Some(data.to_owned());
        Ok(event)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_brings_nothing_is_resumed_ever_less_often() {
        let (resumes, began) = (Resumes::default(), Instant::now());
        let mut opened = 0;
        while began.elapsed() < Duration::from_secs(600) {
            let id = opened.to_string();
            let stream = resumes.pace((opened > 0).then_some(id)).await;
            opened += 1;
            resumes.observe(&stream, &event(&opened.to_string(), ""));
        }
        assert!((20..60).contains(&opened), "{opened}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_with_messages_is_resumed_once_a_second_and_the_first_time_at_once() {
        let (resumes, began) = (Resumes::default(), Instant::now());
        for opened in 0..10 {
            let stream = resumes.pace((opened > 0).then(|| opened.to_string())).await;
            assert_eq!(began.elapsed().as_secs(), opened);
            resumes.observe(&stream, &event(&(opened + 1).to_string(), "{}"));
        }
    }
}
