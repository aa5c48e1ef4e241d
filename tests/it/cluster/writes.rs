//! One table of writes to a Deployment, for every form of the brake.
//!
//! Each write is done twice: as it arrives when nobody judges it (a dry run as the operator), with
//! [`belay::install::brake::patch`] done to it; and really, by whom the row says. Both must come to the same object.

use belay::api::{BRAKED_LABEL, OPERATOR_USER, RELEASE_LABEL, ROLLOUT_LABEL};
use belay::install::brake;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Env, Namespace, deployment};

pub const OLD: &str = "node.local/sample:1";
pub const NEW: &str = "node.local/sample:2";

/// The ways in which clients write a Deployment.
#[derive(Clone)]
pub enum Write {
    /// `kubectl set image`, `kubectl rollout pause|resume|undo|restart`, `kubectl edit`, `kubectl apply`.
    Strategic(Value),
    /// Helm, and most programs.
    Merge(Value),
    /// `kubectl replace`.
    Put(Value),
    /// `kubectl apply --server-side`, Flux, Argo CD.
    Apply(&'static str, Value),
    /// `kubectl scale`, autoscalers.
    Scale(u32),
    /// The Deployment controller.
    Status(Value),
    /// `kubectl create`, of another one.
    Create(Value),
}

/// Does a write, and returns the Deployment as it is then.
pub async fn perform(
    api: &Api<DynamicObject>,
    name: &str,
    write: &Write,
    dry_run: bool,
) -> kube::Result<Value> {
    let params = PatchParams { dry_run, ..PatchParams::default() };
    let whole = |object: &Value| serde_json::from_value::<DynamicObject>(object.clone()).unwrap();
    let post = PostParams { dry_run, field_manager: None };
    let written = match write {
        Write::Strategic(patch) => api.patch(name, &params, &Patch::Strategic(patch)).await?,
        Write::Merge(patch) => api.patch(name, &params, &Patch::Merge(patch)).await?,
        Write::Apply(manager, object) => {
            let params = PatchParams { dry_run, ..PatchParams::apply(manager).force() };
            api.patch(name, &params, &Patch::Apply(object)).await?
        }
        Write::Put(object) => api.replace(name, &post, &whole(object)).await?,
        Write::Status(status) => api.patch_status(name, &params, &Patch::Merge(status)).await?,
        Write::Scale(replicas) => {
            let patch = json!({"spec": {"replicas": replicas}});
            api.patch_scale(name, &params, &Patch::Merge(&patch)).await?;
            let mut object = serde_json::to_value(api.get(name).await?).unwrap();
            object["spec"]["replicas"] = json!(replicas);
            return Ok(object);
        }
        Write::Create(object) => api.create(&post, &whole(object)).await?,
    };
    Ok(serde_json::to_value(written).unwrap())
}

/// A client with the operator's name and every right: what it writes, no brake touches.
pub async fn unbraked() -> Client {
    super::acting_as(OPERATOR_USER, &["system:masters"]).await.unwrap()
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Alice,
    Gitops,
    Admin,
    Belay,
}

/// What the Deployment is before the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// No Rollout governs it.
    Plain,
    /// Governed, nothing is under way.
    Rest,
    /// The same, paused by a person.
    Paused,
    /// A change stands braked.
    Braked,
    /// A release is under way.
    Released,
    /// A release is under way, and the mark of the brake is still there.
    ReleasedBraked,
    /// Belay has unpaused it, and the mark is still there.
    Freed,
}

struct Row {
    name: &'static str,
    before: Before,
    who: Who,
    write: Write,
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}})
}

/// The Deployment as its author keeps it. No pods: what is judged does not need them.
fn manifest(image: &str) -> Value {
    let mut manifest = deployment("row", 0, image);
    manifest["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]);
    manifest
}

fn changed(mut object: Value, change: &Value) -> Value {
    json_patch::merge(&mut object, change);
    object
}

fn state(before: Before) -> Value {
    let (image, paused, labels) = match before {
        Before::Plain => (OLD, false, json!({})),
        Before::Rest => (OLD, false, json!({ROLLOUT_LABEL: "web"})),
        Before::Paused => (OLD, true, json!({ROLLOUT_LABEL: "web"})),
        Before::Braked => (NEW, true, json!({ROLLOUT_LABEL: "web", BRAKED_LABEL: "true"})),
        Before::Released => (NEW, true, json!({ROLLOUT_LABEL: "web", RELEASE_LABEL: "abc"})),
        Before::ReleasedBraked => {
            (NEW, true, json!({ROLLOUT_LABEL: "web", RELEASE_LABEL: "abc", BRAKED_LABEL: "true"}))
        }
        Before::Freed => (NEW, false, json!({ROLLOUT_LABEL: "web", BRAKED_LABEL: "true"})),
    };
    changed(manifest(image), &json!({"metadata": {"labels": labels}, "spec": {"paused": paused}}))
}

fn labels(labels: &Value) -> Value {
    json!({"metadata": {"labels": labels}})
}

fn paused(paused: &Value) -> Value {
    json!({"spec": {"paused": paused}})
}

fn rows() -> Vec<Row> {
    use Before::{Braked, Freed, Paused, Plain, Released, ReleasedBraked, Rest};
    use Who::{Admin, Alice, Belay, Gitops};
    use Write::{Apply, Create, Merge, Put, Scale, Status, Strategic};
    let row = |name, before, who, write| Row { name, before, who, write };
    let no_labels = |image| changed(manifest(image), &json!({"metadata": {"labels": null}}));
    let not_paused = |image| changed(manifest(image), &paused(&json!(false)));
    let containers = |image| manifest(image)["spec"]["template"]["spec"]["containers"].clone();
    let mut turned = manifest(OLD);
    turned["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "B", "value": "1"}, {"name": "A", "value": "1"}]);
    let mut twice = manifest(OLD);
    twice["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    let restart = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}});
    let three_way = json!({"spec": {"template": {"spec": {"containers": containers(NEW)}}}});
    let strategy = json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}}});
    let settings = json!({"spec": {"minReadySeconds": 1, "revisionHistoryLimit": 3}});
    let annotation = json!({"metadata": {"annotations": {"a": "b"}}});
    let odd_mark = changed(image(NEW), &labels(&json!({BRAKED_LABEL: "no"})));
    let drop_all = json!({"metadata": {"labels": {BRAKED_LABEL: null}}, "spec": {"paused": null}});
    let drop_release = json!({"metadata": {"labels": {RELEASE_LABEL: null}}, "spec": {"paused": false}});
    let other_release = labels(&json!({RELEASE_LABEL: "other", ROLLOUT_LABEL: "other"}));
    let ended =
        json!({"metadata": {"labels": {RELEASE_LABEL: null, BRAKED_LABEL: null}}, "spec": {"paused": null}});
    let governed = changed(manifest(NEW), &labels(&json!({ROLLOUT_LABEL: "web"})));
    let governed = changed(governed, &json!({"metadata": {"name": "row-created"}}));
    vec![
        row("set image", Rest, Alice, Strategic(image(NEW))),
        row("apply, three-way", Rest, Alice, Merge(three_way)),
        row("apply, server-side", Rest, Gitops, Apply("gitops", manifest(NEW))),
        row("apply, server-side, not paused", Rest, Gitops, Apply("gitops", not_paused(NEW))),
        row("apply, server-side, no change", Rest, Gitops, Apply("gitops", manifest(OLD))),
        row("replace", Rest, Alice, Put(manifest(NEW))),
        row("replace, no labels at all", Rest, Alice, Put(no_labels(NEW))),
        row("replace, same template", Rest, Alice, Put(manifest(OLD))),
        row("replace, same template, no labels at all", Rest, Alice, Put(no_labels(OLD))),
        row("replace, another order in a list", Rest, Alice, Put(turned)),
        row("replace, a name twice in a list", Rest, Alice, Put(twice)),
        row("rollout restart", Rest, Alice, Strategic(restart)),
        row("rollout pause", Rest, Alice, Strategic(paused(&json!(true)))),
        row("scale by the object", Rest, Alice, Merge(json!({"spec": {"replicas": 1}}))),
        row("scale", Rest, Alice, Scale(0)),
        row("a label", Rest, Alice, Merge(labels(&json!({"team": "shop"})))),
        row("an annotation", Rest, Alice, Merge(annotation.clone())),
        row("strategy", Rest, Alice, Merge(strategy)),
        row("other settings", Rest, Alice, Merge(settings)),
        row("status", Rest, Admin, Status(json!({"status": {"collisionCount": 3}}))),
        row("the brake's mark claimed", Rest, Alice, Merge(labels(&json!({BRAKED_LABEL: "true"})))),
        row("the brake's mark with a value of one's own", Rest, Alice, Strategic(odd_mark)),
        row("a release claimed", Rest, Alice, Merge(labels(&json!({RELEASE_LABEL: "abc", "team": "shop"})))),
        row("the rollout's label taken off", Rest, Alice, Merge(labels(&json!({ROLLOUT_LABEL: null})))),
        row("the rollout's label changed", Rest, Alice, Merge(labels(&json!({ROLLOUT_LABEL: "other"})))),
        row("create a governed one", Rest, Alice, Create(governed)),
        row("rollout resume at rest", Paused, Alice, Strategic(paused(&Value::Null))),
        row("resume by server-side apply at rest", Paused, Gitops, Apply("gitops", not_paused(OLD))),
        row("set image while paused", Paused, Alice, Strategic(image(NEW))),
        row("rollout resume of what stands braked", Braked, Alice, Strategic(paused(&Value::Null))),
        row("not paused, of what stands braked", Braked, Alice, Merge(paused(&json!(false)))),
        row("the mark taken off", Braked, Alice, Merge(labels(&json!({BRAKED_LABEL: null})))),
        row("the mark taken off and resumed", Braked, Alice, Merge(drop_all.clone())),
        row("the same manifest again", Braked, Alice, Put(manifest(NEW))),
        row("the same applied again, not paused", Braked, Gitops, Apply("gitops", not_paused(NEW))),
        row("scale of what stands braked", Braked, Alice, Scale(0)),
        row("scale by the object, braked", Braked, Alice, Merge(json!({"spec": {"replicas": 1}}))),
        row("a label, braked", Braked, Alice, Merge(labels(&json!({"team": "shop"})))),
        row("back to the old image", Braked, Alice, Strategic(image(OLD))),
        row("yet another image", Braked, Alice, Strategic(image("node.local/sample:3"))),
        row("rollout resume during a release", Released, Alice, Strategic(paused(&Value::Null))),
        row("server-side apply during a release", Released, Gitops, Apply("gitops", not_paused(NEW))),
        row("replace during a release", Released, Alice, Put(manifest(NEW))),
        row("the release's label taken off", Released, Alice, Merge(drop_release)),
        row("another release claimed", Released, Alice, Merge(other_release)),
        row("set image during a release", Released, Alice, Strategic(image("node.local/sample:3"))),
        row("scale during a release", Released, Alice, Merge(json!({"spec": {"replicas": 1}}))),
        row("an annotation during a release", Released, Alice, Merge(annotation.clone())),
        row("the mark taken off during a release", ReleasedBraked, Alice, Merge(drop_all.clone())),
        row("a mark that means nothing", Freed, Alice, Merge(annotation)),
        row("rollout pause after Belay let go", Freed, Alice, Strategic(paused(&json!(true)))),
        row("set image after Belay let go", Freed, Alice, Strategic(image(OLD))),
        row("set image without a Rollout", Plain, Alice, Strategic(image(NEW))),
        row("the rollout's label put on", Plain, Alice, Merge(labels(&json!({ROLLOUT_LABEL: "web"})))),
        row("Belay takes the label off", Rest, Belay, Merge(labels(&json!({ROLLOUT_LABEL: null})))),
        row("Belay lets a change go", Braked, Belay, Merge(drop_all)),
        row("Belay restores the template", Released, Belay, Strategic(image(OLD))),
        row("Belay ends a release", ReleasedBraked, Belay, Merge(ended)),
    ]
}

/// What a brake does with the writes of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// To each what the rules say.
    Judged,
    /// Nobody answers: what the rules would change is refused in these words, and all else passes.
    Refused(&'static str),
}

/// Does all writes of the table, and compares each with the rules.
pub async fn compare(ns: &Namespace, expect: Expect) {
    let mut wrong = Vec::new();
    let mut refused = 0;
    let table = rows();
    for (index, row) in table.iter().enumerate() {
        if let Some(difference) = differs(ns, row, index, expect, &mut refused).await {
            wrong.push(format!("{} ({:?}, {:?}): {difference}", row.name, row.before, row.who));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), table.len(), wrong.join("\n"));
    // The table itself: a condition that is never, or always, true would show here.
    match expect {
        Expect::Judged => assert_eq!(refused, 0),
        Expect::Refused(_) => assert!(refused > 20 && refused < table.len() - 20, "{refused} refused"),
    }
}

async fn differs(
    ns: &Namespace,
    row: &Row,
    index: usize,
    expect: Expect,
    refused: &mut usize,
) -> Option<String> {
    let name = format!("row{index}");
    let env = &ns.env;
    let (user, client) = match row.who {
        Who::Alice => ("alice", &env.alice),
        Who::Gitops => ("gitops", &env.gitops),
        Who::Admin => ("admin", &env.admin),
        Who::Belay => (OPERATOR_USER, &env.belay),
    };
    let own = |object: &Value| {
        let mut object = object.clone();
        if object["metadata"]["name"] == "row" {
            object["metadata"]["name"] = json!(name);
        }
        object
    };
    let write = match &row.write {
        Write::Put(object) => Write::Put(own(object)),
        Write::Apply(manager, object) => Write::Apply(manager, own(object)),
        other => other.clone(),
    };
    // What is created is not judged, so it can be made as it is to be.
    let before: DynamicObject = serde_json::from_value(own(&state(row.before))).unwrap();
    let all = ns.deployments(&unbraked().await);
    let old = serde_json::to_value(all.create(&PostParams::default(), &before).await.unwrap()).unwrap();
    let unjudged = perform(&all, &name, &write, true).await.unwrap();
    let mut expected = unjudged.clone();
    if !matches!(write, Write::Create(_) | Write::Scale(_) | Write::Status(_)) {
        json_patch::patch(&mut expected, &brake::patch(OPERATOR_USER, user, &old, &unjudged)).unwrap();
    }
    let stopped = content(&expected) != content(&unjudged);
    let written = perform(&ns.deployments(client), &name, &write, false).await;
    match (written, expect) {
        (Err(error), Expect::Refused(words)) if stopped => {
            *refused += 1;
            let said = error.to_string();
            (!said.contains(words)).then(|| format!("refused, but in other words: {said}"))
        }
        (Ok(written), Expect::Refused(_)) if stopped => Some(format!("passed: {}", content(&written))),
        (Ok(written), _) => {
            let (is, ought) = (content(&written), content(&expected));
            (is != ought).then(|| format!("\n  is    {is}\n  ought {ought}"))
        }
        (Err(error), _) => Some(format!("refused: {error}")),
    }
}

/// What a write says: not what the server and the Deployment controller note on the way.
fn content(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut annotations = metadata["annotations"].as_object().cloned().unwrap_or_default();
    annotations.retain(|name, _| !name.starts_with("deployment.kubernetes.io/"));
    json!({"labels": metadata["labels"], "annotations": annotations, "spec": object["spec"]})
}

/// Waits for the brake to be in force for this namespace: until a change of a template is stopped or refused.
pub async fn in_force(env: &Env, namespace: &str) {
    super::eventually(
        super::PATIENCE,
        "the brake is in force",
        async || match belay::install::brake_engaged(&env.admin, namespace).await.unwrap() {
            belay::install::Engaged::Yes => Ok(()),
            other => Err(other),
        },
    )
    .await;
}
