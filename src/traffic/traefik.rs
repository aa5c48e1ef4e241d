//! Traefik: the weighted services of a `TraefikService`, and the services of an `IngressRoute`'s routes.
//!
//! A service of weight 0 takes no part in the round robin, not even for clients that have a session with it.

use serde_json::{Value, json};

use super::dialect::{Dialect, Place};
use super::gateway::cookie_regex;
use super::{Can, Match, Refusal, Test, Wanted};

/// `TraefikService` with `weighted`.
pub(super) struct Weighted;
/// `IngressRoute`.
pub(super) struct Routes;

const MOST: i64 = 1_000_000;

fn named<'a>(backend: &'a Value, namespace: &str) -> Option<&'a str> {
    let is = |field: &str, default: &str| backend[field].as_str().unwrap_or(default) == default;
    (is("kind", "Service") && is("namespace", namespace)).then(|| backend["name"].as_str())?
}

impl Dialect for Weighted {
    fn router(&self) -> &'static str {
        "a TraefikService"
    }

    fn places(&self) -> &'static [Place] {
        &[Place { at: "/spec/weighted", list: "services", many: false, requests: false }]
    }

    fn named<'a>(&self, backend: &'a Value, namespace: &str) -> Option<&'a str> {
        named(backend, namespace)
    }

    fn rename(&self, backend: &mut Value, service: &str) {
        backend["name"] = json!(service);
    }

    fn most(&self) -> i64 {
        MOST
    }

    fn cure(&self) -> &'static str {
        "have `spec.weighted.services` name it, in the namespace of the TraefikService"
    }

    fn stick(&self, rule: &mut Value, name: &str, seconds: u32, _: Can) -> Result<(), Refusal> {
        rule["sticky"] = json!({"cookie": {"name": name, "maxAge": seconds}});
        Ok(())
    }

    fn unstick(&self, rule: &mut Value, name: &str) {
        if rule["sticky"]["cookie"]["name"] == name
            && let Some(fields) = rule.as_object_mut()
        {
            fields.remove("sticky");
        }
    }

    fn sessions(&self, rule: &Value) -> bool {
        rule["sticky"].is_object()
    }
}

impl Dialect for Routes {
    fn router(&self) -> &'static str {
        "an IngressRoute"
    }

    fn places(&self) -> &'static [Place] {
        &[Place { at: "/spec/routes", list: "services", many: true, requests: true }]
    }

    fn named<'a>(&self, backend: &'a Value, namespace: &str) -> Option<&'a str> {
        named(backend, namespace)
    }

    fn rename(&self, backend: &mut Value, service: &str) {
        backend["name"] = json!(service);
    }

    fn most(&self) -> i64 {
        MOST
    }

    fn cure(&self) -> &'static str {
        "have a route whose services name it, in the namespace of the IngressRoute"
    }

    fn matched(&self, at: &str, rule: &Value, beside: &[Value], matches: &[Match]) -> Result<Value, Refusal> {
        let refusal = |why| Refusal::Match { at: at.to_owned(), name: "the requests".to_owned(), why };
        if rule["syntax"] == "v2" {
            return Err(refusal("the route is in the syntax of Traefik 2"));
        }
        let own = rule["match"].as_str().ok_or_else(|| refusal("the route has no `match`"))?;
        let wanted: Vec<String> = matches.iter().map(|one| condition(at, one)).collect::<Result<_, _>>()?;
        let mut copy = rule.clone();
        copy["match"] = json!(format!("({own}) && ({})", wanted.join(" || ")));
        // Without a number of its own a route has the length of its rule. The copy goes just before its own route,
        // and not before longer ones that mean something else.
        let above = priority(rule) + 1;
        if beside.iter().any(|other| priority(other) == above) {
            return Err(refusal(
                "another route has the next priority; which one goes first would be by chance",
            ));
        }
        copy["priority"] = json!(above);
        Ok(copy)
    }

    fn unmatch(&self, rule: &mut Value) {
        if let Some(fields) = rule.as_object_mut() {
            fields.remove("match");
            fields.remove("priority");
        }
    }
}

fn priority(route: &Value) -> i64 {
    match route["priority"].as_i64() {
        None | Some(0) => i64::try_from(route["match"].as_str().map_or(0, str::len)).unwrap_or(i64::MAX - 1),
        Some(priority) => priority.min(i64::MAX - 1),
    }
}

/// All conditions of one match, in the syntax of Traefik 3.
fn condition(at: &str, wanted: &Match) -> Result<String, Refusal> {
    let call = |function: &str, name: &str, value: &str| {
        // The rule quotes in backticks, within which nothing can be escaped.
        if name.contains('`') || value.contains('`') {
            let why = "Traefik cannot quote a backtick";
            return Err(Refusal::Match { at: at.to_owned(), name: name.to_owned(), why });
        }
        Ok(format!("{function}(`{name}`, `{value}`)"))
    };
    let of = |exact: &'static str, regex: &'static str| {
        move |test: &Test| match &test.value {
            Wanted::Exact(value) => call(exact, &test.name, value),
            Wanted::Regex(value) => call(regex, &test.name, &format!("^(?:{value})$")),
        }
    };
    let cookie = |cookie: &Test| call("HeaderRegexp", "Cookie", &cookie_regex(cookie));
    let all: Vec<String> = (wanted.headers.iter().map(of("Header", "HeaderRegexp")))
        .chain(wanted.cookies.iter().map(cookie))
        .chain(wanted.query.iter().map(of("Query", "QueryRegexp")))
        .collect::<Result<_, _>>()?;
    Ok(all.join(" && "))
}
