//! HTTP over real sockets: bounds, deadlines, cancellation and safety; and what stands on HTTP.

mod adaptive;
mod bounds;
mod cancellation;
mod deadlines;
mod factory;
mod openai;
mod providers;
mod safety;
mod server;
mod streaming;
mod support;
