//! Whole rollouts: A12.

use super::engine::{Confidence, Counts, Engine, STANDARD};
use super::errors::Scale;
use super::random::{Random, Table};
use super::row::{Row, count};
use super::stream::repeat;

/// Requests a second of both versions together.
const TRAFFIC: u32 = 1000;
const INTERVAL: u32 = 5;
/// Percent of the traffic at each step.
const WEIGHTS: [u32; 3] = [5, 25, 50];
/// Looks that a step lasts at least: 120 s.
const LEAST: u32 = 24;
/// Looks that were planned for the release, and after which nothing is waited for any more: 30 min.
const PLANNED: u32 = 360;

/// What became of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// After so many looks.
    Promoted(u32),
    RolledBack,
    /// Neither within the time.
    Held,
}

/// The bad requests of a look at each step, of canary and stable.
struct Truth {
    steps: [[(f64, Table); 2]; 3],
}

impl Truth {
    fn new(canary: f64, stable: f64) -> Self {
        let version = |percent: u32, rate: f64| {
            let requests = TRAFFIC * INTERVAL * percent / 100;
            (f64::from(requests), Table::binomial(requests, rate))
        };
        Self { steps: WEIGHTS.map(|weight| [version(weight, canary), version(100 - weight, stable)]) }
    }
}

fn rollout(truth: &Truth, random: &mut Random) -> End {
    let mut engine = Engine::new(STANDARD, Confidence::Standard, PLANNED);
    let mut looks = 0;
    for [canary, stable] in &truth.steps {
        engine.start_step();
        let begun = looks;
        while looks - begun < LEAST || !engine.is_proven() {
            if looks == PLANNED {
                return End::Held;
            }
            looks += 1;
            engine.look(&Counts {
                canary_bad: canary.1.draw(random),
                canary_total: canary.0,
                stable_bad: stable.1.draw(random),
                stable_total: stable.0,
            });
            if engine.fails() {
                return End::RolledBack;
            }
        }
    }
    End::Promoted(looks)
}

/// A healthy rollout may be rolled back by chance, if rarely, so that 100 % cannot be kept for ever: the bound here is
/// all but one in 2,000, which 100 % of 2,000 cannot tell from all.
pub fn a12(scale: Scale) -> Vec<Row> {
    let runs = scale.rollouts;
    let ends = |name: &str, canary: f64, stable: f64| {
        let truth = Truth::new(canary, stable);
        repeat(scale.seed, &format!("rollout {name}"), runs, |random| rollout(&truth, random))
    };
    let number =
        |ends: &[End], wanted: fn(&End) -> bool| count(ends.iter().filter(|end| wanted(end)).count());
    let held = |name: &str, ends: &[End]| {
        let share = 100.0 * f64::from(number(ends, |end| *end == End::Held)) / f64::from(runs);
        let what = format!("rollout, {name}: neither promoted nor rolled back (%)");
        Row::peer(&format!("belay.held.{name}"), what, Some(share))
    };
    let mut rows = Vec::new();
    for (name, rate) in [("0.1%", 0.001), ("1%", 0.01)] {
        let ends = ends(name, rate, rate);
        let time = |end: &End| if let End::Promoted(looks) = end { Some(looks * INTERVAL) } else { None };
        let times: Vec<Option<u32>> = ends.iter().map(time).collect();
        let wrong = number(&ends, |end| !matches!(end, End::Promoted(_)));
        let what = format!("rollout 5→25→50 %, healthy at {name}");
        let good = format!("A12.good.{name}");
        rows.push(Row::at_least(&good, &format!("{what}: promoted"), wrong, runs, 99.95));
        rows.push(Row::median(&format!("A12.time.{name}"), &format!("{what}: median time"), &times, 360));
        rows.push(held(name, &ends));
    }
    for (name, canary, stable) in [
        ("0.1→0.5%", 0.005, 0.001),
        ("0.1→1%", 0.01, 0.001),
        ("1→2%", 0.02, 0.01),
        ("1→5%", 0.05, 0.01),
        ("0.1→20%", 0.2, 0.001),
    ] {
        let ends = ends(name, canary, stable);
        let promoted = number(&ends, |end| matches!(end, End::Promoted(_)));
        let what = format!("rollout 5→25→50 %, {name}: promoted");
        rows.push(Row::none(&format!("A12.bad.{name}"), &what, promoted, runs, 2000));
        rows.push(held(name, &ends));
    }
    rows
}
