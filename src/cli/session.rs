//! What every command needs: how to print, and a connection to the cluster.
//!
//! May touch: standard output and error, the kubeconfig, the cluster. The only place of the command line
//! that writes to the standard streams.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use kube::api::ApiResource;
use kube::{Api, Client};

use super::args::{Format, Global};
use super::failure::{Failure, Kind};
use crate::api::{Release, Rollout};
use crate::cluster::{ClientError, Target};
use crate::report::{Report, Scene, render};

/// How this command prints, and whom it talks to.
pub struct Session {
    /// The flags that hold for every command.
    pub global: Global,
    /// `belay` or `kubectl belay`.
    pub program: String,
    /// Whether standard error is a terminal: live progress.
    pub live: bool,
    color: bool,
    err_color: bool,
}

impl Session {
    /// Looks at the terminal and the environment.
    pub fn new(global: Global, program: String) -> Self {
        let no_color = global.no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let live = std::io::stderr().is_terminal() && !global.quiet && global.output == Format::Text;
        Self {
            global,
            program,
            live,
            color: std::io::stdout().is_terminal() && !no_color,
            err_color: std::io::stderr().is_terminal() && !no_color,
        }
    }

    /// The surroundings of a text: the present moment, time zone, colours.
    pub fn scene(&self) -> Scene {
        Scene {
            now: crate::clock::now(),
            zone: jiff::tz::TimeZone::system(),
            color: self.color,
            unicode: speaks_utf8(),
            width: 100,
            program: self.program.clone(),
        }
    }

    /// Whether standard output is a terminal that can be painted on.
    pub fn paints(&self) -> bool {
        self.color
    }

    /// Prints an answer in the format that was asked for.
    pub fn print<R: Report>(&self, report: &R) -> Result<(), Failure> {
        self.out(&render(report, self.global.output.into(), &self.scene())?)
    }

    /// Writes data to standard output.
    pub fn out(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::io("failed to write to standard output", &error))
    }

    /// Says something about the progress on standard error, unless quiet.
    pub fn say(&self, line: &str) {
        if !self.global.quiet {
            err(&format!("{}\n", super::failure::called(line, &self.program)));
        }
    }

    /// Asks a question with the answers yes and no; no is the default.
    pub fn confirm(&self, question: &str) -> Result<bool, Failure> {
        err(&format!("{question} [y/N] "));
        let mut answer = String::new();
        std::io::stdin()
            .read_line(&mut answer)
            .map_err(|error| Failure::io("failed to read your answer", &error))?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    /// Prints a failure, as JSON when the answer would have been JSON.
    pub fn fail(&self, failure: &Failure) {
        if failure.kind == Kind::BrokenPipe {
            return;
        }
        if matches!(self.global.output, Format::Json | Format::Jsonl) {
            err(&format!("{}\n", failure.json(&self.program)));
        } else {
            err(&failure.text(&self.program, self.err_color));
        }
    }

    /// Which cluster is meant.
    pub fn target(&self) -> Target {
        Target { kubeconfig: self.global.kubeconfig.clone(), context: self.global.context.clone() }
    }

    /// Connects to the cluster of the kubeconfig, or to the one this program runs in.
    pub async fn cluster(&self) -> Result<Cluster, Failure> {
        let tried = "failed to find out which cluster to talk to";
        let hint =
            "set --kubeconfig or KUBECONFIG to a kubeconfig file, and --context to one of its contexts";
        let refused = |error: ClientError| {
            Failure::new(Kind::Failed, tried).because(super::failure::chain(&error)).hint(hint)
        };
        let mut config = self.target().config().await.map_err(refused)?;
        config.connect_timeout = Some(self.global.request_timeout);

        let namespace = self.global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client = crate::cluster::client(config).map_err(refused)?;
        Ok(Cluster { client, namespace, server, limit: self.global.request_timeout })
    }
}

/// Whether the locale has UTF-8: the first of the variables that is set decides, as in the C library.
fn speaks_utf8() -> bool {
    let set = |name: &&str| std::env::var_os(name).filter(|value| !value.is_empty());
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(set)
        .is_some_and(|locale| locale.to_string_lossy().to_ascii_lowercase().replace('-', "").contains("utf8"))
}

/// Writes to standard error; there is nobody to tell when that fails.
pub(super) fn err(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// A connection to a cluster, each request with a deadline.
#[derive(Clone)]
pub struct Cluster {
    /// The client. Use it directly only for watches, which have no deadline.
    pub client: Client,
    /// The namespace to work in.
    pub namespace: String,
    /// Address of the API server.
    pub server: String,
    pub(super) limit: Duration,
}

impl Cluster {
    /// Waits for a request, at most as long as `--request-timeout`. `what` completes "failed to …".
    pub async fn ask<T>(
        &self,
        what: impl AsRef<str>,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Failure> {
        let what = format!("failed to {}", what.as_ref());
        match tokio::time::timeout(self.limit, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::cluster(what, &error)),
            Err(_) => Err(Failure::new(Kind::Unreachable, what)
                .because(format!(
                    "{} did not answer within {}",
                    self.server,
                    crate::report::seconds(self.limit)
                ))
                .hint("check the connection, or allow more with --request-timeout")),
        }
    }

    /// The Rollouts of the namespace.
    pub fn rollouts(&self) -> Api<Rollout> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The Releases of the namespace.
    pub fn releases(&self) -> Api<Release> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The objects of a Kubernetes kind in the namespace, as raw JSON: fields of a newer API survive.
    pub fn raw<K>(&self) -> Api<kube::core::DynamicObject>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<K>(&()))
    }
}
