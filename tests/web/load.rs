//! More visitors than connections to the model.

use std::time::Duration;

use arshai_test_support::SlowModel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::service::Service;

/// Waiting for a connection takes longer than `http.pool_timeout`, which a turn's own deadline overrides.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_visitors_and_forty_are_answered_with_the_default_settings() {
    for (visitors, stream) in [(200, Duration::from_millis(250)), (40, Duration::from_millis(100))] {
        let model = SlowModel::start(stream).await;
        let variables = [
            ("OPENAI_API_KEY", "key"),
            ("OPENAI_BASE_URL", &model.url("/v1")),
            // A fifth, as the streams are a twentieth.
            ("ARSHAI_HTTP__POOL_TIMEOUT", "1"),
        ];
        let service = Service::start(&variables);
        let mut asking = JoinSet::new();
        for visitor in 0..visitors {
            let url = service.url("/chat/stream");
            asking.spawn(async move { ask(url, visitor).await.expect("an answer") });
        }
        for answer in asking.join_all().await {
            assert_eq!(answer.matches("event: text").count(), SlowModel::TOKENS, "{answer}");
            assert!(answer.contains("event: done"), "{answer}");
        }
        assert!(model.peak_connections() <= 20, "{} connections", model.peak_connections());
    }
}

/// The whole response to a streamed chat of its own conversation.
async fn ask(url: String, visitor: usize) -> std::io::Result<String> {
    let body = format!(r#"{{"message": "hello", "conversation": "{visitor}"}}"#);
    let address = url.trim_start_matches("http://").trim_end_matches("/chat/stream");
    let mut socket = TcpStream::connect(address).await?;
    let request = format!(
        "POST /chat/stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}
