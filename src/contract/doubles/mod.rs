//! Test doubles for every seam, to test code that stands on arshai.

pub mod http;
pub mod tasks;
