//! What `belay install` puts into a cluster, and the hands that put it there and take it away.
//!
//! Purpose: the one source of the manifests. [`objects`] builds them, [`files`] renders them for
//! `manifests/`, [`apply`] and [`remove`] carry them into a cluster and out of it.
//! May touch: [`crate::api`], a Kubernetes client (in [`apply`], [`remove`] and [`probe`] only).
//! Must never: read the state of a release, or write an object that [`objects`] did not build (but for the
//! probe's own Deployment).

mod apply;
pub mod brake;
mod crds;
mod operator;
mod policies;
mod probe;
mod rbac;
mod remove;

use serde_json::Value;

pub use apply::{Change, Outcome, apply, server_supports_policies};
pub use crds::{crd_of, crds};
pub use probe::{Engaged, brake_engaged, stamp_engaged, wait_for_policies};
pub use remove::{Progress, end_releases, remove};

use crate::api;

/// The field manager of everything that is installed. Not the operator's own: the two never share a field.
pub const FIELD_MANAGER: &str = "belay-install";

/// The image that the committed manifests name. It has no registry: build it, and put it on the nodes or
/// give the address of your own registry with `--image`.
pub const DEFAULT_IMAGE: &str = concat!("node.local/belay:", env!("CARGO_PKG_VERSION"));

/// What an installation without policies means, for people.
pub const WITHOUT_POLICIES: &str = "this API server has no MutatingAdmissionPolicy in admissionregistration.k8s.io/v1 \
(Kubernetes 1.36 or newer has): the brake is not installed. Changes are not stopped in the write that makes them, \
Rollouts report BrakeEngaged=False, and the author of a command cannot be vouched for. Upgrade the cluster, then run \
`belay install` again";

/// The name of everything that exists once per installation.
const NAME: &str = "belay";

/// What can be chosen about an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The namespace of the operator.
    pub namespace: String,
    /// The image of the operator.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// The user name under which the operator writes; the brake lets only this one through.
    pub operator_user: String,
}

impl Default for Options {
    fn default() -> Self {
        Self::in_namespace(api::OPERATOR_NAMESPACE)
    }
}

impl Options {
    /// The usual installation, in a namespace of the caller's choice.
    pub fn in_namespace(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            image: DEFAULT_IMAGE.to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            operator_user: format!("system:serviceaccount:{namespace}:{NAME}"),
        }
    }
}

/// What [`install`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// What became of each object, in order.
    pub outcomes: Vec<Outcome>,
    /// Whether the policies are among them; if not, [`WITHOUT_POLICIES`] says what that means.
    pub policies: bool,
}

/// Installs what this API server can take, and waits until it is in force. A dry run changes nothing, and does
/// not wait.
///
/// # Errors
/// Stops at the first object that is refused, and fails when a policy does not come into force. Safe to run
/// again.
pub async fn install(client: &kube::Client, options: &Options, dry_run: bool) -> Result<Installed, Error> {
    let policies = server_supports_policies(client).await?;
    let all = objects(options);
    let chosen = if policies { all } else { without_policies(all) };
    let outcomes = apply(client, &chosen, dry_run).await?;
    if policies && !dry_run {
        wait_for_policies(client, &options.namespace).await?;
    }
    Ok(Installed { outcomes, policies })
}

/// Everything that is installed, in the order in which it is applied.
pub fn objects(options: &Options) -> Vec<Value> {
    [
        vec![operator::namespace(options)],
        crds(),
        vec![operator::service_account(options)],
        rbac::objects(options),
        policies::objects(options),
        operator::objects(options),
    ]
    .concat()
}

/// `objects` without the admission policies, for servers that do not know them: see [`WITHOUT_POLICIES`].
pub fn without_policies(objects: Vec<Value>) -> Vec<Value> {
    let policy =
        |object: &Value| object["kind"].as_str().is_some_and(|k| k.starts_with("MutatingAdmissionPolicy"));
    objects.into_iter().filter(|o| !policy(o)).collect()
}

/// The committed files of `manifests/`: name and content. Applied in the order of their names
/// (`kubectl apply -f manifests/`) they arrive in a workable order, too.
///
/// # Errors
/// Fails when an object cannot be written as YAML, which would be a mistake in this module.
pub fn files() -> Result<Vec<(&'static str, String)>, Error> {
    let options = Options::default();
    let operator = [vec![operator::service_account(&options)], operator::objects(&options)].concat();
    [
        ("crds.yaml", crds()),
        ("namespace.yaml", vec![operator::namespace(&options)]),
        ("operator.yaml", operator),
        ("policies.yaml", policies::objects(&options)),
        ("rbac.yaml", rbac::objects(&options)),
    ]
    .into_iter()
    .map(|(name, objects)| {
        Ok((name, format!("# Generated by `make manifests`. Do not edit.\n{}", render_yaml(&objects)?)))
    })
    .collect()
}

/// The objects as one YAML stream, each document with its own `---`.
///
/// # Errors
/// Fails when an object cannot be written as YAML.
pub fn render_yaml(objects: &[Value]) -> Result<String, Error> {
    let options = serde_saphyr::ser_options! { yaml_12: true, prefer_block_scalars: true };
    let mut out = String::new();
    for object in objects {
        let document = serde_saphyr::to_string_with_options(object, options.clone())
            .map_err(|e| Error::Yaml { object: reference(object), source: Box::new(e) })?;
        // The `%YAML` directive and the document marker differ between versions of the writer: one marker is ours.
        let body = document.lines().skip_while(|l| l.starts_with('%') || *l == "---");
        out.push_str("---\n");
        for line in body {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    Ok(out)
}

/// `Kind/name`, or `Kind/namespace/name`, for people.
pub fn reference(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or("?");
    let name = text("/metadata/name").unwrap_or("?");
    match text("/metadata/namespace") {
        Some(namespace) => format!("{kind}/{namespace}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

/// The labels of everything that is installed.
fn labels() -> Value {
    serde_json::json!({"app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": NAME})
}

/// Why an installation or its removal did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An object cannot be written as YAML.
    #[error("cannot write {object} as YAML")]
    Yaml {
        /// The object.
        object: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An object lacks kind, apiVersion or name.
    #[error("{object} is not a Kubernetes object: it needs apiVersion, kind and metadata.name")]
    NotAnObject {
        /// What there is of it.
        object: String,
    },
    /// The API server refused a request.
    #[error("cannot {action} {object}")]
    Request {
        /// What was tried: `apply`, `read`, `delete`.
        action: &'static str,
        /// On what.
        object: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("cannot {action} {object}: no answer within {seconds} seconds")]
    Deadline {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The server took an object and does not act on it.
    #[error("{object} was applied but is not in effect after {seconds} seconds: {state}")]
    NotInEffect {
        /// The object.
        object: String,
        /// What was seen instead.
        state: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// An object was deleted, and something holds it.
    #[error("{object} was deleted but is still there after {seconds} seconds; see its finalizers")]
    StillThere {
        /// The object.
        object: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Rollouts are still there.
    #[error(
        "still ending after {seconds} seconds: {left}; the operator must run to end them (see its log), \
         or remove the finalizer belay.dev/rope by hand"
    )]
    StillEnding {
        /// Which.
        left: String,
        /// How long it was waited for.
        seconds: u64,
    },
}
