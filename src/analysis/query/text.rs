//! The text formats of metrics pages: Prometheus 0.0.4 and `OpenMetrics` 1.0.

use std::collections::BTreeMap;
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
    /// When the value was taken, in seconds since 1970, if the page says so: then it is not the time of the answer.
    pub at: Option<f64>,
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

/// Series of one metric that are read from one page. With all pods together the engine takes 3,000 of a guard; so
/// many on a single page are labels without bounds, such as a user's name or a whole path.
pub const MOST_SERIES: usize = 1000;
/// The same for the buckets of a histogram, of which each series has a dozen.
pub const MOST_BUCKETS: usize = 10 * MOST_SERIES;

fn most(name: &str) -> usize {
    if name.ends_with("_bucket") { MOST_BUCKETS } else { MOST_SERIES }
}

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The text format of Prometheus.
    Text,
    /// `OpenMetrics`: counters end in `_total` whatever their name, times are in seconds, and the last line is
    /// `# EOF`, so that a page that was cut off is known.
    OpenMetrics,
}

impl Form {
    /// What a server says it has answered with. What says nothing is taken for the older format.
    pub fn of(content_type: &str) -> Self {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }
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
    /// It was cut off.
    #[error("the metrics page was cut off: it says it is OpenMetrics, and the last line is not # EOF")]
    Truncated,
    /// Too many series.
    #[error(
        "{metric} has {count} series on this page, at most {limit} are read: a label without bounds? Narrow the \
         guard with `match`"
    )]
    TooManySeries {
        /// Name of the metric.
        metric: String,
        /// How many there are.
        count: usize,
        /// How many are read.
        limit: usize,
    },
    /// A line of a wanted metric is broken.
    #[error("line {line} of the metrics page: {reason}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Reads the series of those metrics that are `wanted`, and keeps those that are `kept`; lines of other metrics are
/// skipped unread.
///
/// A client library writes a counter `errors` as `errors_total` on an `OpenMetrics` page and as `errors` on the
/// other, so a wanted counter is found under both names, and is called as it is wanted.
pub fn parse_page(
    body: &[u8],
    form: Form,
    wanted: impl Fn(&str) -> bool,
    kept: impl Fn(&Series) -> bool,
) -> Result<Vec<Series>, PageError> {
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
    let (mut series, mut counts) = (Vec::new(), BTreeMap::<String, usize>::new());
    // The counter whose lines follow, on an OpenMetrics page.
    let mut counter = "";
    let mut ended = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            if line == "# EOF" {
                ended = true;
                break;
            }
            if let (Form::OpenMetrics, Some(family)) = (form, line.strip_prefix("# TYPE ")) {
                counter = family.strip_suffix(" counter").unwrap_or_default().trim();
            }
            continue;
        }
        let length = line.find(|c: char| c == '{' || c.is_whitespace()).unwrap_or(line.len());
        let (mut name, rest) = line.split_at(length);
        if !counter.is_empty() && name.strip_suffix("_total") == Some(counter) && !wanted(name) {
            name = counter;
        }
        if !wanted(name) {
            continue;
        }
        let (labels, value, at) =
            sample(rest, form).map_err(|reason| PageError::Line { line: index + 1, reason })?;
        let one = Series { name: name.to_owned(), labels, value, at };
        if !kept(&one) {
            continue;
        }
        let count = counts.entry(one.name.clone()).or_default();
        *count += 1;
        // Counted to the end, so that the message says how many; kept only as far as they can be used.
        if *count <= most(&one.name) {
            series.push(one);
        }
    }
    if form == Form::OpenMetrics && !ended {
        return Err(PageError::Truncated);
    }
    match counts.into_iter().find(|(metric, count)| *count > most(metric)) {
        Some((metric, count)) => Err(PageError::TooManySeries { limit: most(&metric), metric, count }),
        None => Ok(series),
    }
}

/// Labels, value and time: what follows the name. An exemplar may follow; it is not looked at.
fn sample(rest: &str, form: Form) -> Result<(Labels, f64, Option<f64>), &'static str> {
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(inner) => labels(inner)?,
        None => (Labels::new(), rest),
    };
    let mut words = rest.split_whitespace();
    let value = words.next().ok_or("the value is missing")?;
    let value = value.parse().map_err(|_| "the value is not a number")?;
    let at = match words.next() {
        None | Some("#") => None,
        Some(at) => {
            let at: f64 = at.parse().map_err(|_| "the time after the value is not a number")?;
            Some(if form == Form::OpenMetrics { at } else { at / 1000.0 })
        }
    };
    Ok((labels, value, at))
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
