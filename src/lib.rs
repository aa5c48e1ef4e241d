//! Belay lets changes of plain Kubernetes workloads out step by step, and catches them when they fail.
//!
//! # Architecture
//!
//! ```text
//! api  →  observe  →  decide  →  act
//! (types) (watches)   (pure)     (writes)
//! ```
//!
//! [`decide::decide`] is the product: from everything that was read and the time to a list of writes, when to
//! look again, and why. The operator calls it whenever something changed; nothing else decides.
//!
//! - Effects are data. [`act`] lowers each to one guarded request and sends it.
//! - Time is a parameter. Only [`clock`] reads it.
//! - The rules of the brake and of the hold are data, too: [`install::brake`] and [`install::hold`] have them in CEL and
//!   in Rust. [`webhook`] answers by them where the API server has no admission policies.
//! - Evidence is pure, too: [`analysis`] turns samples into e-values and verdicts; its `query` only fetches.
//! - And so are routers: [`traffic`] reads the split of a route and computes the patch that changes it.
//!
//! # Where to add what
//!
//! A new field of the custom resources: [`api`]. A new rule of a release: [`decide`]. A new write: an `Effect`
//! with its preconditions, and its request in [`act`]. A new metrics source: `analysis::query`. A new
//! router: [`traffic`].

pub mod act;
pub mod analysis;
pub mod api;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod decide;
pub mod install;
pub mod observe;
pub mod operator;
pub mod report;
pub mod server;
pub mod traffic;
pub mod webhook;
