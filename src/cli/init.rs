//! `init`: writes a Rollout for a Deployment that exists, with what was found beside it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{PodTemplateSpec, Service};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};

use super::args::Init;
use super::failure::{Exit, Failure, Kind};
use super::find;
use super::session::Session;
use crate::api::Rollout;

/// What was found about a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    name: String,
    namespace: String,
    replicas: i32,
    services: Vec<String>,
    autoscaler: Option<String>,
    /// Port and path of the metrics page, and where that was seen.
    metrics: Option<(i32, String, String)>,
}

/// Writes a Rollout to standard output, to a file, or into the cluster.
pub async fn run(session: &Session, args: &Init) -> Result<Exit, Failure> {
    if let Some(file) = args.write.as_ref().filter(|file| !args.force && file.exists()) {
        return Err(Failure::new(Kind::Refused, format!("failed to write {}", file.display()))
            .because("it exists")
            .hint("--force overwrites it"));
    }
    let name = find::bare(&args.deployment);
    let cluster = session.cluster().await?;
    let namespace = &cluster.namespace;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
    let scalers: Api<HorizontalPodAutoscaler> = Api::namespaced(cluster.client.clone(), namespace);
    let deployment = cluster
        .ask(format!("read the Deployment {name}"), deployments.get_opt(name))
        .await?
        .ok_or_else(|| {
            Failure::new(Kind::NotFound, format!("failed to find the Deployment {name}"))
                .because(format!("there is none in namespace {namespace}"))
                .hint("-n chooses a namespace; only Deployments can be governed")
        })?;
    let all = ListParams::default();
    let services = cluster.ask("list the Services", services.list(&all)).await?.items;
    // An autoscaler is of interest, but nobody needs the right to see one for this.
    let scalers = match cluster.ask("list the autoscalers", scalers.list(&all)).await {
        Ok(list) => list.items,
        Err(failure) if matches!(failure.kind, Kind::Forbidden | Kind::NotFound) => Vec::new(),
        Err(failure) => return Err(failure),
    };
    let text = compose(&findings(&deployment, &services, &scalers));
    if args.apply {
        let rollout: Rollout = serde_saphyr::from_str(&text).map_err(|error| {
            Failure::new(Kind::Failed, "failed to make the Rollout").because(error.to_string())
        })?;
        cluster
            .ask(
                format!("create the Rollout {name}"),
                cluster.rollouts().create(&PostParams::default(), &rollout),
            )
            .await
            .map_err(|failure| match failure.kind {
                Kind::Refused => failure.hint(format!("`belay status {name}` shows the one that is there")),
                _ => failure,
            })?;
        session.out(&format!("rollout/{} created\n", rollout.name_any()))?;
        session.say(&format!("`belay status {name}` shows where it stands."));
    } else if let Some(file) = &args.write {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).create_new(!args.force);
        options
            .open(file)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| Failure::io(format!("failed to write {}", file.display()), &error))?;
        session.say(&format!(
            "Wrote {0}. Check it with `belay lint {0}`, apply it with kubectl.",
            file.display()
        ));
    } else {
        session.out(&text)?;
    }
    Ok(Exit::OK)
}

fn findings(deployment: &Deployment, services: &[Service], scalers: &[HorizontalPodAutoscaler]) -> Findings {
    let name = deployment.name_any();
    let spec = deployment.spec.clone().unwrap_or_default();
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let mut selecting: Vec<String> =
        services.iter().filter(|service| selects(service, &labels)).map(ResourceExt::name_any).collect();
    selecting.sort();
    let autoscaler = scalers
        .iter()
        .find(|scaler| {
            scaler.spec.as_ref().is_some_and(|spec| {
                spec.scale_target_ref.kind == "Deployment" && spec.scale_target_ref.name == name
            })
        })
        .map(ResourceExt::name_any);
    Findings {
        namespace: deployment.namespace().unwrap_or_default(),
        replicas: spec.replicas.unwrap_or(1),
        metrics: metrics(&spec.template),
        services: selecting,
        autoscaler,
        name,
    }
}

fn selects(service: &Service, labels: &BTreeMap<String, String>) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn metrics(template: &PodTemplateSpec) -> Option<(i32, String, String)> {
    let annotations =
        template.metadata.as_ref().and_then(|meta| meta.annotations.clone()).unwrap_or_default();
    let path = annotations.get("prometheus.io/path").filter(|path| path.starts_with('/')).cloned();
    let path = path.unwrap_or_else(|| "/metrics".to_owned());
    if let Some(port) = annotations.get("prometheus.io/port").and_then(|port| port.parse::<u16>().ok()) {
        return Some((port.into(), path, "the annotation prometheus.io/port".to_owned()));
    }
    let containers = template.spec.iter().flat_map(|pod| &pod.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .find(|port| {
            port.name.as_deref().is_some_and(|name| name.contains("metrics") || name.contains("prom"))
        })
        .map(|port| {
            (
                port.container_port,
                path,
                format!("the container port {}", port.name.clone().unwrap_or_default()),
            )
        })
}

/// The Rollout as YAML with comments.
fn compose(found: &Findings) -> String {
    let mut text = String::new();
    let name = &found.name;
    // The name of a Rollout is a part of the names of its releases.
    let short: String = name.chars().take(40).collect();
    let short = short.trim_end_matches(['-', '.']);
    let services = if found.services.is_empty() {
        "no Service selects its pods".to_owned()
    } else {
        format!("served by {}", found.services.join(", "))
    };
    let _ = writeln!(
        text,
        "# The policy for changes of the Deployment {name}: {} pods, {services}.",
        found.replicas
    );
    if let Some(scaler) = &found.autoscaler {
        let _ = writeln!(
            text,
            "# The autoscaler {scaler} goes on working; Belay holds its minReplicas during a release."
        );
    }
    let _ = write!(
        text,
        "apiVersion: belay.dev/v1alpha1\nkind: Rollout\nmetadata:\n  name: {short}\n  namespace: {}\nspec:\n  \
         workloadRef:\n    kind: Deployment\n    name: {name}\n  strategy:\n    canary:\n      steps:\n",
        found.namespace
    );
    let pods = u32::try_from(found.replicas).unwrap_or(1).max(1);
    for (weight, min) in [(5, "2m"), (25, "5m"), (50, "5m")] {
        // What the cluster will make of it; nothing to say when that is the weight itself.
        let canary = (f64::from(pods) * f64::from(weight) / f64::from(100 - weight)).ceil().max(1.0);
        let real = 100.0 * canary / (f64::from(pods) + canary);
        let _ = writeln!(
            text,
            "      - weight: {weight} # {canary:.0} of {:.0} pods: {real:.0} %",
            f64::from(pods) + canary
        );
        let _ = writeln!(text, "        minDuration: {min}");
    }
    text.push_str("      # - weight: 50\n      #   pause: true # waits for a person: belay approve\n");
    let head = |text: &mut String, off: &str, port: i32, path: &str| {
        let _ = write!(
            text,
            "  {off}analysis:\n  {off}  metrics:\n  {off}    pods:\n  {off}      port: {port}\n  {off}      path: {path}\n  \
             {off}  guards:\n  {off}  - name: errors\n  {off}    ratio:\n  {off}      bad:\n  {off}        metric: \
             http_requests_total\n  {off}        match: 'code=~\"5..\"'\n  {off}      total:\n  {off}        metric: \
             http_requests_total\n  {off}      tolerate: 1.2x + 0.1%\n"
        );
    };
    if let Some((port, path, seen)) = &found.metrics {
        let _ = writeln!(
            text,
            "  # The metrics page was found by {seen}. Put the names of your own counters in."
        );
        head(&mut text, "", *port, path);
    } else {
        text.push_str(
            "  # No metrics page was found, so that a release advances by time only. With one, these lines let it\n  \
             # advance on proof, and catch it when it fails:\n",
        );
        head(&mut text, "# ", 8080, "/metrics");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(metrics: bool) -> Findings {
        let annotations = if metrics {
            json!({"prometheus.io/port": "9090", "prometheus.io/path": "/m"})
        } else {
            json!({})
        };
        let deployment = serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"replicas": 12, "selector": {}, "template": {"metadata": {"labels": {"app": "web", "tier": "front"},
                "annotations": annotations}, "spec": {"containers": [{"name": "web"}]}}}}))
        .unwrap();
        let service = |name: &str, selector| {
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"selector": selector}}))
                .unwrap()
        };
        let services = [
            service("web", json!({"app": "web"})),
            service("db", json!({"app": "db"})),
            service("none", json!({})),
        ];
        let scaler = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {"maxReplicas": 20,
            "scaleTargetRef": {"kind": "Deployment", "name": "web"}}}))
        .unwrap();
        findings(&deployment, &services, &[scaler])
    }

    #[test]
    fn what_is_written_is_a_rollout() {
        for metrics in [true, false] {
            let text = compose(&found(metrics));
            let rollout: Rollout = serde_saphyr::from_str(&text).unwrap();
            assert_eq!(rollout.spec.workload_ref.name, "web");
            assert_eq!(rollout.spec.analysis.is_some(), metrics);
        }
        insta::assert_snapshot!("init_with_metrics", compose(&found(true)));
        insta::assert_snapshot!("init_without_metrics", compose(&found(false)));
    }
}
