//! Figures for the bench report. In a test they are only taken; `make bench` collects them.

use std::io::Write;

use serde_json::Value;

use super::scene::{Plan, Scene, steps};

/// Whether the bench runs, which takes more samples.
pub fn bench() -> Option<std::path::PathBuf> {
    std::env::var_os("BELAY_FIGURES").map(Into::into)
}

/// Tells the bench a figure. Each line is one JSON object, so that several tests can write to one file.
pub fn figure(name: &str, value: f64) {
    let Some(path) = bench() else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{}", serde_json::json!({"name": name, "value": value})).unwrap();
}

/// Adds to a figure of which several tests have a part.
pub fn add(name: &str, value: f64) {
    figure(&format!("+{name}"), value);
}

/// The value below which a share of the sorted samples lies: the nearest rank, never interpolated.
pub fn quantile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

#[tokio::test]
async fn a_crash_is_answered_in_the_same_pass() {
    let samples = if bench().is_some() { 50 } else { 3 };
    let plan = Plan { replicas: 2, spec: steps(&[(50, "30s")]), ..Plan::default() };
    let Some(mut scene) = Scene::start("reaction", plan).await else { return };
    let mut reactions = Vec::new();
    for n in 0..samples {
        scene.set_env(&[("VERSION", &format!("crash-{n}")), ("CRASH", "start")]).await;
        let name = scene.started_by_now(n).await;
        let release = scene.release_is(&name, "RolledBack").await;
        assert_eq!(release["status"]["reason"], "CanaryCrashed");
        let lines = scene.operator.logged("the canary's weight is gone");
        let of_release = lines.iter().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        let of_release: Vec<Value> = of_release.filter(|l| l["fields"]["release"] == name.as_str()).collect();
        assert_eq!(of_release.len(), 1, "one write takes the weight away: {lines:?}");
        reactions.push(of_release[0]["fields"]["reaction_seconds"].as_f64().unwrap());
    }
    reactions.sort_by(f64::total_cmp);
    figure("crash.event_to_write_s.p50", quantile(&reactions, 50));
    figure("crash.event_to_write_s.p99", quantile(&reactions, 99));
    figure("crash.samples", reactions.len() as f64);
    scene.operator.assert_healthy().await;
}

#[test]
fn quantiles_are_samples() {
    let sorted: Vec<f64> = (1..=50).map(f64::from).collect();
    assert!(
        (quantile(&sorted, 99) - 50.0).abs() < f64::EPSILON,
        "of 50 samples the 99th percentile is the largest"
    );
    assert!((quantile(&sorted, 50) - 25.0).abs() < f64::EPSILON);
    assert!((quantile(&sorted[..1], 1) - 1.0).abs() < f64::EPSILON);
}
