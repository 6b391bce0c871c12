//! The task that drops connections which were idle too long.

use std::sync::{Arc, Weak};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::bounded::Pool;
use super::state::Store;

/// Starts a reaper. It runs while connections are idle and the pool is there, and keeps neither alive.
pub(super) fn start<S: Store>(runtime: &Handle, pool: &Arc<Pool<S>>) {
    let reaper = Reaper(Arc::downgrade(pool));
    runtime.spawn(reaper.run(pool.closing()));
}

struct Reaper<S: Store>(Weak<Pool<S>>);

impl<S: Store> Reaper<S> {
    async fn run(self, mut closing: watch::Receiver<bool>) {
        while let Some(left) = self.0.upgrade().and_then(|pool| pool.reap()) {
            tokio::select! {
                // Closed, or gone.
                _ = closing.wait_for(|closing| *closing) => return,
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}

/// The runtime may end before the pool does: another one may then take over.
impl<S: Store> Drop for Reaper<S> {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.reaper_ended();
        }
    }
}
