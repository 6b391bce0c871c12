//! Both transports over real sockets, and the model clients that use it.

mod adaptive;
mod bounds;
mod cancellation;
mod deadlines;
mod factory;
mod load;
mod networks;
mod openai;
mod providers;
mod reused;
mod safety;
mod server;
mod shapes;
mod streaming;
mod support;
mod tls_server;
