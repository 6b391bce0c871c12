//! Agents against a scripted model, the real executor and the real in-process memory.

mod chat;
mod conversation;
mod streaming;
mod wire;
mod working_memory;
