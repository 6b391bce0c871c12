//! Vectors in Milvus, against real servers.

mod unreachable;
