//! The command line and its reports: the real binary for what needs no cluster, snapshots for what people read.

mod binary;
mod replay;
mod reports;
mod traffic;
