//! The text format of metrics pages: Prometheus 0.0.4, and `OpenMetrics` 1.0 as far as counters go.

use std::fmt::Write as _;

use crate::analysis::Labels;

/// One series and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name of the metric.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its value; may be anything that a float can be.
    pub value: f64,
}

impl Series {
    /// The series in one string: name, then labels in order.
    pub fn key(&self) -> String {
        key(&self.name, &self.labels)
    }
}

/// A series in one string, the same whatever order the labels came in.
pub(super) fn key(name: &str, labels: &Labels) -> String {
    let mut key = name.to_owned();
    for (label, value) in labels {
        // Debug quoting escapes the quote, so that no value can look like another label.
        let _ = write!(key, ",{label}={value:?}");
    }
    key
}

/// Why a page cannot be read.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum PageError {
    /// It is something else, such as HTML.
    #[error("not a metrics page (starts with {0})")]
    NotMetrics(String),
    /// It is not text.
    #[error("not a metrics page (not UTF-8 text)")]
    NotText,
    /// A line of a wanted metric is broken.
    #[error("line {line} of the metrics page: {reason}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Reads the series of those metrics that are `wanted`; lines of others are skipped unread.
pub fn parse_page(body: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Vec<Series>, PageError> {
    let text = std::str::from_utf8(body).map_err(|_| PageError::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let start = text.trim_start();
    if start.starts_with(['<', '{', '[']) {
        // Of a tag its name, so that the message says what it is; of anything else the first character.
        let tag = start.char_indices().take(20).take_while(|(_, c)| !c.is_whitespace() && *c != '>');
        let length =
            if start.starts_with('<') { tag.map(|(index, c)| index + c.len_utf8()).last() } else { Some(1) };
        let length = length.unwrap_or(1);
        return Err(PageError::NotMetrics(start.get(..length).unwrap_or("<").to_lowercase()));
    }
    let mut series = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            if line == "# EOF" {
                break;
            }
            continue;
        }
        let length = line.find(|c: char| c == '{' || c.is_whitespace()).unwrap_or(line.len());
        let (name, rest) = line.split_at(length);
        if wanted(name) {
            let (labels, value) =
                sample(rest).map_err(|reason| PageError::Line { line: index + 1, reason })?;
            series.push(Series { name: name.to_owned(), labels, value });
        }
    }
    Ok(series)
}

/// Labels and value: what follows the name. A time stamp and an exemplar may follow; they are not looked at.
fn sample(rest: &str) -> Result<(Labels, f64), &'static str> {
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(inner) => labels(inner)?,
        None => (Labels::new(), rest),
    };
    let value = rest.split_whitespace().next().ok_or("the value is missing")?;
    Ok((labels, value.parse().map_err(|_| "the value is not a number")?))
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Result<(Labels, &str), &'static str> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (label, after) = rest.split_once('=').ok_or("a label has no value")?;
        let label = label.trim_end();
        let well_formed = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
            && !label.starts_with(|c: char| c.is_ascii_digit());
        if label.is_empty() || !well_formed {
            return Err("not the name of a label");
        }
        let after = after.trim_start().strip_prefix('"').ok_or("a label's value has no quotes")?;
        let (value, after) = quoted(after)?;
        if labels.insert(label.to_owned(), value).is_some() {
            return Err("a label is there twice");
        }
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return Err("labels have no comma between them"),
        }
    }
}

/// A value up to its closing quote, with `\\`, `\"` and `\n` resolved, and what follows.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, c)) = characters.next() {
        match c {
            '"' => return Ok((value, text.get(index + 1..).unwrap_or_default())),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                // As Prometheus does: an unknown escape stands for itself.
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            },
            _ => value.push(c),
        }
    }
    Err("a label's closing quote is missing")
}
