//! A row of the acceptance table: a figure, its bound, and what chance may do to it.

/// The probability that a right engine fails one of the quick checks by chance, all of them together.
const BY_CHANCE: f64 = 1e-6;
/// The quick checks are fewer than this; each gets an equal part of the above.
const CHECKS: f64 = 100.0;

/// How many of the runs were on the wrong side of the bound, and how many of them the bound allows.
#[derive(Clone, Copy, Debug)]
pub struct Tries {
    pub wrong: u32,
    pub of: u32,
    /// Share of runs that may be on the wrong side: the limit of a share, 1/2 for a median.
    pub allowed: f64,
}

impl Tries {
    /// Whether chance explains it: P(X ≥ wrong) for X binomial with the allowed share is not below the limit. An
    /// engine that is exactly at its bound fails this once in 10^8, and 100 such checks once in 10^6.
    pub fn plausible(&self) -> bool {
        self.wrong <= most_by_chance(self.of, self.allowed, BY_CHANCE / CHECKS)
    }
}

/// The least k with P(X > k) ≤ `tail`, X binomial: summed from the top, in logarithms.
pub fn most_by_chance(of: u32, allowed: f64, tail: f64) -> u32 {
    if allowed <= 0.0 {
        return 0;
    }
    let odds = (allowed / (1.0 - allowed)).ln();
    let mut log_mass = f64::from(of) * allowed.ln();
    let (mut k, mut above) = (of, 0.0);
    while k > 0 {
        above += log_mass.exp();
        if above > tail {
            return k;
        }
        log_mass += (f64::from(k) / f64::from(of - k + 1)).ln() - odds;
        k -= 1;
    }
    0
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    pub id: String,
    /// What it is, with its unit.
    pub what: String,
    /// Nothing when there is no median because more than half never came to it.
    pub value: Option<f64>,
    /// The limit of the table; nothing for what is only compared.
    pub bound: Option<f64>,
    /// Whether the bound is the least that must be reached.
    pub at_least: bool,
    pub tries: Option<Tries>,
}

impl Row {
    fn new(id: &str, what: String, value: Option<f64>, bound: Option<f64>) -> Self {
        Self { id: id.to_owned(), what, value, bound, at_least: false, tries: None }
    }

    /// At most `percent` of the runs may do what they should not.
    pub fn share(id: &str, what: &str, wrong: u32, of: u32, percent: f64) -> Self {
        let value = 100.0 * f64::from(wrong) / f64::from(of.max(1));
        let tries = Some(Tries { wrong, of, allowed: percent / 100.0 });
        Self { tries, ..Self::new(id, format!("{what} (%)"), Some(value), Some(percent)) }
    }

    /// None of the runs may do what they should not. The quick checks take that as at most one in `one_in`, which is
    /// how many runs the table speaks of.
    pub fn none(id: &str, what: &str, wrong: u32, of: u32, one_in: u32) -> Self {
        let row = Self::share(id, what, wrong, of, 100.0 / f64::from(one_in));
        Self { bound: Some(0.0), ..row }
    }

    /// At least `percent` of the runs must do what they should; the quick checks take 100 % as all but one in 2,000.
    pub fn at_least(id: &str, what: &str, wrong: u32, of: u32, percent: f64) -> Self {
        let value = 100.0 * f64::from(of - wrong) / f64::from(of.max(1));
        let tries = Some(Tries { wrong, of, allowed: (1.0 - percent / 100.0).max(1.0 / 2000.0) });
        let row = Self::new(id, format!("{what} (%)"), Some(value), Some(percent));
        Self { tries, at_least: true, ..row }
    }

    /// The median of delays in seconds must be at most `bound`; nothing is a delay without an end. More than half of
    /// the runs must not be beyond the bound.
    pub fn median(id: &str, what: &str, delays: &[Option<u32>], bound: u32) -> Self {
        let beyond = delays.iter().filter(|delay| delay.is_none_or(|delay| delay > bound)).count();
        let tries = Tries { wrong: count(beyond), of: count(delays.len()), allowed: 0.5 };
        let row = Self::new(id, format!("{what} (s)"), median(delays), Some(f64::from(bound)));
        Self { tries: Some(tries), ..row }
    }

    /// A figure with a bound that is no share of runs.
    pub fn figure(id: &str, what: &str, value: f64, bound: f64) -> Self {
        Self::new(id, what.to_owned(), Some(value), Some(bound))
    }

    /// A figure to compare with.
    pub fn peer(id: &str, what: String, value: Option<f64>) -> Self {
        Self::new(id, what, value, None)
    }

    /// Whether the figure is within its bound.
    pub fn holds(&self) -> bool {
        let Some(bound) = self.bound else { return true };
        self.value.is_some_and(|value| if self.at_least { value >= bound } else { value <= bound })
    }

    /// Whether the bound may be kept, seen that runs are few: the figure holds, or chance explains why it does not.
    pub fn may_hold(&self) -> bool {
        self.holds() || self.tries.is_some_and(|tries| tries.plausible())
    }
}

/// The median of delays, those without an end last; nothing when the median has none.
pub fn median(delays: &[Option<u32>]) -> Option<f64> {
    let mut sorted: Vec<u32> = delays.iter().map(|delay| delay.unwrap_or(u32::MAX)).collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).filter(|delay| **delay < u32::MAX).map(|delay| f64::from(*delay))
}

pub fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
