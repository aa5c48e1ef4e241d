//! The operator's own objects: Namespace, ServiceAccount, Service and Deployment.
//!
//! Purpose: how the operator runs. May touch: nothing but JSON. Must never: do I/O.

use serde_json::{Value, json};

use super::{NAME, Options, labels, webhook};
use crate::api::BrakeForm;

/// The port of probes and metrics.
const PORT: u16 = 8080;

/// The operator's namespace; its pods keep to the strictest of the pod security standards.
pub(super) fn namespace(options: &Options) -> Value {
    let mut labels = labels();
    labels["pod-security.kubernetes.io/enforce"] = "restricted".into();
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": options.namespace, "labels": labels},
    })
}

/// The account under which the operator writes; the brake knows it by name.
pub(super) fn service_account(options: &Options) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": NAME, "namespace": options.namespace, "labels": labels()},
    })
}

/// The Service for `/metrics`, and the Deployment.
pub(super) fn objects(options: &Options) -> Vec<Value> {
    vec![service(options), deployment(options)]
}

fn service(options: &Options) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": options.namespace, "labels": labels()},
        "spec": {
            "selector": {"app.kubernetes.io/name": NAME},
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    })
}

fn deployment(options: &Options) -> Value {
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": "http"},
            "periodSeconds": period,
            "timeoutSeconds": 5,
            "failureThreshold": failures,
        })
    };
    let webhook = options.brake == BrakeForm::Webhook;
    let mut args = vec!["operator".to_owned(), "--log-format".to_owned(), "json".to_owned()];
    let mut ports = vec![json!({"name": "http", "containerPort": PORT, "protocol": "TCP"})];
    if webhook {
        args.extend(["--webhook-listen".to_owned(), format!("0.0.0.0:{}", webhook::PORT)]);
        ports.push(json!({"name": "https", "containerPort": webhook::PORT, "protocol": "TCP"}));
    }
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": options.namespace, "labels": labels()},
        "spec": {
            "replicas": 1,
            // One writer at a time: the old pod is gone before the new one starts.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app.kubernetes.io/name": NAME}},
            "template": {
                "metadata": {
                    "labels": labels(),
                    "annotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": PORT.to_string(),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": {
                    "serviceAccountName": NAME,
                    "terminationGracePeriodSeconds": 30,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": NAME,
                        "image": options.image,
                        "imagePullPolicy": options.image_pull_policy,
                        "args": args,
                        "env": [field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace")],
                        "ports": ports,
                        "livenessProbe": probe("/healthz", 10, 6),
                        "readinessProbe": probe("/readyz", 5, 3),
                        "resources": {
                            "requests": {"cpu": "50m", "memory": "64Mi"},
                            "limits": {"memory": "256Mi"},
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }],
                },
            },
        },
    });
    if webhook {
        deployment["spec"]["replicas"] = 2.into();
        // Somebody must always answer. That one of them writes at a time is the Lease's concern.
        deployment["spec"]["strategy"] =
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        deployment["spec"]["template"]["spec"]["affinity"] = apart();
    }
    deployment
}

/// On two nodes, where there are two.
fn apart() -> Value {
    json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": NAME}},
        },
    }]}})
}
