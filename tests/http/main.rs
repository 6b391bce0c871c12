//! HTTP over real sockets: bounds, deadlines, cancellation and safety; and what stands on HTTP.

mod bounds;
mod cancellation;
mod deadlines;
mod openai;
mod safety;
mod server;
mod support;
