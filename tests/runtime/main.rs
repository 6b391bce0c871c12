//! The runtime as an application uses it: by name and by value, limits, health, shutdown, two side by side, and
//! the validation script of the project's first document.

mod blocking_vectors;
mod lifecycle;
mod observability;
mod seed;
mod two_runtimes;
