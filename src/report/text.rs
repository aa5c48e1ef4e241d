//! How single values look in texts: times, shares, evidence, tables, colours.

use std::time::Duration;

use jiff::Timestamp;

use super::Scene;

/// What a piece of text means, and with that its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Well.
    Good,
    /// Waits, or worth a look.
    Care,
    /// Failed.
    Bad,
    /// Of less interest.
    Faint,
    /// A title.
    Strong,
}

/// Colours a text, when the scene has colours.
pub fn paint(scene: &Scene, tone: Tone, text: &str) -> String {
    if !scene.color || text.is_empty() {
        return text.to_owned();
    }
    let code = match tone {
        Tone::Good => "32",
        Tone::Care => "33",
        Tone::Bad => "31",
        Tone::Faint => "2",
        Tone::Strong => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// A length of time in two units at most: `35s`, `1m12s`, `2h5m`, `3d4h`.
pub fn seconds(time: Duration) -> String {
    let total = time.as_secs();
    if total == 0 && !time.is_zero() {
        return format!("{}ms", time.as_millis().max(1));
    }
    let (d, h, m, s) = (total / 86_400, total / 3_600 % 24, total / 60 % 60, total % 60);
    let pair = |a: u64, unit: char, b: u64, smaller: char| {
        if b == 0 { format!("{a}{unit}") } else { format!("{a}{unit}{b}{smaller}") }
    };
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => pair(m, 'm', s, 's'),
        (0, _, _) => pair(h, 'h', m, 'm'),
        _ => pair(d, 'd', h, 'h'),
    }
}

/// The time between two moments; nothing when the second is the earlier one.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The age of something in one unit: `35s`, `12m`, `3h`, `5d`.
pub fn age(from: Timestamp, now: Timestamp) -> String {
    let total = between(from, now).as_secs();
    match total {
        0..120 => format!("{total}s"),
        120..7_200 => format!("{}m", total / 60),
        7_200..172_800 => format!("{}h", total / 3_600),
        _ => format!("{}d", total / 86_400),
    }
}

/// A moment in the scene's time zone: the time of day, with the date when that is another day.
pub fn moment(scene: &Scene, at: Timestamp) -> String {
    let at = at.to_zoned(scene.zone.clone());
    if at.date() == scene.now.to_zoned(scene.zone.clone()).date() {
        at.strftime("%H:%M:%S").to_string()
    } else {
        at.strftime("%Y-%m-%d %H:%M:%S").to_string()
    }
}

/// A count with separators: `1,744`. Counters are whole numbers; what is left of them is shown.
pub fn count(number: f64) -> String {
    if !number.is_finite() {
        return "?".to_owned();
    }
    let rounded = number.round();
    let digits = format!("{:.0}", rounded.abs());
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if rounded < 0.0 { format!("-{text}") } else { text }
}

/// A share in percent with as many digits as are of use: `1.15 %`, `0.09 %`, `12 %`.
pub fn percent(share: f64) -> String {
    if !share.is_finite() {
        return "?".to_owned();
    }
    let digits = match share.abs() {
        0.0 => 0,
        a if a < 0.01 => 4,
        a if a < 10.0 => 2,
        a if a < 99.95 => 1,
        _ => 0,
    };
    format!("{} %", trim(&format!("{share:.digits$}")))
}

/// An e-value: small ones with two digits, large ones without any.
pub fn evidence(value: f64) -> String {
    match value {
        v if !v.is_finite() || v >= 1_000_000.0 => "over 1,000,000".to_owned(),
        v if v >= 10.0 => count(v.floor()),
        v if v >= 1.0 => trim(&format!("{:.1}", (v * 10.0).floor() / 10.0)),
        v if v >= 0.01 => trim(&format!("{v:.2}")),
        _ => "0".to_owned(),
    }
}

fn trim(number: &str) -> String {
    if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        number.to_owned()
    }
}

/// `one pod`, `4 pods`.
pub fn plural(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// A table without lines; the last column is not padded, and an empty cell is a dash. Colours do not count
/// as width.
pub fn table(scene: &Scene, indent: usize, head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|title| title.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(visible(cell));
        }
    }
    let line = |cells: Vec<String>| {
        let mut text = " ".repeat(indent);
        let last = cells.len().saturating_sub(1);
        for (i, cell) in cells.iter().enumerate() {
            text.push_str(cell);
            if i < last {
                text.push_str(&" ".repeat(widths[i].saturating_sub(visible(cell)) + 3));
            }
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(head.iter().map(|title| paint(scene, Tone::Faint, title)).collect());
    for row in rows {
        text.push_str(&line(
            row.iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell.clone() }).collect(),
        ));
    }
    text
}

/// Characters that are seen: escape sequences are not.
fn visible(text: &str) -> usize {
    let mut count = 0;
    let mut escape = false;
    for c in text.chars() {
        match (escape, c) {
            (false, '\x1b') => escape = true,
            (false, _) => count += 1,
            (true, 'm') => escape = false,
            (true, _) => {}
        }
    }
    count
}

/// Breaks a text into lines of the scene's width, each indented.
pub fn wrap(scene: &Scene, indent: usize, text: &str) -> String {
    let width = scene.width.clamp(40, 110).saturating_sub(indent);
    let mut out = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        // A percent sign stays with its number.
        if used > 0 && word != "%" && used + 1 + length > width {
            out.push('\n');
            used = 0;
        }
        if used == 0 {
            out.push_str(&" ".repeat(indent));
        } else {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += length;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_in_the_design() {
        let all =
            [count(33_338.0), count(0.0), count(f64::NAN), percent(1.1468), percent(0.08998), percent(25.0)];
        assert_eq!(all, ["33,338", "0", "?", "1.15 %", "0.09 %", "25 %"]);
        let all =
            [evidence(169.4), evidence(0.001), evidence(1e250), evidence(9.99), evidence(f64::INFINITY)];
        assert_eq!(all, ["169", "0", "over 1,000,000", "9.9", "over 1,000,000"]);
        let all = [35, 72, 7_500, 273_600].map(|s| seconds(Duration::from_secs(s)));
        assert_eq!(all, ["35s", "1m12s", "2h5m", "3d4h"]);
    }
}
