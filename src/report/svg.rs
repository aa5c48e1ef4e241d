//! A release as a picture: the evidence of each guard over time, what is needed of it, the steps, and the counts.
//!
//! One self-contained SVG: no script, no font, nothing to load. The same report gives the same bytes, and everything
//! that comes from outside is escaped.

use std::fmt::Write as _;
use std::time::Duration;

use super::guard::{GuardReport, Proof};
use super::looks::{LookReport, Start, starts};
use super::release::ReleaseReport;
use super::release_text::{headline, image_words};
use super::text::{count, evidence, seconds};
use crate::api::evidence::Counts;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 88.0;
const RIGHT: f64 = 850.0;
const HEADER: f64 = 92.0;
/// Height of a guard's part: title and legend, evidence, counts, times.
const PANEL: f64 = TITLE + PLOT + 2.0 * STRIP + AXIS;
const TITLE: f64 = 58.0;
const PLOT: f64 = 190.0;
const STRIP: f64 = 34.0;
const AXIS: f64 = 46.0;
const INK: &str = "#1f2933";
const FAINT: &str = "#5f6b7a";
const WORSE: &str = "#b3261e";
const BEYOND: &str = "#9a5b00";
const SAFE: &str = "#12724a";

/// The picture.
pub fn svg(report: &ReleaseReport) -> String {
    let starts = starts(&report.timeline, report.first_look_at);
    let measured = || report.guards.iter().filter(|guard| guard.check.is_none());
    let panels = measured().count().max(1) as f64;
    let height = HEADER + panels * PANEL + 12.0;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"title desc\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\">"
    );
    let title = format!("Evidence of release {}", report.name);
    let _ = writeln!(out, "<title id=\"title\">{}</title>", escaped(&title));
    let _ = writeln!(out, "<desc id=\"desc\">{}</desc>", escaped(&description(report)));
    let _ = writeln!(out, "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>");
    let place =
        format!("{} ({}/{}, attempt {})", report.name, report.namespace, report.workload, report.attempt);
    let at = |y: f64| (24.0, y);
    label(&mut out, at(32.0), &Style { size: 18, weight: 600, ..Style::of(INK) }, &shortened(&place, 100));
    let mut summary = headline(report);
    if let Some(message) = &report.message {
        let _ = write!(summary, " {message}");
    }
    label(&mut out, at(56.0), &Style::of(INK), &shortened(&summary, 140));
    label(&mut out, at(76.0), &Style::of(FAINT), &shortened(&image_words(&report.images), 140));
    if measured().next().is_none() {
        let words = match report.guards.len() {
            0 => "This release has no guards: it advances by time.".to_owned(),
            _ => "This release has checks and no guards that compare numbers.".to_owned(),
        };
        label(&mut out, at(HEADER + 30.0), &Style::of(FAINT), &words);
    }
    let last = report.guards.iter().flat_map(|g| &g.looks).map(|l| l.second).fold(1.0, f64::max);
    let mut top = HEADER;
    for guard in measured() {
        panel(&mut out, &Panel { guard, starts: &starts, report, last, top });
        top += PANEL;
    }
    out.push_str("</svg>\n");
    out
}

/// The same in words, for those who do not see it.
fn description(report: &ReleaseReport) -> String {
    let mut text = headline(report);
    for guard in &report.guards {
        let words = guard.words.clone().unwrap_or_else(|| format!("Guard {}: no data.", guard.name));
        let _ = write!(text, " {words}");
    }
    text
}

/// One guard and where it is drawn.
struct Panel<'a> {
    guard: &'a GuardReport,
    starts: &'a [Start],
    report: &'a ReleaseReport,
    /// The last second of the time axis.
    last: f64,
    top: f64,
}

impl Panel<'_> {
    fn x(&self, second: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * second.clamp(0.0, self.last) / self.last
    }

    fn plot_top(&self) -> f64 {
        self.top + TITLE
    }

    fn plot_bottom(&self) -> f64 {
        self.plot_top() + PLOT
    }

    /// Powers of ten on the axis: what is needed has to be seen well, and evidence far beyond it says nothing more.
    fn decades(&self) -> f64 {
        let e = &self.guard.evidence;
        let needed = e.worse.needs.max(e.beyond_tolerance.needs).max(e.safe.needs);
        (needed * 1.5).log10().ceil().clamp(2.0, 9.0)
    }

    fn y(&self, value: f64) -> f64 {
        let decades = self.decades();
        let up = if value > 1.0 { value.log10().min(decades) } else { 0.0 };
        self.plot_bottom() - PLOT * up / decades
    }
}

type Curve = (&'static str, &'static str, fn(&LookReport) -> f64);
const CURVES: [Curve; 3] = [
    ("worse", WORSE, |look| look.strict),
    ("beyond tolerance", BEYOND, |look| look.margin),
    ("safe", SAFE, |look| look.safe),
];

fn panel(out: &mut String, panel: &Panel<'_>) {
    let guard = panel.guard;
    out.push_str("<g>\n");
    let title = format!("Guard {}: tolerates {}", guard.name, guard.tolerate);
    let strong = Style { size: 14, weight: 600, ..Style::of(INK) };
    label(out, (24.0, panel.top + 22.0), &strong, &shortened(&title, 110));
    if guard.looks.is_empty() {
        label(out, (24.0, panel.top + 46.0), &Style::of(FAINT), "No looks are recorded.");
        out.push_str("</g>\n");
        return;
    }
    legend(out, panel);
    bands(out, panel);
    grid(out, panel);
    thresholds(out, panel);
    for (_, color, value) in CURVES {
        curve(out, panel, color, value);
    }
    step_labels(out, panel);
    verdict(out, panel);
    strips(out, panel);
    times(out, panel);
    out.push_str("</g>\n");
}

fn proofs(guard: &GuardReport) -> [Proof; 3] {
    [guard.evidence.worse, guard.evidence.beyond_tolerance, guard.evidence.safe]
}

fn legend(out: &mut String, panel: &Panel<'_>) {
    let y = panel.top + 43.0;
    for ((name, color, _), (proof, x)) in
        CURVES.iter().zip(proofs(panel.guard).iter().zip([LEFT, LEFT + 220.0, LEFT + 500.0]))
    {
        line(out, (x, y - 4.0), (x + 22.0, y - 4.0), &format!("stroke=\"{color}\" stroke-width=\"2\""));
        let words = format!("{name}: {}, needs {}", evidence(proof.value), count(proof.needs));
        label(out, (x + 28.0, y), &Style::of(color), &words);
    }
}

/// Each step that is seen: its place on the time axis.
fn steps<'a>(panel: &'a Panel<'_>) -> impl Iterator<Item = (usize, &'a Start, f64, f64)> {
    panel.starts.iter().enumerate().filter_map(|(index, start)| {
        let end = panel.starts.get(index + 1).map_or(panel.last, |next| next.second);
        let (from, to) = (panel.x(start.second), panel.x(end));
        (to - from >= 0.05).then_some((index, start, from, to))
    })
}

fn bands(out: &mut String, panel: &Panel<'_>) {
    for (index, _, from, to) in steps(panel) {
        let fill = if index % 2 == 0 { "#f1f4f8" } else { "#e4eaf1" };
        let _ = writeln!(
            out,
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{fill}\"/>",
            panel.plot_top(),
            to - from,
            PLOT + 2.0 * STRIP
        );
    }
}

/// The steps' numbers and weights, where there is room.
fn step_labels(out: &mut String, panel: &Panel<'_>) {
    for (_, start, from, to) in steps(panel) {
        let weight = start.step.and_then(|step| panel.report.steps.iter().find(|plan| plan.number == step));
        let words = match (start.step, weight) {
            (Some(step), Some(plan)) if to - from > 84.0 => format!("step {step}: {} %", plan.weight),
            (Some(step), _) => step.to_string(),
            (None, _) => "after the steps".to_owned(),
        };
        if to - from > 10.0 + 6.5 * words.chars().count() as f64 {
            let style = Style { size: 11, halo: true, ..Style::of(FAINT) };
            label(out, (from + 6.0, panel.plot_top() + 15.0), &style, &words);
        }
    }
}

fn grid(out: &mut String, panel: &Panel<'_>) {
    let most = 10_f64.powf(panel.decades());
    let mut power = 1.0;
    while power <= most * 1.001 {
        let y = panel.y(power);
        line(out, (LEFT, y), (RIGHT, y), "stroke=\"#ccd4de\" stroke-width=\"1\"");
        let words = match power {
            p if p <= 1.0 => "1 or less".to_owned(),
            p if p > most * 0.999 => format!("≥ {}", count(p)),
            p => count(p),
        };
        let style = Style { size: 11, anchor: "end", ..Style::of(FAINT) };
        label(out, (LEFT - 6.0, y + 4.0), &style, &words);
        power *= 10.0;
    }
}

/// What is needed: dashed lines in the colours of the curves.
fn thresholds(out: &mut String, panel: &Panel<'_>) {
    let mut labels: Vec<(f64, &str, String)> = Vec::new();
    for ((_, color, _), proof) in CURVES.iter().zip(proofs(panel.guard)) {
        let y = panel.y(proof.needs);
        let dashes = format!("stroke=\"{color}\" stroke-width=\"1\" stroke-dasharray=\"5 4\"");
        line(out, (LEFT, y), (RIGHT, y), &dashes);
        labels.push((y, color, format!("needs {}", count(proof.needs))));
    }
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = f64::NEG_INFINITY;
    for (y, color, words) in labels {
        let y = y.max(free);
        free = y + 13.0;
        label(out, (RIGHT + 6.0, y + 4.0), &Style { size: 11, ..Style::of(color) }, &words);
    }
}

fn curve(out: &mut String, panel: &Panel<'_>, color: &str, value: fn(&LookReport) -> f64) {
    let points: Vec<String> = panel
        .guard
        .looks
        .iter()
        .map(|look| format!("{:.1},{:.1}", panel.x(look.second), panel.y(value(look))))
        .collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" stroke-linejoin=\"round\"/>",
        points.join(" ")
    );
    // One look alone is no line.
    if points.len() <= 40 {
        for look in &panel.guard.looks {
            let (x, y) = (panel.x(look.second), panel.y(value(look)));
            let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{color}\"/>");
        }
    }
}

/// The look at which both keys of a rollback were turned.
fn verdict(out: &mut String, panel: &Panel<'_>) {
    let e = &panel.guard.evidence;
    let failed = panel
        .guard
        .looks
        .iter()
        .find(|look| look.strict >= e.worse.needs && look.margin >= e.beyond_tolerance.needs);
    let Some(look) = failed else { return };
    let x = panel.x(look.second);
    line(
        out,
        (x, panel.plot_top()),
        (x, panel.plot_bottom()),
        &format!("stroke=\"{WORSE}\" stroke-width=\"1.5\""),
    );
    // Beside the line, on the side that has room.
    let (anchor, x) = if x > LEFT + 160.0 { ("end", x - 5.0) } else { ("start", x + 5.0) };
    let style = Style { size: 11, weight: 600, anchor, halo: true, ..Style::of(WORSE) };
    label(out, (x, panel.plot_top() + 30.0), &style, &format!("both keys at {}", time(look.second)));
}

/// The bad events and all events of one version.
type Side = fn(&Counts) -> [f64; 2];

/// What happened in each look, as bars below the evidence: canary above stable.
fn strips(out: &mut String, panel: &Panel<'_>) {
    let (guard, looks) = (panel.guard, &panel.guard.looks);
    let gauge = guard.mean.is_some();
    let counts = |look: &LookReport| look.counts.get(guard.worst).copied().unwrap_or_default();
    let sides: [(&str, &str, Side); 2] = [
        ("canary", "#3b5b92", |c| [c.canary_bad, c.canary_total]),
        ("stable", "#8a94a3", |c| [c.stable_bad, c.stable_total]),
    ];
    let most = |side: Side| looks.iter().map(|look| side(&counts(look))[0]).fold(0.0, f64::max);
    // Means of both versions have one scale; counts of a small canary would not be seen on stable's.
    let common = most(sides[0].2).max(most(sides[1].2));
    let width = ((RIGHT - LEFT) / looks.len() as f64 * 0.7).clamp(1.0, 6.0);
    for ((name, color, side), row) in sides.into_iter().zip([1.0, 2.0]) {
        let bottom = panel.plot_bottom() + row * STRIP;
        let own = most(side);
        let scale = if gauge { common } else { own };
        line(out, (LEFT, bottom), (RIGHT, bottom), "stroke=\"#ccd4de\" stroke-width=\"1\"");
        let style = Style { size: 11, anchor: "end", ..Style::of(color) };
        label(out, (LEFT - 6.0, bottom - 6.0), &style, name);
        let words =
            if gauge { format!("max {}", short_number(own)) } else { format!("max {} bad", count(own)) };
        label(out, (RIGHT + 6.0, bottom - 6.0), &Style { size: 11, ..Style::of(color) }, &words);
        for look in looks {
            let bad = side(&counts(look))[0];
            if bad <= 0.0 || scale <= 0.0 {
                continue;
            }
            let height = (STRIP - 8.0) * bad / scale;
            let x = (panel.x(look.second) - width / 2.0).min(RIGHT - width).max(LEFT);
            let _ = writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{color}\"/>",
                bottom - height
            );
        }
    }
}

/// With four digits.
fn short_number(x: f64) -> String {
    if x >= 1000.0 { count(x) } else { format!("{x:.3}") }
}

fn times(out: &mut String, panel: &Panel<'_>) {
    let y = panel.plot_bottom() + 2.0 * STRIP;
    let every =
        [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21_600.0, 86_400.0]
            .into_iter()
            .find(|every| panel.last / every <= 8.0)
            .unwrap_or(panel.last / 8.0);
    let mut tick = 0.0;
    while tick <= panel.last {
        let x = panel.x(tick);
        line(out, (x, y), (x, y + 5.0), "stroke=\"#8a94a3\" stroke-width=\"1\"");
        let style = Style { size: 11, anchor: "middle", ..Style::of(FAINT) };
        label(out, (x, y + 18.0), &style, &time(tick));
        tick += every;
    }
    let mut words = "since the first look".to_owned();
    if panel.guard.looks_gone > 0 {
        let _ = write!(words, "; {} older looks are no longer kept, the evidence begins after them", {
            panel.guard.looks_gone
        });
    }
    label(out, (LEFT, y + 34.0), &Style { size: 11, ..Style::of(FAINT) }, &words);
}

fn time(second: f64) -> String {
    seconds(Duration::try_from_secs_f64(second).unwrap_or_default())
}

/// How a text looks.
struct Style<'a> {
    color: &'a str,
    size: u32,
    weight: u32,
    anchor: &'a str,
    /// A light edge, to be read above lines.
    halo: bool,
}

impl<'a> Style<'a> {
    fn of(color: &'a str) -> Self {
        Self { color, size: 13, weight: 400, anchor: "start", halo: false }
    }
}

fn label(out: &mut String, (x, y): (f64, f64), style: &Style<'_>, text: &str) {
    let _ =
        write!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{}\" font-size=\"{}\"", style.color, style.size);
    if style.weight != 400 {
        let _ = write!(out, " font-weight=\"{}\"", style.weight);
    }
    if style.anchor != "start" {
        let _ = write!(out, " text-anchor=\"{}\"", style.anchor);
    }
    if style.halo {
        out.push_str(
            " stroke=\"#f7f9fb\" stroke-width=\"4\" stroke-linejoin=\"round\" paint-order=\"stroke\"",
        );
    }
    let _ = writeln!(out, ">{}</text>", escaped(text));
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), look: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {look}/>",
        from.0, from.1, to.0, to.1
    );
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// As XML text: also without the characters that XML does not have at all.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_a_text() {
        assert_eq!(
            escaped("</text><script a=\"1\" b='2'>&\u{1b}\u{ffff}\n"),
            "&lt;/text&gt;&lt;script a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;\u{fffd}\u{fffd}\n"
        );
        assert_eq!(shortened("abcdef", 4), "abc…");
    }
}
