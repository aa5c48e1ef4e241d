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
pub enum ToleranceError {
    /// No `x` after the factor.
    #[error("{0:?} has no factor; write it as `1.2x + 0.1%`")]
    NoFactor(String),
    /// The factor is no number.
    #[error("the factor {0:?} is not a number; write it as `1.2x + 0.1%`")]
    Factor(String),
    /// The factor is below 1.
    #[error("the factor {0} is below 1; `1x` is \"no worse than stable\"")]
    FactorTooSmall(String),
    /// What follows the factor is not `+ N%`.
    #[error("{0:?} after the factor is not of the form `+ 0.1%`")]
    Rest(String),
    /// The percentage points are no number.
    #[error("the percentage points {0:?} are not a number; write them as `0.1%`")]
    Points(String),
    /// 100 % or more guards nothing.
    #[error("{0}% on top would allow every request to fail; it must be below 100%")]
    PointsTooLarge(String),
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
        let (factor, rest) =
            text.split_once('x').ok_or_else(|| ToleranceError::NoFactor(text.trim().to_owned()))?;
        let factor_text = factor.trim();
        let factor = decimal(factor_text).ok_or_else(|| ToleranceError::Factor(factor_text.to_owned()))?;
        if factor < 1.0 {
            return Err(ToleranceError::FactorTooSmall(factor_text.to_owned()));
        }
        let rest = rest.trim();
        if rest.is_empty() {
            return Ok(Self { factor, points: 0.0 });
        }
        let points_text = rest
            .strip_prefix('+')
            .and_then(|points| points.strip_suffix('%'))
            .ok_or_else(|| ToleranceError::Rest(rest.to_owned()))?
            .trim();
        let percent = decimal(points_text).ok_or_else(|| ToleranceError::Points(points_text.to_owned()))?;
        if percent >= 100.0 {
            return Err(ToleranceError::PointsTooLarge(points_text.to_owned()));
        }
        Ok(Self { factor, points: percent / 100.0 })
    }
}

/// Digits with at most one point, so not `1e3`, `inf` or `-1`.
fn decimal(text: &str) -> Option<f64> {
    let well_formed = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    if well_formed { text.parse().ok().filter(|number: &f64| number.is_finite()) } else { None }
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
fn rounded(x: f64) -> f64 {
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
    fn says_what_is_wrong() {
        for (text, said) in [
            ("", "has no factor"),
            ("1.2", "has no factor"),
            ("0.9x", "below 1"),
            ("1e3x", "is not a number"),
            ("infx", "is not a number"),
            ("-1x", "is not a number"),
            ("1.2x 0.1%", "not of the form"),
            ("1.2x + 0.1", "not of the form"),
            ("1.2x + -1%", "are not a number"),
            ("1.2x + 100%", "below 100%"),
            ("1.2x + 0.1% x", "not of the form"),
        ] {
            let error = text.parse::<Tolerance>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
