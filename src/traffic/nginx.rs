//! ingress-nginx: the canary is a second Ingress for the same hosts and paths, which its annotations mark.
//!
//! The owner's Ingress is never written, so there is nothing to give back: deleting the companion is all. Of its
//! annotations ingress-nginx reads only those of canaries, of session affinity and of load balancing; the rest
//! comes from the owner's Ingress.

use serde_json::{Map, Value, json};

use super::ops::{self, Ops};
use super::{Ask, Match, Refusal, Seen, Split, Wanted, Write};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";
const ROUTER: &str = "an Ingress of ingress-nginx";
const CURE: &str = "have a rule with a path whose backend is the Service";

/// What ingress-nginx does not take from the owner's Ingress.
const OWN: &[&str] =
    &["load-balance", "upstream-hash-by", "affinity", "affinity-mode", "affinity-canary-behavior"];
const OWN_PREFIX: &str = "session-cookie-";

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// The paths that go to stable, with the canary as their backend.
fn rules(route: &Value, stable: &str, canary: &str) -> (Vec<Value>, usize) {
    let mut count = 0;
    let rules = route["spec"]["rules"].as_array().map_or(&[][..], Vec::as_slice);
    let rules = rules
        .iter()
        .filter_map(|rule| {
            let paths: Vec<Value> = rule["http"]["paths"]
                .as_array()?
                .iter()
                .filter(|path| path["backend"]["service"]["name"] == stable)
                .map(|path| {
                    let mut path = path.clone();
                    path["backend"]["service"]["name"] = json!(canary);
                    path
                })
                .collect();
            count += paths.len();
            let mut rule = rule.clone();
            rule["http"]["paths"] = Value::Array(paths.clone());
            (!paths.is_empty()).then_some(rule)
        })
        .collect();
    (rules, count)
}

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][key(name)].as_str()
}

/// What the owner's Ingress must be; the number of paths.
fn understood(route: &Value, stable: &str, canary: &str) -> Result<usize, Refusal> {
    if annotation(route, "canary").is_some_and(|marked| marked == "true") {
        let why = "it is a canary itself; name the Ingress that it belongs to".to_owned();
        return Err(Refusal::Unreadable { at: ops::annotation(&key("canary")), why });
    }
    if rules(route, canary, canary).1 > 0 {
        return Err(Refusal::Foreign { at: "/spec/rules".to_owned(), canary: canary.to_owned() });
    }
    match rules(route, stable, canary).1 {
        0 => Err(Refusal::NotNamed { stable: stable.to_owned(), cure: CURE }),
        count => Ok(count),
    }
}

/// A companion that does not say that it is a canary has no weight that could be read.
fn is_canary(companion: &Value, canary: &str) -> Result<(), Refusal> {
    if annotation(companion, "canary") == Some("true") {
        return Ok(());
    }
    let name = companion["metadata"]["name"].as_str().unwrap_or_default();
    Err(Refusal::Foreign { at: format!("the Ingress {name}"), canary: canary.to_owned() })
}

pub(super) fn read(seen: &Seen<'_>, stable: &str, canary: &str) -> Result<Split, Refusal> {
    let rules = understood(seen.route, stable, canary)?;
    let sessions = annotation(seen.route, "affinity").is_some();
    let mut split = Split { rules, sessions, ..Split::default() };
    if let Some(companion) = seen.companion {
        is_canary(companion, canary)?;
        let number = |name: &str, default: i64| match annotation(companion, name) {
            None => Ok(default),
            Some(text) => text.parse::<i64>().ok().filter(|number| *number >= 0).ok_or_else(|| {
                Refusal::Unreadable { at: ops::annotation(&key(name)), why: format!("{text:?} is no weight") }
            }),
        };
        let (weight, total) = (number("canary-weight", 0)?, number("canary-weight-total", 100)?.max(1));
        let share = weight.min(total).saturating_mul(100).saturating_add(total - 1) / total;
        split.canary = Some(i32::try_from(share).unwrap_or(100).min(100));
        split.matched =
            ["canary-by-header", "canary-by-cookie"].iter().any(|name| annotation(companion, name).is_some());
    }
    Ok(split)
}

pub(super) fn borrowed(seen: &Seen<'_>, stable: &str, canary: &str) -> Result<Value, Refusal> {
    understood(seen.route, stable, canary)?;
    if let Some(companion) = seen.companion {
        let name = companion["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Refusal::Foreign { at: format!("the Ingress {name}"), canary: canary.to_owned() });
    }
    Ok(json!({}))
}

pub(super) fn patch(seen: &Seen<'_>, ask: &Ask) -> Result<Option<Write>, Refusal> {
    let off = ask.weight == 0 && ask.matches.is_empty() && ask.mirror.is_none();
    let understood = understood(seen.route, &ask.stable, &ask.canary);
    match (understood, seen.companion) {
        // The owner has changed the Ingress. Taking the canary away does not wait for them.
        (Err(_), Some(_)) if off => return Ok(Some(Write::Delete)),
        (Err(_), None) if off => return Ok(None),
        (Err(refusal), _) => return Err(refusal),
        (Ok(_), _) => {}
    }
    if ask.mirror.is_some() {
        return Err(Refusal::Unable {
            router: ROUTER,
            what: "mirror requests to the canary",
            cure: "release by weight, or use the Gateway API or Istio",
        });
    }
    if ask.sticky().is_some() && annotation(seen.route, "affinity") != Some("cookie") {
        return Err(Refusal::Unable {
            router: ROUTER,
            what: "keep clients on a version by its canary alone",
            cure: "give the Ingress the annotation `nginx.ingress.kubernetes.io/affinity: cookie`; it holds for \
                   the canary, too",
        });
    }
    let wanted = wanted(seen.route, ask)?;
    let Some(companion) = seen.companion else { return Ok(Some(Write::Create(wanted))) };
    Ok(difference(companion, &wanted).done().map(Write::Companion))
}

/// The companion.
fn wanted(route: &Value, ask: &Ask) -> Result<Value, Refusal> {
    let empty = Map::new();
    let mut annotations: Map<String, Value> =
        (route["metadata"]["annotations"].as_object().unwrap_or(&empty))
            .iter()
            .filter(|(key, _)| {
                key.as_str() == "kubernetes.io/ingress.class"
                    || key
                        .strip_prefix(PREFIX)
                        .is_some_and(|name| OWN.contains(&name) || name.starts_with(OWN_PREFIX))
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
    annotations.insert(key("canary"), json!("true"));
    annotations.insert(key("canary-weight"), json!(ask.weight.to_string()));
    for (name, value) in chosen(&ask.matches)? {
        annotations.insert(key(name), json!(value));
    }
    let name = route["metadata"]["name"].as_str().unwrap_or_default();
    let mut spec = json!({"rules": rules(route, &ask.stable, &ask.canary).0});
    if let Some(class) = route["spec"]["ingressClassName"].as_str() {
        spec["ingressClassName"] = json!(class);
    }
    Ok(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": format!("{name}-{}", ask.canary),
            "namespace": route["metadata"]["namespace"],
            "annotations": annotations,
        },
        "spec": spec,
    }))
}

/// One header and one cookie are all that ingress-nginx has; either sends a request to the canary.
fn chosen(matches: &[Match]) -> Result<Vec<(&'static str, String)>, Refusal> {
    let unable = |what| Refusal::Unable {
        router: ROUTER,
        what,
        cure: "use one match with one header, and one with one cookie whose value is `always`",
    };
    let mut all = Vec::new();
    let (mut header, mut cookie) = (false, false);
    for wanted in matches {
        match (wanted.headers.as_slice(), wanted.cookies.as_slice(), wanted.query.as_slice()) {
            ([test], [], []) if !header => {
                header = true;
                all.push(("canary-by-header", test.name.clone()));
                all.push(match &test.value {
                    Wanted::Exact(value) => ("canary-by-header-value", value.clone()),
                    Wanted::Regex(value) => ("canary-by-header-pattern", format!("^(?:{value})$")),
                });
            }
            ([], [test], []) if !cookie && test.value == Wanted::Exact("always".to_owned()) => {
                cookie = true;
                all.push(("canary-by-cookie", test.name.clone()));
            }
            ([], [_], []) if !cookie => return Err(unable("choose requests by any value of a cookie")),
            _ => return Err(unable("combine conditions, or look at the query")),
        }
    }
    Ok(all)
}

/// Brings a companion to what is wanted. Labels, owners and annotations that are not of the canary stay.
fn difference(companion: &Value, wanted: &Value) -> Ops {
    let mut ops = Ops::of(companion);
    let none = Map::new();
    let have = companion["metadata"]["annotations"].as_object().unwrap_or(&none);
    let want = wanted["metadata"]["annotations"].as_object().unwrap_or(&none);
    for (key, value) in want {
        match have.get(key) {
            Some(old) => ops.replace(&ops::annotation(key), old, value),
            None => ops.add(&ops::annotation(key), value),
        }
    }
    for (key, old) in have.iter().filter(|(key, _)| key.starts_with(PREFIX) && !want.contains_key(*key)) {
        ops.remove(&ops::annotation(key), old);
    }
    for field in ["rules", "ingressClassName"] {
        let path = format!("/spec/{field}");
        match (companion["spec"].get(field), wanted["spec"].get(field)) {
            (Some(old), Some(new)) => ops.replace(&path, old, new),
            (None, Some(new)) => ops.add(&path, new),
            (Some(old), None) => ops.remove(&path, old),
            (None, None) => {}
        }
    }
    ops
}
