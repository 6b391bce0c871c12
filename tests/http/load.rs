//! More callers than connections, with the default settings: every one of them is answered.
//!
//! Over hyper, tokio's clock is paused and runs a hundred times as fast as the real one, so that streams last the
//! seconds they say. ureq blocks threads of its own: there every duration is a hundredth of itself.

use std::sync::Arc;
use std::time::Duration;

use arshai::agent::{AgentEvent, AgentInput};
use arshai::llm::{ChatRequest, LlmClient, Message};
use arshai::{Arshai, Config};
use arshai_test_support::SlowModel;
use tokio::task::JoinSet;

/// Two hundred streams of five seconds, and forty of two.
const LOADS: [(usize, Duration); 2] = [(200, Duration::from_secs(5)), (40, Duration::from_secs(2))];

fn config(model: &SlowModel) -> Config {
    let url = |path: &str| Some(model.url(path));
    let mut config = Config::default();
    let llm = &mut config.llm;
    for key in [
        &mut llm.openai.api_key,
        &mut llm.openrouter.api_key,
        &mut llm.google.api_key,
        &mut llm.azure.api_key,
    ] {
        *key = Some("key".into());
    }
    llm.openai.base_url = url("/v1");
    llm.openrouter.base_url = url("/api/v1");
    llm.google.base_url = url("/v1beta/openai");
    llm.azure.endpoint = url("");
    llm.azure.deployment = Some("m".into());
    llm.azure.api_version = Some("2024-10-21".into());
    config
}

fn clients(runtime: &Arshai) -> Vec<Arc<dyn LlmClient>> {
    let clients = [runtime.openai("m"), runtime.azure_openai(), runtime.openrouter("m"), runtime.genai("m")];
    clients.into_iter().map(|client| client.expect("it is configured")).collect()
}

/// Has `callers` stream at once with each client, and answer as an agent.
async fn every_caller_is_answered(model: &SlowModel, config: Config, callers: usize) {
    let runtime = Arshai::builder(config).build().expect("valid settings");
    for client in clients(&runtime) {
        let mut calls = JoinSet::new();
        for _ in 0..callers {
            let client = Arc::clone(&client);
            calls.spawn(async move {
                let request = ChatRequest::new(vec![Message::user("hello")]);
                client.stream(request).await?.collect().await
            });
        }
        for response in calls.join_all().await {
            let response = response.expect("an answer");
            assert_eq!(response.content.map_or(0, |text| text.len()), SlowModel::TOKENS, "{client:?}");
        }
    }
    let mut turns: JoinSet<arshai::Result<String>> = JoinSet::new();
    for caller in 0..callers {
        let agent = runtime.chat_agent(runtime.openai("m").expect("it is configured"), "Be brief.");
        turns.spawn(async move {
            let mut turn = agent.stream(AgentInput::new("hello").in_conversation(caller.to_string()));
            while let Some(event) = turn.next().await? {
                if let AgentEvent::Finished(output) = event {
                    return Ok(output.text);
                }
            }
            Ok(String::new())
        });
    }
    for answer in turns.join_all().await {
        assert_eq!(answer.expect("an answer").len(), SlowModel::TOKENS);
    }
    let peak = model.peak_connections();
    assert!(peak <= Config::default().pool.max_connections, "{peak} connections");
}

/// Moves a paused clock by 10 ms for each 100 µs.
///
/// By itself it jumps to its next timer whenever no task can run, also when the kernel of a busy machine has not yet
/// delivered what a socket waits for: seconds of timeouts would pass in no time. It stands still during a blocking task.
fn run_the_clock() {
    tokio::spawn(async {
        loop {
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_micros(100)))
                .await
                .expect("it only sleeps");
            tokio::time::advance(Duration::from_millis(10)).await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn two_hundred_callers_and_forty_are_answered_by_every_provider_over_hyper() {
    run_the_clock();
    for (callers, stream) in LOADS {
        let model = SlowModel::start(stream).await;
        let mut config = config(&model);
        config.http.backend = "hyper".into();
        let began = tokio::time::Instant::now();
        every_caller_is_answered(&model, config, callers).await;
        let waves = (callers / Config::default().pool.max_connections) as u32;
        assert!(began.elapsed() >= stream * waves, "they really waited: {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_callers_and_forty_are_answered_by_every_provider_over_ureq() {
    const SCALE: u32 = 100;
    for (callers, stream) in LOADS {
        let model = SlowModel::start(stream / SCALE).await;
        let mut config = config(&model);
        // What would end the wait of a caller without a deadline.
        config.http.pool_timeout /= SCALE;
        every_caller_is_answered(&model, config, callers).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_deadline_ends_in_the_queue_is_told_which_setting_to_raise() {
    run_the_clock();
    let model = SlowModel::start(Duration::from_secs(5)).await;
    let mut config = config(&model);
    config.http.backend = "hyper".into();
    config.pool.max_connections = 1;
    let runtime = Arshai::builder(config).build().expect("valid settings");
    let client = runtime.openai("m").expect("it is configured");
    let request = || {
        let deadline = arshai::Deadline::after(Duration::from_secs(3));
        ChatRequest::new(vec![Message::user("hello")]).with_deadline(Some(deadline))
    };
    let _first = client.stream(request()).await.expect("a stream");
    let error = client.stream(request()).await.expect_err("the connection is in use");
    assert!(error.to_string().contains("setting: pool.max_connections"), "{error}");
}
