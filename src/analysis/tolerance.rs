//! What a guard tolerates: `1.2x + 0.1%`.

use std::fmt;
use std::str::FromStr;

use super::evidence::Limit;

/// The canary's share of bad events may be `factor` times stable's plus `points`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Factor on stable's share, at least 1.
    pub factor: f64,
    /// Share that is allowed on top, from 0 to less than 1; 0.001 is 0.1 percentage points.
    pub points: f64,
}

/// Why a tolerance cannot be read.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("{problem} at character {} of {text:?}; write it as `{example}`", at + 1)]
pub struct ToleranceError {
    /// What was written.
    pub text: String,
    /// Where reading stopped: characters before that place.
    pub at: usize,
    /// What is wrong there.
    pub problem: &'static str,
    /// How it is written.
    pub example: &'static str,
}

impl ToleranceError {
    /// What was written, and below it a mark at the place with what is wrong.
    pub fn caret(&self) -> String {
        format!("{}\n{}^ {}", self.text, " ".repeat(self.at), self.problem)
    }
}

/// A text that is read from left to right.
struct Reader<'a> {
    text: &'a str,
    /// Bytes that are read.
    read: usize,
    example: &'static str,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, example: &'static str) -> Self {
        Self { text, read: 0, example }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.read..).unwrap_or_default()
    }

    fn skip_spaces(&mut self) {
        self.read += self.rest().len() - self.rest().trim_start_matches(' ').len();
    }

    fn fail<T>(&self, at: usize, problem: &'static str) -> Result<T, ToleranceError> {
        let at = self.text.get(..at).unwrap_or_default().chars().count();
        Err(ToleranceError { text: self.text.to_owned(), at, problem, example: self.example })
    }

    /// Digits with at most one point, so not `1e3`, `inf` or `-1`.
    fn number(&mut self, wanted: &'static str) -> Result<f64, ToleranceError> {
        self.skip_spaces();
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let digits = rest.get(..length).unwrap_or_default();
        let well_formed = digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.ends_with(|c: char| c.is_ascii_digit());
        match digits.parse().ok().filter(|number: &f64| well_formed && number.is_finite()) {
            Some(number) => {
                self.read += length;
                Ok(number)
            }
            None => self.fail(self.read, wanted),
        }
    }

    fn sign(&mut self, sign: char, missing: &'static str) -> Result<(), ToleranceError> {
        if !self.rest().starts_with(sign) {
            return self.fail(self.read, missing);
        }
        self.read += sign.len_utf8();
        Ok(())
    }

    fn factor(&mut self) -> Result<f64, ToleranceError> {
        let factor = self.number("no factor")?;
        self.sign('x', "no x after the factor")?;
        Ok(factor)
    }

    /// A percentage as a share, from 0 to less than 1.
    fn percent(&mut self) -> Result<f64, ToleranceError> {
        self.skip_spaces();
        let begin = self.read;
        let percent = self.number("no percentage")?;
        self.sign('%', "no % after the percentage")?;
        if percent >= 100.0 {
            return self.fail(begin, "100% or more would allow every event to be bad");
        }
        Ok(percent / 100.0)
    }

    fn end(&mut self) -> Result<(), ToleranceError> {
        self.skip_spaces();
        if self.rest().is_empty() { Ok(()) } else { self.fail(self.read, "nothing may follow") }
    }
}

/// A factor alone, as `1.2x`, from `least` to `most`.
pub(super) fn factor(
    text: &str,
    (least, most): (f64, f64),
    out_of_bounds: &'static str,
    example: &'static str,
) -> Result<f64, ToleranceError> {
    let mut reader = Reader::new(text, example);
    reader.skip_spaces();
    let begin = reader.read;
    let factor = reader.factor()?;
    reader.end()?;
    if factor >= least && factor <= most { Ok(factor) } else { reader.fail(begin, out_of_bounds) }
}

/// A percentage alone, as `0.5%`: a share above 0 and below 1.
pub(super) fn percent(text: &str) -> Result<f64, ToleranceError> {
    let mut reader = Reader::new(text, "0.5%");
    let share = reader.percent()?;
    reader.end()?;
    if share > 0.0 { Ok(share) } else { reader.fail(0, "must be above 0%") }
}

impl Tolerance {
    /// As a limit of the canary's rate.
    pub fn limit(self) -> Limit {
        Limit { ratio: self.factor, points: self.points }
    }

    /// The share that is tolerated when stable's share is `stable`.
    pub fn at(self, stable: f64) -> f64 {
        self.factor * stable + self.points
    }
}

impl FromStr for Tolerance {
    type Err = ToleranceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut reader = Reader::new(text, "1.2x + 0.1%");
        reader.skip_spaces();
        let begin = reader.read;
        let factor = reader.factor()?;
        if factor < 1.0 {
            return reader.fail(begin, "the factor is below 1 (1x is \"no worse than stable\")");
        }
        reader.skip_spaces();
        if reader.rest().is_empty() {
            return Ok(Self { factor, points: 0.0 });
        }
        reader.sign('+', "no + before the percentage points")?;
        let points = reader.percent()?;
        reader.end()?;
        Ok(Self { factor, points })
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x", rounded(self.factor))?;
        if self.points > 0.0 {
            write!(f, " + {}%", rounded(self.points * 100.0))?;
        }
        Ok(())
    }
}

/// Without the last bits that binary fractions add: 0.29 and not 0.28999999999999998.
pub(super) fn rounded(x: f64) -> f64 {
    let rounded = (x * 1e9).round() / 1e9;
    if rounded.is_finite() { rounded } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, factor, points, shown) in [
            ("1.2x + 0.1%", 1.2, 0.001, "1.2x + 0.1%"),
            (" 1x ", 1.0, 0.0, "1x"),
            ("3x+0.29%", 3.0, 0.0029, "3x + 0.29%"),
            ("10.5x  +  12% ", 10.5, 0.12, "10.5x + 12%"),
            ("1.5x + 0%", 1.5, 0.0, "1.5x"),
        ] {
            let tolerance: Tolerance = text.parse().unwrap();
            assert!((tolerance.factor - factor).abs() < 1e-15, "{text}");
            assert!((tolerance.points - points).abs() < 1e-15, "{text}");
            assert_eq!(tolerance.to_string(), shown);
            assert_eq!(tolerance.to_string().parse::<Tolerance>().unwrap(), tolerance);
        }
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (text, at, problem) in [
            ("", 0, "no factor"),
            ("1.2", 3, "no x"),
            ("  0.9x", 2, "below 1"),
            ("1e3x", 1, "no x"),
            ("infx", 0, "no factor"),
            ("-1x", 0, "no factor"),
            ("1.x", 0, "no factor"),
            ("1..2x", 0, "no factor"),
            ("1.2x 0.1%", 5, "no +"),
            ("1.2x + 0.1", 10, "no %"),
            ("1.2x + -1%", 7, "no percentage"),
            ("1.2x + 100%", 7, "100% or more"),
            ("1.2x + 0.1% x", 12, "nothing may follow"),
            ("1.2x +\u{a0}1%", 6, "no percentage"),
        ] {
            let error = text.parse::<Tolerance>().unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.problem.contains(problem), "{text}: {error}");
            let shown = error.caret();
            let mark = shown.lines().last().unwrap();
            assert_eq!(mark.chars().position(|c| c == '^'), Some(at), "{shown}");
        }
    }

    #[test]
    fn factors_and_percentages_alone() {
        let keep = |text| factor(text, (0.01, 1.0), "between 0.01 and 1", "0.95x");
        assert!((keep(" 0.95x ").unwrap() - 0.95).abs() < 1e-15);
        assert_eq!(keep("1.1x").unwrap_err().problem, "between 0.01 and 1");
        assert_eq!(keep("0.9x + 1%").unwrap_err().at, 5);
        assert!((percent("0.5%").unwrap() - 0.005).abs() < 1e-15);
        for (text, at) in [("0%", 0), ("5", 1), ("100%", 0), ("0.5% x", 5)] {
            assert_eq!(percent(text).unwrap_err().at, at, "{text}");
        }
    }
}
