//! The rows on data that is missing or broken (A13), and on units (A14).

use super::engine::{Confidence, Counts, Engine, Heard, Pods, STANDARD, logs_of};
use super::errors::Scale;
use super::row::{Row, Tries, count};
use super::stream::{Scenario, repeat};

/// Bad and all events of a pod; nothing without the series.
type Pod = [Option<f64>; 2];

/// After a first sample of 10 of 1,000 on each version, then these counters of one canary and one stable pod.
fn after(samples: &[(Pod, Pod)]) -> Pods {
    let mut pods = Pods::new(360);
    let start = [Some(10.0), Some(1000.0)];
    pods.look(&[start], &[start]);
    for (canary, stable) in samples {
        pods.look(&[*canary], &[*stable]);
    }
    pods
}

fn some(bad: f64, all: f64) -> Pod {
    [Some(bad), Some(all)]
}

/// Each case of missing or broken data: what it is, and whether the engine does what it must.
pub fn cases() -> Vec<(&'static str, bool)> {
    let silent = |canary_bad, canary_total, stable_bad, stable_total| {
        let counts = Counts { canary_bad, canary_total, stable_bad, stable_total };
        logs_of(&counts).iter().all(|log| log.to_bits() == 0)
    };
    let no_data =
        |pods: &Pods, word: &str| matches!(pods.heard(), Heard::NoData(reason) if reason.contains(word));
    let nothing = |pods: &Pods| (pods.strict() - 1.0).abs() < 1e-12;
    let unchanged = some(10.0, 1000.0);
    let grown = some(11.0, 2000.0);

    let no_canary = after(&[(unchanged, grown), (unchanged, some(12.0, 3000.0))]);
    let no_stable = after(&[(some(30.0, 2000.0), unchanged), (some(50.0, 3000.0), unchanged)]);
    let absent = after(&[([None, None], grown)]);
    let absent_stable = after(&[(grown, [None, None])]);
    let no_errors = after(&[([None, Some(1100.0)], grown)]);
    let reset = after(&[(some(2.0, 100.0), some(11.0, 2000.0))]);
    let in_one = after(&[(some(12.0, 1100.0), some(11.0, 2000.0))]);
    let broken = after(&[(some(12.0, f64::NAN), grown)]);
    let endless = after(&[(some(12.0, f64::INFINITY), grown)]);
    let negative = after(&[(some(-1.0, 1100.0), grown)]);
    let mended = after(&[(some(12.0, f64::NAN), grown), (some(12.0, 1100.0), grown)]);
    let canary = |pods: &Pods, bad: f64, all: f64| {
        let totals = pods.totals();
        (totals.canary_bad - bad).abs() < 1e-9 && (totals.canary_total - all).abs() < 1e-9
    };
    vec![
        ("no canary requests: ln e is 0", silent(0.0, 0.0, 5.0, 4750.0)),
        ("no stable requests: ln e is 0", silent(5.0, 250.0, 0.0, 0.0)),
        ("no requests: ln e is 0", silent(0.0, 0.0, 0.0, 0.0)),
        (
            "not a number: ln e is 0",
            silent(f64::NAN, 250.0, 5.0, 4750.0) && silent(1.0, 250.0, f64::NAN, 4750.0),
        ),
        (
            "no canary requests: held, never proven",
            no_canary.heard() == Heard::Collecting && nothing(&no_canary),
        ),
        (
            "no stable requests: held, nothing counts",
            no_stable.heard() == Heard::Collecting && nothing(&no_stable),
        ),
        ("no series of the canary: no data", no_data(&absent, "canary-0 has no series") && nothing(&absent)),
        ("no series of stable: no data", no_data(&absent_stable, "stable-0 has no series")),
        ("no series of errors beside one of requests: none", canary(&no_errors, 0.0, 100.0)),
        ("a counter that begins again: counts from 0", canary(&reset, 2.0, 100.0)),
        ("a counter that begins again: same evidence", reset.strict().to_bits() == in_one.strict().to_bits()),
        ("not a number: no data", no_data(&broken, "NaN") && nothing(&broken)),
        ("infinite: no data", no_data(&endless, "inf") && nothing(&endless)),
        ("negative: no data", no_data(&negative, "-1") && nothing(&negative)),
        ("data after that: nothing is lost", canary(&mended, 2.0, 100.0)),
    ]
}

pub fn a13(_: Scale) -> Vec<Row> {
    let cases = cases();
    let wrong = count(cases.iter().filter(|(_, right)| !right).count());
    let what = format!("missing or broken data: cases of {} that are wrong", cases.len());
    vec![Row::figure("A13", &what, f64::from(wrong), 0.0)]
}

/// The look of the rollback, and the evidence of both keys at the end, when requests are counted in units of `unit`.
/// The limit of safety has points that are fixed, so that its evidence is left out.
fn verdict(looks: &[Counts], unit: f64) -> (Option<usize>, [f64; 2]) {
    let mut engine = Engine::new(STANDARD, Confidence::Standard, count(looks.len())).per(unit);
    let mut failed = None;
    for (number, look) in looks.iter().enumerate() {
        engine.look(&Counts {
            canary_total: look.canary_total / unit,
            stable_total: look.stable_total / unit,
            ..*look
        });
        if engine.fails() {
            failed = Some(number);
            break;
        }
    }
    let [strict, margin, _] = engine.evidence();
    (failed, [strict, margin])
}

pub fn a14(scale: Scale) -> Vec<Row> {
    // A little beyond the limit of 1.3 %, so that some are rolled back, at all times, and some are not.
    let scenario = Scenario::fault("units", 0.01, 0.014);
    let differ = repeat(scale.seed, &scenario.name, scale.runs, |random| {
        let looks = scenario.draw(random);
        let (failed, evidence) = verdict(&looks, 1.0);
        [60.0, 1000.0, 1.0 / 3600.0].into_iter().any(|unit| {
            let (other_failed, other) = verdict(&looks, unit);
            let same = evidence.iter().zip(other).all(|(one, other)| (one / other - 1.0).abs() < 1e-6);
            failed != other_failed || !same
        })
    });
    let wrong = count(differ.into_iter().filter(|differs| *differs).count());
    let row = Row::share("A14", "verdict or evidence differs with the unit", wrong, scale.runs, 0.0);
    vec![Row { tries: Some(Tries { wrong, of: scale.runs, allowed: 0.0 }), ..row }]
}
