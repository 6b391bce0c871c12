//! The validation script of the document that started the project, ported under the same names. Its Redis half
//! needs the Redis client, which does not exist yet.

use arshai::backends::memory::InMemoryManager;
use arshai::memory::{MemoryInput, MemoryManager, MemoryType};
use arshai::{Arshai, Component, Config};

#[tokio::test]
async fn original_usage_of_the_memory_manager_works_as_it_did() {
    let manager = InMemoryManager::new();
    let input_data =
        MemoryInput::new("test").with_memory_type(MemoryType::WorkingMemory).with_data("test data");

    let key = MemoryManager::store(&manager, input_data.clone()).await.expect("stored");
    assert_eq!(key, "memory:WORKING_MEMORY:test");
    let retrieved = MemoryManager::retrieve(&manager, &input_data).await.expect("retrieved");
    assert_eq!(retrieved.len(), 1);
    assert_eq!(&*retrieved[0].working_memory, "test data");
}

#[test]
fn original_constructors_work_with_and_without_settings() {
    let _ = InMemoryManager::new();
    let _ = InMemoryManager::builder().ttl(std::time::Duration::from_secs(3600)).build().expect("valid");
    let tuned = InMemoryManager::builder()
        .ttl(std::time::Duration::from_secs(7200))
        .max_entries(5000)
        .max_memory_mb(200)
        .build()
        .expect("valid");
    let limits = tuned.limits();
    let limit = |key| limits.iter().find(|usage| usage.key == key).and_then(|usage| usage.limit);
    assert_eq!(limit("memory.max_entries"), Some(5000));
    assert_eq!(limit("memory.max_memory_mb"), Some(200 << 20));
}

#[test]
fn existing_and_new_variables_configure_a_runtime() {
    let variables = [
        ("REDIS_URL", "redis://localhost:6379"),
        ("OPENAI_API_KEY", "sk-test"),
        ("AZURE_OPENAI_ENDPOINT", "https://example.invalid"),
        ("ARSHAI_MAX_MEMORY_MB", "500"),
        ("ARSHAI_MAX_CONNECTIONS", "20"),
        ("ARSHAI_MAX_BACKGROUND_TASKS", "1000"),
        ("ARSHAI_CONNECTION_TIMEOUT", "30"),
        ("ARSHAI_CLEANUP_INTERVAL", "300"),
    ];
    let config = Config::from_vars(variables.map(|(name, value)| (name.into(), value.into())));
    let runtime = Arshai::builder(config.expect("all are good")).build().expect("it builds");
    assert_eq!(runtime.config().tasks.max_background_tasks, 1000);
    assert_eq!(runtime.config().pool.max_connections, 20);
}

#[test]
fn the_emergency_rollback_configuration_takes_every_bound_away() {
    let variables =
        ["ARSHAI_DISABLE_OPTIMIZATIONS", "ARSHAI_USE_LEGACY_MEMORY", "ARSHAI_USE_LEGACY_CONNECTIONS"];
    let config = Config::from_vars(variables.map(|name| (name.into(), "true".into()))).expect("all are good");
    let runtime = Arshai::builder(config).build().expect("it builds");
    assert!(!runtime.memory().capabilities().bounded);
    assert!(!runtime.tasks().capabilities().bounded);
}
