//! Panics as messages.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::truncated;

/// Maximum number of bytes of a panic's message that are repeated.
const MAX_MESSAGE_BYTES: usize = 1_000;

/// Runs `work` and returns a panic in it as its message.
///
/// # Errors
/// The [message](panic_message) of the panic.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(panic_message)
}

/// The message of a caught panic. Consumes the payload, since dropping one can panic again: that panic is swallowed.
#[must_use]
pub fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let message = format!("panicked: {}", truncated(text, MAX_MESSAGE_BYTES));
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // Its destructor could panic as well.
        std::mem::forget(second);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            std::panic::panic_any(PanicsOnDrop);
        }
    }

    #[test]
    fn a_payload_that_panics_when_dropped_does_not_escape() {
        let caught = catch_panic(|| std::panic::panic_any(PanicsOnDrop));
        assert_eq!(caught, Err("panicked: no message".to_owned()));
    }

    #[test]
    fn messages_are_kept_and_truncated() {
        assert_eq!(
            catch_panic(|| panic!("out of {}", "cheese")),
            Err::<(), _>("panicked: out of cheese".into())
        );
        let long = catch_panic(|| panic!("{}", "x".repeat(1 << 20))).map(|(): ()| ()).expect_err("it panics");
        assert!(long.len() < 2 * MAX_MESSAGE_BYTES, "{} bytes", long.len());
    }
}
