//! What people ask of a running release, as alice, by plain patches.

use serde_json::json;

use super::scene::{Plan, Scene, brief, int, steps, text, timeline, while_nothing_happens};

#[tokio::test]
async fn pause_holds_and_resume_goes_on() {
    let plan = Plan { spec: steps(&[(30, "4s"), (50, "1s")]), ..Plan::default() };
    let Some(mut scene) = Scene::start("pause", plan).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    scene.at_step(&name, 1).await;
    let answer =
        scene.command(&name, json!({"verb": "pause", "by": "somebody else", "reason": "lunch"})).await;
    assert_eq!(answer["accepted"], true, "{answer}");
    let paused = scene.release_is(&name, "Paused").await;
    assert_eq!(text(&paused, "/spec/commands/0/by"), "alice", "what a client claims is replaced");
    assert!(paused.pointer("/status/step/runningSince").is_none(), "its clock stands: {}", brief(&paused));
    let again = scene.command(&name, json!({"verb": "pause"})).await;
    assert_eq!(again["accepted"], false);
    while_nothing_happens(6).await;
    let still = scene.release(&name).await;
    assert_eq!(int(&still, "/status/step/index"), 0, "{}", brief(&still));
    assert_eq!(still["status"]["step"]["elapsedSeconds"], paused["status"]["step"]["elapsedSeconds"]);
    let answer = scene.command(&name, json!({"verb": "resume"})).await;
    assert_eq!(answer["accepted"], true);
    let done = scene.release_is(&name, "Promoted").await;
    let way = timeline(&done);
    assert!(way.contains(&"PausedByUser".to_owned()), "{way:?}");
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn a_step_that_waits_is_promoted_or_approved_by_a_person() {
    let spec = json!({"strategy": {"canary": {"steps": [
        {"weight": 20, "minDuration": "1s", "pause": true},
        {"weight": 40, "minDuration": "1s", "pause": true},
        {"weight": 50, "minDuration": "1s"},
    ]}}});
    let Some(mut scene) = Scene::start("approve", Plan { spec, ..Plan::default() }).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let waiting = |step: i64| {
        move |r: &serde_json::Value| {
            text(r, "/status/reason") == "AwaitingApproval" && int(r, "/status/step/index") == step - 1
        }
    };
    let held = scene.release_where(&name, "step 1 waits", waiting(1)).await;
    assert_eq!(text(&held, "/status/phase"), "Paused");

    let wrong = scene.command(&name, json!({"verb": "promote", "step": 2})).await;
    assert_eq!(wrong["accepted"], false);
    assert!(text(&wrong, "/message").contains("is at step 1 of 3"), "{wrong}");
    let right = scene.command(&name, json!({"verb": "promote", "step": 1, "reason": "looks fine"})).await;
    assert_eq!(right["accepted"], true, "{right}");

    scene.release_where(&name, "step 2 waits", waiting(2)).await;
    let approved = scene.command(&name, json!({"verb": "approve"})).await;
    assert_eq!(approved["accepted"], true, "{approved}");
    let done = scene.release_is(&name, "Promoted").await;
    let messages = done["status"]["timeline"].to_string();
    assert!(messages.contains("step 1 passed by alice: looks fine"), "{messages}");
    let told = scene.events(&name).await;
    assert!(told.iter().any(|(reason, kind, _)| reason == "Held" && kind == "Normal"), "{told:?}");
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn abort_takes_the_weight_away_and_full_promotion_skips_the_steps() {
    let plan = Plan { replicas: 2, spec: steps(&[(30, "60s"), (40, "60s"), (50, "60s")]), ..Plan::default() };
    let Some(mut scene) = Scene::start("abort", plan).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let first = scene.new_release(0).await;
    scene.at_step(&first, 1).await;
    let answer = scene.command(&first, json!({"verb": "abort", "reason": "wrong day", "by": "root"})).await;
    assert_eq!(answer["accepted"], true);
    let release = scene.release_is(&first, "RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), "Aborted");
    assert_eq!(text(&release, "/status/message"), "aborted by alice: wrong day");
    scene.rollout_is("web", "Rejected").await;

    scene.set_env(&[("VERSION", "3")]).await;
    let second = scene.new_release(1).await;
    scene.at_step(&second, 1).await;
    let answer =
        scene.command(&second, json!({"verb": "promote", "full": true, "reason": "it is a hotfix"})).await;
    assert_eq!(answer["accepted"], true, "{answer}");
    let release = scene.release_is(&second, "Promoted").await;
    assert_eq!(
        timeline(&release),
        ["ReleaseStarted", "StepPassed", "Promoting", "Promoted"],
        "no step was entered on the way"
    );
    scene.operator.assert_healthy().await;
}
