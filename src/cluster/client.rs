//! Clients of the API server.

use std::time::Duration;

use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use thiserror::Error;

/// Why no client could be made.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No usable kubeconfig and not inside a cluster.
    #[error("no cluster is configured")]
    Config(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The configuration cannot be used.
    #[error("the configured cluster cannot be used")]
    Client(#[source] kube::Error),
}

/// Which cluster is meant.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Path of a kubeconfig; default `KUBECONFIG`, then `~/.kube/config`, then the pod's service account.
    pub kubeconfig: Option<std::path::PathBuf>,
    /// Context in it.
    pub context: Option<String>,
}

impl Target {
    /// The configuration, with its retries off: whoever writes decides what a failure means.
    pub async fn config(&self) -> Result<Config, ClientError> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let mut config = if let Some(path) = &self.kubeconfig {
            let file = kube::config::Kubeconfig::read_from(path).map_err(|e| ClientError::Config(Box::new(e)))?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(|e| ClientError::Config(Box::new(e)))?
        } else if self.context.is_some() {
            Config::from_kubeconfig(&options).await.map_err(|e| ClientError::Config(Box::new(e)))?
        } else {
            Config::infer().await.map_err(|e| ClientError::Config(Box::new(e)))?
        };
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(5));
        Ok(config)
    }
}

/// A client for single requests. Its callers give each request a deadline.
pub fn client(config: Config) -> Result<Client, ClientError> {
    Client::try_from(config).map_err(ClientError::Client)
}

/// A client for watches: a connection that is silent for longer than a watch lasts is dead.
pub fn watching_client(mut config: Config) -> Result<Client, ClientError> {
    config.read_timeout = Some(Duration::from_secs(90));
    Client::try_from(config).map_err(ClientError::Client)
}
