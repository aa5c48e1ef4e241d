//! The evidence of a guard over its looks as three rows of characters.

use std::fmt::Write as _;
use std::time::Duration;

use super::Scene;
use super::guard::{GuardReport, Proof};
use super::looks::{LookReport, Start};
use super::text::{Tone, count, evidence, paint, seconds};

/// From "1 or less" to "what is needed is reached"; only that fills the whole height.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same for terminals without them.
const ASCII: [char; 8] = ['_', '.', '-', ':', '=', '+', '*', '#'];
/// Columns of the widest label and of the widest value, with the spaces beside them.
const LABEL: usize = 18;
const VALUE: usize = 22;
/// More columns than this make the rows harder to read, not better.
const MOST: usize = 60;

/// How high a value is drawn, from 0 to 7, on a logarithmic scale: 0 is 1 or less, and 7 is `needs` or more.
fn level(value: f64, needs: f64) -> usize {
    if value >= needs {
        return 7;
    }
    let part = value.max(1.0).ln() / needs.max(1.0).ln();
    // Seven bands below what is needed.
    (1_u8..7).filter(|band| part * 7.0 >= f64::from(*band)).count()
}

/// A label, how much there is and is needed, how much there was after a look, and the colour of enough.
type Row<'a> = (&'a str, &'a Proof, fn(&LookReport) -> f64, Tone);

/// Three rows of evidence and one of steps.
pub(super) fn chart(guard: &GuardReport, starts: &[Start], scene: &Scene, indent: usize) -> String {
    let (Some(first), Some(last)) = (guard.looks.first(), guard.looks.last()) else { return String::new() };
    let room = scene.width.clamp(40, 110).saturating_sub(indent + LABEL + VALUE).clamp(8, MOST);
    let together = guard.looks.len().div_ceil(room);
    let columns: Vec<&[LookReport]> = guard.looks.chunks(together).collect();
    let marks = if scene.unicode { BLOCKS } else { ASCII };
    let mut text = String::new();
    let rows: [Row<'_>; 3] = [
        ("worse", &guard.evidence.worse, |look| look.strict, Tone::Bad),
        ("beyond tolerance", &guard.evidence.beyond_tolerance, |look| look.margin, Tone::Bad),
        ("safe", &guard.evidence.safe, |look| look.safe, Tone::Good),
    ];
    for (label, proof, value, tone) in rows {
        let drawn: String = columns
            .iter()
            // The highest of the looks in a column, so that none that reached it is hidden.
            .map(|looks| looks.iter().map(value).fold(0.0, f64::max))
            .map(|value| marks[level(value, proof.needs)])
            .collect();
        let drawn = painted(scene, &drawn, marks[7], tone);
        let words = format!("{} of {}", evidence(proof.value), count(proof.needs));
        let _ = writeln!(text, "{:indent$}{label:<LABEL$}{drawn}  {words}", "");
    }
    let time = |look: &LookReport| seconds(Duration::try_from_secs_f64(look.second).unwrap_or_default());
    let span = if guard.looks.len() > 1 { format!("{} to {}", time(first), time(last)) } else { time(first) };
    let _ = writeln!(text, "{:indent$}{:<LABEL$}{}  {span}", "", "step", steps(&columns, starts));
    text
}

/// The number of each step below its first look.
fn steps(columns: &[&[LookReport]], starts: &[Start]) -> String {
    let mut row = vec![' '; columns.len()];
    for start in starts {
        let at = columns
            .iter()
            .position(|looks| looks.last().is_some_and(|look| look.second > start.second))
            .filter(|_| start.step.is_some());
        let number = start.step.map(|step| step.to_string()).unwrap_or_default();
        // Of steps without a look of their own only the last is shown; a number that has no room is not.
        if let Some(at) = at.filter(|at| at + number.len() <= row.len()) {
            row.splice(at..at + number.len(), number.chars());
        }
    }
    row.into_iter().collect()
}

/// The characters that reach what is needed, in their colour.
fn painted(scene: &Scene, drawn: &str, full: char, tone: Tone) -> String {
    let mut text = String::new();
    let mut rest = drawn;
    while let Some(at) = rest.find(full) {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c| c != full).unwrap_or(from.len());
        let (reached, after) = from.split_at(end);
        text.push_str(before);
        text.push_str(&paint(scene, tone, reached));
        rest = after;
    }
    text + rest
}

/// How the rows are to be read, once for all guards.
pub(super) fn legend(guards: &[GuardReport], scene: &Scene) -> String {
    let marks = if scene.unicode { BLOCKS } else { ASCII };
    let gone = guards.iter().map(|guard| guard.looks_gone).max().unwrap_or_default();
    let mut text = format!(
        "Each row is the evidence after the looks, from {} (1 or less) on a logarithmic scale to {} (what is needed).",
        marks[0], marks[7]
    );
    if gone > 0 {
        let _ = write!(text, " {gone} older looks are no longer kept: the rows begin after them, at 1.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_fills_the_height() {
        let levels = |needs: f64, values: &[f64]| values.iter().map(|v| level(*v, needs)).collect::<Vec<_>>();
        // A seventh of the way to 10^7 is 10.
        assert_eq!(levels(1e7, &[0.0, 1.0, 9.9, 10.1, 101.0, 0.99e7, 1e7, 1e250]), [0, 0, 0, 1, 2, 6, 7, 7]);
        assert_eq!(levels(100.0, &[99.9, 100.0, f64::INFINITY]), [6, 7, 7]);
    }
}
