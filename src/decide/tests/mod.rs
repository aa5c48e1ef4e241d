//! Tests of the engine as a whole, on a small cluster in memory.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod cluster;
mod contract;
mod world;
