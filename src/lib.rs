//! Belay lets changes of plain Kubernetes workloads out step by step, and catches them when they fail.

pub mod analysis;
pub mod api;
pub mod cluster;
pub mod decide;
