//! Conversation memory in Redis, beside whatever Python services keep there.
//!
//! ```text
//! REDIS_URL=redis://localhost:6379/1 cargo run --release --features redis-tls --example redis_memory
//! ```
//!
//! Run it twice: the second run finds what the first one stored.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use arshai::backends::memory::RedisMemoryManager;
use arshai::backends::redis::RedisClient;
use arshai::memory::{MemoryInput, MemoryManager};
use arshai::{BuildContext, Config, Deadline};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let context = BuildContext::new(Config::load()?);
    let client = RedisClient::from_context(&context)?;
    let memory = Arc::new(RedisMemoryManager::new(client.clone(), &context)?);

    let conversation = MemoryInput::working_memory("redis-memory-example");
    match memory.retrieve(&conversation).await?.first() {
        Some(held) => println!("remembered: {}", held.as_str()),
        None => println!("nothing is remembered yet"),
    }
    let visits = client.get_key("redis-memory-example:visits").await?;
    println!("visits so far: {visits:?}");

    memory.store(conversation.with_data("The user has been here before.")).await?;
    client.set_key("redis-memory-example:visits", "1", Some(Duration::from_secs(3_600))).await?;

    let stats = client.stats();
    println!("{} commands over {} connections", stats.commands, stats.pool.open);
    client.close(Deadline::after(Duration::from_secs(1))).await;
    Ok(())
}
