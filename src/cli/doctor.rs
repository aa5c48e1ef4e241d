//! `doctor`: checks the cluster, the installation and every Rollout, and names a cure for each fault.
//!
//! May touch: the cluster, reading only. Must never: change anything, or stop at the first fault.

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, ListParams, PostParams};
use kube::core::{DynamicObject, GroupVersionKind, TypeMeta};
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::args::Doctor;
use super::failure::{Exit, Failure, Kind};
use super::find;
use super::session::{Cluster, Session};
use super::version::{OPERATOR_SELECTOR, VERSION_LABEL};
use super::{sources, traffic};
use crate::api::{BRAKE_WEBHOOK, BrakeForm, ROLLOUT_LABEL, Release, Rollout};
use crate::clock;
use crate::install::webhook::SERVICE;
use crate::install::{self, Options};
use crate::report::checks::{CheckResult, ChecksReport};

/// The first minor version whose API server has what a brake can be made of: conditions on when to call a webhook.
/// Policies came with 36.
const BRAKE_SINCE: u32 = 30;
pub(super) const INSTALL: &str = "`belay install` installs it, or brings it up to date";

/// Makes all checks.
pub async fn run(session: &Session, args: &Doctor) -> Result<Exit, Failure> {
    let mut report = ChecksReport::default();
    match session.cluster().await {
        Ok(cluster) => all(&cluster, args, &mut report).await,
        Err(failure) => broken(&mut report, "cluster", &failure),
    }
    session.print(&report)?;
    Ok(if report.count(CheckResult::Broken) > 0 { Exit::ERROR } else { Exit::OK })
}

async fn all(cluster: &Cluster, args: &Doctor, report: &mut ChecksReport) {
    if !server(cluster, report).await {
        return;
    }
    let installed = definitions(cluster, report).await;
    brake(cluster, args, report).await;
    operator(cluster, args, report).await;
    rights(cluster, args, report).await;
    leader(cluster, args, report).await;
    if installed {
        rollouts(cluster, args, report).await;
    }
}

/// A check that could not be made, or that failed by an error.
pub(super) fn broken(report: &mut ChecksReport, name: &str, failure: &Failure) {
    let result = if failure.kind == Kind::Forbidden { CheckResult::Skipped } else { CheckResult::Broken };
    let detail =
        failure.why.clone().map_or_else(|| failure.what.clone(), |why| format!("{}: {why}", failure.what));
    report.add(name, result, detail, failure.hints.first().map(String::as_str));
}

async fn server(cluster: &Cluster, report: &mut ChecksReport) -> bool {
    match cluster.ask("reach the API server", cluster.client.apiserver_version()).await {
        Ok(info) => {
            let minor: String = info.minor.chars().take_while(char::is_ascii_digit).collect();
            let minor: u32 = minor.parse().unwrap_or(0);
            if minor < BRAKE_SINCE && info.major == "1" {
                let cure =
                    "the brake needs Kubernetes 1.30, better 1.36; without it a change goes out all at once";
                report.add(
                    "cluster",
                    CheckResult::Broken,
                    format!("{} at {}", info.git_version, cluster.server),
                    Some(cure),
                );
            } else {
                report.add(
                    "cluster",
                    CheckResult::Ok,
                    format!("{} at {}", info.git_version, cluster.server),
                    None,
                );
            }
            true
        }
        Err(failure) => {
            broken(report, "cluster", &failure);
            false
        }
    }
}

async fn definitions(cluster: &Cluster, report: &mut ChecksReport) -> bool {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let mut installed = true;
    for own in install::crds() {
        let name = own["metadata"]["name"].as_str().unwrap_or_default();
        match cluster.ask(format!("read the definition {name}"), api.get_opt(name)).await {
            Ok(Some(found)) => {
                let theirs = serde_json::to_value(&found).unwrap_or_default();
                if same(&own["spec"]["versions"][0]["schema"], &theirs["spec"]["versions"][0]["schema"]) {
                    report.add("definitions", CheckResult::Ok, format!("{name} is current"), None);
                } else {
                    let detail = format!("{name} is not that of this program's version");
                    report.add("definitions", CheckResult::Warning, detail, Some(INSTALL));
                }
            }
            Ok(None) => {
                installed = false;
                report.add(
                    "definitions",
                    CheckResult::Broken,
                    format!("{name} is not installed"),
                    Some(INSTALL),
                );
            }
            Err(failure) => broken(report, "definitions", &failure),
        }
    }
    installed
}

/// Equal JSON; what the server leaves out or writes as another kind of number is no difference.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let null = Value::Null;
            a.keys().chain(b.keys()).all(|key| same(a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        // An empty list or map, and a flag that is off, are left out on the way through the server.
        (Value::Null, Value::Array(list)) | (Value::Array(list), Value::Null) => list.is_empty(),
        (Value::Null, Value::Object(map)) | (Value::Object(map), Value::Null) => map.is_empty(),
        (Value::Null, Value::Bool(false)) | (Value::Bool(false), Value::Null) => true,
        _ => a == b,
    }
}

/// Which form of the brake is in force, and its state.
async fn brake(cluster: &Cluster, args: &Doctor, report: &mut ChecksReport) {
    let served = match install::server_supports_policies(&cluster.client).await {
        Ok(served) => served,
        Err(error) => return broken(report, "brake", &error.into()),
    };
    let webhook: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let webhook = cluster.ask("read the webhook configuration", webhook.get_opt(BRAKE_WEBHOOK)).await;
    let webhook = match webhook {
        Ok(webhook) => webhook,
        Err(failure) => return broken(report, "brake", &failure),
    };
    let policies = if served { policies(cluster, args).await } else { Ok(Parts::default()) };
    let policies = match policies {
        Ok(policies) => policies,
        Err(failure) => return broken(report, "policies", &failure),
    };
    match webhook {
        _ if policies.present > 0 && policies.missing.is_empty() => {
            let detail = format!("all {} are there: the brake is in the API server", policies.present);
            report.add("policies", CheckResult::Ok, detail, None);
            if webhook.is_some() {
                let detail =
                    format!("{BRAKE_WEBHOOK} is there, too: a change is refused while no operator answers");
                report.add("webhook", CheckResult::Warning, detail, Some("`belay install` removes it"));
            }
        }
        Some(webhook) => self::webhook(cluster, args, &webhook, report).await,
        None if served => {
            let detail = format!("missing: {}", policies.missing.join(", "));
            report.add("policies", CheckResult::Broken, detail, Some(INSTALL));
        }
        None => {
            let detail = "this server has no admission policies, and the webhook is not installed".to_owned();
            report.add("webhook", CheckResult::Broken, detail, Some(INSTALL));
        }
    }
}

/// What there is of the objects that this version installs.
#[derive(Default)]
struct Parts {
    present: usize,
    missing: Vec<String>,
}

/// The policies that this version installs: the brake, the authors of commands, what is borrowed.
async fn policies(cluster: &Cluster, args: &Doctor) -> Result<Parts, Failure> {
    let manifests = install::objects(&Options::in_namespace(&args.operator_namespace));
    let mut parts = Parts::default();
    let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
    for object in manifests.iter().filter(|object| text(object, "kind").contains("AdmissionPolicy")) {
        let types = TypeMeta { api_version: text(object, "apiVersion"), kind: text(object, "kind") };
        let Ok(gvk) = GroupVersionKind::try_from(&types) else { continue };
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &ApiResource::from_gvk(&gvk));
        let name = text(&object["metadata"], "name");
        match cluster.ask(format!("read the policy {name}"), api.get_opt(&name)).await? {
            Some(_) => parts.present += 1,
            None => parts.missing.push(format!("{} {name}", types.kind)),
        }
    }
    Ok(parts)
}

/// The webhook as the brake: whether it stops what it must, and whether the operator can keep its certificates.
async fn webhook(
    cluster: &Cluster,
    args: &Doctor,
    webhook: &MutatingWebhookConfiguration,
    report: &mut ChecksReport,
) {
    let hooks = webhook.webhooks.as_deref().unwrap_or_default();
    let open = hooks.iter().find(|hook| hook.failure_policy.as_deref() != Some("Fail"));
    let strange = hooks.iter().find(|hook| hook.client_config.ca_bundle.is_none());
    if let Some(open) = open {
        let detail = format!("{} lets writes pass while no operator answers", open.name);
        return report.add("webhook", CheckResult::Broken, detail, Some(INSTALL));
    }
    let lacking = lacking(args, webhook);
    if !lacking.is_empty() {
        let detail = format!("{BRAKE_WEBHOOK} lacks: {}", lacking.join(", "));
        return report.add("webhook", CheckResult::Broken, detail, Some(INSTALL));
    }
    if let Some(strange) = strange {
        let cure =
            format!("the operator writes that; kubectl -n {} logs deployment/belay", args.operator_namespace);
        let detail = format!("{} does not know whom to trust, and refuses every change", strange.name);
        return report.add("webhook", CheckResult::Broken, detail, Some(&cure));
    }
    let detail = format!(
        "the brake is the webhook {BRAKE_WEBHOOK}: while no operator answers, changes and commands are refused"
    );
    report.add("webhook", CheckResult::Ok, detail, None);
    let user = operator_user(&args.operator_namespace);
    let mut missing = Vec::new();
    for (right, namespace, name) in [
        (("patch", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", ""), None, BRAKE_WEBHOOK),
        (("update", "", "secrets", ""), Some(args.operator_namespace.clone()), SERVICE),
    ] {
        match may(cluster, &user, namespace, Some(name), &right).await {
            Ok(true) => {}
            Ok(false) => missing.push(format!("{} {} {name}", right.0, right.2)),
            Err(failure) => return broken(report, "certificates", &failure),
        }
    }
    if missing.is_empty() {
        report.add("certificates", CheckResult::Ok, "the operator makes and renews them", None);
    } else {
        let detail = format!("{user} may not: {}", missing.join(", "));
        report.add("certificates", CheckResult::Broken, detail, Some(INSTALL));
    }
}

/// What this version calls the operator for, and the configuration does not.
fn lacking(args: &Doctor, webhook: &MutatingWebhookConfiguration) -> Vec<String> {
    let options = Options { brake: BrakeForm::Webhook, ..Options::in_namespace(&args.operator_namespace) };
    let manifests = install::objects(&options);
    let hooks = manifests.iter().filter_map(|object| object["webhooks"].as_array()).flatten();
    let names = hooks.filter_map(|hook| hook["name"].as_str());
    let there = webhook.webhooks.as_deref().unwrap_or_default();
    names.filter(|name| !there.iter().any(|hook| hook.name == *name)).map(str::to_owned).collect()
}

/// The operator's account, by its namespace.
pub(super) fn operator_user(namespace: &str) -> String {
    format!("system:serviceaccount:{namespace}:belay")
}

async fn operator(cluster: &Cluster, args: &Doctor, report: &mut ChecksReport) {
    let namespace = &args.operator_namespace;
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let found = cluster
        .ask("look for the operator", api.list(&ListParams::default().labels(OPERATOR_SELECTOR)))
        .await;
    let deployment = match found {
        Ok(list) => list.items.into_iter().next(),
        Err(failure) => return broken(report, "operator", &failure),
    };
    let Some(deployment) = deployment else {
        let detail =
            format!("there is none in namespace {namespace}: changes wait, or are refused by the webhook");
        return report.add("operator", CheckResult::Broken, detail, Some(INSTALL));
    };
    let status = deployment.status.clone().unwrap_or_default();
    let name = deployment.name_any();
    let version = deployment.labels().get(VERSION_LABEL).cloned();
    if status.available_replicas.unwrap_or(0) == 0 {
        let cure = format!(
            "kubectl -n {namespace} describe deployment {name}; kubectl -n {namespace} logs deployment/{name}"
        );
        return report.add(
            "operator",
            CheckResult::Broken,
            format!("{name} has no available pod"),
            Some(&cure),
        );
    }
    let own = env!("CARGO_PKG_VERSION");
    match version {
        Some(version) if version != own => {
            let detail = format!("{name} runs {version}, this program is {own}");
            report.add("operator", CheckResult::Warning, detail, Some("use the same version for both"));
        }
        _ => report.add("operator", CheckResult::Ok, format!("{name} is available"), None),
    }
}

/// What the operator's account must be allowed to do: verb, group, resource, subresource.
const RIGHTS: &[(&str, &str, &str, &str)] = &[
    ("watch", "belay.dev", "rollouts", ""),
    ("patch", "belay.dev", "rollouts", "status"),
    ("create", "belay.dev", "releases", ""),
    ("patch", "belay.dev", "releases", "status"),
    ("delete", "belay.dev", "releases", ""),
    ("watch", "apps", "deployments", ""),
    ("patch", "apps", "deployments", ""),
    ("watch", "apps", "replicasets", ""),
    ("create", "apps", "replicasets", ""),
    ("patch", "apps", "replicasets", ""),
    ("delete", "apps", "replicasets", ""),
    ("watch", "", "pods", ""),
    ("patch", "autoscaling", "horizontalpodautoscalers", ""),
    ("watch", "batch", "jobs", ""),
    ("create", "batch", "jobs", ""),
    ("create", "events.k8s.io", "events", ""),
];

async fn rights(cluster: &Cluster, args: &Doctor, report: &mut ChecksReport) {
    let user = operator_user(&args.operator_namespace);
    let namespace = if args.all_namespaces { None } else { Some(cluster.namespace.clone()) };
    let asked: Vec<_> = futures::stream::iter(RIGHTS)
        .map(|right| may(cluster, &user, namespace.clone(), None, right))
        .buffered(4)
        .collect()
        .await;
    let mut missing = Vec::new();
    for ((verb, _, resource, sub), answer) in RIGHTS.iter().zip(asked) {
        let sub = if sub.is_empty() { String::new() } else { format!("/{sub}") };
        match answer {
            Ok(true) => {}
            Ok(false) => missing.push(format!("{verb} {resource}{sub}")),
            Err(failure) => return broken(report, "rights", &failure),
        }
    }
    if missing.is_empty() {
        report.add("rights", CheckResult::Ok, format!("{user} may do what it needs"), None);
    } else {
        let detail = format!("{user} may not: {}", missing.join(", "));
        report.add("rights", CheckResult::Broken, detail, Some(INSTALL));
    }
}

/// Whether the operator's account may do this.
pub(super) async fn may(
    cluster: &Cluster,
    user: &str,
    namespace: Option<String>,
    name: Option<&str>,
    (verb, group, resource, sub): &(&str, &str, &str, &str),
) -> Result<bool, Failure> {
    let attributes = ResourceAttributes {
        verb: Some((*verb).to_owned()),
        group: Some((*group).to_owned()),
        resource: Some((*resource).to_owned()),
        subresource: Some((*sub).to_owned()).filter(|sub| !sub.is_empty()),
        namespace,
        name: name.map(str::to_owned),
        ..Default::default()
    };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            groups: Some(groups()),
            resource_attributes: Some(attributes),
            ..Default::default()
        },
        ..Default::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(cluster.client.clone());
    let done =
        cluster.ask("ask what the operator may do", api.create(&PostParams::default(), &review)).await?;
    Ok(done.status.is_some_and(|status| status.allowed))
}

/// The groups that every service account is in.
pub(super) fn groups() -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), "system:authenticated".to_owned()]
}

async fn leader(cluster: &Cluster, args: &Doctor, report: &mut ChecksReport) {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), &args.operator_namespace);
    let leases = match cluster.ask("list the Leases", api.list(&ListParams::default())).await {
        Ok(list) => list.items,
        Err(failure) => return broken(report, "leader", &failure),
    };
    let lease = leases.into_iter().find(|lease| lease.name_any() == crate::operator::LEASE);
    let detail = writer(lease.and_then(|lease| lease.spec).unwrap_or_default(), clock::now());
    report.add("leader", CheckResult::Ok, detail, None);
}

/// Who writes. At rest nobody does: the Lease is taken when there is something to write, and lapses after it.
fn writer(lease: LeaseSpec, now: Timestamp) -> String {
    let holder = lease.holder_identity.filter(|holder| !holder.is_empty());
    let age = lease.renew_time.map(|at| crate::report::text::between(at.0, now));
    let lasts = u64::try_from(lease.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
    match (holder, age) {
        (Some(holder), Some(age)) if age.as_secs() <= lasts => format!("{holder} holds the Lease"),
        (Some(holder), _) => format!("nothing is being written; {holder} held the Lease last"),
        (None, _) => "nothing is being written; the Lease is free".to_owned(),
    }
}

async fn rollouts(cluster: &Cluster, args: &Doctor, report: &mut ChecksReport) {
    let (rollouts, releases): (Api<Rollout>, Api<Release>) = if args.all_namespaces {
        (Api::all(cluster.client.clone()), Api::all(cluster.client.clone()))
    } else {
        (cluster.rollouts(), cluster.releases())
    };
    let rollouts = match find::list(cluster, "list the Rollouts", &rollouts).await {
        Ok(list) => list,
        Err(failure) => return broken(report, "rollouts", &failure),
    };
    unreadable("Rollout", &rollouts.unreadable, report);
    let rollouts = rollouts.items;
    let releases = match find::list(cluster, "list the Releases", &releases).await {
        Ok(list) => list,
        Err(failure) => return broken(report, "releases", &failure),
    };
    unreadable("Release", &releases.unreadable, report);
    let releases = releases.items;
    if rollouts.is_empty() {
        let cure = "`belay init DEPLOYMENT` writes one; -A looks in all namespaces";
        report.add("rollouts", CheckResult::Warning, "there is none here", Some(cure));
    }
    let mut borrowed = traffic::Borrowed::default();
    for rollout in &rollouts {
        one(cluster, rollout, &releases, report).await;
        let (user, namespace) = (operator_user(&args.operator_namespace), &args.operator_namespace);
        sources::check(cluster, rollout, &user, namespace, report).await;
        traffic::check(cluster, namespace, rollout, &releases, &mut borrowed, report).await;
    }
    traffic::holds(cluster, &borrowed, report).await;
}

/// Objects that another version wrote. The operator leaves them alone; if it is of this version.
fn unreadable(kind: &str, objects: &[(String, String, String)], report: &mut ChecksReport) {
    for (namespace, name, why) in objects {
        let cure = "the version that wrote it can; until then nothing happens to it. `belay version` compares the versions";
        let detail = format!("{kind} {name} cannot be read by this version: {why}");
        report.add(&format!("{namespace}/{name}"), CheckResult::Broken, detail, Some(cure));
    }
}

async fn one(cluster: &Cluster, rollout: &Rollout, releases: &[Release], report: &mut ChecksReport) {
    let namespace = rollout.namespace().unwrap_or_default();
    let name = format!("{namespace}/{}", rollout.name_any());
    let target = &rollout.spec.workload_ref.name;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &namespace);
    let deployment =
        match cluster.ask(format!("read the Deployment {target}"), deployments.get_opt(target)).await {
            Ok(Some(deployment)) => deployment,
            Ok(None) => {
                let detail = format!("its workload, the Deployment {target}, does not exist");
                return report.add(
                    &name,
                    CheckResult::Broken,
                    detail,
                    Some("create the Deployment, or delete the Rollout"),
                );
            }
            Err(failure) => return broken(report, &name, &failure),
        };
    let status = rollout.status.clone().unwrap_or_default();
    let brake = status.conditions.iter().find(|condition| condition.type_ == "BrakeEngaged");
    let labelled =
        deployment.labels().get(ROLLOUT_LABEL).map(String::as_str) == Some(rollout.name_any().as_str());
    match brake {
        Some(brake) if brake.status == "True" && labelled => {
            report.add(&name, CheckResult::Ok, "the brake is engaged", None);
        }
        Some(brake) if brake.status != "True" => {
            report.add(
                &name,
                CheckResult::Broken,
                format!("the brake is not engaged: {}", brake.message),
                Some(INSTALL),
            );
        }
        Some(_) => {
            let detail = format!(
                "the Deployment {target} does not carry the label {ROLLOUT_LABEL}={}",
                rollout.name_any()
            );
            let cure = "the operator puts it there; see its logs, and whether another tool takes it away";
            report.add(&name, CheckResult::Broken, detail, Some(cure));
        }
        None => {
            let cure = "is the operator running, and does it watch this namespace?";
            report.add(&name, CheckResult::Broken, "the operator has not looked at it yet", Some(cure));
        }
    }
    shutdown(&name, &deployment, report);
    autoscaler(cluster, &name, &namespace, target, report).await;
    let running = releases.iter().find(|release| {
        release.namespace().as_deref() == Some(&namespace)
            && release.spec.rollout == rollout.name_any()
            && !find::is_final(release)
    });
    let silent = running
        .and_then(|release| release.status.as_ref()?.analysis.as_ref())
        .filter(|a| a.no_data_since.is_some());
    if let Some(analysis) = silent {
        let why = analysis.no_data_reason.clone().unwrap_or_else(|| "the reason is not known".to_owned());
        let cure = "the release holds until there is data; check spec.analysis.metrics and network policies";
        report.add(&name, CheckResult::Warning, format!("no metrics: {why}"), Some(cure));
    }
}

/// The shortest time in seconds in which kube-proxy and routers can be trusted to forget a pod.
const FORGET_SECONDS: i64 = 5;

/// Pods that stop at once on SIGTERM drop requests whenever they are replaced, with Belay or without.
fn shutdown(name: &str, deployment: &Deployment, report: &mut ChecksReport) {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
    let hooked = |container: &Container| {
        container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
    };
    let bare: Vec<&str> =
        pod.containers.iter().filter(|container| !hooked(container)).map(|c| c.name.as_str()).collect();
    let grace = pod.termination_grace_period_seconds.unwrap_or(30);
    if grace < FORGET_SECONDS {
        let cure = format!(
            "set it to 30: a pod is killed in the middle of requests, or while Services and routers still send it some; \
             they take up to {FORGET_SECONDS} s to forget it"
        );
        let detail = format!("terminationGracePeriodSeconds is {grace}");
        report.add(name, CheckResult::Warning, detail, Some(&cure));
    } else if bare.len() == pod.containers.len() {
        let cure = "fine if it goes on serving for some seconds after SIGTERM; else add a preStop hook that sleeps 5 s";
        let detail = format!("no preStop hook (container {})", bare.join(", "));
        report.add(name, CheckResult::Ok, detail, Some(cure));
    }
}

async fn autoscaler(cluster: &Cluster, name: &str, namespace: &str, target: &str, report: &mut ChecksReport) {
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(cluster.client.clone(), namespace);
    let Ok(list) = cluster.ask("list the autoscalers", api.list(&ListParams::default())).await else {
        return;
    };
    let found = list.items.into_iter().find(|scaler| {
        scaler.spec.as_ref().is_some_and(|spec| {
            spec.scale_target_ref.kind == "Deployment" && spec.scale_target_ref.name == target
        })
    });
    let Some(found) = found else { return };
    let spec = found.spec.clone().unwrap_or_default();
    let detail = format!(
        "the autoscaler {} goes from {} to {} pods; its floor is held during a release",
        found.name_any(),
        spec.min_replicas.unwrap_or(1),
        spec.max_replicas
    );
    report.add(name, CheckResult::Ok, detail, None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_lease_that_nobody_holds_is_as_it_should_be_at_rest() {
        use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
        let at = |second| Timestamp::from_second(second).expect("in range");
        let lease = |holder: &str| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(3),
            renew_time: Some(MicroTime(at(100))),
            ..LeaseSpec::default()
        };
        assert_eq!(writer(lease("a"), at(103)), "a holds the Lease");
        assert_eq!(writer(lease("a"), at(105)), "nothing is being written; a held the Lease last");
        for free in [lease(""), LeaseSpec::default()] {
            assert_eq!(writer(free, at(100)), "nothing is being written; the Lease is free");
        }
    }

    #[test]
    fn pods_that_are_killed_before_they_are_forgotten_are_named() {
        let told = |pod: Value| {
            let deployment =
                serde_json::from_value(json!({"spec": {"selector": {}, "template": {"spec": pod}}}));
            let mut report = ChecksReport::default();
            shutdown("shop/web", &deployment.unwrap(), &mut report);
            report.checks.first().map(|check| (check.result, check.detail.clone()))
        };
        let hook = json!({"preStop": {"sleep": {"seconds": 5}}});
        let containers =
            |lifecycle: Option<&Value>| json!([{"name": "app", "lifecycle": lifecycle}, {"name": "side"}]);
        let short = told(json!({"containers": containers(Some(&hook)), "terminationGracePeriodSeconds": 1}));
        assert_eq!(short, Some((CheckResult::Warning, "terminationGracePeriodSeconds is 1".to_owned())));
        let none = told(json!({"containers": containers(None)}));
        assert_eq!(none, Some((CheckResult::Ok, "no preStop hook (container app, side)".to_owned())));
        assert_eq!(told(json!({"containers": containers(Some(&hook))})), None);
    }

    #[test]
    fn a_schema_is_the_same_after_its_way_through_the_server() {
        assert!(same(&json!({"a": 1.0, "b": null, "c": [], "d": false}), &json!({"a": 1})));
        assert!(!same(&json!({"a": {"b": [1]}}), &json!({"a": {"b": [2]}})));
        assert!(!same(&json!({"a": "x"}), &json!({})));
    }
}
