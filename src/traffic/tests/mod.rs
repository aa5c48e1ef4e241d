//! Tests of the routers: golden routes, properties of random ones, and what other writers do to them. Patches are
//! applied by the `json-patch` crate, which knows nothing of routes.

mod choices;
mod golden;
mod others;
mod properties;
mod uptake;

use serde_json::{Value, json};

use super::{Ask, Refusal, Router, Seen, Write};

/// The release of all these tests: the Service `web` in the namespace `shop`.
pub fn ask(weight: i32) -> Ask {
    Ask { stable: "web".to_owned(), canary: "web-canary".to_owned(), weight, ..Ask::default() }
}

/// An object of a router's kind.
pub fn object(router: Router, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("{}/{}", router.group(), router.versions()[0]),
        "kind": router.kind(),
        "metadata": {"name": "route", "namespace": "shop", "uid": "u-1", "generation": 1},
        "spec": spec,
    })
}

/// The operations of a patch of the route itself.
pub fn ops(write: Option<Write>) -> Vec<Value> {
    match write {
        None => Vec::new(),
        Some(Write::Route(ops) | Write::Companion(ops)) => ops,
        Some(other) => panic!("not a patch: {other:?}"),
    }
}

/// Applies a patch as the API server does.
pub fn apply(object: &Value, ops: &[Value]) -> Result<Value, String> {
    let patch: json_patch::Patch = serde_json::from_value(json!(ops)).unwrap();
    let mut after = object.clone();
    json_patch::patch(&mut after, &patch).map_err(|error| error.to_string())?;
    Ok(after)
}

/// The route after the write for this ask.
pub fn patched(router: Router, route: &Value, ask: &Ask) -> Result<Value, Refusal> {
    Ok(apply(route, &ops(super::patch(router, &Seen::route(route), ask)?)).unwrap())
}

/// The route after it was given back.
pub fn returned(router: Router, route: &Value, original: &Value) -> Value {
    let write = super::give_back(router, &Seen::route(route), original, "web", "web-canary");
    apply(route, &ops(write)).unwrap()
}

/// What is recorded of a route.
pub fn recorded(router: Router, route: &Value) -> Value {
    super::borrowed(router, &Seen::route(route), "web", "web-canary").unwrap()
}

/// The canary's percent.
pub fn share(router: Router, route: &Value) -> Option<i32> {
    super::read(router, &Seen::route(route), "web", "web-canary").unwrap().canary
}
