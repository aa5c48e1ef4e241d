//! `init`: writes a Rollout for a Deployment that exists, with what was found beside it: Services, the routes to them,
//! an autoscaler, a metrics page.
//!
//! May touch: the cluster, reading, but for the one Rollout that `--apply` creates. Must never: guess where there are
//! several answers; it says so in a comment instead.

mod choice;
mod compose;

use std::collections::BTreeMap;
use std::io::Write as _;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{PodTemplateSpec, Service};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};

use super::args::{Init, StrategyChoice};
use super::failure::{Exit, Failure, Kind};
use super::find;
use super::routes::{self, Routes};
use super::session::Session;
use crate::api::Rollout;
use choice::{Choice, Served, choose};
use compose::compose;

/// What was found about a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    name: String,
    namespace: String,
    replicas: i32,
    services: Vec<String>,
    /// What users come by.
    choice: Choice,
    /// Kinds of routes that could not be looked for.
    hidden: Vec<&'static str>,
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
    let routes = match args.strategy {
        StrategyChoice::Pods => Routes::default(),
        StrategyChoice::Auto | StrategyChoice::BlueGreen => routes::list(&cluster, namespace).await?,
    };
    let found = findings(&deployment, &services, &scalers, &routes);
    if args.strategy == StrategyChoice::BlueGreen && found.choice.service.is_none() {
        return Err(unchosen(&found));
    }
    let text = compose(&found, args.strategy);
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

/// Blue-green switches a Service, and there is none, or there are several.
fn unchosen(found: &Findings) -> Failure {
    let why = if found.services.is_empty() {
        format!("no Service selects the pods of {}", found.name)
    } else {
        format!("several Services select the pods of {}: {}", found.name, found.services.join(", "))
    };
    Failure::new(Kind::Refused, "failed to find the Service that a blue-green release switches")
        .because(why)
        .hint("`belay init` without --strategy writes a canary; change it by hand, or see `kubectl explain rollout.spec.strategy.blueGreen`")
}

fn findings(
    deployment: &Deployment,
    services: &[Service],
    scalers: &[HorizontalPodAutoscaler],
    routes: &Routes,
) -> Findings {
    let name = deployment.name_any();
    let spec = deployment.spec.clone().unwrap_or_default();
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let mut selecting: Vec<String> = services
        .iter()
        .filter(|service| is_users(service) && selects(service, &labels))
        .map(ResourceExt::name_any)
        .collect();
    selecting.sort();
    let served: Vec<Served> = selecting
        .iter()
        .map(|service| Served { service: service.clone(), ways: routes.ways(service) })
        .collect();
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
        choice: choose(&served, &name),
        hidden: routes.hidden.iter().copied().collect(),
        services: selecting,
        autoscaler,
        name,
    }
}

/// Whether it is not one that a release made for its canary.
fn is_users(service: &Service) -> bool {
    !service.owner_references().iter().any(|owner| owner.kind == "Rollout")
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    use crate::api::router::Router;

    fn found(metrics: bool) -> Findings {
        found_with(metrics, &Routes::default())
    }

    fn found_with(metrics: bool, routes: &Routes) -> Findings {
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
            service("web-peers", json!({"app": "web", "tier": "front"})),
        ];
        let scaler = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {"maxReplicas": 20,
            "scaleTargetRef": {"kind": "Deployment", "name": "web"}}}))
        .unwrap();
        findings(&deployment, &services, &[scaler], routes)
    }

    fn routes(items: &[(Router, &str, Value)]) -> Routes {
        let object = |(router, name, spec): &(Router, &str, Value)| {
            (*router, json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}))
        };
        Routes { items: items.iter().map(object).collect(), hidden: ["VirtualService"].into() }
    }

    fn rules(service: &str) -> Value {
        json!({"rules": [{"backendRefs": [{"name": service, "port": 80}]}]})
    }

    /// Nothing that is written would be refused.
    fn taken(text: &str) -> Rollout {
        let object: Value = serde_saphyr::from_str(text).unwrap();
        let crd = crate::install::crd_of("Rollout").unwrap();
        assert_eq!(crate::api::validate::validate(&crd, &object), [], "{text}");
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn what_is_written_is_a_rollout() {
        for metrics in [true, false] {
            let text = compose(&found(metrics), StrategyChoice::Pods);
            let rollout = taken(&text);
            assert_eq!(rollout.spec.workload_ref.name, "web");
            assert_eq!(rollout.spec.analysis.is_some(), metrics);
        }
        insta::assert_snapshot!("init_with_metrics", compose(&found(true), StrategyChoice::Auto));
        insta::assert_snapshot!("init_without_metrics", compose(&found(false), StrategyChoice::Pods));
    }

    #[test]
    fn routes_are_written_with_steps_and_a_bake() {
        let beside = json!({"backends": [{"service": "web", "weight": 1}, {"service": "web", "weight": 2}]});
        let routes = routes(&[
            (Router::HttpRoute, "web", rules("web")),
            (Router::HttpRoute, "api", rules("api")),
            (Router::GrpcRoute, "web", rules("web")),
            (Router::IngressRoute, "old", json!({"routes": [{"services": [{"name": "web", "port": 80}]}]})),
            (Router::TrafficSplit, "mesh", beside),
        ]);
        let text = compose(&found_with(true, &routes), StrategyChoice::Auto);
        let canary = taken(&text).spec.strategy.unwrap().canary.unwrap();
        assert_eq!(canary.service.as_deref(), Some("web"));
        assert_eq!(canary.traffic.unwrap().routes().count(), 2);
        assert!(canary.bake.is_some());
        insta::assert_snapshot!("init_with_routes", text);
        let text = compose(&found_with(true, &routes), StrategyChoice::BlueGreen);
        let blue_green = taken(&text).spec.strategy.unwrap().blue_green.unwrap();
        assert_eq!(blue_green.active_service, "web");
        insta::assert_snapshot!("init_blue_green", text);
    }

    #[test]
    fn every_kind_of_route_is_written_as_the_schema_has_it() {
        let service = |name: &str| json!({"name": name, "port": 80});
        let specs = [
            (Router::HttpRoute, rules("web")),
            (Router::GrpcRoute, rules("web")),
            (Router::VirtualService, json!({"http": [{"route": [{"destination": {"host": "web"}}]}]})),
            (
                Router::NginxIngress,
                json!({"rules": [{"http": {"paths": [{"backend": {"service": {"name": "web"}}}]}}]}),
            ),
            (Router::TraefikService, json!({"weighted": {"services": [service("web")]}})),
            (Router::IngressRoute, json!({"routes": [{"services": [service("web")]}]})),
            (Router::TrafficSplit, json!({"service": "web", "backends": [{"service": "web", "weight": 1}]})),
        ];
        for (router, spec) in specs {
            let found = found_with(false, &routes(&[(router, "r", spec)]));
            let canary = taken(&compose(&found, StrategyChoice::Auto)).spec.strategy.unwrap().canary.unwrap();
            let traffic = canary.traffic.unwrap();
            let all: Vec<_> = traffic.routes().collect();
            assert_eq!(all.len(), 1, "{router:?}");
            assert_eq!((all[0].0, all[0].1.name.as_str()), (router, "r"));
        }
    }

    #[test]
    fn blue_green_needs_to_know_which_service() {
        let none = Findings { name: "web".to_owned(), ..Findings::default() };
        assert!(unchosen(&none).why.unwrap().starts_with("no Service selects"));
        let two = Findings { services: vec!["a".to_owned(), "b".to_owned()], ..none };
        assert!(unchosen(&two).why.unwrap().ends_with("a, b"));
    }
}
