//! AWS Load Balancer Controller: the target groups in an Ingress's annotations
//! `alb.ingress.kubernetes.io/actions.NAME`.
//!
//! The value is JSON in a string. It is decoded, worked like any other list of backends, and written anew; given
//! back, it is the very string that its owner wrote.

use serde_json::{Value, json};

use super::dialect::{Dialect, Names, Place};
use super::ops::{self, Ops};
use super::weights::{self, List};
use super::{Ask, Can, Refusal, Split, Write};

const ACTIONS: &str = "alb.ingress.kubernetes.io/actions.";
/// What the load balancer takes in one action.
const MOST_GROUPS: usize = 5;
const CURE: &str = "have an annotation `alb.ingress.kubernetes.io/actions.NAME` of type `forward` whose \
                    `forwardConfig.targetGroups` name it by `serviceName`, and a backend NAME with port \
                    `use-annotation`";

/// A target group tuple.
struct Groups;

impl Dialect for Groups {
    fn router(&self) -> &'static str {
        "an Ingress of the AWS Load Balancer Controller"
    }

    fn places(&self) -> &'static [Place] {
        &[]
    }

    fn named<'a>(&self, backend: &'a Value, _: &str) -> Option<&'a str> {
        backend["serviceName"].as_str()
    }

    fn rename(&self, backend: &mut Value, service: &str) {
        backend["serviceName"] = json!(service);
    }

    fn most(&self) -> i64 {
        999
    }

    fn cure(&self) -> &'static str {
        CURE
    }
}

/// An action that forwards.
struct Action {
    key: String,
    text: String,
    value: Value,
}

impl Action {
    fn groups(&self) -> &[Value] {
        self.value["forwardConfig"]["targetGroups"].as_array().map_or(&[], Vec::as_slice)
    }
}

/// The actions that forward to more than an ARN, in the order of their names.
fn actions(route: &Value) -> Vec<Action> {
    let Some(annotations) = route["metadata"]["annotations"].as_object() else { return Vec::new() };
    annotations
        .iter()
        .filter(|(key, _)| key.starts_with(ACTIONS))
        .filter_map(|(key, text)| {
            let text = text.as_str()?;
            let value: Value = serde_json::from_str(text).ok()?;
            value["forwardConfig"]["targetGroups"].is_array().then_some(())?;
            Some(Action { key: key.clone(), text: text.to_owned(), value })
        })
        .collect()
}

/// A backend of the Ingress itself that goes to the stable Service past all actions.
fn past_actions(route: &Value, stable: &str) -> Option<String> {
    let is = |backend: &Value| {
        backend["service"]["name"] == stable && backend["service"]["port"]["name"] != "use-annotation"
    };
    if is(&route["spec"]["defaultBackend"]) {
        return Some("/spec/defaultBackend".to_owned());
    }
    let rules = route["spec"]["rules"].as_array().map_or(&[][..], Vec::as_slice);
    rules.iter().enumerate().find_map(|(rule, value)| {
        let paths = value["http"]["paths"].as_array().map_or(&[][..], Vec::as_slice);
        let path = paths.iter().position(|path| is(&path["backend"]))?;
        Some(format!("/spec/rules/{rule}/http/paths/{path}/backend"))
    })
}

fn understood(route: &Value, stable: &str) -> Result<Vec<Action>, Refusal> {
    if let Some(at) = past_actions(route, stable) {
        let why = format!("it goes to {stable} without an action, so it cannot be split");
        return Err(Refusal::Unreadable { at, why });
    }
    Ok(actions(route))
}

pub(super) fn read(route: &Value, stable: &str, canary: &str) -> Result<Split, Refusal> {
    let names = Names::of(route, stable, canary);
    let mut split = Split::default();
    for action in understood(route, stable)? {
        match weights::look(action.groups(), &Groups, names, &action.key)? {
            List::Other | List::Idle => continue,
            List::Canary => return Err(Refusal::Foreign { at: action.key, canary: canary.to_owned() }),
            List::Stable => {}
            List::Both(share) => split.canary = split.canary.max(Some(share)),
        }
        split.rules += 1;
        split.sessions |= action.value["forwardConfig"]["targetGroupStickinessConfig"]["enabled"] == true;
    }
    if split.rules == 0 {
        return Err(Refusal::NotNamed { stable: stable.to_owned(), cure: CURE });
    }
    Ok(split)
}

pub(super) fn patch(route: &Value, ask: &Ask) -> Result<Option<Write>, Refusal> {
    let names = Names::of(route, &ask.stable, &ask.canary);
    let off = ask.weight == 0 && ask.matches.is_empty() && ask.mirror.is_none();
    if !ask.matches.is_empty() {
        Groups.matched("", &Value::Null, &[], &ask.matches)?;
    }
    if let Some(percent) = ask.mirror {
        Groups.mirror("", &mut Value::Null, &Value::Null, percent, Can::default())?;
    }
    let mut ops = Ops::of(route);
    let mut used = 0;
    let all = if off { actions(route) } else { understood(route, &ask.stable)? };
    for mut action in all {
        let found = weights::look(action.groups(), &Groups, names, &action.key);
        let Some(groups) = action.value["forwardConfig"]["targetGroups"].as_array_mut() else { continue };
        match found {
            Ok(List::Other | List::Idle) => continue,
            Ok(List::Stable | List::Both(_)) => {
                used += 1;
                weights::split(groups, &Groups, names, ask.weight, &action.key)?;
                if groups.len() > MOST_GROUPS && !off {
                    return Err(Refusal::TooMany {
                        what: "target groups in an action",
                        have: groups.len(),
                        most: MOST_GROUPS,
                    });
                }
                let sessions = &action.value["forwardConfig"]["targetGroupStickinessConfig"]["enabled"];
                if ask.sticky().is_some() && *sessions != true {
                    return Err(Refusal::Unable {
                        router: Groups.router(),
                        what: "have sessions that can be told from its owner's",
                        cure: "set `targetGroupStickinessConfig` in the action yourself; it stays as it is",
                    });
                }
            }
            Ok(List::Canary) | Err(_) if off => weights::join(groups, &Groups, names, None),
            Ok(List::Canary) => {
                return Err(Refusal::Foreign { at: action.key, canary: ask.canary.clone() });
            }
            Err(refusal) => return Err(refusal),
        }
        write(&mut ops, &action.key, &action.text, &action.value);
    }
    if used == 0 && !off {
        return Err(Refusal::NotNamed { stable: ask.stable.clone(), cure: CURE });
    }
    Ok(ops.route())
}

/// Writes an action, unless it says the same already.
fn write(ops: &mut Ops, key: &str, text: &str, action: &Value) {
    if serde_json::from_str::<Value>(text).ok().as_ref() != Some(action) {
        ops.replace(&ops::annotation(key), &json!(text), &json!(action.to_string()));
    }
}

pub(super) fn borrowed(route: &Value, stable: &str, canary: &str) -> Result<Value, Refusal> {
    let split = read(route, stable, canary)?;
    if split.canary.is_some() {
        return Err(Refusal::Foreign { at: "the Ingress".to_owned(), canary: canary.to_owned() });
    }
    let ask = Ask { stable: stable.to_owned(), canary: canary.to_owned(), weight: 1, ..Ask::default() };
    patch(route, &ask)?;
    let names = Names::of(route, stable, canary);
    let of_stable = |action: &Action| {
        matches!(weights::look(action.groups(), &Groups, names, &action.key), Ok(List::Stable))
    };
    let fields = actions(route).into_iter().filter(of_stable);
    Ok(Value::Object(fields.map(|action| (ops::annotation(&action.key), json!(action.text))).collect()))
}

pub(super) fn give_back(route: &Value, original: &Value, stable: &str, canary: &str) -> Option<Write> {
    let names = Names::of(route, stable, canary);
    let mut ops = Ops::of(route);
    for mut action in actions(route) {
        let path = ops::annotation(&action.key);
        let before = original[&path].as_str().unwrap_or_default();
        let decoded: Value = serde_json::from_str(before).unwrap_or_default();
        let groups = decoded["forwardConfig"]["targetGroups"].as_array().map(Vec::as_slice);
        let Some(list) = action.value["forwardConfig"]["targetGroups"].as_array_mut() else { continue };
        if list.iter().all(|backend| Groups.named(backend, names.namespace) != Some(canary)) {
            continue;
        }
        weights::join(list, &Groups, names, groups);
        let text = if action.value == decoded { before.to_owned() } else { action.value.to_string() };
        ops.replace(&path, &json!(action.text), &json!(text));
    }
    ops.route()
}
