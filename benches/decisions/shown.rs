//! What the benchmark prints and writes.

use std::fmt::Write as _;

use crate::row::Row;

/// Whether a row holds; with few runs whether chance explains that it does not.
pub fn holds(row: &Row, quick: bool) -> bool {
    row.holds() || (quick && row.may_hold())
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 100.0 || value.fract().abs() < 1e-9 => format!("{value:.0}"),
        Some(value) => format!("{value:.3}"),
    }
}

/// `A6.0.1→1%   25  (bound 30: holds)  what it is`.
pub fn row(row: &Row, quick: bool) -> String {
    let verdict = if holds(row, quick) { "holds" } else { "MISSED" };
    let sense = if row.at_least { "at least" } else { "at most" };
    let tries = row.tries.map_or(String::new(), |tries| format!("; {} of {} beyond", tries.wrong, tries.of));
    let bound = format!("({sense} {}: {verdict})", number(row.bound));
    format!("{:22} {:>8}  {bound:26} {}{tries}", row.id, number(row.value), row.what)
}

/// The rows as the report has them.
pub fn json(rows: &[Row], quick: bool) -> serde_json::Value {
    rows.iter()
        .map(|row| {
            serde_json::json!({
                "id": row.id,
                "row": row.what,
                "value": row.value,
                "bound": row.bound,
                "holds": holds(row, quick),
            })
        })
        .collect()
}

/// The tools beside each other, a line for each kind of release.
pub fn compared(rows: &[Row]) -> String {
    const TOOLS: [&str; 4] = ["belay", "argo", "flagger", "kayenta"];
    let mut text = String::new();
    let find = |id: &str| rows.iter().find(|row| row.id == id).map(|row| number(row.value));
    for (kind, what) in [
        ("false", "healthy releases rolled back (%)"),
        ("delay", "median seconds from the fault to the stop (-: more than half never stopped)"),
        ("missed", "worse releases never stopped in 30 min (%)"),
        ("early", "stopped before the fault (%)"),
        ("bad", "bad responses of the canary until the stop, mean"),
    ] {
        // What Belay does is a row of the table itself where that has one.
        let names: Vec<&str> =
            rows.iter().filter_map(|row| row.id.strip_prefix(&format!("argo.{kind}."))).collect();
        if names.is_empty() {
            continue;
        }
        let _ = write!(text, "\n{what}\n{:16}", "");
        for tool in TOOLS {
            let _ = write!(text, "{tool:>10}");
        }
        text.push('\n');
        for name in names {
            let _ = write!(text, "{name:16}");
            for tool in TOOLS {
                let ours = match kind {
                    "false" => format!("A4.{name}"),
                    "delay" => format!("A6.{name}"),
                    "missed" => format!("A6.{name}.missed"),
                    _ => format!("belay.{kind}.{name}"),
                };
                let id = if tool == "belay" { ours } else { format!("{tool}.{kind}.{name}") };
                let _ = write!(text, "{:>10}", find(&id).unwrap_or_default());
            }
            text.push('\n');
        }
    }
    text
}
