//! Gateway API: the `backendRefs` of `HTTPRoute` and `GRPCRoute`.

use serde_json::{Value, json};

use super::dialect::{Dialect, Names, Place};
use super::{Can, Match, Refusal, Test, Uptake, Wanted};

/// Rules in one route, as the kinds' schemas have it (v1.3).
const RULES: usize = 16;
/// Backends of one rule.
const BACKENDS: usize = 16;
/// Matches in one rule.
const MATCHES: usize = 64;
/// Matches in one route.
const ALL_MATCHES: usize = 128;

const PLACES: &[Place] = &[Place { at: "/spec/rules", list: "backendRefs", many: true, requests: true }];
const CURE: &str =
    "have a rule with a backendRef of kind Service, in the route's own namespace, that names it";

/// `HTTPRoute` or `GRPCRoute`.
pub(super) struct Gateway {
    router: &'static str,
    /// Whether its requests have a query.
    query: bool,
}

pub(super) static HTTP: Gateway = Gateway { router: "an HTTPRoute", query: true };
pub(super) static GRPC: Gateway = Gateway { router: "a GRPCRoute", query: false };

impl Dialect for Gateway {
    fn router(&self) -> &'static str {
        self.router
    }

    fn places(&self) -> &'static [Place] {
        PLACES
    }

    fn named<'a>(&self, backend: &'a Value, namespace: &str) -> Option<&'a str> {
        named(backend, namespace)
    }

    fn rename(&self, backend: &mut Value, service: &str) {
        backend["name"] = json!(service);
    }

    fn most(&self) -> i64 {
        1_000_000
    }

    fn cure(&self) -> &'static str {
        CURE
    }

    fn check(&self, route: &Value) -> Result<(), Refusal> {
        check(route)
    }

    fn matched(&self, at: &str, rule: &Value, _: &[Value], matches: &[Match]) -> Result<Value, Refusal> {
        matched(at, rule, matches, self.query)
    }

    fn unmatch(&self, rule: &mut Value) {
        if let Some(fields) = rule.as_object_mut() {
            fields.remove("matches");
            fields.remove("name");
        }
    }

    // More conditions go before fewer, whatever the order; at a tie the first rule wins, and that shall be the
    // owner's.
    fn copies_first(&self) -> bool {
        false
    }

    fn mirror(&self, _: &str, rule: &mut Value, to: &Value, percent: i32, can: Can) -> Result<(), Refusal> {
        mirror(self.router, rule, to, percent, can)
    }

    fn unmirror(&self, rule: &mut Value, names: Names<'_>) {
        unmirror(rule, names);
    }

    fn stick(&self, rule: &mut Value, name: &str, seconds: u32, can: Can) -> Result<(), Refusal> {
        stick(self.router, rule, name, seconds, can)
    }

    fn unstick(&self, rule: &mut Value, name: &str) {
        if rule["sessionPersistence"]["sessionName"] == name
            && let Some(fields) = rule.as_object_mut()
        {
            fields.remove("sessionPersistence");
        }
    }

    fn sessions(&self, rule: &Value) -> bool {
        rule["sessionPersistence"].is_object()
    }
}

fn named<'a>(backend: &'a Value, namespace: &str) -> Option<&'a str> {
    let is = |field: &str, default: &str| backend[field].as_str().unwrap_or(default) == default;
    (is("group", "") && is("kind", "Service") && is("namespace", namespace))
        .then(|| backend["name"].as_str())?
}

fn check(route: &Value) -> Result<(), Refusal> {
    let rules = route["spec"]["rules"].as_array().map_or(&[][..], Vec::as_slice);
    let of =
        |list: &str| rules.iter().map(|rule| rule[list].as_array().map_or(0, Vec::len)).collect::<Vec<_>>();
    let (matches, backends) = (of("matches"), of("backendRefs"));
    let greatest = |all: &[usize]| all.iter().copied().max().unwrap_or(0);
    for (what, have, most) in [
        ("rules", rules.len(), RULES),
        ("backends in a rule", greatest(&backends), BACKENDS),
        ("matches in a rule", greatest(&matches), MATCHES),
        ("matches", matches.iter().sum(), ALL_MATCHES),
    ] {
        if have > most {
            return Err(Refusal::TooMany { what, have, most });
        }
    }
    Ok(())
}

/// Each of the rule's own matches with each of the wanted ones.
fn matched(at: &str, rule: &Value, matches: &[Match], query: bool) -> Result<Value, Refusal> {
    let own = rule["matches"].as_array().filter(|own| !own.is_empty()).cloned();
    let mut both = Vec::new();
    for own in own.unwrap_or_else(|| vec![json!({})]) {
        for wanted in matches {
            let mut one = own.clone();
            for test in &wanted.headers {
                add(at, &mut one, "headers", &test.name, &test.value)?;
            }
            for cookie in &wanted.cookies {
                add(at, &mut one, "headers", "Cookie", &Wanted::Regex(cookie_regex(cookie)))?;
            }
            if let (Some(test), false) = (wanted.query.first(), query) {
                let why = "gRPC has no query";
                return Err(Refusal::Match { at: at.to_owned(), name: test.name.clone(), why });
            }
            for test in &wanted.query {
                add(at, &mut one, "queryParams", &test.name, &test.value)?;
            }
            both.push(one);
        }
    }
    let mut copy = rule.clone();
    copy["matches"] = Value::Array(both);
    // Names of rules are unique within a route.
    if let Some(fields) = copy.as_object_mut() {
        fields.remove("name");
    }
    Ok(copy)
}

/// The header `Cookie` has this cookie among others.
pub(super) fn cookie_regex(cookie: &Test) -> String {
    let value = match &cookie.value {
        Wanted::Exact(value) => regex::escape(value),
        Wanted::Regex(value) => format!("(?:{value})"),
    };
    format!(r"^(.*;\s*)?{}={value}(;.*)?$", regex::escape(&cookie.name))
}

fn add(at: &str, to: &mut Value, list: &str, name: &str, value: &Wanted) -> Result<(), Refusal> {
    let refusal = |why| Refusal::Match { at: at.to_owned(), name: name.to_owned(), why };
    if to[list].is_null() {
        to[list] = json!([]);
    }
    let tests = to[list].as_array_mut().ok_or_else(|| refusal("the rule has none of the documented type"))?;
    let same = |test: &Value| {
        test["name"].as_str().is_some_and(|other| {
            if list == "headers" { other.eq_ignore_ascii_case(name) } else { other == name }
        })
    };
    if tests.iter().any(same) {
        return Err(refusal("a match can test it once only"));
    }
    let (kind, value) = match value {
        Wanted::Exact(value) => ("Exact", value),
        Wanted::Regex(value) => ("RegularExpression", value),
    };
    tests.push(json!({"type": kind, "name": name, "value": value}));
    Ok(())
}

fn mirror(router: &'static str, rule: &mut Value, to: &Value, percent: i32, can: Can) -> Result<(), Refusal> {
    let mut to = to.clone();
    if let Some(fields) = to.as_object_mut() {
        fields.remove("weight");
        fields.remove("filters");
    }
    let mut mirror = json!({"backendRef": to});
    if percent < 100 {
        if !can.mirror_percent {
            return Err(Refusal::Unable {
                router,
                what: "mirror a part of the requests: its version in this cluster has no `percent`",
                cure: "mirror all of them (100), or install Gateway API 1.3 or later",
            });
        }
        mirror["percent"] = json!(percent);
    }
    if rule["filters"].is_null() {
        rule["filters"] = json!([]);
    }
    if let Some(filters) = rule["filters"].as_array_mut() {
        filters.push(json!({"type": "RequestMirror", "requestMirror": mirror}));
    }
    Ok(())
}

fn unmirror(rule: &mut Value, names: Names<'_>) {
    let Some(filters) = rule["filters"].as_array() else { return };
    let ours = |filter: &Value| {
        filter["type"] == "RequestMirror"
            && named(&filter["requestMirror"]["backendRef"], names.namespace) == Some(names.canary)
    };
    let rest: Vec<Value> = filters.iter().filter(|filter| !ours(filter)).cloned().collect();
    if rest.len() == filters.len() {
        return;
    }
    if !rest.is_empty() {
        rule["filters"] = Value::Array(rest);
    } else if let Some(fields) = rule.as_object_mut() {
        fields.remove("filters");
    }
}

fn stick(router: &'static str, rule: &mut Value, name: &str, seconds: u32, can: Can) -> Result<(), Refusal> {
    if !can.session_persistence {
        return Err(Refusal::Unable {
            router,
            what: "keep clients on a version: its version in this cluster has no `sessionPersistence`",
            cure: "release without sessions, or install the experimental channel of the Gateway API",
        });
    }
    // A duration of GEP-2257: each number has at most five digits.
    let (hours, minutes, rest) = (seconds / 3600 % 100_000, seconds / 60 % 60, seconds % 60);
    rule["sessionPersistence"] = json!({
        "sessionName": name,
        "type": "Cookie",
        "absoluteTimeout": format!("{hours}h{minutes}m{rest}s"),
    });
    Ok(())
}

/// Whether each parent that has answered at all has accepted the present generation, backends and all.
pub(super) fn taken_up(route: &Value) -> Uptake {
    let generation = route["metadata"]["generation"].as_i64().unwrap_or_default();
    let wanted = route["spec"]["parentRefs"].as_array().map_or(&[][..], Vec::as_slice);
    let parents = route["status"]["parents"].as_array().map_or(&[][..], Vec::as_slice);
    let namespace = route["metadata"]["namespace"].as_str().unwrap_or_default();
    let id = |parent: &Value| {
        let field = |name: &str, default: &str| parent[name].as_str().unwrap_or(default).to_owned();
        let kind = (field("group", "gateway.networking.k8s.io"), field("kind", "Gateway"));
        let name = (field("namespace", namespace), field("name", ""), field("sectionName", ""));
        (kind, name, parent["port"].as_i64())
    };
    // An entry of a parent that the route no longer names says nothing.
    let ours = |parent: &&Value| wanted.iter().any(|wanted| id(wanted) == id(&parent["parentRef"]));
    let mut of_ours = parents.iter().filter(ours).peekable();
    if of_ours.peek().is_none() {
        return Uptake::No("no Gateway has answered".to_owned());
    }
    let mut uptake = Uptake::Yes;
    for parent in of_ours {
        let name = parent["parentRef"]["name"].as_str().unwrap_or_default();
        for kind in ["Accepted", "ResolvedRefs"] {
            let conditions = parent["conditions"].as_array().map_or(&[][..], Vec::as_slice);
            let Some(condition) = conditions.iter().find(|condition| condition["type"] == kind) else {
                return Uptake::No(format!("Gateway {name} has not said {kind}"));
            };
            match condition["observedGeneration"].as_i64() {
                Some(seen) if seen < generation => {
                    return Uptake::No(format!("Gateway {name} has not seen the latest change"));
                }
                Some(_) => {}
                None => uptake = Uptake::Unknown,
            }
            if condition["status"] != "True" {
                let reason = condition["reason"].as_str().unwrap_or("no reason given");
                return Uptake::No(format!("Gateway {name} says {kind} is not true: {reason}"));
            }
        }
    }
    uptake
}
