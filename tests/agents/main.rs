//! Agents against a scripted model, the real executor and the real in-process memory.

mod chat;
mod working_memory;
