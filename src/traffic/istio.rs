//! Istio: the destinations of a `VirtualService`.
//!
//! The canary's destination has no subset: subsets belong to a `DestinationRule` of the stable host, and the
//! canary's host has none. What such a rule sets (connection pools, outlier detection, a TLS mode of its own) does
//! not hold for the canary unless its owner has a rule for the canary's host, too.

use serde_json::{Value, json};

use super::dialect::{Dialect, Names, Place};
use super::gateway::cookie_regex;
use super::{Can, Match, Refusal, Uptake, Wanted};

/// `VirtualService`.
pub(super) struct Istio;

impl Dialect for Istio {
    fn router(&self) -> &'static str {
        "a VirtualService"
    }

    fn places(&self) -> &'static [Place] {
        &[
            Place { at: "/spec/http", list: "route", many: true, requests: true },
            Place { at: "/spec/tls", list: "route", many: true, requests: false },
            Place { at: "/spec/tcp", list: "route", many: true, requests: false },
        ]
    }

    fn named<'a>(&self, backend: &'a Value, namespace: &str) -> Option<&'a str> {
        service(&backend["destination"], namespace)
    }

    fn rename(&self, backend: &mut Value, service: &str) {
        rename(&mut backend["destination"], service);
    }

    // A lone destination gets everything, whatever its weight; among several, none is 0.
    fn implied(&self, written: Option<i64>, alone: bool) -> i64 {
        match written {
            None | Some(0) if alone => 100,
            written => written.unwrap_or(0),
        }
    }

    // An int32, and Envoy adds all weights of a rule in 32 bits.
    fn most(&self) -> i64 {
        1_000_000
    }

    fn cure(&self) -> &'static str {
        "have a route of `spec.http`, `tls` or `tcp` with a destination whose host is the Service"
    }

    fn matched(&self, at: &str, rule: &Value, _: &[Value], matches: &[Match]) -> Result<Value, Refusal> {
        let own = rule["match"].as_array().filter(|own| !own.is_empty()).cloned();
        let mut both = Vec::new();
        for own in own.unwrap_or_else(|| vec![json!({})]) {
            for wanted in matches {
                let mut one = own.clone();
                for test in &wanted.headers {
                    // Istio wants the names of headers in lower case.
                    add(at, &mut one, "headers", &test.name.to_ascii_lowercase(), &test.value)?;
                }
                for cookie in &wanted.cookies {
                    add(at, &mut one, "headers", "cookie", &Wanted::Regex(cookie_regex(cookie)))?;
                }
                for test in &wanted.query {
                    add(at, &mut one, "queryParams", &test.name, &test.value)?;
                }
                both.push(one);
            }
        }
        let mut copy = rule.clone();
        copy["match"] = Value::Array(both);
        Ok(copy)
    }

    fn unmatch(&self, rule: &mut Value) {
        if let Some(fields) = rule.as_object_mut() {
            fields.remove("match");
        }
    }

    fn mirror(&self, at: &str, rule: &mut Value, to: &Value, percent: i32, _: Can) -> Result<(), Refusal> {
        let fields = ["mirror", "mirrors", "mirrorPercentage", "mirrorPercent", "mirror_percent"];
        if at.starts_with("/spec/http/") && fields.iter().all(|field| rule[*field].is_null()) {
            rule["mirror"] = to["destination"].clone();
            rule["mirrorPercentage"] = json!({"value": percent});
            return Ok(());
        }
        Err(Refusal::Unable {
            router: self.router(),
            what: "mirror connections, or requests that it mirrors already",
            cure: "release by weight, or take the mirror off for the release",
        })
    }

    fn unmirror(&self, rule: &mut Value, names: Names<'_>) {
        if service(&rule["mirror"], names.namespace) == Some(names.canary)
            && let Some(fields) = rule.as_object_mut()
        {
            fields.remove("mirror");
            fields.remove("mirrorPercentage");
        }
    }
}

/// The Service behind a host: `web`, `web.shop`, `web.shop.svc`, or with the cluster's domain.
fn service<'a>(destination: &'a Value, namespace: &str) -> Option<&'a str> {
    let host = destination["host"].as_str()?;
    let mut parts = host.split('.');
    let name = parts.next()?;
    let here = match (parts.next(), parts.next()) {
        (None, _) => true,
        (Some(other), svc) => other == namespace && svc.is_none_or(|svc| svc == "svc"),
    };
    here.then_some(name)
}

fn rename(destination: &mut Value, service: &str) {
    let domain = destination["host"].as_str().and_then(|host| host.split_once('.')).map(|(_, domain)| domain);
    destination["host"] = match domain {
        Some(domain) => json!(format!("{service}.{domain}")),
        None => json!(service),
    };
    if let Some(fields) = destination.as_object_mut() {
        fields.remove("subset");
    }
}

fn add(at: &str, to: &mut Value, map: &str, name: &str, value: &Wanted) -> Result<(), Refusal> {
    let refusal = |why| Refusal::Match { at: at.to_owned(), name: name.to_owned(), why };
    if to[map].is_null() {
        to[map] = json!({});
    }
    let tests = to[map].as_object_mut().ok_or_else(|| refusal("the rule has none of the documented type"))?;
    if tests.keys().any(|other| other.eq_ignore_ascii_case(name)) {
        return Err(refusal("a match can test it once only"));
    }
    let test = match value {
        Wanted::Exact(value) => json!({"exact": value}),
        Wanted::Regex(value) => json!({"regex": value}),
    };
    tests.insert(name.to_owned(), test);
    Ok(())
}

/// What the optional status says. Most installations write none.
pub(super) fn taken_up(route: &Value) -> Uptake {
    let conditions = route["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(condition) = conditions.iter().find(|condition| condition["type"] == "Reconciled") else {
        return Uptake::Unknown;
    };
    let generation = route["metadata"]["generation"].as_i64().unwrap_or_default();
    let seen =
        condition["observedGeneration"].as_i64().or_else(|| route["status"]["observedGeneration"].as_i64());
    match seen {
        // Some versions write it as a string.
        None => Uptake::Unknown,
        Some(seen) if seen < generation => Uptake::No("istiod has not seen the latest change".to_owned()),
        Some(_) if condition["status"] == "True" => Uptake::Yes,
        Some(_) => Uptake::No("not all proxies have the latest change".to_owned()),
    }
}
