//! Properties of random routes, for all kinds that have lists of backends. Shares are compared as fractions of the
//! lists before and after.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Kinds with lists, and whether one route has several.
const KINDS: [(Router, bool); 7] = [
    (Router::HttpRoute, true),
    (Router::GrpcRoute, true),
    (Router::VirtualService, true),
    (Router::IngressRoute, true),
    (Router::TraefikService, false),
    (Router::TrafficSplit, false),
    (Router::AlbIngress, true),
];

/// Other backends by number; stable is `None`.
type List = Vec<(Option<u8>, Option<i64>)>;

fn list(with_stable: bool) -> impl Strategy<Value = List> {
    let weight = prop_oneof![
        2 => Just(None),
        1 => Just(Some(0)),
        3 => (1_i64..10).prop_map(Some),
        3 => (1_i64..10).prop_map(|ten| Some(ten * 10)),
        1 => (1_i64..1000).prop_map(Some),
    ];
    let others = prop::collection::vec(weight.clone(), 0..4);
    (others, weight, any::<prop::sample::Index>()).prop_map(move |(others, weight, at)| {
        let mut list: List = others.into_iter().zip(0..).map(|(weight, n)| (Some(n), weight)).collect();
        if with_stable {
            list.insert(at.index(list.len() + 1), (None, weight));
        }
        list
    })
}

fn lists() -> impl Strategy<Value = Vec<List>> {
    prop::collection::vec(prop_oneof![3 => list(true), 1 => list(false)], 1..5)
}

fn backend(router: Router, name: &str, weight: Option<i64>) -> Value {
    let mut backend = match router {
        Router::VirtualService => json!({"destination": {"host": name, "port": {"number": 80}}, "x": [null]}),
        Router::TrafficSplit => json!({"service": name, "x": {"y": 1}}),
        Router::AlbIngress => json!({"serviceName": name, "servicePort": 80, "x": ""}),
        _ => json!({"name": name, "port": 80, "filters": [{"type": "Unknown"}]}),
    };
    if let Some(weight) = weight {
        backend["weight"] = json!(weight);
    }
    backend
}

fn render(router: Router, lists: &[List]) -> Value {
    let lists: Vec<Value> = lists
        .iter()
        .map(|list| {
            let name = |n: &Option<u8>| n.map_or("web".to_owned(), |n| format!("other{n}"));
            list.iter().map(|(n, weight)| backend(router, &name(n), *weight)).collect()
        })
        .collect();
    let rules = |key: &str| -> Vec<Value> {
        lists
            .iter()
            .zip(0..)
            .map(|(list, n)| json!({key: list, "match": format!("m{n}"), "timeout": n}))
            .collect()
    };
    let mut route = object(
        router,
        &match router {
            Router::VirtualService => json!({"hosts": ["a"], "http": rules("route")}),
            Router::IngressRoute => json!({"entryPoints": [], "routes": rules("services")}),
            Router::TraefikService => json!({"weighted": {"services": lists[0], "x": 1}}),
            Router::TrafficSplit => json!({"service": "front", "backends": lists[0]}),
            Router::AlbIngress => json!({"rules": []}),
            _ => json!({"hostnames": [], "rules": rules("backendRefs")}),
        },
    );
    if router == Router::AlbIngress {
        route["metadata"]["annotations"] = lists
            .iter()
            .zip(0..)
            .map(|(list, n)| {
                let action = json!({"type": "forward", "forwardConfig": {"targetGroups": list}});
                (format!("alb.ingress.kubernetes.io/actions.a{n}"), json!(format!(" {action} ")))
            })
            .collect();
    }
    route
}

/// All lists of a route, as its kind has them.
fn lists_of(router: Router, route: &Value) -> Vec<Vec<Value>> {
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let of = |rules: &Value, key: &str| array(rules).iter().map(|rule| array(&rule[key])).collect();
    let spec = &route["spec"];
    match router {
        Router::VirtualService => of(&spec["http"], "route"),
        Router::IngressRoute => of(&spec["routes"], "services"),
        Router::TraefikService => vec![array(&spec["weighted"]["services"])],
        Router::TrafficSplit => vec![array(&spec["backends"])],
        Router::AlbIngress => (route["metadata"]["annotations"].as_object().unwrap().values())
            .map(|text| {
                let action: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
                array(&action["forwardConfig"]["targetGroups"])
            })
            .collect(),
        _ => of(&spec["rules"], "backendRefs"),
    }
}

/// By name, the weight that each backend of a list has in effect.
fn in_effect(router: Router, list: &[Value]) -> Vec<(String, i128)> {
    list.iter()
        .map(|backend| {
            let name = ["name", "service", "serviceName"].iter().find_map(|key| backend[*key].as_str());
            let name = name.or_else(|| backend["destination"]["host"].as_str()).unwrap();
            let weight = backend["weight"].as_i64();
            let weight = match (router, list.len()) {
                (Router::VirtualService, 1) => 1,
                (Router::VirtualService, _) => weight.unwrap_or(0),
                _ => weight.unwrap_or(1),
            };
            (name.to_owned(), i128::from(weight))
        })
        .collect()
}

fn of(list: &[(String, i128)], name: &str) -> i128 {
    list.iter().filter(|(other, _)| other == name).map(|(_, weight)| weight).sum()
}

fn sum(list: &[(String, i128)]) -> i128 {
    list.iter().map(|(_, weight)| weight).sum()
}

/// Each list that had stable with traffic is divided as asked, and nobody else's share changed.
fn divided(router: Router, before: &Value, after: &Value, weight: i32) -> Result<(), TestCaseError> {
    for (before, after) in lists_of(router, before).iter().zip(lists_of(router, after)) {
        let (old, new) = (in_effect(router, before), in_effect(router, &after));
        if of(&old, "web") == 0 {
            prop_assert_eq!(before, &after);
            continue;
        }
        let (canary, stable) = (of(&new, "web-canary"), of(&new, "web"));
        prop_assert!(canary + stable > 0);
        prop_assert_eq!(canary * 100, i128::from(weight) * (canary + stable));
        prop_assert_eq!((canary + stable) * sum(&old), of(&old, "web") * sum(&new));
        for (name, weight) in old.iter().filter(|(name, _)| name != "web") {
            prop_assert_eq!(of(&new, name) * sum(&old), *weight * sum(&new), "the share of {}", name);
        }
    }
    Ok(())
}

/// A route that can be worked; some random ones cannot, for reasons that must be these.
fn workable(router: Router, lists: &[List]) -> Result<Option<Value>, TestCaseError> {
    let route = render(router, lists);
    match super::super::borrowed(router, &Seen::route(&route), "web", "web-canary") {
        Ok(_) => Ok(Some(route)),
        Err(Refusal::NotNamed { .. }) => {
            let lists = lists_of(router, &route);
            prop_assert!(lists.iter().all(|list| of(&in_effect(router, list), "web") == 0));
            Ok(None)
        }
        Err(Refusal::TooFine { .. }) => {
            prop_assert_eq!(router, Router::AlbIngress);
            Ok(None)
        }
        Err(other) => Err(TestCaseError::fail(other.to_string())),
    }
}

fn kind() -> impl Strategy<Value = (Router, bool)> {
    prop::sample::select(&KINDS[..])
}

proptest! {
    #[test]
    fn a_release_divides_and_gives_back(
        (router, _) in kind(),
        lists in lists(),
        weights in prop::collection::vec(0..=100_i32, 1..6),
    ) {
        let Some(route) = workable(router, &lists)? else { return Ok(()) };
        let original = recorded(router, &route);
        let mut now = route.clone();
        for weight in weights {
            now = patched(router, &now, &ask(weight)).unwrap();
            divided(router, &route, &now, weight)?;
            prop_assert_eq!(share(router, &now), Some(weight));
            let again = super::super::patch(router, &Seen::route(&now), &ask(weight)).unwrap();
            prop_assert_eq!(again, None);
        }
        let back = returned(router, &now, &original);
        prop_assert_eq!(back.to_string(), route.to_string());
        prop_assert_eq!(returned(router, &back, &original), route);
    }

    /// Without a record, as after a restore from a backup, the canary goes and nobody's share changes.
    #[test]
    fn a_route_is_given_back_without_a_record(
        (router, _) in kind(),
        lists in lists(),
        weight in 0..=100_i32,
    ) {
        let Some(route) = workable(router, &lists)? else { return Ok(()) };
        let now = patched(router, &route, &ask(weight)).unwrap();
        let back = returned(router, &now, &Value::Null);
        prop_assert!(!back.to_string().contains("web-canary"), "{}", back);
        for (before, after) in lists_of(router, &route).iter().zip(lists_of(router, &back)) {
            let (old, new) = (in_effect(router, before), in_effect(router, &after));
            prop_assert_eq!(old.len(), new.len());
            for ((name, weight), (other, now)) in old.iter().zip(&new) {
                prop_assert_eq!(name, other);
                prop_assert_eq!(weight * sum(&new), now * sum(&old));
            }
        }
    }

    /// A field that is written must be as it was read; any other may have changed.
    #[test]
    fn a_patch_meets_only_what_was_read(
        (router, several) in kind(),
        lists in lists(),
        weight in 1..=100_i32,
        which in any::<prop::sample::Index>(),
    ) {
        let Some(route) = workable(router, &lists)? else { return Ok(()) };
        let write = super::super::patch(router, &Seen::route(&route), &ask(weight)).unwrap();
        let ops = ops(write);
        let mut elsewhere = route.clone();
        elsewhere["metadata"]["labels"] = json!({"a": "b"});
        elsewhere["spec"]["hostnames"] = json!(["somewhere"]);
        if several && router != Router::AlbIngress {
            for key in ["rules", "http", "routes"] {
                if let Some(rules) = elsewhere["spec"][key].as_array_mut() {
                    rules[0]["timeout"] = json!("another");
                }
            }
        }
        prop_assert!(apply(&elsewhere, &ops).is_ok());
        let mut other = route.clone();
        other["metadata"]["uid"] = json!("u-9");
        prop_assert!(apply(&other, &ops).is_err(), "another object of this name");
        // One of the fields that it writes, as somebody else has written it meanwhile.
        let written: Vec<&str> =
            ops.iter().filter(|op| op["op"] != "test").map(|op| op["path"].as_str().unwrap()).collect();
        let path = written[which.index(written.len())];
        let mut changed = route.clone();
        let field = changed.pointer_mut(path).unwrap();
        *field = match field.take() {
            Value::Array(list) => json!([list, vec![json!({"name": "more"})]].concat()),
            Value::String(text) => json!(format!("{text} ")),
            other => json!([other]),
        };
        prop_assert!(apply(&changed, &ops).is_err(), "{} was changed meanwhile", path);
    }

    /// Whatever somebody made of the route: no panic, and the way back is not refused.
    #[test]
    fn the_way_back_is_never_refused(
        (router, _) in kind(),
        lists in lists(),
        weight in 0..=100_i32,
        breaks in prop::collection::vec((any::<prop::sample::Index>(), 0..6_u8), 0..4),
    ) {
        let Some(route) = workable(router, &lists)? else { return Ok(()) };
        let original = recorded(router, &route);
        let mut now = patched(router, &route, &ask(weight)).unwrap();
        for (at, how) in breaks {
            broken(router, &mut now, at, how);
        }
        let _ = super::super::read(router, &Seen::route(&now), "web", "web-canary");
        let _ = super::super::patch(router, &Seen::route(&now), &ask(50));
        let off = patched(router, &now, &ask(0));
        prop_assert!(off.is_ok(), "{:?}", off);
        for list in lists_of(router, &off.unwrap()) {
            for backend in list.iter().filter(|backend| backend.to_string().contains("web-canary")) {
                prop_assert_eq!(&backend["weight"], 0);
            }
        }
        let back = returned(router, &now, &original);
        prop_assert!(!back.to_string().contains("web-canary"), "{}", back);
        let rules = |route: &Value| lists_of(router, route).len();
        prop_assert_eq!(rules(&back), rules(&now), "a rule is lost");
        for (had, has) in lists_of(router, &now).iter().zip(lists_of(router, &back)) {
            prop_assert!(had.is_empty() || !has.is_empty(), "nobody answers any more");
        }
    }
}

/// What a hand may do to one list of a route.
fn broken(router: Router, route: &mut Value, at: prop::sample::Index, how: u8) {
    let paths: Vec<String> = match router {
        Router::VirtualService => (0..9).map(|n| format!("/spec/http/{n}/route")).collect(),
        Router::IngressRoute => (0..9).map(|n| format!("/spec/routes/{n}/services")).collect(),
        Router::TraefikService => vec!["/spec/weighted/services".to_owned()],
        Router::TrafficSplit => vec!["/spec/backends".to_owned()],
        Router::AlbIngress => return,
        _ => (0..9).map(|n| format!("/spec/rules/{n}/backendRefs")).collect(),
    };
    let paths: Vec<String> = paths.into_iter().filter(|path| route.pointer(path).is_some()).collect();
    let list = route.pointer_mut(&paths[at.index(paths.len())]).unwrap().as_array_mut().unwrap();
    if list.is_empty() {
        return;
    }
    let one = at.index(list.len());
    match how {
        0 => list[one]["weight"] = json!("many"),
        1 => list[one]["weight"] = json!(-3),
        2 => list.push(list[one].clone()),
        3 if list.len() > 1 => {
            list.remove(one);
        }
        4 => list[one]["weight"] = json!(7),
        _ => list.swap(0, one),
    }
}
