//! Operations on keys: input, atomicity, cancellation, close.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Factory, Fixture, Setup};
use crate::memory::{
    CasOutcome, MAX_CONVERSATION_ID_BYTES, MemoryInput, MemoryManager, MemoryType, WorkingMemory,
};
use crate::{Deadline, ErrorKind};

pub(super) async fn run<F, Fut>(factory: &Factory<F>)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn MemoryManager>>,
{
    a_stored_entry_is_retrieved_under_its_key(&factory.roomy().await).await;
    conversations_and_types_are_independent(&factory.roomy().await).await;
    store_replaces_and_the_last_data_wins(&factory.roomy().await).await;
    update_changes_only_an_existing_entry(&factory.roomy().await).await;
    compare_and_set_writes_only_over_the_expected_text(&factory.roomy().await).await;
    concurrent_read_modify_write_loses_nothing(&factory.roomy().await).await;
    delete_is_final_and_repeatable(&factory.roomy().await).await;
    invalid_input_is_rejected_and_changes_nothing(&factory.roomy().await).await;
    hits_and_misses_are_counted(&factory.roomy().await).await;
    concurrent_writers_leave_one_complete_value(&factory.roomy().await).await;
    a_dropped_future_is_complete_or_not_started(&factory.roomy().await).await;
    a_closed_backend_rejects_operations(&factory.roomy().await).await;
}

async fn a_stored_entry_is_retrieved_under_its_key(fixture: &Fixture) {
    assert_eq!(fixture.read("a").await, None);
    let input = MemoryInput::working_memory("a");
    let key = fixture.memory.store(input.clone().with_data("hello")).await.expect("it stores");
    assert_eq!(key, "memory:WORKING_MEMORY:a", "the key is Python's");
    fixture.memory.flush().await.expect("it flushes");
    assert_eq!(fixture.retrieve(&input).await.as_deref(), Some("hello"));
    let long = "ü".repeat(MAX_CONVERSATION_ID_BYTES / 2);
    fixture.store(&long, "").await;
    assert_eq!(fixture.read(&long).await.as_deref(), Some(""), "the longest id and the shortest text");
    for length in [1, 500, 511, 512, 513, 1_000, 4_096, 100_000] {
        let text: String = "aü€🎉".chars().cycle().take(length).collect();
        fixture.store("text", &text).await;
        assert_eq!(fixture.read("text").await, Some(text), "every length, every character");
    }
}

async fn conversations_and_types_are_independent(fixture: &Fixture) {
    let types = [MemoryType::ShortTermMemory, MemoryType::LongTermMemory, MemoryType::WorkingMemory];
    let inputs =
        types.iter().flat_map(|kind| ["a", "b"].map(|id| MemoryInput::new(id).with_memory_type(*kind)));
    let inputs: Vec<_> = inputs.collect();
    for input in &inputs {
        fixture.memory.store(input.clone().with_data(input.key())).await.expect("it stores");
    }
    for input in &inputs {
        assert_eq!(fixture.retrieve(input).await, Some(input.key()));
    }
    fixture.memory.delete(&inputs[0]).await.expect("it deletes");
    assert_eq!(fixture.retrieve(&inputs[0]).await, None);
    for input in &inputs[1..] {
        assert_eq!(fixture.retrieve(input).await, Some(input.key()), "only one entry was deleted");
    }
}

async fn store_replaces_and_the_last_data_wins(fixture: &Fixture) {
    fixture.store("a", "old").await;
    let input = MemoryInput::new("a").with_data("first").with_data("last");
    fixture.memory.store(input).await.expect("it stores");
    assert_eq!(fixture.read("a").await.as_deref(), Some("last"));
    fixture.assert_entries(1);
}

async fn update_changes_only_an_existing_entry(fixture: &Fixture) {
    fixture.update("missing", "new").await;
    assert_eq!(fixture.read("missing").await, None, "update creates nothing");
    fixture.store("a", "old").await;
    fixture.update("a", "new").await;
    assert_eq!(fixture.read("a").await.as_deref(), Some("new"));
    fixture.delete("a").await;
    fixture.update("a", "new").await;
    assert_eq!(fixture.read("a").await, None, "update restores nothing");
}

async fn compare_and_set_writes_only_over_the_expected_text(fixture: &Fixture) {
    let set = async |text: &str, expected: Option<&str>| {
        let expected = expected.map(WorkingMemory::from);
        let input = MemoryInput::new("a").with_data(text);
        fixture.memory.compare_and_set(input, expected.as_ref()).await.expect("it compares")
    };
    assert_eq!(set("x", Some("old")).await, CasOutcome::Missing);
    assert_eq!(fixture.read("a").await, None);
    assert_eq!(set("first", None).await, CasOutcome::Updated);
    assert_eq!(set("x", None).await, CasOutcome::Conflict);
    assert_eq!(set("x", Some("firs")).await, CasOutcome::Conflict);
    assert_eq!(set("x", Some("first ")).await, CasOutcome::Conflict);
    assert_eq!(fixture.read("a").await.as_deref(), Some("first"));
    assert_eq!(set("second", Some("first")).await, CasOutcome::Updated);
    assert_eq!(fixture.read("a").await.as_deref(), Some("second"));
    let missing_data = fixture.memory.compare_and_set(MemoryInput::new("a"), None).await;
    assert_eq!(missing_data.expect_err("no data").kind(), ErrorKind::InvalidInput);
}

async fn concurrent_read_modify_write_loses_nothing(fixture: &Fixture) {
    let append = |memory: Arc<dyn MemoryManager>| async move {
        let mut written = 0;
        while written < 10 {
            let found = memory.retrieve(&MemoryInput::new("a")).await.expect("it retrieves").pop();
            let text = found.as_ref().map_or("", WorkingMemory::as_str);
            let input = MemoryInput::new("a").with_data(format!("{text}x"));
            let outcome = memory.compare_and_set(input, found.as_ref()).await.expect("it compares");
            written += usize::from(outcome == CasOutcome::Updated);
            tokio::task::yield_now().await;
        }
    };
    let tasks: Vec<_> = (0..5).map(|_| tokio::spawn(append(Arc::clone(&fixture.memory)))).collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(fixture.read("a").await, Some("x".repeat(50)));
}

async fn delete_is_final_and_repeatable(fixture: &Fixture) {
    fixture.store("a", "text").await;
    for _ in 0..2 {
        fixture.delete("a").await;
        assert_eq!(fixture.read("a").await, None);
    }
    fixture.assert_entries(0);
}

async fn invalid_input_is_rejected_and_changes_nothing(fixture: &Fixture) {
    fixture.store("a", "text").await;
    let store = fixture.memory.store(MemoryInput::new("a")).await.expect_err("no data");
    assert_eq!((store.kind(), store.message()), (ErrorKind::InvalidInput, "No data provided to store"));
    let update = fixture.memory.update(MemoryInput::new("a")).await.expect_err("no data");
    assert_eq!((update.kind(), update.message()), (ErrorKind::InvalidInput, "No data provided to update"));
    for id in ["", "line\nbreak", "nul\0", "\u{85}", &"x".repeat(600)] {
        let error = rejected(fixture, &MemoryInput::new(id)).await;
        assert_eq!(error, ErrorKind::InvalidInput);
    }
    let mut limit = MemoryInput::new("a");
    limit.limit = Some(0);
    assert_eq!(rejected(fixture, &limit).await, ErrorKind::InvalidInput);
    assert_eq!(fixture.read("a").await.as_deref(), Some("text"));
    fixture.assert_entries(1);
}

/// Asserts that every operation rejects `input` with the same kind of error, without repeating the id.
async fn rejected(fixture: &Fixture, input: &MemoryInput) -> ErrorKind {
    let write = input.clone().with_data("other");
    let memory = &fixture.memory;
    let errors = [
        memory.store(write.clone()).await.expect_err("store rejects it"),
        memory.retrieve(input).await.expect_err("retrieve rejects it"),
        memory.update(write.clone()).await.expect_err("update rejects it"),
        memory.compare_and_set(write, None).await.expect_err("compare_and_set rejects it"),
        memory.delete(input).await.expect_err("delete rejects it"),
    ];
    let id = &input.conversation_id;
    assert!(
        errors.iter().all(|error| id.len() < 2 || !error.to_string().contains(id)),
        "the id is not repeated"
    );
    assert!(errors.iter().all(|error| error.kind() == errors[0].kind()), "{errors:?}");
    errors[0].kind()
}

async fn hits_and_misses_are_counted(fixture: &Fixture) {
    fixture.store("a", "text").await;
    for id in ["a", "b", "a", "a"] {
        fixture.read(id).await;
    }
    let stats = fixture.memory.stats();
    assert_eq!((stats.hits, stats.misses), (3, 1));
}

async fn concurrent_writers_leave_one_complete_value(fixture: &Fixture) {
    let write = |memory: Arc<dyn MemoryManager>, n: usize| async move {
        for round in 0..50 {
            let text = format!("{n}").repeat(100 + round);
            let input = MemoryInput::new(format!("{}", round % 3)).with_data(text);
            if n == 0 {
                memory.update(input).await.expect("it updates");
            } else {
                memory.store(input).await.expect("it stores");
            }
            tokio::task::yield_now().await;
        }
    };
    let tasks: Vec<_> = (0..8).map(|n| tokio::spawn(write(Arc::clone(&fixture.memory), n))).collect();
    for task in tasks {
        task.await.expect("no writer panics");
    }
    for id in ["0", "1", "2"] {
        let text = fixture.read(id).await.expect("it was stored");
        let first = &text[..1];
        assert!(text.matches(first).count() == text.len(), "the complete value of one writer");
    }
    fixture.assert_entries(3);
}

async fn a_dropped_future_is_complete_or_not_started(fixture: &Fixture) {
    fixture.store("a", "old").await;
    drop(fixture.memory.store(MemoryInput::new("a").with_data("never polled")));
    assert_eq!(fixture.read("a").await.as_deref(), Some("old"), "an unpolled operation has not started");
    for n in 0..20 {
        let text = format!("new {n}");
        let operation = fixture.memory.store(MemoryInput::new("a").with_data(text.as_str()));
        let before = fixture.read("a").await;
        let done = tokio::select! {
            biased;
            () = tokio::task::yield_now(), if n % 2 == 0 => false,
            result = operation => result.is_ok(),
        };
        let after = fixture.read("a").await;
        assert!(after == Some(text) || (!done && after == before), "complete or not started");
    }
    fixture.assert_entries(1);
}

async fn a_closed_backend_rejects_operations(fixture: &Fixture) {
    let metadata = json!({"user": "ada"}).as_object().cloned().unwrap_or_default();
    let input = MemoryInput::new("a").with_data("text").with_metadata(metadata);
    fixture.memory.store(input.clone()).await.expect("it stores");
    for _ in 0..2 {
        let report = fixture.memory.close(Deadline::after(Duration::from_secs(5))).await;
        assert!(report.is_clean(), "closing is repeatable: {report:?}");
    }
    assert_eq!(rejected(fixture, &input).await, ErrorKind::Closed);
}
