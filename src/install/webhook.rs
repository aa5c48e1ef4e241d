//! The webhook form of the brake, the stamp and the hold, for servers without admission policies.
//!
//! Purpose: the rules of [`super::brake`], [`super::stamp`] and [`super::hold`] as a `MutatingWebhookConfiguration`, and
//! what else the operator needs to answer it: a Service, and a Secret for its certificates.
//! May touch: nothing but JSON. Must never: hold a rule itself, or a certificate: those the operator makes.

use serde_json::{Value, json};

use super::brake::Expression;
use super::policies::{borrowed, named};
use super::{NAME, Options, brake, hold, labels, stamp};
use crate::api;

/// The name of the configuration. The API server calls webhooks in the order of these names, and one that it did
/// not call in the first round it never calls: the brake comes last, so that it sees what the others make of a
/// pod template.
pub use crate::api::BRAKE_WEBHOOK;

/// The Service and the Secret of the webhook. In the configuration: which host name the certificate is for.
pub const SERVICE: &str = "belay-webhook";
/// The port on which the operator answers in a pod.
pub(super) const PORT: u16 = 8443;
/// Seconds that the API server waits for an answer.
const TIMEOUT_SECONDS: u32 = 5;

/// Where the brake is answered.
pub const BRAKE_PATH: &str = "/brake";
/// Where the stamp is answered.
pub const STAMP_PATH: &str = "/stamp";
/// Where the hold is answered, for every kind.
pub const HOLD_PATH: &str = "/hold";

/// `NAME` of a refusal by the API server: `failed calling webhook "NAME"`. It is all that a person is told of us
/// while no operator answers, so it says what is missing.
const BRAKE_CALL: &str = "needs-the-belay-operator.brake.belay.dev";
const STAMP_CALL: &str = "needs-the-belay-operator.stamp.belay.dev";

/// The configuration. It trusts nobody yet: the operator writes its authority into it.
pub(super) fn configuration(options: &Options) -> Value {
    let governed = json!({"matchExpressions": [{"key": api::ROLLOUT_LABEL, "operator": "Exists"}]});
    let brake = rule("apps", "v1", &["UPDATE"], "deployments");
    let stamp = rule(api::GROUP, "*", &["CREATE", "UPDATE"], "releases");
    let mut webhooks = vec![
        webhook(options, BRAKE_CALL, BRAKE_PATH, &brake, &governed, &brake::calls(&options.operator_user)),
        webhook(options, STAMP_CALL, STAMP_PATH, &stamp, &json!({}), &stamp::calls()),
    ];
    for held in hold::kinds() {
        let name = format!("needs-the-belay-operator.{}", held.policy());
        let rule = rule(held.group, "*", &["UPDATE"], held.plural);
        let calls = hold::calls(&held, &options.operator_user);
        webhooks.push(webhook(options, &name, HOLD_PATH, &rule, &borrowed(), &calls));
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": BRAKE_WEBHOOK, "labels": labels()},
        "webhooks": webhooks,
    })
}

/// All that the API server would fill in is said: server-side apply would otherwise differ from itself.
fn webhook(
    options: &Options,
    name: &str,
    path: &str,
    rule: &Value,
    objects: &Value,
    conditions: &[Expression],
) -> Value {
    let client = match &options.webhook_url {
        Some(url) => json!({"url": format!("{}{path}", url.trim_end_matches('/'))}),
        None => json!({
            "service": {"name": SERVICE, "namespace": options.namespace, "path": path, "port": 443},
        }),
    };
    json!({
        "name": name,
        "admissionReviewVersions": ["v1"],
        "clientConfig": client,
        "failurePolicy": "Fail",
        "matchConditions": named(conditions),
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": objects,
        // A webhook that changes the template after us is braked as well.
        "reinvocationPolicy": "IfNeeded",
        "rules": [rule],
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT_SECONDS,
    })
}

fn rule(group: &str, version: &str, operations: &[&str], resource: &str) -> Value {
    json!({
        "apiGroups": [group],
        "apiVersions": [version],
        "operations": operations,
        "resources": [resource],
        "scope": "*",
    })
}

/// What the operator needs to answer: its Service; the Secret for its certificates, empty, so that it need not be
/// allowed to create any; and that a drain leaves one operator to answer.
pub(super) fn objects(options: &Options) -> Vec<Value> {
    let selector = json!({"app.kubernetes.io/name": NAME});
    let metadata = |name: &str| json!({"name": name, "namespace": options.namespace, "labels": labels()});
    vec![
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata(SERVICE), "type": "Opaque"}),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(SERVICE),
            "spec": {
                "selector": selector,
                "ports": [{"name": "https", "port": 443, "targetPort": "https", "protocol": "TCP"}],
            },
        }),
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(NAME),
            "spec": {"minAvailable": 1, "selector": {"matchLabels": selector}},
        }),
    ]
}
