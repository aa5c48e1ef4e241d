//! All integration tests, in one binary.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test stops where something is wrong, and says so"
)]

mod architecture;
mod cli;
mod cluster;
mod decisions;
mod held;
mod hostile;
mod manifests;
mod readme;
mod world;
