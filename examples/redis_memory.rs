//! Conversation memory in Redis, shared with Python services.
//!
//! ```text
//! REDIS_URL=redis://localhost:6379/1 cargo run --release --features redis-tls --example redis_memory
//! ```
//!
//! Run it twice: the second run finds what the first one stored.

use std::error::Error;
use std::time::Duration;

use arshai::backends::memory::RedisMemoryManager;
use arshai::backends::redis::RedisClient;
use arshai::memory::{MemoryInput, MemoryManager};
use arshai::{BuildContext, Component, Config, Deadline};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let context = BuildContext::new(Config::load()?);
    let client = RedisClient::from_context(&context)?;
    let memory = RedisMemoryManager::new(client.clone(), &context)?;

    let conversation = MemoryInput::working_memory("redis-memory-example");
    match memory.retrieve(&conversation).await?.first() {
        Some(memory) => println!("memory: {}", memory.as_str()),
        None => println!("no memory yet"),
    }
    let last_run = client.get_key("redis-memory-example:last-run").await?;
    println!("last run: {last_run:?}");

    memory.store(conversation.with_data("The user has been here before.")).await?;
    client.set_key("redis-memory-example:last-run", "ok", Some(Duration::from_secs(3_600))).await?;

    let stats = client.stats();
    println!("{} commands over {} connections", stats.commands, stats.pool.open);
    client.close(Deadline::after(Duration::from_secs(1))).await;
    Ok(())
}
