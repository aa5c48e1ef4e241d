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
pub mod hold;
mod operator;
mod policies;
mod probe;
mod rbac;
mod remove;
pub mod stamp;
pub mod webhook;

use serde_json::Value;

pub use apply::{Change, Outcome, apply, server_supports_policies};
pub use crds::{crd_of, crds};
pub use probe::{ANSWERED, ASK_WEBHOOK, ASKED, Engaged, brake_engaged, stamp_engaged, wait_for_brake};
pub use rbac::{secret_reader, secret_reader_name};
pub use remove::{Progress, end_releases, remove};

use crate::api;
use crate::api::BrakeForm;

/// The field manager of everything that is installed. Not the operator's own: the two never share a field.
pub const FIELD_MANAGER: &str = "belay-install";

/// The image that the committed manifests name. It has no registry: build it, and put it on the nodes or
/// give the address of your own registry with `--image`.
pub const DEFAULT_IMAGE: &str = concat!("node.local/belay:", env!("CARGO_PKG_VERSION"));

/// What an installation with the webhook means, for people.
pub const WITH_WEBHOOK: &str = "the brake is a webhook of the operator. While no operator runs, a change of a governed \
pod template is refused instead of waiting, and so is a command, or a change of what a running release has borrowed; \
all else works as ever. Servers from Kubernetes 1.36 on \
have MutatingAdmissionPolicy, which needs no operator: run `belay install` again when this one has it";

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
    /// What the brake is made of.
    pub brake: BrakeForm,
    /// Where the API server finds the webhook, when not at the operator's Service: for an operator that runs outside
    /// of the cluster.
    pub webhook_url: Option<String>,
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
            brake: BrakeForm::Policy,
            webhook_url: None,
        }
    }
}

/// Which form of the brake this API server can take: the policy wherever it is served.
///
/// # Errors
/// Fails when the server cannot be asked.
pub async fn best_form(client: &kube::Client) -> Result<BrakeForm, Error> {
    Ok(if server_supports_policies(client).await? { BrakeForm::Policy } else { BrakeForm::Webhook })
}

/// Installs, and waits until the brake is in force if that does not need an operator: a policy. For the webhook wait
/// until an operator is available, then [`wait_for_brake`]; and with either [`remove_other_form`] in the end, so that
/// at no moment there is no brake.
///
/// # Errors
/// Stops at the first object that is refused, and fails when a policy does not come into force. Safe to run
/// again.
pub async fn install(client: &kube::Client, options: &Options) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = apply(client, &objects(options), false).await?;
    if options.brake == BrakeForm::Policy {
        wait_for_brake(client, options).await?;
        // At once: the operator that was just installed answers no webhook any more.
        outcomes.extend(remove_other_form(client, options).await?);
    }
    Ok(outcomes)
}

/// Removes what an installation with the other form of the brake has left. Only what was there is reported.
///
/// # Errors
/// Stops at the first object that cannot be removed. Safe to run again.
pub async fn remove_other_form(client: &kube::Client, options: &Options) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = remove(client, &other_form(options)).await?;
    outcomes.retain(|o| o.change != Change::Absent);
    Ok(outcomes)
}

/// What the other form of the brake has and this one has not.
fn other_form(options: &Options) -> Vec<Value> {
    let other = match options.brake {
        BrakeForm::Policy => BrakeForm::Webhook,
        BrakeForm::Webhook => BrakeForm::Policy,
    };
    let own: Vec<String> = objects(options).iter().map(reference).collect();
    let mut left = objects(&Options { brake: other, ..options.clone() });
    left.retain(|object| !own.contains(&reference(object)));
    left
}

/// Everything that is installed, in the order in which it is applied. A webhook comes last, and so is removed first:
/// the API server must not call an operator that is not there.
pub fn objects(options: &Options) -> Vec<Value> {
    let (before, after) = match options.brake {
        BrakeForm::Policy => (policies::objects(options), Vec::new()),
        BrakeForm::Webhook => (webhook::objects(options), vec![webhook::configuration(options)]),
    };
    [
        vec![operator::namespace(options)],
        crds(),
        vec![operator::service_account(options)],
        rbac::objects(options),
        before,
        operator::objects(options),
        after,
    ]
    .concat()
}

/// Everything that any installation has, whichever form of the brake it chose.
pub fn all_objects(options: &Options) -> Vec<Value> {
    [objects(options), other_form(options)].concat()
}

/// The committed files of `manifests/`: name and content. Applied in the order of their names
/// (`kubectl apply -f manifests/`) they arrive in a workable order, too. Those in `webhook/` stand for their
/// namesakes, and for `policies.yaml`, on servers without admission policies.
///
/// # Errors
/// Fails when an object cannot be written as YAML, which would be a mistake in this module.
pub fn files() -> Result<Vec<(&'static str, String)>, Error> {
    let policy = Options::default();
    let webhook = Options { brake: BrakeForm::Webhook, ..Options::default() };
    let operator =
        |options: &Options| [vec![operator::service_account(options)], operator::objects(options)].concat();
    [
        ("crds.yaml", crds()),
        ("namespace.yaml", vec![operator::namespace(&policy)]),
        ("operator.yaml", operator(&policy)),
        ("policies.yaml", policies::objects(&policy)),
        ("rbac.yaml", rbac::objects(&policy)),
        ("webhook/operator.yaml", [webhook::objects(&webhook), operator(&webhook)].concat()),
        ("webhook/rbac.yaml", rbac::objects(&webhook)),
        ("webhook/webhook.yaml", vec![webhook::configuration(&webhook)]),
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
