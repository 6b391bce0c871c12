//! Vectors in Milvus, against real servers.

mod filters;
mod unreachable;
