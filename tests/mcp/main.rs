//! MCP servers that others wrote, under one manager: the npm package `server-everything` and a server of the official
//! Python SDK, over HTTP and as child processes; and servers that misbehave.

mod faults;
mod http;
mod seed;
mod servers;
mod stdio;
mod support;
mod third_party;
