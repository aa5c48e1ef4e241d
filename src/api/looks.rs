//! The recorded looks of a guard, packed: every write of a Release's status carries them, so they have to be small.

use std::borrow::Cow;
use std::ops::Deref;

use k8s_openapi::ByteString;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::evidence::Counts;

/// Looks that are kept per guard.
pub const KEPT: usize = 360;
/// Streams that one look may have.
const MOST_STREAMS: u64 = 8;
/// Added to the number of streams of a look that has shares of the past.
const PAST: usize = 16;
/// Fractions are kept exactly when they are multiples of 1/1024; other numbers take nine bytes.
const FRACTIONS: f64 = 1024.0;
/// Beyond this a number with ten more bits would not be exact.
const EXACT: f64 = 4_398_046_511_104.0;

/// One look: what happened since the look before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Seconds since the first look, in whole milliseconds.
    pub second: f64,
    /// The dispersion by which the evidence of this look was divided; at least 1.
    pub dispersion: f64,
    /// The factor by which the limits were widened at this look for unequal pods; at least 1.
    pub spread: f64,
    /// What happened, one entry per stream of the guard; all have the same totals. Of a gauge the one entry holds the
    /// mean of each version as its bad events, over so many looks as its totals.
    pub counts: Vec<Counts>,
    /// Stable's events beyond the tolerance, one entry per stream; empty when they are those of `counts`.
    pub shifted: Vec<f64>,
    /// When the canary had all traffic: the share of counted events that stable has by what it did before, as harm and
    /// as safety are held against it, one entry per stream. Empty when both versions had traffic.
    pub past: Vec<[f64; 2]>,
}

impl Look {
    /// A look of one stream, with neither dispersion nor spread.
    pub fn of(second: f64, counts: Counts) -> Self {
        Self {
            second,
            dispersion: 1.0,
            spread: 1.0,
            counts: vec![counts],
            shifted: Vec::new(),
            past: Vec::new(),
        }
    }
}

/// Looks, oldest first; in JSON one base64 string.
///
/// Each look is a sequence of numbers: its streams, and 16 more if there are shares of the past, doubled, and one more
/// if there are shifted events; milliseconds;
/// thousandths of the dispersion and of the spread; all events of the canary and of stable; then for each
/// stream the bad events of the canary, of stable, stable's shifted ones, and the two shares. A number is a variable-length integer
/// (LEB128) whose last two bits say how to read the rest: 0 a whole number, 1 in units of 1/1024, 2 eight more bytes of
/// a double, little end first.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Looks(Vec<Look>);

impl Deref for Looks {
    type Target = [Look];

    fn deref(&self) -> &[Look] {
        &self.0
    }
}

impl From<Vec<Look>> for Looks {
    fn from(looks: Vec<Look>) -> Self {
        Self(looks)
    }
}

impl Looks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a look and drops the oldest ones beyond [`KEPT`].
    pub fn push(&mut self, look: Look) {
        self.0.push(look);
        let surplus = self.0.len().saturating_sub(KEPT);
        self.0.drain(..surplus);
    }

    fn pack(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 16);
        for look in &self.0 {
            let (shifted, past) = (!look.shifted.is_empty(), !look.past.is_empty());
            let streams = look.counts.len() + if past { PAST } else { 0 };
            put(&mut bytes, (streams * 2 + usize::from(shifted)) as f64);
            let thousandths = |x: f64| (x * 1000.0).round();
            put(&mut bytes, (look.second * 1000.0).round());
            put(&mut bytes, thousandths(look.dispersion));
            put(&mut bytes, thousandths(look.spread));
            let all = look.counts.first().copied().unwrap_or_default();
            put(&mut bytes, all.canary_total);
            put(&mut bytes, all.stable_total);
            for (index, counts) in look.counts.iter().enumerate() {
                put(&mut bytes, counts.canary_bad);
                put(&mut bytes, counts.stable_bad);
                if shifted {
                    put(&mut bytes, look.shifted.get(index).copied().unwrap_or(0.0));
                }
                if past {
                    let [sparing, demanding] = look.past.get(index).copied().unwrap_or_default();
                    put(&mut bytes, sparing);
                    put(&mut bytes, demanding);
                }
            }
        }
        bytes
    }

    fn unpack(mut bytes: &[u8]) -> Option<Vec<Look>> {
        let mut looks = Vec::new();
        while !bytes.is_empty() {
            if looks.len() == KEPT {
                return None;
            }
            let head = integer(&mut bytes)?;
            // The first number is a whole one: two bits of kind, one for shifted events.
            let (kind, shifted, streams) = (head & 3, head & 4 != 0, head >> 3);
            let past = streams & PAST as u64 != 0;
            let streams = streams & !(PAST as u64);
            if kind != 0 || streams > MOST_STREAMS {
                return None;
            }
            let second = get(&mut bytes)? / 1000.0;
            let dispersion = get(&mut bytes)? / 1000.0;
            let spread = get(&mut bytes)? / 1000.0;
            let (canary_total, stable_total) = (get(&mut bytes)?, get(&mut bytes)?);
            let mut look = Look { dispersion, spread, ..Look::of(second, Counts::default()) };
            look.counts.clear();
            for _ in 0..streams {
                let (canary_bad, stable_bad) = (get(&mut bytes)?, get(&mut bytes)?);
                look.counts.push(Counts { canary_bad, canary_total, stable_bad, stable_total });
                if shifted {
                    look.shifted.push(get(&mut bytes)?);
                }
                if past {
                    look.past.push([get(&mut bytes)?, get(&mut bytes)?]);
                }
            }
            looks.push(look);
        }
        Some(looks)
    }
}

fn put(bytes: &mut Vec<u8>, x: f64) {
    let scaled = x * FRACTIONS;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole, not negative and below 2^52"
    )]
    let (tagged, raw) = if !(0.0..EXACT).contains(&x) || scaled.fract() != 0.0 || x.is_sign_negative() {
        (2, Some(x))
    } else if x.fract() == 0.0 {
        ((x as u64) << 2, None)
    } else {
        (((scaled as u64) << 2) | 1, None)
    };
    let mut rest = tagged;
    loop {
        let [low, ..] = (rest & 0x7f).to_le_bytes();
        rest >>= 7;
        bytes.push(if rest == 0 { low } else { low | 0x80 });
        if rest == 0 {
            break;
        }
    }
    if let Some(x) = raw {
        bytes.extend(x.to_le_bytes());
    }
}

fn integer(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn get(bytes: &mut &[u8]) -> Option<f64> {
    let tagged = integer(bytes)?;
    match tagged & 3 {
        0 => Some((tagged >> 2) as f64),
        1 => Some((tagged >> 2) as f64 / FRACTIONS),
        2 => {
            let (first, rest) = bytes.split_first_chunk::<8>()?;
            *bytes = rest;
            Some(f64::from_le_bytes(*first))
        }
        _ => None,
    }
}

impl Serialize for Looks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ByteString(self.pack()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Looks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteString::deserialize(deserializer)?;
        Self::unpack(&bytes.0)
            .map(Self)
            .ok_or_else(|| de::Error::custom("the recorded looks are not readable"))
    }
}

impl JsonSchema for Looks {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Looks")
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "byte",
            "maxLength": 200_000,
            "description": "The last 360 looks with data, oldest first, packed. `belay explain -o json` shows them.",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(looks: &[Look]) -> Looks {
        let json = serde_json::to_string(&Looks::from(looks.to_vec())).unwrap();
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_look_of_a_ratio_takes_about_fifteen_bytes() {
        let counts = Counts { canary_bad: 1.0, canary_total: 250.0, stable_bad: 4.0, stable_total: 4750.0 };
        let look = Look { dispersion: 1.23, ..Look::of(1795.003, counts) };
        let packed = Looks::from(vec![look.clone()]).pack();
        assert!(packed.len() <= 16, "{} bytes", packed.len());
        assert_eq!(round_trip(std::slice::from_ref(&look))[0], look);
    }

    #[test]
    fn broken_bytes_are_refused() {
        for bytes in [&[0x80][..], &[8, 0], &[3], &[0xff; 12], &[8, 2, 1, 2]] {
            let json = serde_json::to_value(ByteString(bytes.to_vec())).unwrap();
            assert!(serde_json::from_value::<Looks>(json).is_err(), "{bytes:?}");
        }
        assert!(serde_json::from_str::<Looks>("[[1,2,3,4,5]]").is_err());
    }

    #[test]
    fn no_more_looks_are_kept_than_there_is_room_for() {
        let mut looks = Looks::default();
        for second in 0..400 {
            looks.push(Look::of(f64::from(second), Counts::default()));
        }
        assert_eq!((looks.len(), looks[0].second.to_bits()), (KEPT, 40.0_f64.to_bits()));
    }

    proptest! {
        #[test]
        fn looks_come_back_as_they_were(
            numbers in prop::collection::vec(
                prop_oneof![
                    (0_u32..2000).prop_map(f64::from),
                    (0_u32..200_000).prop_map(|n| f64::from(n) / 1024.0),
                    0.0..1e18_f64,
                    any::<f64>().prop_filter("a number", |x| x.is_finite()),
                ],
                1..40,
            ),
            milliseconds in 0_u32..10_000_000,
            streams in 0_usize..=8,
            shift: bool,
            past: bool,
        ) {
            let mut next = numbers.iter().copied().cycle();
            let mut number = || next.next().unwrap();
            let (canary_total, stable_total) = if streams == 0 { (0.0, 0.0) } else { (number(), number()) };
            let look = Look {
                second: f64::from(milliseconds) / 1000.0,
                dispersion: f64::from(1000 + milliseconds % 5000) / 1000.0,
                spread: 1.0,
                counts: (0..streams)
                    .map(|_| Counts { canary_bad: number(), canary_total, stable_bad: number(), stable_total })
                    .collect(),
                shifted: if shift { (0..streams).map(|_| number()).collect() } else { Vec::new() },
                past: if past { (0..streams).map(|_| [number(), number()]).collect() } else { Vec::new() },
            };
            let back = round_trip(&[look.clone(), look.clone()]);
            prop_assert_eq!(&back[..], &[look.clone(), look][..]);
        }
    }
}
