//! What a release of the operator recorded, replayed: the same evidence to the last bit, whatever happened to it.

use belay::analysis::WhatIf;
use belay::report::replay::ReplayReport;

use super::scenarios::all;

#[test]
fn recorded_releases_replay_exactly() {
    let (mut steps, mut rollbacks) = (0, 0);
    for scenario in all().iter().filter(|scenario| scenario.spec.get("analysis").is_some()) {
        let mut world = scenario.world();
        world.play(scenario.tail);
        for release in world.server.releases() {
            let recorded = release.status.as_ref().and_then(|status| status.analysis.as_ref());
            let Some(recorded) = recorded.filter(|state| state.guards.iter().any(|g| !g.recent.is_empty()))
            else {
                continue;
            };
            let at = recorded.last_look_at.as_ref().unwrap().0;
            let report = ReplayReport::new(&release, at, &WhatIf::default()).unwrap();
            for guard in &report.guards {
                assert!(guard.exact, "{}: {:?}", scenario.name, guard.notes);
                steps += guard.really.steps.iter().filter(|step| step.proven_after_seconds.is_some()).count();
            }
            let failed =
                release.status.as_ref().and_then(|status| status.reason.as_deref()) == Some("GuardFailed");
            assert_eq!(report.rolled_back.is_some(), failed, "{}", scenario.name);
            rollbacks += usize::from(failed);
        }
    }
    assert!(
        steps >= 2 && rollbacks >= 1,
        "{steps} steps proven, {rollbacks} rollbacks: too little was replayed"
    );
}
