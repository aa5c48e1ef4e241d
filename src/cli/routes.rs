//! Finds the routes of a namespace, of every kind that a release can split, and what there is to say of one.
//!
//! May touch: the cluster, reading only; `traffic`, which knows the kinds. Must never: change anything, or take a kind
//! that is not installed for an error.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::failure::{Failure, Kind};
use super::session::Cluster;
use crate::api::router::Router;
use crate::traffic::{self, Refusal, Seen};

/// All routes that were found.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// What each is, and the whole of it.
    pub items: Vec<(Router, Value)>,
    /// Kinds that the user may not list.
    pub hidden: BTreeSet<&'static str>,
}

/// A route that a Service's traffic goes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// What it is.
    pub router: Router,
    /// Its name.
    pub name: String,
    /// Why it cannot be split, if so.
    pub refused: Option<String>,
}

/// The raw answer to a GET; nothing where there is none such.
pub(super) async fn get(cluster: &Cluster, what: &str, path: &str) -> Result<Option<Value>, Failure> {
    let request = http::Request::get(path).body(Vec::new());
    let asked = async { cluster.client.request::<Value>(request.map_err(kube::Error::HttpError)?).await };
    match cluster.ask(what, asked).await {
        Ok(found) => Ok(Some(found)),
        Err(failure) if failure.kind == Kind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The routes of a namespace. `classes` says whose an Ingress is.
pub(super) async fn list(cluster: &Cluster, namespace: &str) -> Result<Routes, Failure> {
    let mut routes = Routes::default();
    let mut seen = BTreeSet::new();
    let classes = classes(cluster).await?;
    for router in Router::ALL {
        let path = format!("{}/namespaces/{namespace}/{}", router.path(), router.plural());
        // Ingresses are of two routers.
        if !seen.insert(path.clone()) {
            continue;
        }
        let found = match get(cluster, &format!("list the {}s", router.kind()), &path).await {
            Ok(found) => found.unwrap_or_default(),
            Err(failure) if failure.kind == Kind::Forbidden => {
                routes.hidden.insert(router.kind());
                continue;
            }
            Err(failure) => return Err(failure),
        };
        for object in found["items"].as_array().into_iter().flatten() {
            let of = if router.kind() == "Ingress" { classes.router(object) } else { Some(router) };
            routes.items.extend(of.map(|router| (router, object.clone())));
        }
    }
    Ok(routes)
}

/// The classes of Ingresses; without the right to see them, none.
pub(super) async fn classes(cluster: &Cluster) -> Result<Classes, Failure> {
    match get(cluster, "list the IngressClasses", "/apis/networking.k8s.io/v1/ingressclasses").await {
        Ok(found) => Ok(Classes::of(&found.unwrap_or_default())),
        Err(failure) if failure.kind == Kind::Forbidden => Ok(Classes::default()),
        Err(failure) => Err(failure),
    }
}

/// The controllers of Ingresses by class.
#[derive(Debug, Default)]
pub(super) struct Classes {
    controllers: BTreeMap<String, String>,
    default: Option<String>,
}

impl Classes {
    fn of(list: &Value) -> Self {
        let mut classes = Self::default();
        for class in list["items"].as_array().into_iter().flatten() {
            let name = class["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let controller = class["spec"]["controller"].as_str().unwrap_or_default().to_owned();
            if class["metadata"]["annotations"]["ingressclass.kubernetes.io/is-default-class"] == "true" {
                classes.default = Some(name.clone());
            }
            classes.controllers.insert(name, controller);
        }
        classes
    }

    /// Which router an Ingress is of: by its class, where that is known; else by the class's usual name, and by the
    /// annotations that only one router reads.
    pub(super) fn router(&self, ingress: &Value) -> Option<Router> {
        let annotations = ingress["metadata"]["annotations"].as_object();
        let class = ingress["spec"]["ingressClassName"]
            .as_str()
            .or_else(|| annotations.and_then(|all| all.get("kubernetes.io/ingress.class"))?.as_str())
            .or(self.default.as_deref());
        if let Some(controller) = class.and_then(|class| self.controllers.get(class)) {
            return match controller.as_str() {
                "k8s.io/ingress-nginx" => Some(Router::NginxIngress),
                "ingress.k8s.aws/alb" => Some(Router::AlbIngress),
                _ => None,
            };
        }
        let reads =
            |prefix: &str| annotations.is_some_and(|all| all.keys().any(|key| key.starts_with(prefix)));
        match class {
            Some("nginx") => Some(Router::NginxIngress),
            Some("alb") => Some(Router::AlbIngress),
            _ if reads("alb.ingress.kubernetes.io/") => Some(Router::AlbIngress),
            _ if reads("nginx.ingress.kubernetes.io/") => Some(Router::NginxIngress),
            _ => None,
        }
    }
}

impl Routes {
    /// The routes that the traffic of a Service goes through.
    pub(super) fn ways(&self, service: &str) -> Vec<Way> {
        let mut ways: Vec<Way> = self
            .items
            .iter()
            .filter_map(|(router, object)| {
                let canary = format!("{service}-canary");
                let refused = match traffic::borrowed(*router, &Seen::route(object), service, &canary) {
                    Ok(_) => None,
                    Err(Refusal::NotNamed { .. }) => return None,
                    // One that is not understood is of interest only where it speaks of the Service.
                    Err(_) if !mentions(object, service) => return None,
                    Err(refusal) => Some(refusal.to_string()),
                };
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                Some(Way { router: *router, name, refused })
            })
            .collect();
        ways.sort_by(|a, b| (a.router, &a.name).cmp(&(b.router, &b.name)));
        ways
    }
}

/// Whether a name stands anywhere in an object's spec or annotations.
fn mentions(object: &Value, name: &str) -> bool {
    fn within(value: &Value, name: &str) -> bool {
        match value {
            Value::String(text) => text == name || text.starts_with(&format!("{name}.")),
            Value::Array(list) => list.iter().any(|inner| within(inner, name)),
            Value::Object(fields) => fields.values().any(|inner| within(inner, name)),
            _ => false,
        }
    }
    let annotations = object["metadata"]["annotations"].as_object();
    let quoted = format!("\"{name}\"");
    within(&object["spec"], name)
        || annotations.is_some_and(|all| {
            let mut texts = all.values().filter_map(Value::as_str);
            texts.any(|text| text.contains(&quoted))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_ingress_is_told_by_its_class_then_by_its_annotations() {
        let classes = Classes::of(&json!({"items": [
            {"metadata": {"name": "edge", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
             "spec": {"controller": "k8s.io/ingress-nginx"}},
            {"metadata": {"name": "nginx"}, "spec": {"controller": "nginx.org/ingress-controller"}},
            {"metadata": {"name": "aws"}, "spec": {"controller": "ingress.k8s.aws/alb"}},
        ]}));
        let class = |name: &str| json!({"spec": {"ingressClassName": name}});
        let note = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
        for (ingress, known, unknown) in [
            (class("edge"), Some(Router::NginxIngress), None),
            // Another controller than ingress-nginx, for all its name.
            (class("nginx"), None, Some(Router::NginxIngress)),
            (class("aws"), Some(Router::AlbIngress), None),
            (class("alb"), Some(Router::AlbIngress), Some(Router::AlbIngress)),
            (class("haproxy"), None, None),
            (note("kubernetes.io/ingress.class", "aws"), Some(Router::AlbIngress), None),
            (
                note("alb.ingress.kubernetes.io/scheme", "internal"),
                Some(Router::NginxIngress),
                Some(Router::AlbIngress),
            ),
            (json!({}), Some(Router::NginxIngress), None),
        ] {
            assert_eq!(classes.router(&ingress), known, "{ingress}");
            assert_eq!(Classes::default().router(&ingress), unknown, "{ingress}");
        }
    }

    #[test]
    fn a_route_is_one_of_a_service_that_it_sends_traffic_to() {
        let route = |name: &str, rules: Value| {
            (
                Router::HttpRoute,
                json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"rules": rules}}),
            )
        };
        let to = |service: &str| json!([{"backendRefs": [{"name": service, "port": 80}]}]);
        let routes = Routes {
            items: vec![
                route("z", to("web")),
                route("other", to("api")),
                route(
                    "twice",
                    json!([{"backendRefs": [{"name": "web", "port": 80}, {"name": "web", "port": 81}]}]),
                ),
                route("strange", json!([{"backendRefs": [{"name": "api", "port": 80, "weight": "1"}]}])),
            ],
            hidden: BTreeSet::new(),
        };
        let ways = routes.ways("web");
        assert_eq!(ways.len(), 2, "{ways:?}");
        assert_eq!((ways[1].name.as_str(), &ways[1].refused), ("z", &None));
        let refused = ways[0].refused.clone().unwrap();
        assert!(refused.contains("names the Service web more than once"), "{refused}");
    }
}
