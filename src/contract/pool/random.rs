//! Random operations: one at a time, and from many tasks concurrently.

use super::super::doubles::ScriptedOutcome;
use super::super::random::Random;
use super::*;

/// The largest limit under [`stress`].
const MAX: usize = 8;

pub(super) async fn suite<F, Fut>(maker: &Maker<F>)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn ConnectionPool>>,
{
    let crowded = |settings: &mut PoolSettings| {
        settings.max_connections = 8;
        settings.max_idle = 2;
        settings.max_waiting = 4;
    };
    for seed in 1..=6 {
        for fixture in [maker.pool().await, maker.single().await, maker.with(crowded).await] {
            let max = Operations::new(&fixture, seed).run().await;
            fixture.check_all_free(max).await;
        }
    }
}

/// Random operations on one pool. The counts are checked after each.
struct Operations<'a> {
    fixture: &'a Fixture,
    random: Random,
    max: usize,
    held: Vec<PooledConnection>,
    pending: Vec<Acquire>,
}

impl<'a> Operations<'a> {
    fn new(fixture: &'a Fixture, seed: u64) -> Self {
        let (random, max) = (Random::new(seed), fixture.settings.max_connections);
        Self { fixture, random, max, held: Vec::new(), pending: Vec::new() }
    }

    /// Runs them; returns the limit that is set at the end.
    async fn run(mut self) -> usize {
        for _ in 0..3_000 {
            self.step().await;
            self.poll_pending().await;
            self.fixture.check_counts(self.held.len(), self.max);
        }
        self.fixture.connector.set_check_outcome(ScriptedOutcome::Succeeds);
        self.fixture.connector.set_connect_outcome(ScriptedOutcome::Succeeds);
        self.max
    }

    async fn step(&mut self) {
        let connector = &self.fixture.connector;
        match self.random.below(12) {
            0..=3 if self.held.len() + self.pending.len() < 20 => {
                self.pending.push(self.fixture.start_acquire());
            }
            0..=4 => drop(remove(&mut self.random, &mut self.held)),
            5 => drop(remove(&mut self.random, &mut self.pending)),
            6 => {
                if let Some(connection) = remove(&mut self.random, &mut self.held) {
                    connection.discard();
                }
            }
            7 => {
                if let Some(connection) = self.held.last_mut() {
                    scripted(connection).mark_broken();
                }
            }
            8 if self.random.below(4) == 0 => connector.break_all(),
            8 => {
                let outcomes = [ScriptedOutcome::Fails, ScriptedOutcome::Fails, ScriptedOutcome::Hangs];
                connector.set_next_connect_outcomes([outcomes[self.random.below(3) as usize]]);
            }
            9 if self.fixture.capabilities.bounded => {
                self.max = 1 + self.random.below(8) as usize;
                self.fixture.pool.set_max_connections(self.max).expect("a valid limit");
            }
            10 => {
                use ScriptedOutcome::{Fails, Hangs, Succeeds};
                connector
                    .set_check_outcome([Succeeds, Succeeds, Fails, Hangs][self.random.below(4) as usize]);
                tokio::time::sleep(Duration::from_millis(self.random.below(20_000))).await;
            }
            _ => {}
        }
    }

    /// Polls two in three of the pending acquires, so that some lag behind.
    async fn poll_pending(&mut self) {
        let mut index = 0;
        while index < self.pending.len() {
            let polls = self.random.below(3).min(1);
            match poll_times(&mut self.pending[index], polls).await {
                None => index += 1,
                Some(acquired) => {
                    drop(self.pending.swap_remove(index));
                    self.held.extend(acquired.ok());
                }
            }
        }
    }
}

fn remove<T>(random: &mut Random, all: &mut Vec<T>) -> Option<T> {
    if all.is_empty() {
        return None;
    }
    Some(all.swap_remove(random.below(all.len() as u64) as usize))
}

/// Runs many tasks that acquire, cancel, discard, break and return connections concurrently while the limit changes, and
/// checks that no limit was ever exceeded and nothing is left. Run it on a runtime with several threads, without paused
/// time.
///
/// # Panics
/// Where the pool breaks the contract.
pub async fn stress<F, Fut>(make: F)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn ConnectionPool>>,
{
    let maker = Maker(make);
    let fixture = maker.with(|settings| {
        settings.max_connections = MAX;
        settings.max_idle = MAX;
        // No task waits for time to pass; a slow machine must not fail the test.
        settings.connect_timeout = LONG;
        settings.check_after = LONG;
        settings.idle_timeout = LONG;
    });
    let fixture = Arc::new(fixture.await);
    let tasks: Vec<_> = (0..24)
        .map(|seed| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move {
                let mut random = Random::new(seed);
                for _ in 0..1_000 {
                    stress_once(&fixture, &mut random).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task panics");
    }
    if fixture.capabilities.bounded {
        assert!(fixture.connector.peak() <= MAX as u64, "peak {}", fixture.connector.peak());
        fixture.pool.set_max_connections(MAX).expect("a valid limit");
    }
    fixture.check_all_free(MAX).await;
}

async fn stress_once(fixture: &Fixture, random: &mut Random) {
    let mut acquire = fixture.start_acquire();
    if random.below(3) == 0 {
        poll_times(&mut acquire, random.below(4)).await;
        return;
    }
    let mut connection = acquire.await.expect("the queue is not full");
    for _ in 0..random.below(3) {
        tokio::task::yield_now().await;
    }
    match random.below(20) {
        0 => connection.discard(),
        1 => scripted(&mut connection).mark_broken(),
        2 if fixture.capabilities.bounded => {
            let max = 1 + random.below(MAX as u64) as usize;
            fixture.pool.set_max_connections(max).expect("a valid limit");
        }
        _ => {}
    }
}
