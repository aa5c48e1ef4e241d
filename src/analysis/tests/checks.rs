//! The checks: what their runs make of the evidence, and that nothing of the other guards depends on them.

use serde_json::{Value, json};

use super::{at, pair, plan_of, reading};
use crate::analysis::{
    CheckRun, GuardPlan, Plan, Verdict, check, explain, explanation_text, finding_text, fold, fold_checks,
    start_step, verdict,
};
use crate::api::evidence::AnalysisState;

fn errors() -> Value {
    let counter = |metric: &str| json!({"metric": metric});
    json!({"name": "errors", "ratio": {"bad": counter("bad"), "total": counter("all"), "tolerate": "1.2x"}})
}

fn smoke(more: &Value) -> Value {
    let mut web = json!({"url": "http://web/check"});
    json_patch::merge(&mut web, more);
    json!({"name": "smoke", "web": web})
}

fn run(second: i64, passed: Result<bool, &str>) -> CheckRun {
    let passed = passed.map_err(str::to_owned);
    CheckRun {
        guard: "smoke".to_owned(),
        at: at(second),
        passed,
        seen: format!("status {second}"),
        number: None,
    }
}

fn folded(state: &AnalysisState, plan: &Plan, second: i64, passed: Result<bool, &str>) -> AnalysisState {
    fold_checks(state, plan, &[run(second, passed)], None, at(second))
}

/// The guard's own words.
fn words(state: &AnalysisState, plan: &Plan, index: usize) -> String {
    explanation_text(&explain(&state.guards[index], &plan.guards[index], plan), "")
}

#[test]
fn enough_runs_in_a_step_are_the_proof_and_one_failure_too_many_is_the_end() {
    let plan = plan_of(&json!([smoke(&json!({"successes": 2, "failureLimit": 1}))]));
    let mut state = folded(&AnalysisState::default(), &plan, 0, Ok(true));
    assert!(matches!(verdict(&state, &plan), Verdict::Collecting { .. }));
    assert_eq!(
        words(&state, &plan, 0),
        "Check smoke: passed 1 of 1, needs 1 more this step.\nThe last run passed: status 0"
    );
    // The same run again, as after a restart, counts once.
    assert_eq!(folded(&state, &plan, 0, Ok(true)), state);
    state = folded(&state, &plan, 30, Ok(true));
    assert_eq!(verdict(&state, &plan), Verdict::Proven);
    state = start_step(&state);
    assert!(matches!(verdict(&state, &plan), Verdict::Collecting { .. }), "each step anew");
    state = folded(&state, &plan, 60, Ok(false));
    assert!(matches!(verdict(&state, &plan), Verdict::Collecting { .. }), "one may fail");
    state = folded(&start_step(&state), &plan, 90, Ok(false));
    let Verdict::Rollback(finding) = verdict(&state, &plan) else { panic!("{state:?}") };
    assert_eq!(finding.guard, "smoke");
    assert_eq!(
        finding_text(&explain(&state.guards[0], &plan.guards[0], &plan)),
        "passed 2 of 4, failed 2 (1 may); the last run saw status 90"
    );
    // What failed stays failed.
    state = folded(&state, &plan, 120, Ok(true));
    assert!(matches!(verdict(&state, &plan), Verdict::Rollback(_)));
}

#[test]
fn no_answer_is_neither_and_holds_until_there_is_one() {
    let plan = plan_of(&json!([smoke(&json!({}))]));
    let mut state = folded(&AnalysisState::default(), &plan, 0, Ok(true));
    state = folded(&state, &plan, 30, Err("connection refused"));
    state = folded(&state, &plan, 60, Err("timeout"));
    let silent = Verdict::NoData { since: at(30), reason: "check smoke: timeout".to_owned() };
    assert_eq!(verdict(&state, &plan), silent);
    assert_eq!(
        words(&state, &plan, 0),
        "Check smoke: passed 1 of 1.\nThe last run passed: status 0\nNow there is no answer: timeout"
    );
    state = folded(&state, &plan, 90, Ok(true));
    assert_eq!(verdict(&state, &plan), Verdict::Proven);
    let checks = state.guards[0].checks.clone().unwrap();
    assert_eq!((checks.passed, checks.failed, checks.no_data_since), (2, 0, None));
}

#[test]
fn checks_are_due_by_their_own_interval() {
    let plan = plan_of(&json!([errors(), smoke(&json!({"interval": "10s"}))]));
    let none = AnalysisState::default();
    let due = |state: &AnalysisState, second| {
        let due = check::due(state, &plan, at(second));
        (due.web, due.next)
    };
    assert_eq!(due(&none, 0), (vec!["smoke"], None));
    let state = folded(&none, &plan, 0, Ok(true));
    assert_eq!(due(&state, 9), (vec![], Some(at(10))));
    assert_eq!(due(&state, 10), (vec!["smoke"], None));
    let silent = folded(&state, &plan, 10, Err("no"));
    assert_eq!(due(&silent, 11), (vec![], Some(at(20))), "without an answer, too");
}

#[test]
fn a_condition_sees_the_other_guards_once_they_have_said_something() {
    let cel = |condition: &str| json!({"name": "all", "cel": {"condition": condition, "interval": "5s"}});
    let of = |condition: &str| plan_of(&json!([errors(), smoke(&json!({})), cel(condition)]));
    let passed = |condition: &str| {
        let plan = of(condition);
        let mut state = folded(&AnalysisState::default(), &plan, 0, Ok(true));
        assert_eq!(state.guards[2].looks, 0, "{condition}: not before the errors are known");
        // 2 of 100 against 1 of 100.
        let (pods, before) = (|c, s| pair(5, c, s), pair(0, reading(0.0, 0.0), reading(0.0, 0.0)));
        state = fold(&state, &plan, &before);
        state = fold(&state, &plan, &pods(reading(2.0, 100.0), reading(1.0, 100.0)));
        state = fold_checks(&state, &plan, &[], None, at(5));
        let checks = state.guards[2].checks.clone().unwrap_or_default();
        (checks.passed, checks.failed, checks.no_data)
    };
    for condition in [
        "guards.errors.ratio == 2.0 && guards.errors.canary == 0.02 && guards.errors.stable == 0.01",
        "guards.errors.looks == 1 && guards.errors.evidence < 10.0 && guards.errors.worse < 100",
        "guards.errors.looks > 0 && checks.smoke.passed == 1 && checks.smoke.passedInStep > 0 && checks.smoke.last",
        r#"guards["errors"].safe < 20 && guards.all(name, guards[name].evidence < 10.0)"#,
    ] {
        assert_eq!(passed(condition), (1, 0, None), "{condition}");
    }
    assert_eq!(passed("guards.errors.ratio < 1.5"), (0, 1, None));
    let (ran, failed, reason) = passed("guards.latency.ratio < 1.5");
    assert_eq!((ran, failed), (0, 0));
    assert_eq!(reason.as_deref(), Some("the condition cannot be evaluated: there is no latency"));
}

#[test]
fn the_evidence_of_other_guards_does_not_depend_on_checks() {
    let (alone, beside) = (plan_of(&json!([errors()])), plan_of(&json!([errors(), smoke(&json!({}))])));
    let need = |plan: &Plan| plan.needed_strict(&plan.guards[0]).to_bits();
    assert_eq!(need(&alone), need(&beside));
    let (mut one, mut two) = (AnalysisState::default(), AnalysisState::default());
    for tick in 0..20 {
        let n = f64::from(tick);
        let sample = pair(5 * i64::from(tick), reading(3.0 * n, 50.0 * n), reading(n, 100.0 * n));
        one = fold(&one, &alone, &sample);
        two = fold(&two, &beside, &sample);
        two = folded(&two, &beside, 5 * i64::from(tick), Ok(true));
    }
    assert_eq!(one.guards[0], two.guards[0]);
    assert!(one.guards[0].looks > 10 && one.guards[0].margin > 1.0);
}

#[test]
fn what_cannot_be_used_is_refused_by_field() {
    let resolve = |guard: Value| {
        let guard = serde_json::from_value(guard).unwrap();
        let error = GuardPlan::resolve(&guard).unwrap_err();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    };
    let web = |more: Value| resolve(smoke(&more));
    let job = |template: Value| resolve(json!({"name": "a", "job": {"template": template}}));
    for (said, expected) in [
        (web(json!({"url": "http://{{pod}}/"})), r#"web.url: "pod" is no placeholder"#),
        (web(json!({"url": "http://{{revision/"})), "web.url: a placeholder is not closed with }}"),
        (web(json!({"url": "http://me:pw@host/"})), "web.url: user and password"),
        (web(json!({"url": "http://a b/"})), "web.url: is no address"),
        (web(json!({"condition": "status = 200"})), "web.condition: Syntax error"),
        (web(json!({"condition": "guards.errors"})), "web.condition: guards is not known here"),
        (web(json!({"jsonPath": "$.["})), "web.jsonPath: \"$.[\" is no JSONPath"),
        (web(json!({"jsonPath": "$..a..b"})), "web.jsonPath: at most one .."),
        (web(json!({"interval": "1s"})), "web.interval: 5s to 1h"),
        (web(json!({"timeout": "1m"})), "web.timeout: 100ms to 30s"),
        (web(json!({"successes": 0})), "successes: 1 to 1000"),
        (web(json!({"tls": {}})), "web.tls: only with https"),
        (web(json!({"headers": [{"name": "Cookie", "value": "x"}]})), "web.headers[Cookie]: "),
        (
            resolve(json!({"name": "a", "weight": 2, "web": {"url": "http://web/"}})),
            "weight: a check has none",
        ),
        (
            resolve(json!({"name": "a", "cel": {"condition": "true"}, "web": {"url": "http://web/"}})),
            "exactly one of",
        ),
        (resolve(json!({"name": "a", "cel": {"condition": "status == 200"}})), "status is not known here"),
        (job(json!({"containers": []})), "job.template: needs containers"),
        (job(json!({"containers": "a"})), "job.template: is no PodSpec"),
        (job(json!({"containers": [{"name": "a"}], "restartPolicy": "Always"})), "restartPolicy: Never"),
        (job(json!({"containers": [{"name": "a".repeat(17_000)}]})), "job.template: larger than 16384 bytes"),
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let analysis = json!({"guards": [smoke(&json!({})), errors()]});
    let refused = Plan::resolve(&serde_json::from_value(analysis).unwrap(), 12).unwrap_err();
    assert!(refused.in_full().contains("spec.analysis.metrics: needed"), "{refused}");
    let alone = json!({"guards": [smoke(&json!({}))]});
    Plan::resolve(&serde_json::from_value(alone).unwrap(), 12).unwrap();
}
