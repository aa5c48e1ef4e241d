//! Random numbers with a seed, and exact draws from the distributions of the streams.

/// The next state's increment and the finalizer of `SplitMix64` (Steele, Lea & Flood 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `SplitMix64`. Each run of a simulation has a generator of its own, so that results do not depend on how runs are
/// spread over threads.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of run number `run` of the simulation `name`.
    pub fn of_run(seed: u64, name: &str, run: u32) -> Self {
        let start = name.bytes().fold(mix(seed ^ STEP), |hash, byte| mix(hash ^ u64::from(byte)));
        Self(mix(start ^ mix(u64::from(run).wrapping_mul(STEP))))
    }

    /// Evenly in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(STEP);
        (mix(self.0) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal, by Box & Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (-self.uniform()).ln_1p()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Binomial by inversion, for rates that are drawn once and used once; its time grows with the mean.
    pub fn binomial(&mut self, n: u32, p: f64) -> f64 {
        let mut mass = (f64::from(n) * (-p).ln_1p()).exp();
        let (mut left, odds) = (self.uniform(), p / (1.0 - p));
        let mut k = 0;
        while left >= mass && k < n {
            left -= mass;
            k += 1;
            mass *= f64::from(n - k + 1) / f64::from(k) * odds;
        }
        f64::from(k)
    }

    /// The events of so many bursts, each with 1 or more of them, on average `mean`: geometric lengths, so that the sum
    /// is negative binomial.
    pub fn bursts(&mut self, mut bursts: f64, mean: f64) -> f64 {
        if mean <= 1.0 {
            return bursts;
        }
        let mut events = 0.0;
        while bursts > 0.0 {
            events += 1.0 + ((-self.uniform()).ln_1p() / (-1.0 / mean).ln_1p()).floor();
            bursts -= 1.0;
        }
        events
    }
}

/// A distribution on 0, 1, 2, …, drawn by inversion of its exact cumulative sums.
#[derive(Clone, Debug)]
pub struct Table {
    /// P(X ≤ k); the last is infinite, so that every search ends.
    cumulative: Vec<f64>,
    /// For each 256th of the unit interval the k at which the search begins.
    guide: Vec<usize>,
}

impl Table {
    pub fn binomial(n: u32, p: f64) -> Self {
        if p <= 0.0 {
            return Self::of(1.0, |_| 0.0, 0);
        }
        let odds = p / (1.0 - p);
        let start = (f64::from(n) * (-p).ln_1p()).exp();
        Self::of(start, |k| f64::from(n - k + 1) / f64::from(k) * odds, n)
    }

    pub fn poisson(mean: f64) -> Self {
        Self::of((-mean).exp(), |k| mean / f64::from(k), 100_000)
    }

    /// From the mass of 0 and the factors from the mass of k − 1 to that of k.
    fn of(start: f64, factor: impl Fn(u32) -> f64, most: u32) -> Self {
        assert!(start > 1e-290, "the mass of 0 is too small to begin with: {start}");
        let (mut mass, mut sum) = (start, start);
        let mut cumulative = vec![sum];
        for k in 1..=most {
            let before = mass;
            mass *= factor(k);
            sum += mass;
            cumulative.push(sum);
            if mass < before && mass < 1e-18 {
                break;
            }
        }
        if let Some(last) = cumulative.last_mut() {
            *last = f64::INFINITY;
        }
        let guide = (0..256_u32)
            .map(|slot| cumulative.partition_point(|sum| *sum <= f64::from(slot) / 256.0))
            .collect();
        Self { cumulative, guide }
    }

    pub fn draw(&self, random: &mut Random) -> f64 {
        let u = random.uniform();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "u is in [0, 1)")]
        let mut k = self.guide[(u * 256.0) as usize];
        while self.cumulative[k] <= u {
            k += 1;
        }
        k as f64
    }
}
