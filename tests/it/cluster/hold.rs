//! What a release borrows, on a real API server: one table of writes for every kind and every form of the hold.
//!
//! Each write is done twice: as it arrives when nobody judges it (a dry run as the operator), with
//! [`belay::install::hold::patch`] done to it; and really, by whom the row says. Both must come to the same object, and
//! to what the row says of it.

use belay::api::{
    BORROWED_ANNOTATION, HELD_WRITES_ANNOTATION, OPERATOR_USER, RELEASE_LABEL, STOPPED_ANNOTATION,
};
use belay::install::hold::{self, Held};
use belay::install::{self, Options};
use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};

use super::writes::{Expect, OLD, Write, perform, unbraked};
use super::{Env, Namespace, PATIENCE, eventually, resource};
use crate::held::{Sample, samples};

const DEFINITION: &str = "CustomResourceDefinition";
const LOAN: &str = r#"{"rollout":"shop/web","original":null}"#;

/// What an object is before the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// As its owner keeps it.
    Plain,
    /// A release has borrowed it.
    Borrowed,
    /// The same, and so many writes of others were held.
    Counted(&'static str),
}

/// Who writes. All but Belay may do anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Alice,
    Gitops,
    Belay,
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It is as it was written, to the last field.
    Passes,
    /// Marks and parts are as before; all else is as it was written.
    Kept,
    /// The same, and the count is this.
    Held(&'static str),
}

struct Row {
    name: &'static str,
    before: Before,
    who: Who,
    write: Write,
    then: Then,
}

fn changed(mut object: Value, change: &Value) -> Value {
    json_patch::merge(&mut object, change);
    object
}

fn annotations(annotations: &Value) -> Value {
    json!({"metadata": {"annotations": annotations}})
}

fn label(value: &Value) -> Value {
    json!({"metadata": {"labels": {RELEASE_LABEL: value}}})
}

fn state(sample: &Sample, before: Before) -> Value {
    let marks = json!({"metadata": {
        "labels": {RELEASE_LABEL: "web-1"}, "annotations": {BORROWED_ANNOTATION: LOAN},
    }});
    match before {
        Before::Plain => sample.manifest.clone(),
        Before::Borrowed => changed(changed(sample.manifest.clone(), &sample.borrowed), &marks),
        Before::Counted(count) => {
            changed(state(sample, Before::Borrowed), &annotations(&json!({HELD_WRITES_ANNOTATION: count})))
        }
    }
}

fn rows(sample: &Sample) -> Vec<Row> {
    use Before::{Borrowed, Counted, Plain};
    use Then::{Held, Kept, Passes};
    use Who::{Alice, Belay, Gitops};
    use Write::{Apply, Merge, Put, Status};
    let row = |name, before, who, write, then| Row { name, before, who, write, then };
    let manifest = || sample.manifest.clone();
    let borrowed = || state(sample, Borrowed);
    let wanted = || sample.wanted.clone();
    let both = changed(wanted(), &sample.other);
    let dropped = json!({"metadata": {"labels": {RELEASE_LABEL: null}, "annotations": {
        BORROWED_ANNOTATION: null, STOPPED_ANNOTATION: null, HELD_WRITES_ANNOTATION: null,
    }}});
    let no_annotations = annotations(&Value::Null);
    // Of an Ingress the borrowed parts are among them.
    let annotated = sample.parts.iter().any(|part| part.starts_with("/metadata"));
    let without_annotations = if annotated { Held("1") } else { Kept };
    let no_marks = changed(
        borrowed(),
        &json!({"metadata": {"labels": null, "annotations": dropped["metadata"]["annotations"]}}),
    );
    let claimed = json!({"metadata": {"labels": {RELEASE_LABEL: "web-9"}, "annotations": {
        BORROWED_ANNOTATION: LOAN, STOPPED_ANNOTATION: "no", HELD_WRITES_ANNOTATION: "7", "team": "other",
    }}});
    let harmless = json!({"metadata": {"labels": {"team": "shop"}, "annotations": {"belay.dev/x": "y"}}});
    let mut rows = vec![
        row("the part changed", Borrowed, Alice, Merge(wanted()), Held("1")),
        row("the part and something else changed", Borrowed, Alice, Merge(both), Held("1")),
        row("the part changed again", Counted("41"), Alice, Merge(wanted()), Held("42")),
        row("the part changed, of no count", Counted("x"), Alice, Merge(wanted()), Held("1")),
        row(
            "the part changed, at the end of all counts",
            Counted("999999"),
            Alice,
            Merge(wanted()),
            Held("999999"),
        ),
        row("applied by force", Borrowed, Gitops, Apply("gitops", manifest()), Held("1")),
        row("applied by force, counted", Counted("9"), Gitops, Apply("gitops", manifest()), Held("10")),
        row("applied by force as it is", Borrowed, Gitops, Apply("gitops", borrowed()), Kept),
        row("replaced", Borrowed, Alice, Put(manifest()), Held("1")),
        row("replaced, counted", Counted("1"), Alice, Put(manifest()), Held("2")),
        row("replaced by itself", Counted("5"), Alice, Put(state(sample, Counted("5"))), Kept),
        row("replaced by itself without marks", Counted("5"), Alice, Put(no_marks), Kept),
        row("the label taken off", Borrowed, Alice, Merge(label(&Value::Null)), Kept),
        row("all labels taken off", Borrowed, Alice, Merge(json!({"metadata": {"labels": null}})), Kept),
        row("another release claimed", Borrowed, Alice, Merge(label(&json!("web-2"))), Kept),
        row("all annotations taken off", Borrowed, Alice, Merge(no_annotations.clone()), without_annotations),
        row("all marks taken off", Counted("5"), Alice, Merge(dropped.clone()), Kept),
        row(
            "all marks taken off and the part changed",
            Borrowed,
            Alice,
            Merge(changed(wanted(), &dropped)),
            Held("1"),
        ),
        row("marks claimed", Borrowed, Alice, Merge(claimed.clone()), Kept),
        row(
            "another count claimed",
            Counted("5"),
            Alice,
            Merge(annotations(&json!({HELD_WRITES_ANNOTATION: "0"}))),
            Kept,
        ),
        row("something else changed", Borrowed, Alice, Merge(sample.other.clone()), Passes),
        row("something else changed, counted", Counted("5"), Alice, Merge(sample.other.clone()), Passes),
        row("a label and an annotation", Borrowed, Alice, Merge(harmless), Passes),
        row("nothing", Counted("5"), Alice, Merge(json!({})), Passes),
        row("Belay changes the part", Borrowed, Belay, Merge(wanted()), Passes),
        row("Belay gives back", Counted("5"), Belay, Merge(changed(wanted(), &dropped)), Passes),
        row("Belay borrows", Plain, Belay, Merge(changed(label(&json!("web-1")), &sample.borrowed)), Passes),
        row("the part changed at rest", Plain, Alice, Merge(wanted()), Passes),
        row("applied by force at rest", Plain, Gitops, Apply("gitops", manifest()), Passes),
        row("replaced at rest", Plain, Alice, Put(changed(manifest(), &wanted())), Passes),
        row("borrowed by somebody else", Plain, Alice, Merge(claimed), Kept),
        row(
            "an exported manifest applied at rest",
            Plain,
            Gitops,
            Apply("gitops", label(&json!("web-1"))),
            Kept,
        ),
    ];
    if let Some(bare) = &sample.bare {
        rows.push(row(
            "replaced by as little as there may be",
            Counted("1"),
            Alice,
            Put(bare.clone()),
            Held("2"),
        ));
    }
    if let Some(status) = &sample.status {
        rows.push(row("the status", Counted("5"), Alice, Status(status.clone()), Passes));
    }
    rows
}

/// Does all writes of the table to each kind, and compares each with the rules.
pub async fn compare(ns: &Namespace, expect: Expect) {
    let mut wrong = Vec::new();
    let (mut refused, mut all) = (0, 0);
    for sample in samples() {
        if !is_served(&ns.env.admin, &sample).await {
            eprintln!("SKIPPED: the cluster has no {}; start it with --with-gateway", sample.kind.1);
            continue;
        }
        let held = hold::kinds().into_iter().find(|held| held.kind == sample.kind.1).unwrap();
        for (index, row) in rows(&sample).iter().enumerate() {
            all += 1;
            let said = row_differs(ns, (&sample, &held), row, index, expect, &mut refused).await;
            if let Some(said) = said {
                let Row { name, before, who, .. } = row;
                wrong.push(format!("{} {name} ({before:?}, {who:?}): {said}", sample.kind.1));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {all} writes:\n{}", wrong.len(), wrong.join("\n"));
    assert!(all > 60, "{all} writes");
    // The table itself: a condition that is never, or always, true would show here.
    match expect {
        Expect::Judged => assert_eq!(refused, 0),
        Expect::Refused(_) => {
            assert!(refused > all / 4 && refused < all * 3 / 4, "{refused} of {all} refused");
        }
    }
}

async fn is_served(client: &Client, sample: &Sample) -> bool {
    let (version, kind) = sample.kind;
    let list = if version.contains('/') {
        client.list_api_group_resources(version).await
    } else {
        client.list_core_api_resources(version).await
    };
    match list {
        Ok(list) => list.resources.iter().any(|resource| resource.kind == kind),
        Err(kube::Error::Api(status)) if status.code == 404 => false,
        Err(error) => panic!("{error}"),
    }
}

async fn row_differs(
    ns: &Namespace,
    (sample, held): (&Sample, &Held),
    row: &Row,
    index: usize,
    expect: Expect,
    refused: &mut usize,
) -> Option<String> {
    let (user, client) = match row.who {
        Who::Alice => ("alice", super::acting_as("alice", &["system:masters"]).await.unwrap()),
        Who::Gitops => ("gitops", super::acting_as("gitops", &["system:masters"]).await.unwrap()),
        Who::Belay => (OPERATOR_USER, ns.env.belay.clone()),
    };
    let (version, kind) = sample.kind;
    let name = format!("row{index}");
    let api = |client: &Client| ns.api(client, version, kind);
    let whole = |object: &Value| {
        let meta = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
        changed(object.clone(), &meta)
    };
    // What is created is not judged, so it can be made as it is to be.
    let before: DynamicObject = serde_json::from_value(whole(&state(sample, row.before))).unwrap();
    let all = api(&unbraked().await);
    let old = serde_json::to_value(all.create(&PostParams::default(), &before).await.unwrap()).unwrap();
    let write = match &row.write {
        Write::Put(object) => {
            let version = json!({"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}});
            Write::Put(changed(whole(object), &version))
        }
        Write::Apply(manager, object) => Write::Apply(manager, whole(object)),
        other => other.clone(),
    };
    let unjudged = perform(&all, &name, &write, true).await.unwrap();
    let mut expected = unjudged.clone();
    if !matches!(write, Write::Status(_)) {
        json_patch::patch(&mut expected, &hold::patch(held, OPERATOR_USER, user, &old, &unjudged)).unwrap();
    }
    let stopped = content(&expected) != content(&unjudged);
    match (perform(&api(&client), &name, &write, false).await, expect) {
        (Err(error), Expect::Refused(words)) if stopped => {
            *refused += 1;
            let said = error.to_string();
            (!said.contains(words)).then(|| format!("refused, but in other words: {said}"))
        }
        (Ok(written), Expect::Refused(_)) if stopped => Some(format!("passed: {}", content(&written))),
        (Ok(written), _) => {
            let (is, ought) = (content(&written), content(&expected));
            if is != ought {
                return Some(format!("\n  is    {is}\n  ought {ought}"));
            }
            row_broken(sample, row.then, &old, &unjudged, &written)
        }
        (Err(error), _) => Some(format!("refused: {error}")),
    }
}

/// Whether a write came to something else than its row says, whatever the rules say.
fn row_broken(sample: &Sample, then: Then, old: &Value, unjudged: &Value, written: &Value) -> Option<String> {
    let said = |what: &str| Some(format!("{what}: {}", content(written)));
    if then == Then::Passes {
        return if content(written) == content(unjudged) { None } else { said("it did not pass") };
    }
    if written.pointer("/metadata/labels/belay.dev~1release")
        != old.pointer("/metadata/labels/belay.dev~1release")
    {
        return said("the label is another");
    }
    let was = if let Then::Held(count) = then {
        changed(old.clone(), &annotations(&json!({HELD_WRITES_ANNOTATION: count})))
    } else {
        old.clone()
    };
    let borrowed = was.pointer("/metadata/labels/belay.dev~1release").is_some();
    let mut parts = vec!["/metadata/annotations/belay.dev~1"];
    parts.extend_from_slice(if borrowed { sample.parts } else { &[] });
    for part in parts {
        if members(written, part) != members(&was, part) {
            return said(&format!("{part} is not as it was"));
        }
    }
    let mut rest = [written, unjudged].map(content);
    for object in &mut rest {
        object["labels"][RELEASE_LABEL] = Value::Null;
        for part in sample.parts.iter().chain(&["/metadata/annotations/belay.dev~1"]) {
            take(object, part);
        }
    }
    (rest[0] != rest[1])
        .then(|| format!("more is changed than the part:\n  is    {}\n  ought {}", rest[0], rest[1]))
}

/// Everything below a pointer, which may lack the end of an annotation's name.
fn members(object: &Value, pointer: &str) -> Vec<Value> {
    match pointer.strip_prefix("/metadata/annotations/") {
        None => object.pointer(pointer).into_iter().cloned().collect(),
        Some(prefix) => {
            let prefix = prefix.replace("~1", "/");
            let all = object["metadata"]["annotations"].as_object();
            let these = all.into_iter().flatten().filter(|(name, _)| name.starts_with(&prefix));
            these.map(|(name, value)| json!({name: value})).collect()
        }
    }
}

/// Takes the same out of a [`content`].
fn take(content: &mut Value, pointer: &str) {
    if let Some(prefix) = pointer.strip_prefix("/metadata/annotations/") {
        let prefix = prefix.replace("~1", "/");
        if let Some(all) = content["annotations"].as_object_mut() {
            all.retain(|name, _| !name.starts_with(&prefix));
        }
    } else if let (Some(field), Some(spec)) =
        (pointer.strip_prefix("/spec/"), content["spec"].as_object_mut())
    {
        spec.remove(field);
    }
}

/// What a write says; that a map is empty and that it is not there is one.
fn content(object: &Value) -> Value {
    let map = |value: &Value| json!(value.as_object().cloned().unwrap_or_default());
    let metadata = &object["metadata"];
    json!({
        "labels": map(&metadata["labels"]),
        "annotations": map(&metadata["annotations"]),
        "spec": map(&object["spec"]),
        "status": map(&object["status"]),
    })
}

#[tokio::test]
async fn the_policies_do_to_each_write_what_the_rules_say() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("hold").await;
    in_force(&ns).await;
    compare(&ns, Expect::Judged).await;
}

/// Waits until the hold is in force for every kind: until a change of a borrowed part of it is held or refused.
pub async fn in_force(ns: &Namespace) {
    let (all, alice) = (unbraked().await, super::acting_as("alice", &["system:masters"]).await.unwrap());
    for sample in samples() {
        if !is_served(&ns.env.admin, &sample).await {
            continue;
        }
        let (version, kind) = sample.kind;
        let object = changed(state(&sample, Before::Borrowed), &json!({"metadata": {"name": "in-force"}}));
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        ns.api(&all, version, kind).create(&PostParams::default(), &object).await.unwrap();
        let api = ns.api(&alice, version, kind);
        eventually(PATIENCE, &format!("the hold of {kind} is in force"), async || {
            match perform(&api, "in-force", &Write::Merge(sample.wanted.clone()), true).await {
                Ok(written) if written["metadata"]["annotations"][HELD_WRITES_ANNOTATION] == "1" => Ok(()),
                // It is asked of the API server whether it knows the kind, or of a webhook that answers later.
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

/// Attempts are counted, one by one, and what is no attempt is not.
#[tokio::test]
async fn each_attempt_is_counted_once() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("count").await;
    in_force(&ns).await;
    let sample = samples().into_iter().find(|sample| sample.kind.1 == "Service").unwrap();
    let service: DynamicObject = serde_json::from_value(state(&sample, Before::Borrowed)).unwrap();
    let all = ns.api(&unbraked().await, "v1", "Service");
    all.create(&PostParams::default(), &service).await.unwrap();
    let mine = ns.api(&env.alice, "v1", "Service");
    let pinned = json!({"app": "row", "example.com/tier": "a", "pod-template-hash": "abc"});
    let mut writes = 0;
    for round in 1..=3 {
        for (write, counts) in [
            (Write::Apply("gitops", sample.manifest.clone()), true),
            (Write::Merge(label(&Value::Null)), false),
            (Write::Put(sample.manifest.clone()), true),
            (Write::Merge(sample.other.clone()), false),
            (Write::Merge(json!({"metadata": {"labels": {"round": round.to_string()}}})), false),
        ] {
            let asked = perform(&mine, "row", &write, true).await.unwrap();
            let written = perform(&mine, "row", &write, false).await.unwrap();
            writes += u32::from(counts);
            for object in [asked, written] {
                let count = &object["metadata"]["annotations"][HELD_WRITES_ANNOTATION];
                assert_eq!(*count, writes.to_string(), "{round}");
                assert_eq!(object["spec"]["selector"], pinned);
            }
        }
    }
    assert_eq!(writes, 6);
    // After the release it is anybody's.
    let marks = [BORROWED_ANNOTATION, HELD_WRITES_ANNOTATION];
    let back = json!({
        "metadata": {"labels": {RELEASE_LABEL: null}, "annotations": {marks[0]: null, marks[1]: null}},
        "spec": {"selector": {"pod-template-hash": null}},
    });
    perform(&ns.api(&env.belay, "v1", "Service"), "row", &Write::Merge(back), false).await.unwrap();
    let written = perform(&mine, "row", &Write::Merge(sample.wanted.clone()), false).await.unwrap();
    assert_eq!(
        written["spec"]["selector"],
        json!({"app": "other", "example.com/tier": "a", "example.com/zone": "b"})
    );
    assert!(written["metadata"]["annotations"].get(HELD_WRITES_ANNOTATION).is_none());
}

#[tokio::test]
async fn the_largest_objects_are_held() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("large").await;
    in_force(&ns).await;
    hold_the_largest(&ns).await;
}

/// As large as an object may be: the API server gives a policy, and a webhook's conditions, only so much to compute.
pub async fn hold_the_largest(ns: &Namespace) {
    let (all, alice) = (unbraked().await, super::acting_as("alice", &["system:masters"]).await.unwrap());
    for sample in samples() {
        if !is_served(&ns.env.admin, &sample).await {
            continue;
        }
        let mut large = state(&sample, Before::Borrowed);
        let long = "x".repeat(1000);
        large["metadata"]["annotations"][BORROWED_ANNOTATION] = json!("x".repeat(64 * 1024));
        match sample.kind.1 {
            // 16 rules and 128 matches in all are the most that the Gateway API takes.
            "HTTPRoute" | "GRPCRoute" => {
                let value = "x".repeat(3000);
                let matches: Vec<Value> = (0..8)
                    .map(|n| json!({"headers": [{"name": format!("h{n}"), "value": value, "type": "Exact"}]}))
                    .collect();
                large["spec"]["rules"][0]["matches"] = json!(matches);
                large["spec"]["rules"] = json!(vec![large["spec"]["rules"][0].clone(); 16]);
            }
            "VirtualService" => {
                large["spec"]["http"][0]["match"] = json!([{"uri": {"prefix": long}}]);
                large["spec"]["http"] = json!(vec![large["spec"]["http"][0].clone(); 700]);
            }
            "Ingress" => {
                for n in 0..180 {
                    large["metadata"]["annotations"][format!("alb.ingress.kubernetes.io/actions.a{n}")] =
                        json!(long);
                }
            }
            "IngressRoute" => {
                large["spec"]["routes"] = json!(vec![large["spec"]["routes"][0].clone(); 3000]);
            }
            "TraefikService" => {
                let services = &mut large["spec"]["weighted"]["services"];
                *services = json!(vec![services[0].clone(); 5000]);
            }
            "TrafficSplit" => {
                large["spec"]["backends"] = json!(vec![large["spec"]["backends"][0].clone(); 5000]);
            }
            _ => {
                for n in 0..300 {
                    large["spec"]["selector"][format!("example.com/s{n}")] = json!("x".repeat(60));
                }
            }
        }
        let (version, kind) = sample.kind;
        let object: DynamicObject = serde_json::from_value(large).unwrap();
        let old = ns.api(&all, version, kind).create(&PostParams::default(), &object).await.unwrap();
        let old = serde_json::to_value(old).unwrap();
        let api = ns.api(&alice, version, kind);
        let written = perform(&api, "row", &Write::Merge(sample.wanted.clone()), false).await;
        let written = written.unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(written["metadata"]["annotations"][HELD_WRITES_ANNOTATION], "1", "{kind}");
        for part in sample.parts {
            assert_eq!(members(&written, part), members(&old, part), "{kind}");
        }
    }
}

/// A hold of the test's own for a kind that nobody has.
struct Foreign {
    group: String,
    definition: String,
}

impl Foreign {
    fn of(ns: &Namespace) -> Self {
        let group = format!("{}.example.com", ns.name);
        Self { definition: format!("things.{group}"), group }
    }

    /// Policy and binding, as they are for routes of the Gateway API.
    fn policy(&self) -> Vec<Value> {
        let own = install::objects(&Options::default());
        own.into_iter()
            .filter(|o| o["metadata"]["name"] == "hold-httproutes.belay.dev")
            .map(|mut object| {
                object["metadata"]["name"] = json!(self.definition);
                if object["kind"] == "MutatingAdmissionPolicyBinding" {
                    object["spec"]["policyName"] = json!(self.definition);
                } else {
                    let rule = &mut object["spec"]["matchConstraints"]["resourceRules"][0];
                    rule["apiGroups"] = json!([self.group]);
                    rule["resources"] = json!(["things"]);
                }
                object
            })
            .collect()
    }

    fn definition(&self) -> Value {
        let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let schema = json!({"type": "object", "properties": {"spec": any}});
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": DEFINITION,
            "metadata": {"name": self.definition},
            "spec": {
                "group": self.group, "scope": "Namespaced",
                "names": {"kind": "Thing", "listKind": "ThingList", "plural": "things", "singular": "thing"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
            },
        })
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        for (version, kind) in [
            ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicyBinding"),
            ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy"),
            ("apiextensions.k8s.io/v1", DEFINITION),
        ] {
            super::delete_blocking("", &resource(version, kind), &self.definition);
        }
    }
}

#[tokio::test]
async fn a_policy_for_a_kind_that_is_not_there_harms_nobody_and_holds_it_when_it_comes() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("absent").await;
    let foreign = Foreign::of(&ns);
    install::apply(&env.admin, &foreign.policy(), false).await.unwrap();
    install::apply(&env.admin, &[foreign.definition()], false).await.unwrap();
    let version = format!("{}/v1", foreign.group);
    let thing = json!({
        "apiVersion": version, "kind": "Thing",
        "metadata": {"name": "thing", "labels": {RELEASE_LABEL: "web-1"}}, "spec": {"rules": [{"a": 1}], "b": 1},
    });
    let api: Api<DynamicObject> = ns.api(&env.admin, &version, "Thing");
    api.create(&PostParams::default(), &serde_json::from_value(thing).unwrap()).await.unwrap();
    eventually(PATIENCE, "the kind that came later is held", async || {
        let wanted = Write::Merge(json!({"spec": {"rules": [{"a": 2}, null], "b": 2}}));
        match perform(&api, "thing", &wanted, true).await {
            Ok(written) if written["spec"] == json!({"rules": [{"a": 1}], "b": 2}) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    // The policy is in force, and now its kind goes.
    super::delete_blocking("", &resource("apiextensions.k8s.io/v1", DEFINITION), &foreign.definition);
    eventually(PATIENCE, "the kind is not served", async || {
        match env.admin.list_api_group_resources(&version).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    in_force(&ns).await;
    ns.deployment("web", 0, OLD).await;
    let label = Write::Merge(json!({"metadata": {"labels": {"team": "shop"}}}));
    perform(&ns.deployments(&env.alice), "web", &label, false).await.unwrap();
}
