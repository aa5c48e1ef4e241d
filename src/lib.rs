//! Belay lets changes of plain Kubernetes workloads out step by step, and catches them when they fail.

pub mod api;
pub mod cli;
pub mod report;
