//! What `lint` knows beyond the schema: what a Rollout will do, and whether that can work. Pure.

use std::time::Duration;

use serde_json::Value;

use super::document::{Node, Tree};
use crate::analysis::check::CheckError;
use crate::analysis::{GuardError, GuardPlan, Measured};
use crate::api::Rollout;
use crate::decide::{TOLERATED_MISS, canary_pods, planned_traffic, share};
use crate::report::lint::Severity;
use crate::report::seconds;

/// A finding, by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub severity: Severity,
    pub code: &'static str,
    pub field: String,
    pub message: String,
    pub help: Option<String>,
}

pub(super) fn error(code: &'static str, field: String, message: String, help: &str) -> Found {
    Found { severity: Severity::Error, code, field, message, help: Some(help.to_owned()) }
}

pub(super) fn note(code: &'static str, field: &str, message: String, help: &str) -> Found {
    let help = (!help.is_empty()).then(|| help.to_owned());
    Found { severity: Severity::Note, code, field: field.to_owned(), message, help }
}

const STEPS: [i32; 3] = [5, 25, 50];
const WARM_UP: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(5);

/// The fields of `node` that the schema does not know.
pub fn unknown_fields(schema: &Value, node: &Node) -> Vec<Found> {
    let mut found = Vec::new();
    walk(schema, node, "", &mut found);
    found
}

fn walk(schema: &Value, node: &Node, path: &str, found: &mut Vec<Found>) {
    match &node.value {
        Tree::List(items) => {
            for (i, item) in items.iter().enumerate() {
                walk(&schema["items"], item, &format!("{path}[{i}]"), found);
            }
        }
        Tree::Map(fields) => {
            let open = schema["x-kubernetes-preserve-unknown-fields"].as_bool() == Some(true)
                || !schema["additionalProperties"].is_null();
            let Some(known) = schema["properties"].as_object().filter(|_| !open) else { return };
            for (key, _, value) in fields {
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get(key) {
                    // What the API server itself looks after.
                    _ if path.is_empty()
                        && matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status") => {}
                    Some(inner) => walk(inner, value, &at, found),
                    None => {
                        let near = known.keys().min_by_key(|name| distance(name, key));
                        let near = near.filter(|name| distance(name, key) <= 3);
                        let help = near.map_or_else(
                            || {
                                format!(
                                    "known here: {}",
                                    known.keys().cloned().collect::<Vec<_>>().join(", ")
                                )
                            },
                            |name| format!("did you mean {name}?"),
                        );
                        found.push(error("unknown-field", at, format!("unknown field {key}"), &help));
                    }
                }
            }
        }
        Tree::Scalar(_) => {}
    }
}

/// Takes the fields away that the schema does not know.
pub fn prune(schema: &Value, value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| prune(&schema["items"], item)),
        Value::Object(fields) => {
            let Some(known) = schema["properties"].as_object() else { return };
            if schema["additionalProperties"].is_null() {
                fields.retain(|key, _| known.contains_key(key));
            }
            for (key, inner) in fields {
                prune(&schema["properties"][key.as_str()], inner);
            }
        }
        _ => {}
    }
}

/// Letters to change to get from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Checks a Rollout that the schema accepts. `replicas`: the pods of its workload, if known.
pub fn rollout(rollout: &Rollout, replicas: Option<u32>) -> Vec<Found> {
    let mut found = Vec::new();
    weights(rollout, replicas, &mut found);
    let analysis = rollout.spec.analysis.clone().unwrap_or_default();
    if analysis.guards.is_empty() && analysis.templates.is_empty() {
        found.push(note(
            "no-guards",
            if rollout.spec.analysis.is_some() { "spec.analysis" } else { "spec" },
            "this Rollout has no guards: a release advances by time only, and only crashing or unready pods stop it"
                .to_owned(),
            "add spec.analysis.guards with a metric, for example the share of failed requests",
        ));
    } else if !analysis.templates.is_empty() || analysis.guards.iter().any(|guard| !guard.is_check()) {
        durations(rollout, &mut found);
    }
    super::source::check(rollout, &mut found);
    for (i, guard) in analysis.guards.iter().enumerate() {
        let at = format!("spec.analysis.guards[{i}]");
        match GuardPlan::resolve(guard) {
            Err(why) => found.push(unusable(&at, &why)),
            Ok(GuardPlan { measured: Measured::Ratio { bad, total }, .. }) if bad == total => {
                let part = if guard.ratio.as_ref().is_some_and(|ratio| ratio.good.is_some()) {
                    "good"
                } else {
                    "bad"
                };
                let message = format!("{part} and total count the same events: the share is always 100 %");
                let help = "narrow it with a match, such as code=~\"5..\"";
                found.push(error("bad-is-total", format!("{at}.ratio.{part}"), message, help));
            }
            Ok(_) => {}
        }
    }
    found
}

/// A guard that cannot be used: which field, what is wrong, and where in its text.
fn unusable(at: &str, why: &GuardError) -> Found {
    match why {
        GuardError::Tolerance { field, source } => {
            let message = format!("cannot read the tolerance: {}\n{}", source.problem, source.caret());
            error("tolerate", format!("{at}.{field}"), message, &format!("write it as `{}`", source.example))
        }
        GuardError::Matchers { field, source } => error(
            "match",
            format!("{at}.{field}"),
            format!("cannot read the matchers: {source}"),
            "write it as in PromQL, without braces: code=~\"5..\",method=\"GET\"",
        ),
        GuardError::Check(CheckError::Condition { field, source }) => error(
            "condition",
            format!("{at}.{field}"),
            format!("cannot read the condition: {}\n{}", source.problem, source.caret()),
            "write it in CEL, such as status == 200 && result.ready",
        ),
        GuardError::Check(CheckError::Field { field, problem }) => {
            let help = "see `kubectl explain rollout.spec.analysis.guards`";
            error("check", format!("{at}.{field}"), problem.clone(), help)
        }
        _ => error(
            "guard",
            at.to_owned(),
            why.to_string(),
            "see `kubectl explain rollout.spec.analysis.guards`",
        ),
    }
}

fn weights(rollout: &Rollout, replicas: Option<u32>, found: &mut Vec<Found>) {
    let own = rollout
        .spec
        .strategy
        .as_ref()
        .and_then(|strategy| strategy.canary.as_ref())
        .map(|canary| &canary.steps)
        .filter(|steps| !steps.is_empty());
    // With a router or a switch the weight is not made of pods.
    if planned_traffic(&rollout.spec, "").is_some() {
        return;
    }
    let Some(replicas) = replicas.and_then(|pods| i32::try_from(pods).ok()).filter(|pods| *pods > 0) else {
        return;
    };
    let weights: Vec<i32> =
        own.map_or(STEPS.to_vec(), |steps| steps.iter().map(|step| step.weight).collect());
    for (i, weight) in weights.iter().enumerate().filter(|(_, weight)| (1..=50).contains(*weight)) {
        let real = share(replicas, canary_pods(replicas, *weight));
        if (real - *weight).abs() > TOLERATED_MISS {
            let field = if own.is_some() {
                format!("spec.strategy.canary.steps[{i}].weight")
            } else {
                "spec".to_owned()
            };
            found.push(note(
                "weight-by-pods",
                &field,
                format!("with {replicas} pods a weight of {weight} % becomes {real} %: weight is made of whole pods"),
                "choose weights that whole pods can make, or run more pods",
            ));
        }
    }
}

fn durations(rollout: &Rollout, found: &mut Vec<Found>) {
    let analysis = rollout.spec.analysis.clone().unwrap_or_default();
    let warm_up = analysis.warm_up.map_or(WARM_UP, Duration::from);
    let interval = analysis.interval.map_or(INTERVAL, Duration::from);
    let canary = rollout.spec.strategy.iter().filter_map(|strategy| strategy.canary.as_ref());
    let steps = canary.flat_map(|canary| canary.steps.iter());
    for (i, step) in steps.enumerate() {
        let Some(min) = step.min_duration.map(Duration::from) else { continue };
        if min < warm_up + interval {
            found.push(note(
                "short-step",
                &format!("spec.strategy.canary.steps[{i}].minDuration"),
                format!(
                    "no proof is possible within {}: pods count after {} (warmUp), and looks are {} apart (interval)",
                    seconds(min),
                    seconds(warm_up),
                    seconds(interval)
                ),
                "the step takes longer than minDuration; raise it, or lower spec.analysis.warmUp",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_pods_make_the_weight() {
        let rollout: Rollout = serde_json::from_value(serde_json::json!({
            "apiVersion": "belay.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
            "spec": {"workloadRef": {"kind": "Deployment", "name": "web"}},
        }))
        .unwrap();
        let named = |pods| {
            let found = super::rollout(&rollout, pods);
            found
                .iter()
                .filter(|found| found.code == "weight-by-pods")
                .map(|found| found.message.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            named(Some(3)),
            ["with 3 pods a weight of 5 % becomes 25 %: weight is made of whole pods"]
        );
        assert!(named(None).is_empty() && named(Some(100)).is_empty());
    }

    #[test]
    fn a_condition_that_cannot_be_read_is_marked_in_its_field() {
        let told = |guard: Value| {
            let rollout: Rollout = serde_json::from_value(serde_json::json!({
                "apiVersion": "belay.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
                "spec": {
                    "workloadRef": {"kind": "Deployment", "name": "web"}, "analysis": {"guards": [guard]},
                },
            }))
            .unwrap();
            let found = super::rollout(&rollout, None).pop();
            found.map(|found| (found.field, found.message)).unwrap_or_default()
        };
        let web = |more: Value| {
            let mut web = serde_json::json!({"url": "http://web/"});
            json_patch::merge(&mut web, &more);
            told(serde_json::json!({"name": "smoke", "web": web}))
        };
        assert_eq!(web(serde_json::json!({})), Default::default(), "nothing to say, and none of metrics");
        let (field, message) = web(serde_json::json!({"condition": "status = 200"}));
        assert_eq!(field, "spec.analysis.guards[0].web.condition");
        assert!(message.contains("\nstatus = 200\n       ^ Syntax error"), "{message}");
        let (field, message) = web(serde_json::json!({"url": "http://{{pod}}/"}));
        assert_eq!(field, "spec.analysis.guards[0].web.url");
        assert!(message.contains("is no placeholder; there are revision"), "{message}");
        let secret = web(serde_json::json!({"auth": {"bearer": {"secretRef": {"name": "smoke"}}}}));
        assert_eq!(secret.0, "spec.analysis.guards[0].web.auth");
        let job = told(serde_json::json!({"name": "gate", "job": {"template": {"containers": []}}}));
        assert_eq!(job, ("spec.analysis.guards[0].job.template".to_owned(), "needs containers".to_owned()));
    }

    #[test]
    fn a_slip_of_the_pen_is_near() {
        assert_eq!(distance("minDuration", "minDuratoin"), 2);
    }
}
