//! An explanation in words.

use std::fmt::Write as _;

use super::{Between, Checked, Compared, Explanation, Interval, Tolerated};

/// The quantile that is told in words.
const SHOWN: f64 = 0.95;

/// An explanation in three sentences. `headline` says what became of it, such as `Rolled back after 35 s.`
pub fn explanation_text(explanation: &Explanation, headline: &str) -> String {
    let e = explanation;
    let mut text = headline.to_owned();
    if !text.is_empty() {
        text.push(' ');
    }
    if let Some(check) = &e.check {
        let _ = write!(text, "Check {}: {}.", e.guard, runs(check));
        if let Some(result) = &check.state.last_result {
            let verb = if check.state.last { "passed" } else { "failed" };
            let _ = write!(text, "\nThe last run {verb}: {result}");
        }
        if let Some(reason) = &check.state.no_data {
            let _ = write!(text, "\nNow there is no answer: {reason}");
        }
        return text;
    }
    let _ = writeln!(text, "Guard {}: {}.", e.guard, seen(e));
    text.push_str(&evidence(e));
    if let Some(found) = e.quantiles.iter().find(|found| found.q.to_bits() == SHOWN.to_bits()) {
        let of = |between: &Between| range(between, e.unit);
        let _ = write!(text, " p95: canary {}, stable {}.", of(&found.canary), of(&found.stable));
    }
    if e.dispersion > 1.05 {
        let _ = write!(text, " Stable's events come in bursts: evidence counts 1/{:.1}.", e.dispersion);
    }
    if e.spread > 1.0 {
        let _ = write!(text, " Stable's pods differ among themselves: limits widened by {:.2}x.", e.spread);
    }
    text.push('\n');
    if e.failed() {
        let _ = write!(
            text,
            "A release that is no worse than stable gets here in fewer than 1 of {} releases.",
            grouped(e.one_in)
        );
        if let Some(tolerated) = &e.would_run_with {
            let _ = write!(text, " With a tolerance of about {tolerated} it would still be running.");
        }
    } else {
        let _ = write!(
            text,
            "Evidence that it is safe at this step: {} (needs {}).",
            amount(e.safe),
            amount(e.needed_safe)
        );
        if let Some(seconds) = e.seconds_to_proof {
            let _ = write!(text, " At this traffic the proof takes about {} more.", duration(seconds));
        }
    }
    text
}

/// The numbers behind a rollback, in one sentence.
pub fn finding_text(explanation: &Explanation) -> String {
    let e = explanation;
    if let Some(check) = &e.check {
        let result = check.state.last_result.as_deref().unwrap_or_default();
        return format!("{}; the last run saw {result}", runs(check));
    }
    format!(
        "{}; evidence that it is worse {} (needs {}), that it is beyond the tolerance {} (needs {})",
        seen(e),
        amount(e.strict),
        amount(e.needed_strict),
        amount(e.margin),
        amount(e.needed_margin)
    )
}

/// How the runs of a check went, and what is missing: `passed 3 of 3, needs 1 more this step`.
fn runs(check: &Checked) -> String {
    let Checked { state, failure_limit, successes } = check;
    let (passed, failed) = (state.passed, state.failed);
    let all = u64::from(passed) + u64::from(failed);
    let mut text = if all == 0 { "no run yet".to_owned() } else { format!("passed {passed} of {all}") };
    if failed > 0 {
        let _ = write!(text, ", failed {failed} ({failure_limit} may)");
    }
    let missing = successes.saturating_sub(state.passed_in_step);
    if failed <= *failure_limit && missing > 0 {
        let _ = write!(text, ", needs {missing} more this step");
    }
    text
}

/// Between which edges a quantile is.
fn range(between: &Between, unit: &str) -> String {
    match (between.low > 0.0, between.high) {
        (true, Some(high)) => format!("{} to {}", measure(between.low, ""), measure(high, unit)),
        (true, None) => format!("above {}", measure(between.low, unit)),
        (false, Some(high)) => format!("below {}", measure(high, unit)),
        (false, None) => "not known yet".to_owned(),
    }
}

/// What was seen of both versions.
fn seen(e: &Explanation) -> String {
    if let Some([canary, stable]) = e.gauge {
        let minutes = grouped(f64::from(e.looks));
        let plural = if e.looks == 1 { "" } else { "s" };
        let times = if stable > 0.0 { format!(": {}x", digits(canary / stable, 3)) } else { String::new() };
        return format!(
            "canary {} against stable {} on average over {minutes} minute{plural}{times}",
            measure(canary, e.unit),
            measure(stable, e.unit)
        );
    }
    let Some(worst) = e.compared.get(e.worst) else { return "no events yet".to_owned() };
    let what = match (worst.edge, e.compared.len()) {
        (Some(edge), 1) => format!("slower than {}: ", measure(edge, e.unit)),
        (Some(edge), edges) => {
            format!("slower than {}, the worst of {edges} edges: ", measure(edge, e.unit))
        }
        (None, _) => String::new(),
    };
    format!(
        "{what}canary {} against stable {}{}",
        counted(worst.counts.canary_bad, worst.counts.canary_total, worst.canary_rate),
        counted(worst.counts.stable_bad, worst.counts.stable_total, worst.stable_rate),
        times_worse(worst),
    )
}

/// How much evidence there is of harm.
fn evidence(e: &Explanation) -> String {
    let worst = e.compared.get(e.worst);
    let at_present = worst
        .and_then(|worst| worst.tolerated_rate)
        .filter(|_| matches!(e.tolerated, Tolerated::Share(t) if t.points > 0.0 || t.factor > 1.0))
        .or(worst.and_then(|w| w.tolerated_rate).filter(|_| matches!(e.tolerated, Tolerated::AtLeast(_))))
        .map(|rate| format!(" ({} at stable's present rate)", percent(rate)))
        .unwrap_or_default();
    let tolerated = &e.tolerated;
    let looks = format!("{} look{}", grouped(f64::from(e.looks)), if e.looks == 1 { "" } else { "s" });
    let (strict, margin) = (amount(e.strict), amount(e.margin));
    let (needed_strict, needed_margin) = (amount(e.needed_strict), amount(e.needed_margin));
    let bound = format!("{looks}; no look may count more than {:.2}x.", e.cap);
    match (tolerated, e.gauge) {
        (Tolerated::AtMost(_), _) => {
            format!(
                "Evidence that it is beyond the limit {tolerated}: {strict} (needs {needed_strict}). {bound}"
            )
        }
        (Tolerated::AtLeast(_), None) => format!(
            "Evidence that it is worse: {strict} (needs {needed_strict}). Evidence that it is below {tolerated} of \
             stable{at_present}: {margin} (needs {needed_margin}). {bound}"
        ),
        (_, Some(_)) => format!(
            "Evidence that it is worse: {strict} (needs {needed_strict}). Evidence that it is beyond {tolerated} of \
             stable: {margin} (needs {needed_margin}). One comparison a minute; the first 8 are only learnt from."
        ),
        _ => format!(
            "Evidence that it is worse: {strict} (needs {needed_strict}). Evidence that it is beyond the tolerance \
             {tolerated}{at_present}: {margin} (needs {needed_margin}). {bound}"
        ),
    }
}

fn counted(bad: f64, total: f64, rate: Option<f64>) -> String {
    match rate {
        Some(rate) => format!("{} of {} ({})", grouped(bad), grouped(total), percent(rate)),
        None => "no events".to_owned(),
    }
}

/// `: 12.7x, anytime 99 % interval 3.9x to 38x`, as far as it is known.
fn times_worse(compared: &Compared) -> String {
    let Interval { low, high } = compared.interval;
    let interval = match (low > 0.0, high) {
        (true, Some(high)) => format!("{}x to {}x", digits(low, 2), digits(high, 2)),
        (true, None) => format!("above {}x", digits(low, 2)),
        (false, Some(high)) => format!("below {}x", digits(high, 2)),
        (false, None) => String::new(),
    };
    match (compared.ratio, interval.is_empty()) {
        (Some(ratio), true) => format!(": {}x", digits(ratio, 3)),
        (Some(ratio), false) => format!(": {}x, anytime 99 % interval {interval}", digits(ratio, 3)),
        (None, true) => String::new(),
        (None, false) => format!(": anytime 99 % interval of the ratio {interval}"),
    }
}

/// A value with its unit, where that is known.
fn measure(value: f64, unit: &str) -> String {
    let number = digits(value, 4);
    // 0.1 and not 0.1000.
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    if unit.is_empty() { number.to_owned() } else { format!("{number} {unit}") }
}

/// Seconds in the largest unit that leaves a number above 1, rounded up.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{:.0} s", s.ceil()),
        s if s < 5400.0 => format!("{:.0} min", (s / 60.0).ceil()),
        s if s < 172_800.0 => format!("{:.0} h", (s / 3600.0).ceil()),
        s => format!("{:.0} days", (s / 86_400.0).ceil()),
    }
}

/// A share with two decimals, or two digits when it is smaller than that.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 0.01 || percent <= 0.0 {
        format!("{percent:.2} %")
    } else {
        format!("{} %", digits(percent, 2))
    }
}

/// Evidence: no more precise than it is worth reading.
fn amount(evidence: f64) -> String {
    if evidence >= 1e6 {
        "more than 1,000,000".to_owned()
    } else if evidence >= 10.0 {
        grouped(evidence.floor())
    } else {
        // Downwards, so that what is shown never claims a bound that is not reached.
        format!("{}", (evidence * 10.0).floor() / 10.0)
    }
}

/// With `count` significant digits, and no more decimals than those.
fn digits(x: f64, count: i32) -> String {
    if !(x.is_finite() && x > 0.0) {
        return format!("{x}");
    }
    let mut magnitude = 0;
    let mut rest = x;
    while rest >= 10.0 {
        rest /= 10.0;
        magnitude += 1;
    }
    while rest < 1.0 {
        rest *= 10.0;
        magnitude -= 1;
    }
    let decimals = usize::try_from(count - 1 - magnitude).unwrap_or(0);
    if magnitude >= 3 { grouped(x) } else { format!("{x:.decimals$}") }
}

/// A whole number with commas between thousands.
fn grouped(x: f64) -> String {
    let digits = format!("{x:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
