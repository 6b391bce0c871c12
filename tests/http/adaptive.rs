//! The adaptive concurrency limit.

use std::sync::Arc;
use std::time::Duration;

use arshai::contract::doubles::ScriptedLlm;
use arshai::llm::{
    AdaptiveConcurrency, AdaptiveLimiter, AdaptiveLimiterConfig, ChatRequest, ChatResponse, ChatStream,
    EmbedRequest, LlmClient, Message, Retry,
};
use arshai::{Deadline, Error, ErrorKind, Outcome, Result};
use async_trait::async_trait;
use futures_util::future::join_all;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// A provider that accepts a number of concurrent requests and rejects the others.
#[derive(Debug)]
struct Provider {
    accepts: Semaphore,
    takes: Duration,
    rejected: Mutex<usize>,
}

#[async_trait]
impl LlmClient for Provider {
    async fn chat(&self, _: ChatRequest) -> Result<ChatResponse> {
        let Ok(_held) = self.accepts.try_acquire() else {
            *self.rejected.lock() += 1;
            tokio::time::sleep(self.takes / 10).await;
            return Err(Error::new(ErrorKind::RateLimited, "provider", "too many"));
        };
        tokio::time::sleep(self.takes).await;
        Ok(ChatResponse::from_text("hi"))
    }

    fn model(&self) -> &str {
        "m"
    }
}

fn settings(min: usize, max: usize) -> AdaptiveLimiterConfig {
    let mut settings = AdaptiveLimiterConfig::default();
    (settings.min, settings.max) = (min, max);
    settings
}

fn hello() -> ChatRequest {
    ChatRequest::new(vec![Message::user("hello")])
}

fn within(seconds: u64) -> ChatRequest {
    hello().with_deadline(Some(Deadline::after(Duration::from_secs(seconds))))
}

fn limited(seconds: u64) -> Error {
    Error::new(ErrorKind::RateLimited, "test", "too many")
        .with_outcome(Outcome::Rejected)
        .with_retry_after(Some(Duration::from_secs(seconds)))
}

#[tokio::test(start_paused = true)]
async fn the_limit_settles_near_the_providers_and_rejections_become_rare() {
    let provider =
        Provider { accepts: Semaphore::new(8), takes: Duration::from_millis(100), rejected: Mutex::new(0) };
    let limiter = AdaptiveLimiter::new("m", settings(1, 64));
    let client = AdaptiveConcurrency::new(provider, limiter.clone());
    let mut rejected = Vec::new();
    for _ in 0..5 {
        let answers = join_all((0..400).map(|_| client.chat(hello()))).await;
        rejected.push(answers.iter().filter(|answer| answer.is_err()).count());
        assert!((2..=16).contains(&limiter.limit()), "{}", limiter.limit());
    }
    // Without it, 392 of each 400 concurrent requests would be rejected.
    assert!(rejected[1..].iter().all(|rejected| *rejected < 60), "{rejected:?}");
    let stats = limiter.stats();
    assert_eq!((stats.succeeded + stats.failed, limiter.limits()[0].used), (2_000, 0));
    assert!(stats.decreases > 0);
}

#[tokio::test(start_paused = true)]
async fn one_wave_of_rejections_lowers_the_limit_once_and_never_below_the_minimum() {
    let provider =
        Provider { accepts: Semaphore::new(0), takes: Duration::from_millis(100), rejected: Mutex::new(0) };
    let limiter = AdaptiveLimiter::new("m", settings(3, 16));
    let client = AdaptiveConcurrency::new(provider, limiter.clone());
    let wave = || join_all((0..16).map(|_| client.chat(hello())));
    assert_eq!(limiter.limit(), 16);
    let first = join_all((0..16).map(|_| client.chat(hello()))).await;
    assert!(first.iter().all(Result::is_err));
    assert_eq!((limiter.limit(), limiter.stats().decreases), (8, 1));
    for _ in 0..5 {
        wave().await;
    }
    assert_eq!(limiter.limit(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_limit_rises_fast_to_half_and_then_by_one_for_a_round() {
    let provider =
        Provider { accepts: Semaphore::new(100), takes: Duration::from_millis(100), rejected: Mutex::new(0) };
    let limiter = AdaptiveLimiter::new("m", settings(1, 16));
    let lower = AdaptiveConcurrency::new(ScriptedLlm::new([Err(limited(0))]), limiter.clone());
    lower.chat(hello()).await.expect_err("too many");
    assert_eq!(limiter.limit(), 1);
    let client = AdaptiveConcurrency::new(provider, limiter.clone());
    let mut limits = Vec::new();
    for _ in 0..12 {
        let at_once = limiter.limit();
        join_all((0..at_once).map(|_| client.chat(hello()))).await;
        limits.push(limiter.limit());
    }
    assert_eq!(limits, [2, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 16]);
}

#[tokio::test(start_paused = true)]
async fn retry_after_pauses_all_requests_within_a_bound() {
    let answers = [Err(limited(7)), Ok(ChatResponse::from_text("hi")), Err(limited(86_400))];
    let client =
        AdaptiveConcurrency::new(ScriptedLlm::new(answers), AdaptiveLimiter::new("m", settings(1, 4)));
    client.chat(hello()).await.expect_err("too many");
    let began = Instant::now();
    let error = client.chat(within(5)).await.expect_err("the pause is longer");
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::RateLimited, Duration::ZERO));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    client.chat(within(30)).await.expect("after the pause");
    assert_eq!(began.elapsed(), Duration::from_secs(7));
    client.chat(hello()).await.expect_err("too many");
    let error = client.chat(within(30)).await.expect_err("the pause is longer");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)), "a day is capped to a minute");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_permit_spends_the_deadline_and_a_full_queue_fails_immediately() {
    let silent = || ChatStream::new(stream::pending());
    let model = ScriptedLlm::new([]).with_streams([silent(), silent()]);
    let mut few = settings(1, 1);
    few.max_waiting = 1;
    let client = Arc::new(AdaptiveConcurrency::new(model, AdaptiveLimiter::new("m", few)));
    let stream = client.stream(hello()).await.expect("a turn");
    let waiting = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.stream(within(5)).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert_eq!(client.chat(hello()).await.expect_err("the queue is full").kind(), ErrorKind::Capacity);
    assert_eq!(waiting.await.expect("no panic").expect_err("no turn").kind(), ErrorKind::Timeout);
    drop(stream);
    client.stream(within(5)).await.map(drop).expect("the turn is free again");
}

fn busy() -> Error {
    Error::new(ErrorKind::Overloaded, "test", "busy").with_outcome(Outcome::Rejected)
}

#[tokio::test(start_paused = true)]
async fn each_attempt_takes_a_permit_of_its_own_and_lowers_the_limit() {
    let model = ScriptedLlm::new([Err(busy()), Err(busy()), Ok(ChatResponse::from_text("hi"))]);
    let limiter = AdaptiveLimiter::new("m", settings(1, 8));
    let client = Retry::new(AdaptiveConcurrency::new(model, limiter.clone()), 3);
    let chat = client.chat(hello());
    tokio::pin!(chat);
    assert!(futures_util::poll!(&mut chat).is_pending());
    assert_eq!(limiter.limits()[0].used, 0, "a request that backs off holds no permit");
    chat.await.expect("the third attempt");
    let stats = limiter.stats();
    assert_eq!((stats.succeeded, stats.failed, stats.decreases), (1, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn retries_work_over_any_client() {
    let unsafe_to_repeat = Error::new(ErrorKind::Overloaded, "test", "perhaps charged");
    let immediately = busy().with_retry_after(Some(Duration::ZERO));
    let responses = [Err(immediately), Ok(ChatResponse::from_text("hi")), Err(unsafe_to_repeat)];
    let client = Retry::new(ScriptedLlm::new(responses), 3);
    let began = Instant::now();
    client.chat(hello()).await.expect("the second attempt");
    assert!(began.elapsed() >= Duration::from_millis(250), "never without a delay");
    client.chat(hello()).await.expect_err("its outcome is unknown");
    assert_eq!(client.chat(hello()).await.expect_err("no response left").kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn other_failures_do_not_lower_the_limit() {
    let fail = |kind| Err(Error::new(kind, "test", "failed"));
    let spent = Error::new(ErrorKind::RateLimited, "test", "no credit").with_retryable(false);
    let answers = [fail(ErrorKind::BadRequest), fail(ErrorKind::Timeout), Err(spent)];
    let limiter = AdaptiveLimiter::new("m", settings(1, 8));
    let client = AdaptiveConcurrency::new(ScriptedLlm::new(answers), limiter.clone());
    for _ in 0..3 {
        client.chat(hello()).await.expect_err("failed");
    }
    assert_eq!((limiter.limit(), limiter.stats().failed), (8, 3));
    client.embed(EmbedRequest::new(["x"])).await.expect("vectors pass through it too");
}
