//! Both transports over real sockets, and the model clients that use it.

mod adaptive;
mod bounds;
mod cancellation;
mod deadlines;
mod factory;
mod networks;
mod openai;
mod providers;
mod safety;
mod server;
mod streaming;
mod support;
mod tls_server;
