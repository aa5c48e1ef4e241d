//! The rows on error rates: A3 to A7 and A11, and what other tools do on the same streams.

use super::engine::{Confidence, Counts, Engine, STANDARD, foretold};
use super::peers::{argo, flagger, kayenta};
use super::row::{Row, count, median};
use super::stream::{Scenario, Truth, repeat};

/// How many runs, and from which seed.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub seed: u64,
    /// Runs of a row on the boundary of the null.
    pub boundary: u32,
    /// Runs of any other row.
    pub runs: u32,
    /// Runs of a row through `fold`, with pods.
    pub pods: u32,
    /// Looks of such a run; 360 in the table.
    pub pod_looks: u32,
    /// Whole rollouts of a row.
    pub rollouts: u32,
}

/// The look at which the engine's guard fails.
fn stop(tolerance: &str, confidence: Confidence, looks: &[Counts]) -> Option<u32> {
    let mut engine = Engine::new(tolerance, confidence, count(looks.len()));
    let failed = looks.iter().position(|look| {
        engine.look(look);
        engine.fails()
    });
    failed.map(|index| count(index) + 1)
}

/// The releases of `scenario` that are stopped under this tolerance.
fn stopped(scale: Scale, runs: u32, scenario: &Scenario, tolerance: &str, confidence: Confidence) -> u32 {
    let outcomes = repeat(scale.seed, &scenario.name, runs, |random| {
        stop(tolerance, confidence, &scenario.draw(random)).is_some()
    });
    count(outcomes.into_iter().filter(|stopped| *stopped).count())
}

/// On the boundary of the null both keys are the same test; the theory says 1 % and 5 % at most.
pub fn a3(scale: Scale) -> Vec<Row> {
    let runs = scale.boundary;
    // Traffic moves to the canary while the error rate of both rises: no look is like the one before.
    let moving = Scenario::new("moving", 5, 30, |number| {
        let (part, rate) = (f64::from(number) / 360.0, 0.001 + 0.02 * f64::from(number) / 360.0);
        Truth { canary: (1000.0 * (0.05 + 0.45 * part), rate), stable: (1000.0 * (0.95 - 0.45 * part), rate) }
    });
    let scenarios = [Scenario::fault("0.1%", 0.001, 0.001), Scenario::fault("1%", 0.01, 0.01), moving];
    let row = |scenario: &Scenario, confidence, alpha: &str, percent| {
        let wrong = stopped(scale, runs, scenario, "1x", confidence);
        let what = format!("on the boundary, both {}: rolled back at α {alpha}", scenario.name);
        Row::share(&format!("A3.{}@{alpha}", scenario.name), &what, wrong, runs, percent)
    };
    let both = |scenario| {
        [row(scenario, Confidence::Standard, ".01", 1.0), row(scenario, Confidence::Fast, ".05", 5.0)]
    };
    scenarios.iter().flat_map(both).collect()
}

/// The releases that no tool should stop.
fn healthy() -> Vec<Scenario> {
    vec![
        Scenario::fault("0.1%", 0.001, 0.001),
        Scenario::fault("1%", 0.01, 0.01),
        Scenario::fault("3%", 0.03, 0.03),
        // Both versions fail 8 % of their requests for five minutes.
        Scenario::standard("incident", |number| {
            let rate = if (100..160).contains(&number) { 0.08 } else { 0.001 };
            (rate, rate)
        }),
        Scenario::standard("drift", |number| {
            let rate = 0.001 + 0.029 * f64::from(number) / 360.0;
            (rate, rate)
        }),
        Scenario::new("low", 5, 30, |_| Truth { canary: (0.5, 0.005), stable: (9.5, 0.005) }),
    ]
}

/// The releases that should be stopped, and in how many seconds.
fn faults() -> Vec<(Scenario, u32)> {
    let low = Scenario::new("low 0.5→10%", 5, 30, |_| Truth { canary: (0.5, 0.1), stable: (9.5, 0.005) });
    vec![
        (Scenario::fault("0.1→0.5%", 0.001, 0.005), 80),
        (Scenario::fault("0.1→1%", 0.001, 0.01), 30),
        (Scenario::fault("1→2%", 0.01, 0.02), 70),
        (Scenario::fault("1→5%", 0.01, 0.05), 20),
        (Scenario::fault("0.1→20%", 0.001, 0.2), 15),
        (Scenario::fault("0→0.5%", 0.0, 0.005), 35),
        (Scenario::late_fault("late 0.1→1%", 0.001, 0.01), 50),
        (Scenario::late_fault("late 1→2%", 0.01, 0.02), 135),
        (low, 115),
    ]
}

/// The tools that are compared, Belay first.
const TOOLS: [&str; 4] = ["belay", "argo", "flagger", "kayenta"];

/// What the tools did on the releases of one scenario, of those that each did not stop before the fault.
struct Compared {
    /// By tool: the seconds from the fault to the stop, of each release.
    delays: [Vec<Option<u32>>; 4],
    /// By tool: bad responses of the canary from the fault to the stop, or to the end; mean over the releases.
    bad: [f64; 4],
    /// By tool: releases stopped before the fault.
    early: [u32; 4],
}

fn compare(scale: Scale, scenario: &Scenario) -> Compared {
    let outcomes = repeat(scale.seed, &scenario.name, scale.runs, |random| {
        let looks = scenario.draw(random);
        let stops = [
            stop(STANDARD, Confidence::Standard, &looks),
            argo(&looks, scenario.interval),
            flagger(&looks, scenario.interval),
            kayenta(&looks, scenario.interval),
        ];
        stops.map(|stop| {
            let end = stop.map_or(looks.len(), |look| look as usize);
            let served = looks.get(scenario.late..end).unwrap_or_default();
            (stop, served.iter().map(|look| look.canary_bad).sum::<f64>())
        })
    });
    let late = count(scenario.late);
    let of = |tool: usize| outcomes.iter().map(move |outcome| outcome[tool]);
    let in_time = |tool: usize| of(tool).filter(move |(stop, _)| stop.is_none_or(|stop| stop > late));
    Compared {
        delays: [0, 1, 2, 3].map(|tool| {
            in_time(tool).map(|(stop, _)| stop.map(|stop| (stop - late) * scenario.interval)).collect()
        }),
        bad: [0, 1, 2, 3].map(|tool| {
            in_time(tool).map(|(_, bad)| bad).sum::<f64>() / (in_time(tool).count().max(1) as f64)
        }),
        early: [0, 1, 2, 3].map(|tool| count(of(tool).count() - in_time(tool).count())),
    }
}

fn found(delays: &[Option<u32>]) -> u32 {
    count(delays.iter().flatten().count())
}

/// Healthy releases: A4, and the false rollbacks of the others.
pub fn a4(scale: Scale) -> Vec<Row> {
    let rows = healthy().into_iter().flat_map(|scenario| {
        let compared = compare(scale, &scenario);
        let what = format!("healthy, {}: rolled back", scenario.name);
        let wrong = found(&compared.delays[0]);
        let ours = Row::share(&format!("A4.{}", scenario.name), &what, wrong, scale.runs, 0.2);
        let peers = [1, 2, 3].map(|tool| {
            let share = 100.0 * f64::from(found(&compared.delays[tool])) / f64::from(scale.runs);
            let id = format!("{}.false.{}", TOOLS[tool], scenario.name);
            Row::peer(&id, format!("{}, {what} (%)", TOOLS[tool]), Some(share))
        });
        [vec![ours], peers.to_vec()].concat()
    });
    rows.collect()
}

pub fn a5(scale: Scale) -> Vec<Row> {
    [("within", 0.0115, "1→1.15%, tolerated", 0.3), ("limit", 0.013, "1→1.3%, exactly on the limit", 4.0)]
        .map(|(name, canary, what, percent)| {
            let scenario = Scenario::fault(name, 0.01, canary);
            let wrong = stopped(scale, scale.runs, &scenario, STANDARD, Confidence::Standard);
            Row::share(&format!("A5.{name}"), &format!("{what}: rolled back"), wrong, scale.runs, percent)
        })
        .to_vec()
}

/// Worse releases: A6, and how long the others need.
pub fn a6(scale: Scale) -> Vec<Row> {
    let rows = faults().into_iter().flat_map(|(scenario, bound)| {
        let compared = compare(scale, &scenario);
        let name = &scenario.name;
        let ours = &compared.delays[0];
        let missed = count(ours.len()) - found(ours);
        let mut rows = vec![
            Row::median(&format!("A6.{name}"), &format!("{name}: median delay"), ours, bound),
            Row::share(
                &format!("A6.{name}.missed"),
                &format!("{name}: missed"),
                missed,
                count(ours.len()),
                0.5,
            ),
        ];
        for (tool, of) in TOOLS.iter().enumerate() {
            let delays = &compared.delays[tool];
            let mut peer = |kind: &str, what: &str, value| {
                rows.push(Row::peer(&format!("{of}.{kind}.{name}"), format!("{of}, {name}: {what}"), value));
            };
            if tool > 0 {
                let missed = count(delays.len()) - found(delays);
                let share = 100.0 * f64::from(missed) / f64::from(count(delays.len()).max(1));
                peer("delay", "median delay (s)", median(delays));
                peer("missed", "missed (%)", Some(share).filter(|_| !delays.is_empty()));
            }
            if scenario.late > 0 {
                let share = 100.0 * f64::from(compared.early[tool]) / f64::from(scale.runs);
                peer("early", "rolled back before the fault (%)", Some(share));
            }
            peer(
                "bad",
                "bad responses until the stop (mean)",
                Some(compared.bad[tool]).filter(|_| !delays.is_empty()),
            );
        }
        rows
    });
    rows.collect()
}

/// Looks three times as far apart.
pub fn a7(scale: Scale) -> Vec<Row> {
    [("0.1→1%", 0.001, 0.01, 60), ("1→2%", 0.01, 0.02, 105)]
        .map(|(name, stable, canary, bound)| {
            let scenario = Scenario::new(&format!("15 s, {name}"), 15, 30, |_| Truth {
                canary: (50.0, canary),
                stable: (950.0, stable),
            });
            let delays = repeat(scale.seed, &scenario.name, scale.runs, |random| {
                stop(STANDARD, Confidence::Standard, &scenario.draw(random)).map(|look| 15 * look)
            });
            Row::median(
                &format!("A7.{name}"),
                &format!("looks every 15 s, {name}: median delay"),
                &delays,
                bound,
            )
        })
        .to_vec()
}

/// The look at which the guard is first proven safe; a rollback does not end these releases.
fn proof(looks: &[Counts]) -> Option<u32> {
    let mut engine = Engine::new(STANDARD, Confidence::Standard, count(looks.len()));
    let proven = looks.iter().position(|look| {
        engine.look(look);
        engine.is_proven()
    });
    proven.map(|index| count(index) + 1)
}

/// The limit of safety is 1.5x + 0.2 % with the standard tolerance.
pub fn a11(scale: Scale) -> Vec<Row> {
    let proofs = |scenario: &Scenario| {
        repeat(scale.seed, &scenario.name, scale.runs, |random| {
            proof(&scenario.draw(random)).map(|look| look * scenario.interval)
        })
    };
    let mut rows = Vec::new();
    for (name, rate) in [("0.1%", 0.001), ("1%", 0.01)] {
        let delays = proofs(&Scenario::fault(name, rate, rate));
        let what = format!("healthy at {name}: median time to the proof of safety");
        rows.push(Row::median(&format!("A11.{name}"), &what, &delays, 60));
        let told = foretold(rate, 50.0, 950.0).unwrap();
        rows.push(Row::peer(
            &format!("belay.foretold.{name}"),
            format!("healthy at {name}: time to the proof as foretold (s)"),
            Some(told),
        ));
    }
    for (name, stable, canary) in [("0.1→1%", 0.001, 0.01), ("1→5%", 0.01, 0.05)] {
        let proven = found(&proofs(&Scenario::fault(&format!("proof {name}"), stable, canary)));
        let what = format!("{name}: ever proven safe in 30 min, rolled back or not");
        rows.push(Row::share(&format!("A11.{name}"), &what, proven, scale.runs, 0.1));
    }
    rows
}
