//! How this program reaches out.
//!
//! Purpose: clients and connections, each with a deadline. May touch: hyper, rustls, kube's client.
//! Must never: decide anything, or put a secret into an error.

mod client;
pub mod http;
mod resource;
pub mod through;
pub mod tls;

pub use client::{ClientError, Target, client, watching_client};
pub use resource::Resource;
