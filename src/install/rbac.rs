//! Who may do what: the operator's roles, and those for people.
//!
//! Purpose: least privilege, one line of reason per rule. May touch: nothing but JSON.
//! Must never: name a wildcard, or anything in which secrets are kept, but for the one Secret of the webhook's own
//! certificates.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{NAME, Options, labels, webhook};
use crate::api::router::Router;
use crate::api::{self, BrakeForm};

/// Roles and bindings of the operator, then the roles for people.
pub(super) fn objects(options: &Options) -> Vec<Value> {
    let account = json!([{"kind": "ServiceAccount", "name": NAME, "namespace": options.namespace}]);
    let role = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": NAME});
    let in_namespace = json!({"name": NAME, "namespace": options.namespace, "labels": labels()});
    vec![
        object("ClusterRole", named(NAME), json!({"rules": operator_rules(options)})),
        object(
            "ClusterRoleBinding",
            named(NAME),
            json!({"roleRef": role("ClusterRole"), "subjects": account}),
        ),
        object("Role", in_namespace.clone(), json!({"rules": own_rules(options)})),
        object("RoleBinding", in_namespace, json!({"roleRef": role("Role"), "subjects": account})),
        object("ClusterRole", aggregated("belay-viewer", "view"), json!({"rules": viewer_rules()})),
        object("ClusterRole", aggregated("belay-releaser", "edit"), json!({"rules": releaser_rules()})),
    ]
}

fn operator_rules(options: &Options) -> Vec<Value> {
    let mut rules = vec![
        rule(api::GROUP, &["rollouts"], &["get", "list", "watch", "patch"]),
        rule(api::GROUP, &["releases"], &["get", "list", "watch", "create", "patch", "delete"]),
        rule(api::GROUP, &["rollouts/status", "releases/status"], &["patch"]),
        // Owner references that block deletion need it where OwnerReferencesPermissionEnforcement is on.
        rule(api::GROUP, &["rollouts/finalizers", "releases/finalizers"], &["update"]),
        rule(api::GROUP, &["analysistemplates", "clusteranalysistemplates"], &["get", "list", "watch"]),
        // Unpausing, labels, and with restoreTemplate the template.
        rule("apps", &["deployments"], &["get", "list", "watch", "patch"]),
        // The canary.
        rule("apps", &["replicasets"], &["get", "list", "watch", "create", "patch", "delete"]),
        // The crash breaker, and which pods are asked for metrics.
        rule("", &["pods"], &["get", "list", "watch"]),
        // The Services that a release pins, and the one that it makes for the canary.
        rule("", &["services"], &["get", "list", "watch", "create", "patch", "delete"]),
        // Who is behind them.
        rule("discovery.k8s.io", &["endpointslices"], &["get", "list", "watch"]),
        // The floor that is held while a release runs.
        rule("autoscaling", &["horizontalpodautoscalers"], &["get", "list", "watch", "patch"]),
        // The checks that run a pod.
        rule("batch", &["jobs"], &["get", "list", "watch", "create", "delete"]),
        // Repeated events are counted up in place.
        rule("events.k8s.io", &["events"], &["create", "patch"]),
        // Whether the brake is there.
        rule(
            "admissionregistration.k8s.io",
            &["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"],
            &["get", "list", "watch"],
        ),
    ];
    // Routes that a release splits.
    let groups: BTreeSet<&str> = Router::ALL.iter().map(|router| router.group()).collect();
    for group in groups {
        let of = Router::ALL.iter().filter(|router| router.group() == group);
        let plurals: BTreeSet<&str> = of.map(|router| router.plural()).collect();
        let plurals: Vec<&str> = plurals.into_iter().collect();
        // The canary's own Ingress beside that of ingress-nginx.
        let own: &[&str] = if plurals.contains(&"ingresses") { &["create", "delete"] } else { &[] };
        rules.push(rule(group, &plurals, &[&["get", "list", "watch", "patch"], own].concat()));
    }
    let mut brake =
        rule("admissionregistration.k8s.io", &["mutatingwebhookconfigurations"], &["get", "list", "watch"]);
    brake["resourceNames"] = json!([webhook::BRAKE_WEBHOOK]);
    if options.brake == BrakeForm::Webhook {
        // The authority that the API server is to trust.
        brake["verbs"] = json!(["get", "list", "watch", "patch"]);
    }
    rules.push(brake);
    rules
}

/// In the operator's own namespace.
fn own_rules(options: &Options) -> Vec<Value> {
    let leases = &["get", "list", "watch", "create", "update", "patch"];
    let mut rules = vec![rule("coordination.k8s.io", &["leases"], leases)];
    if options.brake == BrakeForm::Webhook {
        // Its own certificates, shared by its replicas.
        let mut secret = rule("", &["secrets"], &["get", "list", "watch", "update"]);
        secret["resourceNames"] = json!([webhook::SERVICE]);
        rules.push(secret);
    }
    rules
}

fn viewer_rules() -> Vec<Value> {
    let ours = &["rollouts", "releases", "analysistemplates", "clusteranalysistemplates"];
    vec![rule(api::GROUP, ours, &["get", "list", "watch"])]
}

/// Releases are made by the operator alone; people append commands to them.
fn releaser_rules() -> Vec<Value> {
    let all = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    vec![
        rule(api::GROUP, &["rollouts", "analysistemplates"], &all),
        rule(api::GROUP, &["releases"], &["get", "list", "watch", "update", "patch"]),
    ]
}

/// The Role and the `RoleBinding`, in YAML, by which a namespace lets the operator read these Secrets of its own:
/// nobody else can, for the operator has no right on Secrets by itself. Without a namespace they say none.
pub fn secret_reader(options: &Options, namespace: Option<&str>, rollout: &str, secrets: &[&str]) -> String {
    let name = secret_reader_name(rollout);
    let place = namespace.map(|namespace| format!(", namespace: {namespace}")).unwrap_or_default();
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: Role\n\
         metadata: {{name: {name}{place}}}\n\
         rules:\n\
         - apiGroups: [\"\"]\n  resources: [secrets]\n  resourceNames: [{secrets}]\n  verbs: [get]\n\
         ---\n\
         apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: RoleBinding\n\
         metadata: {{name: {name}{place}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {name}}}\n\
         subjects:\n\
         - {{kind: ServiceAccount, name: {NAME}, namespace: {operator}}}\n",
        secrets = secrets.join(", "),
        operator = options.namespace,
    )
}

/// What that Role and its binding are called.
pub fn secret_reader_name(rollout: &str) -> String {
    format!("{rollout}-belay-secrets")
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn named(name: &str) -> Value {
    json!({"name": name, "labels": labels()})
}

/// The metadata of a role whose rules the cluster adds to its own role `to`.
fn aggregated(name: &str, to: &str) -> Value {
    let mut metadata = named(name);
    metadata["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{to}")] = "true".into();
    metadata
}

fn object(kind: &str, metadata: Value, mut rest: Value) -> Value {
    rest["apiVersion"] = "rbac.authorization.k8s.io/v1".into();
    rest["kind"] = kind.into();
    rest["metadata"] = metadata;
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_lets_the_operator_read_the_secrets_it_names_and_no_others() {
        let yaml = secret_reader(&Options::default(), Some("shop"), "web", &["ca", "prometheus"]);
        let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
        let metadata = json!({"name": "web-belay-secrets", "namespace": "shop"});
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
            "rules": [{
                "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["ca", "prometheus"], "verbs": ["get"],
            }],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "web-belay-secrets"},
            "subjects": [{"kind": "ServiceAccount", "name": "belay", "namespace": "belay-system"}],
        });
        assert_eq!(objects, [role, binding]);
        let nowhere = secret_reader(&Options::default(), None, "web", &["ca"]);
        assert!(!nowhere.contains("shop") && nowhere.contains("metadata: {name: web-belay-secrets}"));
    }

    /// Contract: no right on Secrets but on the one of the webhook's own certificates.
    #[test]
    fn the_operator_itself_may_read_no_secret_of_others() {
        for brake in [BrakeForm::Policy, BrakeForm::Webhook] {
            let options = Options { brake, ..Options::default() };
            for object in objects(&options) {
                for rule in object["rules"].as_array().into_iter().flatten() {
                    let own = object["kind"] == "Role" && rule["resourceNames"] == json!([webhook::SERVICE]);
                    assert!(own || !rule["resources"].to_string().contains("secrets"), "{object}");
                    assert!(!rule.to_string().contains('*'), "{object}");
                }
            }
        }
    }
}
