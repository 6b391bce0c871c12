//! This process's copies of entries, and the rules by which one may be kept and read.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::backends::memory::InMemoryManager;
use crate::memory::{MemoryInput, MemoryLimits, MemoryManager, MemoryStats, MemoryType, WorkingMemory};
use crate::{BuildContext, Clock, Result};

/// Keys are watched for changes in groups: a change of one forbids keeping what was being read of the others.
const GROUPS: usize = 256;

/// Copies live for this part of an entry's own time to live, and only of entries that outlive them.
const PART_OF_TTL: u32 = 12;

/// What the coarse clock may be behind: twice its longest step.
const CLOCK_STEP: Duration = Duration::from_millis(20);

/// The copies. All that is asked of Redis happens elsewhere; here is decided what may be believed of it.
///
/// A copy is kept only if, from before its entry was read or written until it is kept, nothing changed any
/// entry of its group: no write of this process began or ended, and Redis told of none. Redis tells of every
/// change made after an entry was read, so a copy that is there is the entry, or news of its change is on the
/// way; how long that may take is bounded by [`fresh`](Self::fresh).
pub(super) struct Copies {
    front: InMemoryManager,
    groups: Box<[Mutex<Group>]>,
    hasher: RandomState,
    clock: Arc<dyn Clock>,
    ttl: Duration,
    /// Until when copies may be read: nanoseconds of the clock.
    fresh_until: AtomicU64,
}

/// What happened to the entries of one group.
#[derive(Debug, Default)]
struct Group {
    changes: u64,
    /// Writes of this process that are under way.
    writers: usize,
}

impl Copies {
    /// # Errors
    /// As [`InMemoryManager`]'s builder.
    pub(super) fn new(context: &BuildContext) -> Result<Self> {
        let memory = &context.config.memory;
        let ttl = memory.ttl / PART_OF_TTL;
        let front = InMemoryManager::builder()
            .ttl(ttl)
            .max_entries(memory.max_entries)
            .max_memory_mb(memory.max_memory_mb)
            .cleanup_interval(context.config.cleanup_interval)
            .clock(Arc::clone(&context.clock))
            .build()?;
        Ok(Self {
            front,
            groups: (0..GROUPS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            clock: Arc::clone(&context.clock),
            ttl,
            fresh_until: AtomicU64::new(0),
        })
    }

    /// The copy of an entry, if there is one that may be read now.
    pub(super) fn get(&self, memory_type: MemoryType, conversation_id: &str) -> Option<WorkingMemory> {
        if nanos(self.now()) >= self.fresh_until.load(Ordering::Acquire) {
            return None;
        }
        self.front.get(memory_type, conversation_id)
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Lets copies be read until then: everything that Redis told before a moment not long ago has been heard.
    pub(super) fn fresh(&self, until: Duration) {
        self.fresh_until.store(nanos(until), Ordering::Release);
    }

    /// Begins to read an entry of which there is no copy.
    pub(super) fn reading(&self, input: &MemoryInput) -> Reading<'_> {
        let group = self.group(&input.key());
        Reading { copies: self, group, changes: group.lock().changes, began: self.now() }
    }

    /// Begins to write or delete an entry: its copy goes.
    pub(super) fn writing<'a>(&'a self, input: &'a MemoryInput) -> Writing<'a> {
        let group = self.group(&input.key());
        let mut held = group.lock();
        held.changes += 1;
        held.writers += 1;
        self.forget(input);
        let changes = held.changes;
        drop(held);
        Writing { copies: self, input, group, changes, began: self.now(), copy: None }
    }

    /// Redis told that the entry of a key has changed.
    pub(super) fn changed(&self, key: &str) {
        let Some(input) = input_of(key) else { return };
        let mut group = self.group(key).lock();
        group.changes += 1;
        self.forget(&input);
    }

    /// News may have been missed: no copy, and nothing that is being read, can be believed.
    pub(super) fn clear(&self) {
        for group in &self.groups {
            group.lock().changes += 1;
        }
        self.front.clear();
    }

    pub(super) fn stats(&self) -> MemoryStats {
        self.front.stats()
    }

    pub(super) fn set_limits(&self, limits: MemoryLimits) -> Result<()> {
        self.front.set_limits(limits)
    }

    /// Clears expired copies away in the background from now on.
    pub(super) fn start_cleanup(&self) {
        self.front.start_cleanup();
    }

    fn group(&self, key: &str) -> &Mutex<Group> {
        &self.groups[self.hasher.hash_one(key) as usize % GROUPS]
    }

    fn forget(&self, input: &MemoryInput) {
        // It fails for a malformed id alone, of which there is no copy.
        let _ = self.front.delete(input);
    }

    /// Keeps a copy. Called under the lock of its group. One that does not fit is none.
    fn keep(&self, input: &MemoryInput, copy: WorkingMemory) {
        if self.front.put(input.memory_type, &input.conversation_id, copy).is_err() {
            self.forget(input);
        }
    }

    /// Whether an entry that had `left` to live at some moment since `began` outlives a copy made now.
    fn outlives_copy(&self, left: Duration, began: Duration) -> bool {
        left >= self.ttl + CLOCK_STEP + self.now().saturating_sub(began)
    }
}

/// An entry is being read from Redis.
#[must_use]
pub(super) struct Reading<'a> {
    copies: &'a Copies,
    group: &'a Mutex<Group>,
    changes: u64,
    began: Duration,
}

impl Reading<'_> {
    /// Keeps a copy of what was read, with `left` to live, if nothing changed it meanwhile.
    pub(super) fn keep(self, input: &MemoryInput, copy: &WorkingMemory, left: Duration) {
        if !self.copies.outlives_copy(left, self.began) {
            return;
        }
        let group = self.group.lock();
        if group.writers == 0 && group.changes == self.changes {
            self.copies.keep(input, copy.clone());
        }
    }
}

/// An entry is being written or deleted. However that ends, dropping this ends it.
#[must_use]
pub(super) struct Writing<'a> {
    copies: &'a Copies,
    input: &'a MemoryInput,
    group: &'a Mutex<Group>,
    changes: u64,
    began: Duration,
    copy: Option<WorkingMemory>,
}

impl Writing<'_> {
    /// Redis has done the write, and tells of every later one; the entry has `left` to live.
    pub(super) fn done(mut self, copy: &WorkingMemory, left: Duration) {
        if self.copies.outlives_copy(left, self.began) {
            self.copy = Some(copy.clone());
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut group = self.group.lock();
        let alone = group.writers == 1 && group.changes == self.changes;
        group.writers -= 1;
        group.changes += 1;
        match self.copy.take() {
            Some(copy) if alone => self.copies.keep(self.input, copy),
            _ => self.copies.forget(self.input),
        }
    }
}

/// What a key stands for, if it is one of ours.
fn input_of(key: &str) -> Option<MemoryInput> {
    let (name, conversation_id) = key.strip_prefix("memory:")?.split_once(':')?;
    let types = [MemoryType::ShortTermMemory, MemoryType::LongTermMemory, MemoryType::WorkingMemory];
    let memory_type = types.into_iter().find(|memory_type| memory_type.as_str() == name)?;
    Some(MemoryInput::new(conversation_id).with_type(memory_type))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, ManualClock};

    const HOUR: Duration = Duration::from_secs(3600);

    struct Bench {
        copies: Copies,
        clock: Arc<ManualClock>,
        a: MemoryInput,
    }

    /// Copies that are fresh and live for an hour.
    fn bench() -> Bench {
        let clock = Arc::new(ManualClock::new());
        let context = BuildContext::new(Config::default()).with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let copies = Copies::new(&context).expect("the defaults are valid");
        copies.fresh(HOUR * 100);
        Bench { copies, clock, a: MemoryInput::working("a") }
    }

    impl Bench {
        fn copy(&self) -> Option<WorkingMemory> {
            self.copies.get(self.a.memory_type, &self.a.conversation_id)
        }

        fn read(&self, reading: Reading<'_>) {
            reading.keep(&self.a, &"text".into(), HOUR * 12);
        }
    }

    #[test]
    fn what_was_read_or_written_undisturbed_is_kept() {
        let bench = bench();
        bench.read(bench.copies.reading(&bench.a));
        assert_eq!(bench.copy(), Some("text".into()));
        bench.copies.writing(&bench.a).done(&"new".into(), HOUR * 12);
        assert_eq!(bench.copy(), Some("new".into()));
    }

    #[test]
    fn nothing_is_kept_of_what_changed_while_it_was_read() {
        let changes: [fn(&Bench); 4] = [
            |bench| bench.copies.changed(&bench.a.key()),
            |bench| bench.copies.clear(),
            |bench| drop(bench.copies.writing(&bench.a)),
            |bench| std::mem::forget(bench.copies.writing(&bench.a)),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let bench = bench();
            let reading = bench.copies.reading(&bench.a);
            change(&bench);
            bench.read(reading);
            assert_eq!(bench.copy(), None, "change {n}");
        }
    }

    #[test]
    fn nothing_is_kept_of_a_write_that_another_overlaps() {
        let bench = bench();
        for end_first in [true, false] {
            let first = bench.copies.writing(&bench.a);
            let second = bench.copies.writing(&bench.a);
            let (one, other) = if end_first { (first, second) } else { (second, first) };
            one.done(&"one".into(), HOUR * 12);
            assert_eq!(bench.copy(), None);
            other.done(&"other".into(), HOUR * 12);
            assert_eq!(bench.copy(), None);
        }
        let write = bench.copies.writing(&bench.a);
        bench.copies.changed(&bench.a.key());
        write.done(&"text".into(), HOUR * 12);
        assert_eq!(bench.copy(), None);
    }

    #[test]
    fn a_copy_goes_when_its_entry_changes_or_is_written() {
        let changes: [fn(&Bench); 3] = [
            |bench| bench.copies.changed("memory:WORKING_MEMORY:a"),
            |bench| bench.copies.clear(),
            |bench| std::mem::forget(bench.copies.writing(&bench.a)),
        ];
        for change in changes {
            let bench = bench();
            bench.read(bench.copies.reading(&bench.a));
            for other in ["memory:LONG_TERM_MEMORY:a", "memory:WORKING_MEMORY:b", "memory:OTHER:a", "x"] {
                bench.copies.changed(other);
            }
            assert!(bench.copy().is_some());
            change(&bench);
            assert_eq!(bench.copy(), None);
        }
    }

    #[test]
    fn no_copy_outlives_its_entry() {
        let bench = bench();
        bench.copies.reading(&bench.a).keep(&bench.a, &"text".into(), HOUR);
        assert_eq!(bench.copy(), None, "a copy lives for an hour, the entry not longer");
        let reading = bench.copies.reading(&bench.a);
        bench.clock.advance(HOUR);
        reading.keep(&bench.a, &"text".into(), HOUR * 2);
        assert_eq!(bench.copy(), None, "the read itself took an hour");
        bench.copies.reading(&bench.a).keep(&bench.a, &"text".into(), HOUR * 2);
        bench.clock.advance(HOUR);
        assert_eq!(bench.copy(), None, "an hour has passed");
    }

    #[test]
    fn copies_are_read_only_as_long_as_they_are_fresh() {
        let bench = bench();
        bench.read(bench.copies.reading(&bench.a));
        bench.copies.fresh(Duration::from_secs(2));
        assert!(bench.copy().is_some());
        bench.clock.advance(Duration::from_secs(2));
        assert_eq!(bench.copy(), None);
    }
}
