//! MCP servers that others wrote, under one manager: the npm package `server-everything` and a server of the official
//! Python SDK, over HTTP and as child processes; and servers that misbehave.

mod agents;
mod authorization;
mod backends;
mod calls;
mod chaos;
mod eras;
mod faults;
mod http;
mod in_process;
mod manager;
mod scripted;
mod seed;
mod servers;
mod spans;
mod stdio;
mod streams;
mod support;
mod third_party;
mod time;
