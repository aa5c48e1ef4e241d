//! What `doctor` checks of a Rollout's traffic: its Services, its routes, and whether a release could have them.
//!
//! May touch: the cluster, reading only, and access reviews. Must never: change anything, or stop at the first fault.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::doctor::{INSTALL, broken, may, operator_user};
use super::failure::Failure;
use super::find;
use super::routes::{self, Classes, get};
use super::session::Cluster;
use crate::api::release::{PlannedRoute, PlannedStep, PlannedTraffic};
use crate::api::router::Router;
use crate::api::{BRAKE_WEBHOOK, POD_TEMPLATE_HASH, RELEASE_LABEL, Release, Rollout};
use crate::decide::{planned_traffic, steps};
use crate::report::checks::{Check, CheckResult, ChecksReport};
use crate::traffic::{self, Ask, Seen, Uptake};

/// Kinds whose objects Rollouts borrow, by their plurals.
#[derive(Debug, Default)]
pub(super) struct Borrowed(BTreeSet<&'static str>);

/// What was read for one Rollout.
#[derive(Debug, Default)]
struct Read {
    /// Labels of the workload's pods, if it is there.
    labels: Option<BTreeMap<String, String>>,
    /// The Services that are named, and the name that a release needs; `None`: not there.
    services: BTreeMap<String, Option<Value>>,
    /// The routes in the order of the plan.
    routes: Vec<Found>,
    /// The release that runs, if one does.
    running: Option<String>,
    /// Whose an Ingress is.
    classes: Classes,
}

/// What was found of a route.
#[derive(Debug)]
enum Found {
    /// The whole of it.
    There(Value),
    /// It is not there.
    Gone,
    /// Its kind is not served in the version that the operator uses; these are.
    NotServed(Vec<String>),
}

/// Checks the traffic of a Rollout, if it has any.
pub(super) async fn check(
    cluster: &Cluster,
    operator: &str,
    rollout: &Rollout,
    releases: &[Release],
    borrowed: &mut Borrowed,
    report: &mut ChecksReport,
) {
    let namespace = rollout.namespace().unwrap_or_default();
    let Some(plan) = planned_traffic(&rollout.spec, &namespace) else { return };
    let name = format!("{namespace}/{}", rollout.name_any());
    borrowed.0.insert("services");
    borrowed.0.extend(plan.routes.iter().map(|route| route.router.plural()));
    match read(cluster, rollout, &plan, releases).await {
        Ok(read) => report.checks.extend(judge(&name, rollout, &plan, &read)),
        Err(failure) => broken(report, &name, &failure),
    }
    rights(cluster, &operator_user(operator), &name, &namespace, &plan, report).await;
}

async fn read(
    cluster: &Cluster,
    rollout: &Rollout,
    plan: &PlannedTraffic,
    releases: &[Release],
) -> Result<Read, Failure> {
    let namespace = rollout.namespace().unwrap_or_default();
    let running = releases.iter().find(|release| {
        release.namespace().as_deref() == Some(&namespace)
            && release.spec.rollout == rollout.name_any()
            && !find::is_final(release)
    });
    let target = &rollout.spec.workload_ref.name;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &namespace);
    let deployment =
        cluster.ask(format!("read the Deployment {target}"), deployments.get_opt(target)).await?;
    let template = deployment.and_then(|deployment| deployment.spec).map(|spec| spec.template);
    let mut read = Read {
        labels: template.map(|template| template.metadata.and_then(|m| m.labels).unwrap_or_default()),
        running: running.map(ResourceExt::name_any),
        ..Read::default()
    };
    for name in [Some(&plan.service), plan.canary_service.as_ref()].into_iter().flatten() {
        let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
        let found = get(cluster, &format!("read the Service {name}"), &path).await?;
        read.services.insert(name.clone(), found);
    }
    if plan.routes.iter().any(|route| route.router.kind() == "Ingress") {
        read.classes = routes::classes(cluster).await?;
    }
    for route in &plan.routes {
        read.routes.push(read_route(cluster, route).await?);
    }
    Ok(read)
}

async fn read_route(cluster: &Cluster, route: &PlannedRoute) -> Result<Found, Failure> {
    let router = route.router;
    let what = format!("read the {} {}/{}", router.kind(), route.namespace, route.name);
    let path = format!("{}/namespaces/{}/{}/{}", router.path(), route.namespace, router.plural(), route.name);
    if let Some(found) = get(cluster, &what, &path).await? {
        return Ok(Found::There(found));
    }
    let served = get(cluster, "ask which kinds are served", router.path()).await?.unwrap_or_default();
    let mut kinds = served["resources"].as_array().into_iter().flatten();
    if kinds.any(|kind| kind["name"] == router.plural()) {
        return Ok(Found::Gone);
    }
    let group = get(cluster, "ask which versions are served", &format!("/apis/{}", router.group())).await?;
    let group = group.unwrap_or_default();
    let versions = group["versions"].as_array().into_iter().flatten();
    Ok(Found::NotServed(
        versions.filter_map(|version| version["groupVersion"].as_str()).map(str::to_owned).collect(),
    ))
}

/// Collects checks of one Rollout.
struct Bench<'a> {
    name: &'a str,
    checks: Vec<Check>,
}

impl Bench<'_> {
    fn add(&mut self, result: CheckResult, detail: String, cure: Option<String>) {
        self.checks.push(Check { name: self.name.to_owned(), result, detail, cure });
    }

    fn broken(&mut self, detail: String, cure: impl Into<String>) {
        self.add(CheckResult::Broken, detail, Some(cure.into()));
    }

    fn warning(&mut self, detail: String, cure: impl Into<String>) {
        self.add(CheckResult::Warning, detail, Some(cure.into()));
    }

    fn ok(&mut self, detail: String) {
        self.add(CheckResult::Ok, detail, None);
    }
}

/// What there is to say about what was read.
fn judge(name: &str, rollout: &Rollout, plan: &PlannedTraffic, read: &Read) -> Vec<Check> {
    let mut bench = Bench { name, checks: Vec::new() };
    service(&mut bench, rollout, &plan.service, read);
    if let Some(canary) = &plan.canary_service {
        if plan.preview {
            service(&mut bench, rollout, canary, read);
            same_ports(&mut bench, plan, canary, read);
        } else {
            free(&mut bench, rollout, canary, read);
        }
    }
    let steps = steps(&rollout.spec);
    for (planned, found) in plan.routes.iter().zip(&read.routes) {
        route(&mut bench, rollout, plan, planned, found, &steps, read);
    }
    bench.checks
}

fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"][key].as_str()
}

/// A Service that a release pins.
fn service(bench: &mut Bench<'_>, rollout: &Rollout, service: &str, read: &Read) {
    let namespace = rollout.namespace().unwrap_or_default();
    let Some(Some(found)) = read.services.get(service) else {
        let cure = "create it, or correct its name in spec.strategy; until then no release starts";
        return bench.broken(format!("its Service {service} does not exist"), cure);
    };
    let Some(selector) = found["spec"]["selector"].as_object().filter(|selector| !selector.is_empty()) else {
        let cure = "give it a selector: a release narrows it to one version";
        return bench.broken(format!("Service {service} has no selector"), cure);
    };
    let pin = selector.get(POD_TEMPLATE_HASH).and_then(Value::as_str);
    let of = label(found, RELEASE_LABEL);
    match (pin, of, &read.running) {
        (_, Some(of), Some(running)) if of == running => {
            bench.ok(format!("Service {service} is borrowed by the release {of}, and selects one version"));
        }
        (_, Some(of), _) => bench.warning(
            format!("Service {service} is still marked as borrowed by {of}, which does not run"),
            "the operator gives it back; see whether it runs, and its logs",
        ),
        (Some(pin), None, _) => {
            let path = format!("/spec/selector/{POD_TEMPLATE_HASH}");
            let cure = format!(
                "kubectl -n {namespace} patch service {service} --type=json -p \
                 '[{{\"op\":\"remove\",\"path\":\"{path}\"}}]'"
            );
            bench.broken(
                format!("Service {service} selects one revision by {POD_TEMPLATE_HASH}={pin}, and no release put that there"),
                cure,
            );
        }
        (None, None, _) => {
            let selects = |labels: &BTreeMap<String, String>| {
                selector.iter().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
            };
            if read.labels.as_ref().is_none_or(selects) {
                bench.ok(format!("Service {service} selects its pods"));
            } else {
                let cure = "name the Service that serves the workload, or correct its selector";
                bench.broken(format!("Service {service} does not select the pods of its workload"), cure);
            }
        }
    }
}

/// A port by everything that a caller can tell it by.
fn ports(service: &Value) -> BTreeSet<(i64, String)> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    ports
        .map(|port| {
            (port["port"].as_i64().unwrap_or_default(), port["name"].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

fn same_ports(bench: &mut Bench<'_>, plan: &PlannedTraffic, preview: &str, read: &Read) {
    let of = |name: &str| read.services.get(name).and_then(Option::as_ref).map(ports);
    let (Some(active), Some(looked_at)) = (of(&plan.service), of(preview)) else { return };
    if !active.is_subset(&looked_at) {
        let detail = format!("Service {preview} lacks ports that Service {} has", plan.service);
        let cure = "give it the same ports, so that what is looked at is what users will get";
        if plan.routes.is_empty() { bench.warning(detail, cure) } else { bench.broken(detail, cure) }
    }
}

/// The name that the canary's Service will have.
fn free(bench: &mut Bench<'_>, rollout: &Rollout, canary: &str, read: &Read) {
    let Some(Some(found)) = read.services.get(canary) else { return };
    let uid = rollout.uid().unwrap_or_default();
    let mut owners = found["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let ours = owners.any(|owner| owner["uid"] == uid.as_str());
    match (ours, &read.running) {
        (true, Some(_)) => {}
        (true, None) => bench.warning(
            format!("the Service {canary} of a release is still there, and none runs"),
            "the operator deletes it; see whether it runs, and its logs",
        ),
        (false, _) => bench.broken(
            format!("a Service {canary} is there already, and a release needs that name for its canary"),
            "rename or delete it; until then no release starts",
        ),
    }
}

fn route(
    bench: &mut Bench<'_>,
    rollout: &Rollout,
    plan: &PlannedTraffic,
    planned: &PlannedRoute,
    found: &Found,
    steps: &[PlannedStep],
    read: &Read,
) {
    let router = planned.router;
    let what = format!("{} {}/{}", router.kind(), planned.namespace, planned.name);
    let object = match found {
        Found::There(object) => object,
        Found::Gone => {
            let cure = "create it, or correct its name in spec.strategy; until then no release starts";
            return bench.broken(format!("{what} does not exist"), cure);
        }
        Found::NotServed(versions) => {
            let wanted = format!("{}/{}", router.group(), router.version());
            let served =
                if versions.is_empty() { "nothing of its group is".to_owned() } else { versions.join(", ") };
            let cure = "install the router's custom resources in that version; until then no release starts";
            let detail = format!("{} is not served as {wanted}: {served}", router.kind());
            return bench.broken(detail, cure);
        }
    };
    if rollout.namespace().as_deref() != Some(&planned.namespace) {
        let cure = "use a route in the namespace of the Rollout: one elsewhere names other Services";
        return bench.broken(format!("{what} is in another namespace than its Service"), cure);
    }
    if router.kind() == "Ingress" && read.classes.router(object).is_some_and(|of| of != router) {
        let cure = "name it under nginxIngresses or albIngresses, by the controller of its class";
        bench.broken(format!("{what} is not of the router that it is named under"), cure);
    }
    let seen = Seen::route(object);
    let canary = plan.canary_service.clone().unwrap_or_default();
    let of = label(object, RELEASE_LABEL);
    let by_ours = of.is_some() && of == read.running.as_deref();
    if let Some(of) = of.filter(|_| !by_ours) {
        return bench.warning(
            format!("{what} is still marked as borrowed by {of}, which does not run"),
            "the operator gives it back; see whether it runs, and its logs",
        );
    }
    let understood = if by_ours {
        traffic::read(router, &seen, &plan.service, &canary).map(|_| ())
    } else {
        traffic::borrowed(router, &seen, &plan.service, &canary).map(|_| ())
    };
    let refused = understood.err().or_else(|| {
        steps.iter().find_map(|step| traffic::patch(router, &seen, &ask(plan, &canary, step)).err())
    });
    if let Some(refusal) = refused {
        return bench.broken(format!("{what}: {refusal}"), refusal.cure());
    }
    match traffic::taken_up(router, &seen) {
        Uptake::Yes => bench.ok(format!("{what} can be split, and its router has taken it up")),
        Uptake::Unknown => bench.ok(format!(
            "{what} can be split; its router does not say what it has taken up, so each change takes 10 s"
        )),
        Uptake::No(why) => bench.broken(
            format!("{what} is not taken up by its router: {why}"),
            "a release would wait at 0 %; see the status of the route and the logs of the router",
        ),
    }
}

/// What a step asks of a route.
fn ask(plan: &PlannedTraffic, canary: &str, step: &PlannedStep) -> Ask {
    Ask {
        stable: plan.service.clone(),
        canary: canary.to_owned(),
        weight: step.weight,
        matches: crate::decide::wanted(&step.matches),
        mirror: step.mirror,
        sticky: None,
    }
}

/// What the operator's account must be allowed to do for this traffic.
async fn rights(
    cluster: &Cluster,
    user: &str,
    name: &str,
    namespace: &str,
    plan: &PlannedTraffic,
    report: &mut ChecksReport,
) {
    let mut needed: BTreeSet<(&str, &str, &str, &str)> = BTreeSet::new();
    for verb in ["list", "watch", "patch", "create", "delete"] {
        needed.insert((verb, "", "services", ""));
    }
    needed.insert(("watch", "discovery.k8s.io", "endpointslices", ""));
    for route in &plan.routes {
        let mut verbs = vec!["list", "watch", "patch"];
        if route.router == Router::NginxIngress {
            verbs.extend(["create", "delete"]);
        }
        needed.extend(verbs.into_iter().map(|verb| (verb, route.router.group(), route.router.plural(), "")));
    }
    let mut missing = Vec::new();
    for right in needed {
        match may(cluster, user, Some(namespace.to_owned()), None, &right).await {
            Ok(true) => {}
            Ok(false) => missing.push(format!("{} {}", right.0, right.2)),
            Err(failure) => return broken(report, name, &failure),
        }
    }
    if missing.is_empty() {
        report.add(name, CheckResult::Ok, format!("{user} may change its Services and routes"), None);
    } else {
        let detail = format!("{user} may not: {}", missing.join(", "));
        report.add(name, CheckResult::Broken, detail, Some(INSTALL));
    }
}

/// Whether something keeps other writers from what a release borrows: a policy for each kind, or a webhook.
pub(super) async fn holds(cluster: &Cluster, borrowed: &Borrowed, report: &mut ChecksReport) {
    const PATH: &str = "/apis/admissionregistration.k8s.io/v1";
    if borrowed.0.is_empty() {
        return;
    }
    let webhook = format!("{PATH}/mutatingwebhookconfigurations/{BRAKE_WEBHOOK}");
    let webhook = match get(cluster, "read the webhook configuration", &webhook).await {
        Ok(found) => found.unwrap_or_default(),
        Err(failure) => return broken(report, "hold", &failure),
    };
    let calls: Vec<&str> = webhook["webhooks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|call| call["name"].as_str())
        .collect();
    let mut missing = Vec::new();
    for plural in &borrowed.0 {
        let policy = format!("hold-{plural}.belay.dev");
        if calls.iter().any(|call| call.ends_with(&policy)) {
            continue;
        }
        let path = format!("{PATH}/mutatingadmissionpolicies/{policy}");
        match get(cluster, &format!("read the policy {policy}"), &path).await {
            Ok(Some(_)) => {}
            Ok(None) => missing.push(policy),
            Err(failure) => return broken(report, "hold", &failure),
        }
    }
    if missing.is_empty() {
        report.add("hold", CheckResult::Ok, "other writers are kept from what a release borrows", None);
    } else {
        let detail = format!(
            "missing: {}: another writer may take a release's traffic away from it, or give it more",
            missing.join(", ")
        );
        report.add("hold", CheckResult::Warning, detail, Some(INSTALL));
    }
}
