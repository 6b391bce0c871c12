//! Concurrency that follows what the provider bears.

use std::sync::Arc;
use std::time::Duration;

use arshai::config::OpenAiConfig;
use arshai::contract::doubles::{ScriptedLlm, ScriptedTransport};
use arshai::llm::{
    AdaptiveClient, ChatRequest, ChatResponse, ChatStream, Concurrency, ConcurrencySettings, EmbedRequest,
    LlmClient, Message, OpenAiClient, retry_after,
};
use arshai::{Deadline, Error, ErrorKind, Result};
use async_trait::async_trait;
use futures_util::future::join_all;
use futures_util::stream;
use http::Response;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// A provider that bears so many requests at once and refuses the others.
#[derive(Debug)]
struct Provider {
    bears: Semaphore,
    takes: Duration,
    refused: Mutex<usize>,
}

#[async_trait]
impl LlmClient for Provider {
    async fn chat(&self, _: ChatRequest) -> Result<ChatResponse> {
        let Ok(_held) = self.bears.try_acquire() else {
            *self.refused.lock() += 1;
            tokio::time::sleep(self.takes / 10).await;
            return Err(Error::new(ErrorKind::RateLimited, "provider", "too many"));
        };
        tokio::time::sleep(self.takes).await;
        Ok(ChatResponse::text("hi"))
    }

    fn model(&self) -> &str {
        "m"
    }
}

fn settings(min: usize, max: usize) -> ConcurrencySettings {
    let mut settings = ConcurrencySettings::default();
    (settings.min, settings.max) = (min, max);
    settings
}

fn hello() -> ChatRequest {
    ChatRequest::new(vec![Message::user("hello")])
}

fn within(seconds: u64) -> ChatRequest {
    hello().with_deadline(Some(Deadline::after(Duration::from_secs(seconds))))
}

fn limited(after: &str) -> Error {
    Error::new(ErrorKind::RateLimited, "test", "too many").with_context("retry_after", after)
}

#[tokio::test(start_paused = true)]
async fn it_settles_near_what_the_provider_bears_and_refusals_become_rare() {
    let provider =
        Provider { bears: Semaphore::new(8), takes: Duration::from_millis(100), refused: Mutex::new(0) };
    let concurrency = Concurrency::new("m", settings(1, 64));
    let client = AdaptiveClient::new(provider, concurrency.clone());
    let mut refused = Vec::new();
    for _ in 0..5 {
        let answers = join_all((0..400).map(|_| client.chat(hello()))).await;
        refused.push(answers.iter().filter(|answer| answer.is_err()).count());
        assert!((2..=16).contains(&concurrency.limit()), "{}", concurrency.limit());
    }
    // Without it, 392 of each 400 at once would be refused.
    assert!(refused[1..].iter().all(|refused| *refused < 60), "{refused:?}");
    let stats = concurrency.stats();
    assert_eq!((stats.answered + stats.failed, stats.limits[0].used), (2_000, 0));
    assert!(stats.backoffs > 0);
}

#[tokio::test(start_paused = true)]
async fn one_wave_of_refusals_lowers_it_once_and_it_stays_within_its_bounds() {
    let provider =
        Provider { bears: Semaphore::new(0), takes: Duration::from_millis(100), refused: Mutex::new(0) };
    let concurrency = Concurrency::new("m", settings(3, 16));
    let client = AdaptiveClient::new(provider, concurrency.clone());
    let wave = || join_all((0..16).map(|_| client.chat(hello())));
    assert_eq!(concurrency.limit(), 16);
    let first = join_all((0..16).map(|_| client.chat(hello()))).await;
    assert!(first.iter().all(Result::is_err));
    assert_eq!((concurrency.limit(), concurrency.stats().backoffs), (8, 1));
    for _ in 0..5 {
        wave().await;
    }
    assert_eq!(concurrency.limit(), 3);
}

#[tokio::test(start_paused = true)]
async fn it_rises_fast_to_half_of_what_it_was_and_then_by_one_for_a_round() {
    let provider =
        Provider { bears: Semaphore::new(100), takes: Duration::from_millis(100), refused: Mutex::new(0) };
    let concurrency = Concurrency::new("m", settings(1, 16));
    let lower = AdaptiveClient::new(ScriptedLlm::new([Err(limited("0.0s"))]), concurrency.clone());
    lower.chat(hello()).await.expect_err("too many");
    assert_eq!(concurrency.limit(), 1);
    let client = AdaptiveClient::new(provider, concurrency.clone());
    let mut limits = Vec::new();
    for _ in 0..12 {
        let at_once = concurrency.limit();
        join_all((0..at_once).map(|_| client.chat(hello()))).await;
        limits.push(concurrency.limit());
    }
    assert_eq!(limits, [2, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 16]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_the_provider_asks_for_holds_everybody_within_a_bound() {
    let answers = [Err(limited("7.0s")), Ok(ChatResponse::text("hi")), Err(limited("86400.0s"))];
    let client = AdaptiveClient::new(ScriptedLlm::new(answers), Concurrency::new("m", settings(1, 4)));
    client.chat(hello()).await.expect_err("too many");
    let began = Instant::now();
    let error = client.chat(within(5)).await.expect_err("the pause is longer");
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::RateLimited, Duration::ZERO));
    assert_eq!(retry_after(&error), Some(Duration::from_secs(7)));
    client.chat(within(30)).await.expect("after the pause");
    assert_eq!(began.elapsed(), Duration::from_secs(7));
    client.chat(hello()).await.expect_err("too many");
    let error = client.chat(within(30)).await.expect_err("the pause is longer");
    assert_eq!(retry_after(&error), Some(Duration::from_secs(60)), "a day is cut to a minute");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_turn_spends_the_deadline_and_one_waiter_too_many_is_refused() {
    let silent = || ChatStream::new(stream::pending());
    let model = ScriptedLlm::new([]).streaming([silent(), silent()]);
    let mut few = settings(1, 1);
    few.max_waiting = 1;
    let client = Arc::new(AdaptiveClient::new(model, Concurrency::new("m", few)));
    let stream = client.stream(hello()).await.expect("a turn");
    let waiting = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.stream(within(5)).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert_eq!(client.chat(hello()).await.expect_err("no place to wait").kind(), ErrorKind::Capacity);
    assert_eq!(waiting.await.expect("no panic").expect_err("no turn").kind(), ErrorKind::Timeout);
    drop(stream);
    client.stream(within(5)).await.map(drop).expect("the turn is free again");
}

#[tokio::test(start_paused = true)]
async fn retries_within_a_client_are_heard_of() {
    let busy = || Response::builder().status(503).body("{}").expect("a response");
    let done = r#"{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}"#;
    let transport =
        ScriptedTransport::new().answering(busy()).answering(busy()).answering(Response::new(done));
    let mut config = OpenAiConfig::default();
    config.api_key = Some("sk-key".into());
    let inner = OpenAiClient::new(&config, "m", Arc::new(transport)).expect("a key");
    let concurrency = Concurrency::new("m", settings(1, 8));
    let client = AdaptiveClient::new(inner, concurrency.clone());
    client.chat(hello()).await.expect("the third attempt");
    let stats = concurrency.stats();
    assert_eq!((stats.answered, stats.failed, stats.backoffs), (1, 0, 2));
}

#[tokio::test]
async fn other_failures_do_not_lower_it() {
    let fail = |kind| Err(Error::new(kind, "test", "failed"));
    let spent = Error::new(ErrorKind::RateLimited, "test", "no credit").with_retryable(false);
    let answers = [fail(ErrorKind::BadRequest), fail(ErrorKind::Timeout), Err(spent)];
    let concurrency = Concurrency::new("m", settings(1, 8));
    let client = AdaptiveClient::new(ScriptedLlm::new(answers), concurrency.clone());
    for _ in 0..3 {
        client.chat(hello()).await.expect_err("failed");
    }
    assert_eq!((concurrency.limit(), concurrency.stats().failed), (8, 3));
    client.embed(EmbedRequest::new(["x"])).await.expect("vectors pass through it too");
}
