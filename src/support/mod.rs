//! Building blocks for backends: each mechanism once.
//!
//! An application needs none of this. A backend author finds here what the built-in backends are made of:
//! resizable limits ([`ResizableSemaphore`], [`PermitQueue`], [`UsageMeter`]), threads for blocking work
//! ([`BlockingPool`]), idle resources ([`IdleStack`]), retry delays ([`Backoff`]) and a background task that ends
//! with its owner ([`LazyTask`]). Cancellation is [`tokio_util::sync::CancellationToken`].

mod backoff;
mod blocking;
mod heap_size;
mod idle_stack;
mod lazy_task;
mod opaque_debug;
mod panics;
mod permit_queue;
mod semaphore;
mod truncate;
mod usage_meter;

#[doc(inline)]
pub use crate::__opaque_debug as opaque_debug;
pub use backoff::Backoff;
pub use blocking::{BlockingPool, JobHandle};
pub use heap_size::{map_heap_bytes, string_heap_bytes};
pub use idle_stack::IdleStack;
pub use lazy_task::LazyTask;
pub use panics::{catch_panic, panic_message};
pub use permit_queue::PermitQueue;
pub use semaphore::{OwnedPermit, ResizableSemaphore};
pub use truncate::truncated;
pub(crate) use truncate::{cut_middle, floor_char_boundary, json_excerpt};
pub use usage_meter::UsageMeter;

/// Statistics as the JSON that [`Component::counters`](crate::Component::counters) returns.
#[must_use]
pub fn counters(stats: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(stats).unwrap_or_default()
}
