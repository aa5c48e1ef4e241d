//! Which traffic a release is refused.

use serde_json::{Value, json};

use super::world::World;
use crate::api::router::Router;
use crate::decide::{Identity, Loan, Observation, Route, Service, planned_traffic, steps};

/// An observation with a Service `web`, and a route `web` to it in a namespace.
fn observation(strategy: &Value, namespace: &str) -> Observation {
    let spec = json!({"workloadRef": {"kind": "Deployment", "name": "web"}, "strategy": strategy});
    let mut obs = World::stable(2, spec).observe().unwrap();
    let own = obs.rollout.metadata.namespace.clone().unwrap_or_default();
    let id = |namespace: &str| Identity {
        namespace: namespace.to_owned(),
        name: "web".to_owned(),
        ..Identity::default()
    };
    let selector = [("app".to_owned(), "web".to_owned())].into();
    obs.services = vec![Service { id: id(&own), selector, ..Service::default() }];
    obs.routes = vec![Route {
        router: Router::HttpRoute,
        id: id(namespace),
        deleting: false,
        object: json!({
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {"rules": [{"backendRefs": [{"name": "web", "port": 80}]}]},
        }),
        loan: Loan::default(),
    }];
    obs
}

fn refused(strategy: &Value, namespace: &str) -> Option<String> {
    let obs = observation(strategy, namespace);
    let spec = &obs.rollout.spec;
    let plan = planned_traffic(spec, obs.rollout.metadata.namespace.as_deref().unwrap_or_default()).unwrap();
    crate::decide::traffic::refuse(&obs, &plan, &steps(spec))
}

/// A route elsewhere that names a Service `web` means one of its own namespace, and `web-canary` is not there.
#[test]
fn a_route_of_another_namespace_is_refused() {
    let routes = |route: Value| json!({"canary": {"service": "web", "traffic": {"httpRoutes": [route]}}});
    let here = World::new(1, json!({"workloadRef": {"kind": "Deployment", "name": "web"}})).observe();
    let here = here.unwrap().rollout.metadata.namespace.unwrap();
    assert_eq!(refused(&routes(json!({"name": "web"})), &here), None);
    let why = refused(&routes(json!({"name": "web", "namespace": "edge"})), "edge").unwrap();
    assert!(why.starts_with("HTTPRoute edge/web is in another namespace than Service web"), "{why}");
}
