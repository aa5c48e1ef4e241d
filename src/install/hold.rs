//! The rules of the hold, in CEL and in Rust, side by side: what a release borrows stays as the release left it.
//!
//! Purpose: the one place that says which parts of Services and routes are held, against which writes, and how. The
//! admission policies are built from the CEL; [`patch`] is the same rules as a function, for the webhook on servers
//! without policies and for simulators. The tests feed both the same writes on a real API server.
//! May touch: [`crate::api`] and JSON. Must never: do I/O.
//!
//! A write is judged when it updates an object that carries the label `belay.dev/release` before it or after it, and
//! does not come from Belay's own account. Subresources, `status` above all, are never judged. Then:
//!
//! 1. The marks of a release stay as they were: the label, and the annotations `belay.dev/borrowed`,
//!    `belay.dev/stopped` and `belay.dev/held-writes`. They are put back, and what was not there is taken off. So
//!    nobody but Belay borrows an object: a manifest that was exported in the middle of a release, and is applied after
//!    it, would hold its own Service for ever.
//! 2. Of an object that had the label, the parts that a release borrows stay as they were ([`Part`]). All else
//!    passes: ports, hosts, labels, other annotations.
//! 3. `belay.dev/held-writes` counts the writes that wanted those parts otherwise.
//!
//! What is created or deleted is not judged, as with the brake: a copy of a borrowed object, in another namespace or from
//! a backup, carries its marks and is held as well. The Rollout that they name gives it back; where there is none, it is
//! free once it is deleted and made anew without the label.
//!
//! Applied twice, the rules come to the same: the API server asks again when another policy or webhook has changed the
//! object meanwhile, and a server may have both forms for a moment. What was put back is not seen as a change then, so
//! a count that is one more than before stands.

use json_patch::Patch;
use serde_json::{Map, Value, json};

use super::brake::{Expression, add, cel_string, remove};
use crate::api::router::Router;
use crate::api::{BORROWED_ANNOTATION, HELD_WRITES_ANNOTATION, RELEASE_LABEL, STOPPED_ANNOTATION};

/// The annotations that only Belay writes on an object that it borrows.
const MARKS: [&str; 3] = [BORROWED_ANNOTATION, STOPPED_ANNOTATION, HELD_WRITES_ANNOTATION];

/// The greatest count, in writes: a program that tries once a second gets there in eleven days.
const MOST: u32 = 999_999;

/// A part of an object that a release borrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A field of the `spec` of a custom resource, as a whole.
    Spec(&'static str),
    /// The selector of a Service, as a whole. The API server takes no map from the old object as a value here, so it is
    /// written key by key.
    Selector,
    /// All annotations whose names begin so.
    Annotations(&'static str),
}

/// A kind whose objects a release borrows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The API group; empty for Services.
    pub group: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// The plural, as in paths.
    pub plural: &'static str,
    /// What is held of it.
    pub parts: Vec<Part>,
}

impl Held {
    /// The name of its policy and binding.
    pub fn policy(&self) -> String {
        format!("hold-{}.belay.dev", self.plural)
    }
}

/// All kinds whose objects a release borrows: Services, and every router's routes.
pub fn kinds() -> Vec<Held> {
    let mut kinds =
        vec![Held { group: "", kind: "Service", plural: "services", parts: vec![Part::Selector] }];
    for router in Router::ALL {
        let (group, kind, plural) = (router.group(), router.kind(), router.plural());
        // Two routers read Ingresses.
        match kinds.iter_mut().find(|held| (held.group, held.plural) == (group, plural)) {
            Some(held) => held.parts.extend_from_slice(parts(router)),
            None => kinds.push(Held { group, kind, plural, parts: parts(router).to_vec() }),
        }
    }
    kinds
}

/// What [`crate::traffic`] writes of a route.
fn parts(router: Router) -> &'static [Part] {
    match router {
        Router::HttpRoute | Router::GrpcRoute => &[Part::Spec("rules")],
        Router::VirtualService => &[Part::Spec("http"), Part::Spec("tls"), Part::Spec("tcp")],
        // The canary's own Ingress; the one beside it is never written.
        Router::NginxIngress => &[Part::Annotations("nginx.ingress.kubernetes.io/canary")],
        Router::TraefikService => &[Part::Spec("weighted")],
        Router::IngressRoute => &[Part::Spec("routes")],
        Router::AlbIngress => &[Part::Annotations("alb.ingress.kubernetes.io/actions.")],
        Router::TrafficSplit => &[Part::Spec("backends")],
    }
}

/// When the hold looks at a write at all, beside the label, by which the API server selects objects itself.
pub fn conditions(operator_user: &str) -> Vec<Expression> {
    vec![Expression {
        name: "not-belay",
        cel: format!("request.userInfo.username != {}", cel_string(operator_user)),
        meaning: "the write is not Belay's own",
    }]
}

const WAS: &str = "oldObject.metadata.?annotations.orValue({})";
const IS: &str = "object.metadata.?annotations.orValue({})";

fn borrowed_cel() -> String {
    format!("oldObject.metadata.?labels[?'{RELEASE_LABEL}'].hasValue()")
}

/// A field of an object's spec, if it is there.
fn field_cel(object: &str, field: &str) -> String {
    format!("{object}.?spec.?{field}")
}

/// Whether the write wants a part otherwise; `was` and `is` are the annotations.
fn part_changed_cel(part: Part, was: &str, is: &str) -> String {
    let differs = |field| format!("{} != {}", field_cel("oldObject", field), field_cel("object", field));
    match part {
        Part::Spec(field) => differs(field),
        Part::Selector => differs("selector"),
        Part::Annotations(prefix) => [(was, is), (is, was)]
            .map(|(these, those)| {
                format!("{these}.exists(a, a.startsWith('{prefix}') && {those}[?a] != {these}[?a])")
            })
            .join(" || "),
    }
}

fn changed_cel(held: &Held, was: &str, is: &str) -> String {
    let parts: Vec<String> = held.parts.iter().map(|part| part_changed_cel(*part, was, is)).collect();
    parts.join(" || ")
}

/// The marks as a CEL list.
fn marks_cel() -> String {
    format!("['{}']", MARKS.join("', '"))
}

/// When the API server calls the webhook: [`conditions`], and the hold would make something else of the write. All
/// other writes of a borrowed object do not need Belay to run.
///
/// A webhook has no variables, so the same expressions stand here within each other.
pub fn calls(held: &Held, operator_user: &str) -> Vec<Expression> {
    let cel = [
        format!(
            "object.metadata.?labels[?'{RELEASE_LABEL}'] != oldObject.metadata.?labels[?'{RELEASE_LABEL}']"
        ),
        format!(
            "{}.exists(a, object.metadata.?annotations[?a] != oldObject.metadata.?annotations[?a])",
            marks_cel()
        ),
        format!("({} && ({}))", borrowed_cel(), changed_cel(held, WAS, IS)),
        super::probe::asked_cel(),
    ];
    let mut all = conditions(operator_user);
    all.push(Expression {
        name: "needed",
        cel: cel.join("\n|| "),
        meaning: "the hold makes something else of the write, or is to show that it is there",
    });
    all
}

/// What the hold knows about a write.
pub fn variables(held: &Held) -> Vec<Expression> {
    let expression = |name, cel: String, meaning| Expression { name, cel, meaning };
    let (was, is) = ("variables.was", "variables.is");
    let prefixes = held.parts.iter().filter_map(|part| match part {
        Part::Annotations(prefix) => Some(format!("a.startsWith('{prefix}')")),
        Part::Spec(_) | Part::Selector => None,
    });
    let prefixes: Vec<String> = prefixes.collect();
    let kept = if prefixes.is_empty() {
        format!("a in {}", marks_cel())
    } else {
        format!("a in {} || (variables.borrowed && ({}))", marks_cel(), prefixes.join(" || "))
    };
    vec![
        expression("was", WAS.to_owned(), "the annotations before the write"),
        expression("is", IS.to_owned(), "the annotations that are written"),
        expression("borrowed", borrowed_cel(), "a release has borrowed the object"),
        expression("changed", changed_cel(held, was, is), "the write wants a borrowed part otherwise"),
        expression(
            "before",
            format!(
                "{was}[?'{HELD_WRITES_ANNOTATION}'].orValue('').matches('^[0-9]{{1,6}}$') ? \
                 int({was}['{HELD_WRITES_ANNOTATION}']) : 0"
            ),
            "how many writes were held before; what is no count counts as none",
        ),
        expression(
            "next",
            format!("string(variables.before < {MOST} ? variables.before + 1 : {MOST})"),
            "the number of this write among those that were held",
        ),
        expression(
            "counts",
            format!(
                "variables.borrowed && (variables.changed || \
                 {is}[?'{HELD_WRITES_ANNOTATION}'] == optional.of(variables.next))"
            ),
            "the write is counted, now or when it was judged before",
        ),
        expression("kept", format!("{was}.filter(a, {kept})"), "annotations that stay as they were"),
        expression(
            "foreign",
            format!("{is}.filter(a, ({kept}) && !(a in {was}))"),
            "annotations that nobody else may add",
        ),
    ]
}

/// What the hold does: an array of JSON Patch operations.
pub fn patch_cel(held: &Held) -> String {
    let label = format!("'/metadata/labels/' + jsonpatch.escapeKey('{RELEASE_LABEL}')");
    let annotation = |name: &str| format!("'/metadata/annotations/' + jsonpatch.escapeKey({name})");
    let mut operations = vec![
        "(variables.borrowed && !has(object.metadata.labels) ? \
         [JSONPatch{op: 'add', path: '/metadata/labels', value: Object.metadata.labels{}}] : [])"
            .to_owned(),
        format!(
            "(variables.borrowed ? [JSONPatch{{op: 'add', path: {label}, \
             value: oldObject.metadata.labels['{RELEASE_LABEL}']}}] : \
             object.metadata.?labels[?'{RELEASE_LABEL}'].hasValue() ? \
             [JSONPatch{{op: 'remove', path: {label}}}] : [])"
        ),
        format!("variables.foreign.map(a, JSONPatch{{op: 'remove', path: {}}})", annotation("a")),
        "((variables.counts || variables.kept.size() > 0) && !has(object.metadata.annotations) ? \
         [JSONPatch{op: 'add', path: '/metadata/annotations', value: Object.metadata.annotations{}}] : [])"
            .to_owned(),
        format!(
            "variables.kept.map(a, JSONPatch{{op: 'add', path: {}, value: variables.was[a]}})",
            annotation("a")
        ),
        format!(
            "(variables.counts ? [JSONPatch{{op: 'add', path: {}, value: variables.next}}] : [])",
            annotation(&format!("'{HELD_WRITES_ANNOTATION}'"))
        ),
    ];
    let there: Vec<String> =
        fields(held).map(|(field, _)| format!("{}.hasValue()", field_cel("oldObject", field))).collect();
    if !there.is_empty() {
        operations.push(format!(
            "(variables.borrowed && !has(object.spec) && ({}) ? \
             [JSONPatch{{op: 'add', path: '/spec', value: Object.spec{{}}}}] : [])",
            there.join(" || ")
        ));
    }
    operations.extend(fields(held).map(|(field, by_key)| field_patch_cel(field, by_key)));
    operations.join("\n+ ")
}

/// The fields of `spec` that are held, and whether they are written key by key.
fn fields(held: &Held) -> impl Iterator<Item = (&'static str, bool)> {
    held.parts.iter().filter_map(|part| match part {
        Part::Spec(field) => Some((*field, false)),
        Part::Selector => Some(("selector", true)),
        Part::Annotations(_) => None,
    })
}

/// Puts a field of `spec` back: what it was, or that it was not there.
fn field_patch_cel(field: &str, by_key: bool) -> String {
    let (old, new) = (field_cel("oldObject", field), field_cel("object", field));
    let path = format!("'/spec/{field}'");
    let put = if by_key {
        format!(
            "[JSONPatch{{op: 'add', path: {path}, value: Object.spec.{field}{{}}}}] + \
             oldObject.spec.{field}.map(k, JSONPatch{{op: 'add', path: {path} + '/' + jsonpatch.escapeKey(k), \
             value: oldObject.spec.{field}[k]}})"
        )
    } else {
        format!("[JSONPatch{{op: 'add', path: {path}, value: oldObject.spec.{field}}}]")
    };
    format!(
        "(!variables.borrowed || {old} == {new} ? [] : {old}.hasValue() ? {put} : \
         [JSONPatch{{op: 'remove', path: {path}}}])"
    )
}

/// What the hold makes of an update of an object of this kind by `user`: the operations to do on `new`.
///
/// The same rules as [`conditions`], [`variables`] and [`patch_cel`].
pub fn patch(held: &Held, operator_user: &str, user: &str, old: &Value, new: &Value) -> Patch {
    let had = old["metadata"]["labels"].get(RELEASE_LABEL);
    let has = new["metadata"]["labels"].get(RELEASE_LABEL);
    if user == operator_user || (had.is_none() && has.is_none()) {
        return Patch(Vec::new());
    }
    let none = Map::new();
    let was = old["metadata"]["annotations"].as_object().unwrap_or(&none);
    let is = new["metadata"]["annotations"].as_object().unwrap_or(&none);
    let borrowed = had.is_some();
    let is_held =
        |name: &str| held.parts.iter().any(|p| matches!(p, Part::Annotations(of) if name.starts_with(of)));
    let is_kept = |name: &str| MARKS.contains(&name) || (borrowed && is_held(name));
    let field_changed = |field: &str| old["spec"].get(field) != new["spec"].get(field);
    let changed = fields(held).any(|(field, _)| field_changed(field))
        || was.keys().chain(is.keys()).any(|name| is_held(name) && was.get(name) != is.get(name));
    let next = json!(next_count(was.get(HELD_WRITES_ANNOTATION)).to_string());
    let counts = borrowed && (changed || is.get(HELD_WRITES_ANNOTATION) == Some(&next));

    let mut operations = Vec::new();
    match had {
        Some(release) => {
            if !new["metadata"]["labels"].is_object() {
                operations.push(add(&["metadata", "labels"], json!({})));
            }
            operations.push(add(&["metadata", "labels", RELEASE_LABEL], release.clone()));
        }
        None => operations.push(remove(&["metadata", "labels", RELEASE_LABEL])),
    }
    for name in is.keys().filter(|name| is_kept(name) && !was.contains_key(*name)) {
        operations.push(remove(&["metadata", "annotations", name]));
    }
    let kept: Vec<(&String, &Value)> = was.iter().filter(|(name, _)| is_kept(name)).collect();
    if (counts || !kept.is_empty()) && !new["metadata"]["annotations"].is_object() {
        operations.push(add(&["metadata", "annotations"], json!({})));
    }
    for (name, value) in kept {
        operations.push(add(&["metadata", "annotations", name], value.clone()));
    }
    if counts {
        operations.push(add(&["metadata", "annotations", HELD_WRITES_ANNOTATION], next));
    }
    if borrowed && !new["spec"].is_object() && fields(held).any(|(field, _)| old["spec"].get(field).is_some())
    {
        operations.push(add(&["spec"], json!({})));
    }
    for (field, _) in fields(held).filter(|(field, _)| borrowed && field_changed(field)) {
        operations.push(match old["spec"].get(field) {
            Some(value) => add(&["spec", field], value.clone()),
            None => remove(&["spec", field]),
        });
    }
    Patch(operations)
}

/// The number of this write among those that were held. What is no count counts as none.
fn next_count(before: Option<&Value>) -> u32 {
    let digits = |text: &&str| text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit());
    let before = before.and_then(Value::as_str).filter(digits).and_then(|n| n.parse::<u32>().ok());
    before.unwrap_or(0).saturating_add(1).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BELAY: &str = "system:serviceaccount:belay-system:belay";

    fn kind(plural: &str) -> Held {
        kinds().into_iter().find(|held| held.plural == plural).unwrap()
    }

    fn after(held: &Held, user: &str, old: &Value, new: &Value) -> Value {
        let mut result = new.clone();
        json_patch::patch(&mut result, &patch(held, BELAY, user, old, new)).unwrap();
        result
    }

    fn service(labels: &Value, annotations: &Value, selector: &Value) -> Value {
        json!({
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": {"selector": selector, "ports": [{"port": 80}]},
        })
    }

    fn pinned() -> Value {
        service(
            &json!({"app": "web", RELEASE_LABEL: "web-1"}),
            &json!({BORROWED_ANNOTATION: "{}"}),
            &json!({"app": "web", "pod-template-hash": "abc"}),
        )
    }

    #[test]
    fn a_borrowed_service_keeps_its_pin_and_its_marks_and_all_else_passes() {
        let held = kind("services");
        let mut new = service(&Value::Null, &Value::Null, &json!({"app": "other"}));
        new["spec"]["ports"] = json!([{"port": 8080}]);
        let mut ought = pinned();
        ought["metadata"]["labels"] = json!({RELEASE_LABEL: "web-1"});
        ought["metadata"]["annotations"][HELD_WRITES_ANNOTATION] = json!("1");
        ought["spec"]["ports"] = json!([{"port": 8080}]);
        assert_eq!(after(&held, "alice", &pinned(), &new), ought);
        assert_eq!(after(&held, BELAY, &pinned(), &new), new);
    }

    #[test]
    fn only_writes_that_want_it_otherwise_are_counted() {
        let held = kind("services");
        let mut labelled = pinned();
        labelled["metadata"]["labels"]["team"] = json!("shop");
        assert_eq!(after(&held, "alice", &pinned(), &labelled), labelled);
        let mut count = pinned();
        for n in 1..=3 {
            let mut moved = count.clone();
            moved["spec"]["selector"]["app"] = json!("other");
            count = after(&held, "alice", &count, &moved);
            assert_eq!(count["metadata"]["annotations"][HELD_WRITES_ANNOTATION], n.to_string());
        }
        let mut claimed = count.clone();
        claimed["metadata"]["annotations"][HELD_WRITES_ANNOTATION] = json!("99");
        assert_eq!(after(&held, "alice", &count, &claimed), count);
    }

    #[test]
    fn the_count_has_an_end_and_what_is_none_begins_anew() {
        for (before, next) in [
            (Some("999998"), 999_999),
            (Some("999999"), 999_999),
            (Some("1000000"), 1),
            (Some("-5"), 1),
            (Some("+5"), 1),
            (Some(""), 1),
            (Some("007"), 8),
            (None, 1),
        ] {
            assert_eq!(next_count(before.map(|b| json!(b)).as_ref()), next, "{before:?}");
        }
        assert_eq!(next_count(Some(&json!(5))), 1);
    }

    #[test]
    fn nobody_else_borrows_an_object() {
        let held = kind("services");
        let plain = service(&json!({"app": "web"}), &Value::Null, &json!({"app": "web"}));
        let mut ought = plain.clone();
        ought["metadata"]["annotations"] = json!({});
        ought["spec"]["selector"] = pinned()["spec"]["selector"].clone();
        assert_eq!(after(&held, "alice", &plain, &pinned()), ought);
        assert_eq!(after(&held, BELAY, &plain, &pinned()), pinned());
    }

    #[test]
    fn a_field_that_was_not_there_does_not_come() {
        let held = kind("virtualservices");
        let marks = json!({"labels": {RELEASE_LABEL: "web-1"}});
        let old = json!({"metadata": marks, "spec": {"http": [1], "tls": [2], "hosts": ["a"]}});
        let new = json!({"metadata": marks, "spec": {"http": [3], "tcp": [4], "hosts": ["b"]}});
        let counted =
            json!({"labels": {RELEASE_LABEL: "web-1"}, "annotations": {HELD_WRITES_ANNOTATION: "1"}});
        assert_eq!(
            after(&held, "alice", &old, &new),
            json!({"metadata": counted, "spec": {"http": [1], "tls": [2], "hosts": ["b"]}})
        );
        let gone = json!({"metadata": marks});
        assert_eq!(
            after(&held, "alice", &old, &gone),
            json!({"metadata": counted, "spec": {"http": [1], "tls": [2]}})
        );
    }

    #[test]
    fn of_an_ingress_the_annotations_of_its_routers_are_held() {
        let held = kind("ingresses");
        let ingress = |annotations: Value| json!({"metadata": {"labels": {RELEASE_LABEL: "web-1"}, "annotations": annotations}, "spec": {}});
        let old = ingress(json!({
            "alb.ingress.kubernetes.io/actions.web": "a",
            "nginx.ingress.kubernetes.io/canary-weight": "10",
            "nginx.ingress.kubernetes.io/rewrite-target": "/",
        }));
        let new = ingress(json!({
            "nginx.ingress.kubernetes.io/canary-weight": "90",
            "nginx.ingress.kubernetes.io/canary-by-header": "x",
            "nginx.ingress.kubernetes.io/rewrite-target": "/new",
        }));
        let ought = ingress(json!({
            "alb.ingress.kubernetes.io/actions.web": "a",
            "nginx.ingress.kubernetes.io/canary-weight": "10",
            "nginx.ingress.kubernetes.io/rewrite-target": "/new",
            HELD_WRITES_ANNOTATION: "1",
        }));
        assert_eq!(after(&held, "alice", &old, &new), ought);
    }

    #[test]
    fn every_kind_has_a_policy_of_its_own() {
        let names: std::collections::BTreeSet<String> = kinds().iter().map(Held::policy).collect();
        assert_eq!(names.len(), kinds().len());
        // Two of the eight routers share a kind, and Services are one more.
        assert_eq!(kinds().len(), Router::ALL.len());
        assert!(names.contains("hold-services.belay.dev") && names.contains("hold-httproutes.belay.dev"));
    }

    fn objects() -> impl Strategy<Value = Value> {
        let values = || prop_oneof!["[ab]", "[0-9]{1,2}"];
        let map = |keys: &'static [&'static str]| {
            prop::option::of(prop::collection::btree_map(prop::sample::select(keys), values(), 0..4))
        };
        let labels = map(&[RELEASE_LABEL, "app"]);
        let annotations = map(&[
            BORROWED_ANNOTATION,
            STOPPED_ANNOTATION,
            HELD_WRITES_ANNOTATION,
            "other",
            "nginx.ingress.kubernetes.io/canary-weight",
            "alb.ingress.kubernetes.io/actions.web",
        ]);
        let spec = map(&["http", "tls", "tcp", "selector", "rules", "other"]);
        (labels, annotations, spec).prop_map(|(labels, annotations, spec)| {
            let mut object = json!({"metadata": {}});
            for (name, map) in [("labels", labels), ("annotations", annotations)] {
                if let Some(map) = map {
                    object["metadata"][name] = json!(map);
                }
            }
            if let Some(spec) = spec {
                object["spec"] = json!(spec);
            }
            object
        })
    }

    proptest! {
        /// The API server asks again when somebody else changed the object meanwhile.
        #[test]
        fn judged_twice_it_is_the_same(old in objects(), new in objects()) {
            for held in kinds() {
                let once = after(&held, "alice", &old, &new);
                prop_assert_eq!(after(&held, "alice", &old, &once), once);
            }
        }

        #[test]
        fn what_is_not_held_passes(old in objects(), new in objects()) {
            for held in kinds() {
                let result = after(&held, "alice", &old, &new);
                let of = |object: &Value, pointer: &str| object.pointer(pointer).cloned();
                for free in ["/metadata/labels/app", "/metadata/annotations/other", "/spec/other"] {
                    prop_assert_eq!(of(&result, free), of(&new, free));
                }
                prop_assert_eq!(
                    result["metadata"]["labels"].get(RELEASE_LABEL),
                    old["metadata"]["labels"].get(RELEASE_LABEL)
                );
            }
        }
    }
}
