//! Guards that come from templates.

use serde_json::json;

use super::guarded;
use super::world::World;
use crate::api::ReleasePhase;
use crate::api::template::TemplateKind;
use crate::decide::KnownTemplate;

/// A template with the guard of the tests, and the tolerance as its argument.
fn template(generation: i64, default: &str) -> KnownTemplate {
    let counter = |metric: &str| json!({"metric": metric});
    let ratio = json!({"bad": counter("bad"), "total": counter("all"), "tolerate": "{{args.tolerate}}"});
    KnownTemplate {
        kind: TemplateKind::AnalysisTemplate,
        name: "http".to_owned(),
        generation,
        spec: Ok(serde_json::from_value(json!({
            "args": [{"name": "tolerate", "default": default}],
            "guards": [{"name": "errors", "ratio": ratio}],
        }))
        .unwrap()),
    }
}

fn world() -> World {
    let mut spec = guarded();
    spec["analysis"]["guards"] = json!([]);
    spec["analysis"]["templates"] = json!([{"name": "http"}]);
    World::stable(5, spec)
}

#[test]
fn a_change_waits_for_its_template_and_is_judged_by_it() {
    let mut world = world();
    world.bad_share.insert("v2".into(), 0.2);
    world.set_image("v2");
    world.advance(60);
    assert!(world.releases.is_empty());
    let status = world.rollout.as_ref().unwrap().status.clone().unwrap();
    let said = status.message.unwrap();
    assert!(said.contains("spec.analysis.templates[http]: there is no such AnalysisTemplate"), "{said}");

    world.templates.push(template(3, "1.2x + 0.1%"));
    world.until(|w| w.release_phase() == ReleasePhase::RolledBack);
    assert_eq!(world.release_status().reason.as_deref(), Some("GuardFailed"));
    let analysis = world.release().spec.analysis.clone().unwrap();
    assert_eq!((analysis.guards.len(), analysis.templates[0].generation), (1, Some(3)));
}

#[test]
fn a_template_that_changes_does_not_change_a_release_that_runs() {
    let mut world = world();
    world.templates.push(template(1, "1.2x + 0.1%"));
    world.bad_share.insert("v2".into(), 0.2);
    world.set_image("v2");
    world.until(|w| w.reached(0));
    // So loose that nothing fails, and then gone.
    world.templates[0] = template(2, "1000x");
    world.advance(1);
    world.templates.clear();
    world.until(|w| w.release_phase() == ReleasePhase::RolledBack);
    let ratio = world.release().spec.analysis.as_ref().unwrap().guards[0].ratio.clone().unwrap();
    assert_eq!(ratio.tolerate.as_deref(), Some("1.2x + 0.1%"));
}
