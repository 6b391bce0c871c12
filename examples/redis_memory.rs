//! Conversation memory in Redis, shared with Python services.
//!
//! ```text
//! REDIS_URL=redis://localhost:6379/1 cargo run --release --features redis-tls --example redis_memory
//! ```
//!
//! Run it twice: the second run finds what the first one stored.

use std::time::Duration;

use arshai::backends::redis::RedisExt as _;
use arshai::memory::MemoryInput;
use arshai::{Arshai, Config, Deadline, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let mut config = Config::load()?;
    config.memory.backend = "redis".into();
    let runtime = Arshai::builder(config).build()?;
    let (memory, redis) = (runtime.memory(), runtime.redis()?);

    let conversation = MemoryInput::working_memory("redis-memory-example");
    match memory.retrieve(&conversation).await?.first() {
        Some(memory) => println!("memory: {}", memory.as_str()),
        None => println!("no memory yet"),
    }
    let last_run = redis.get_key("redis-memory-example:last-run").await?;
    println!("last run: {last_run:?}");

    memory.store(conversation.with_data("The user has been here before.")).await?;
    redis.set_key("redis-memory-example:last-run", "ok", Some(Duration::from_secs(3_600))).await?;

    let stats = redis.stats();
    println!("{} commands over {} connections", stats.commands, stats.pool.open);
    runtime.shutdown(Deadline::after_secs(1)).await;
    Ok(())
}
