//! Reads: watches → what is known → the observation of one Rollout.
//!
//! Purpose: keep what decisions need, pruned, with the answers to our own writes taken in at once.
//! May touch: `api`, `decide`'s types, `cluster`'s names of kinds. Must never: decide, or write anything.

mod cache;
mod sight;
mod store;
#[cfg(test)]
mod tests;
mod traffic;
mod unread;
mod views;
mod watch;

pub use cache::{Cache, Kind};
pub use store::Key;
pub use views::identity;
pub use watch::{News, Part, watch, watch_brake, watch_lease};
