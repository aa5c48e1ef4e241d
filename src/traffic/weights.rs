//! One list of backends: the arithmetic of weights.
//!
//! Stable with weight s among others o₁, o₂, … has the share s / (s + Σo). Canary and stable keep that share
//! together: with s and all o multiplied by m, stable gets m·s·(100 − w)/100 and the canary m·s·w/100. The m that
//! makes both whole for every w is 100 / gcd(s, 100), with the list reduced by its common divisor first; so it is
//! the same in each step, and only the first write changes the others.

use serde_json::{Value, json};

use super::Refusal;
use super::dialect::{Dialect, Names};

/// What a list has of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// Neither version: not our concern.
    Other,
    /// Stable without traffic, and no canary: its owner has taken it out of service here.
    Idle,
    /// Stable alone.
    Stable,
    /// Stable and canary; the canary's percent of both, rounded up.
    Both(i32),
    /// The canary and nothing else.
    Canary,
}

struct Found {
    stable: Option<usize>,
    canary: Option<usize>,
}

fn find(list: &[Value], dialect: &dyn Dialect, names: Names<'_>, at: &str) -> Result<Found, Refusal> {
    let one = |service: &str| {
        let mut all = list
            .iter()
            .enumerate()
            .filter(|(_, backend)| dialect.named(backend, names.namespace) == Some(service))
            .map(|(index, _)| index);
        match (all.next(), all.next()) {
            (_, Some(_)) => Err(Refusal::Twice { at: at.to_owned(), service: service.to_owned() }),
            (first, None) => Ok(first),
        }
    };
    Ok(Found { stable: one(names.stable)?, canary: one(names.canary)? })
}

/// What is written; refused when it is no weight.
fn written(backend: &Value, at: &str) -> Result<Option<i64>, Refusal> {
    let unreadable =
        |why: &Value| Refusal::Unreadable { at: at.to_owned(), why: format!("the weight {why}") };
    match &backend["weight"] {
        Value::Null => Ok(None),
        value => match value.as_i64() {
            // Far beyond every router's limit, and small enough for the products below.
            Some(weight) if (0..=1_000_000_000).contains(&weight) => Ok(Some(weight)),
            _ => Err(unreadable(value)),
        },
    }
}

fn weights(list: &[Value], dialect: &dyn Dialect, at: &str) -> Result<Vec<i64>, Refusal> {
    list.iter().map(|backend| Ok(dialect.implied(written(backend, at)?, list.len() == 1))).collect()
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What a list has of a release.
pub(super) fn look(
    list: &[Value],
    dialect: &dyn Dialect,
    names: Names<'_>,
    at: &str,
) -> Result<List, Refusal> {
    let found = find(list, dialect, names, at)?;
    Ok(match (found.stable, found.canary) {
        (None, None) => List::Other,
        (None, Some(_)) if list.len() == 1 => List::Canary,
        (None, Some(_)) => {
            return Err(Refusal::Foreign { at: at.to_owned(), canary: names.canary.to_owned() });
        }
        (Some(stable), canary) => {
            let weights = weights(list, dialect, at)?;
            match canary {
                None if weights[stable] == 0 => List::Idle,
                None => List::Stable,
                Some(canary) => {
                    let both = weights[stable] + weights[canary];
                    let share = (100 * weights[canary] + both - 1).checked_div(both).unwrap_or(0);
                    List::Both(i32::try_from(share).unwrap_or(100))
                }
            }
        }
    })
}

/// Gives the canary its weight, and adds it if it is not there. The list has stable.
pub(super) fn split(
    list: &mut Vec<Value>,
    dialect: &dyn Dialect,
    names: Names<'_>,
    weight: i32,
    at: &str,
) -> Result<(), Refusal> {
    let found = find(list, dialect, names, at)?;
    let Some(stable) = found.stable else { return Ok(()) };
    let mut all = weights(list, dialect, at)?;
    let wanted = i64::from(weight);
    let canary = if let Some(canary) = found.canary {
        let explicit = written(&list[stable], at)?.is_some() && written(&list[canary], at)?.is_some();
        let both = all[stable] + all[canary];
        if explicit && (both > 0 || wanted == 0) && 100 * all[canary] == wanted * both {
            return Ok(());
        }
        canary
    } else {
        let mut backend = list[stable].clone();
        dialect.rename(&mut backend, names.canary);
        list.push(backend);
        all.push(0);
        list.len() - 1
    };
    let both = all[stable] + all[canary];
    if both == 0 && wanted > 0 {
        return Err(Refusal::NoWeight { at: at.to_owned() });
    }
    let other = |index: usize| index != stable && index != canary;
    let others: Vec<usize> = (0..all.len()).filter(|index| other(*index) && all[*index] > 0).collect();
    // Nothing is divided at the ends: the way back is open whatever the weights are.
    if wanted == 0 || wanted == 100 {
        let (to_stable, to_canary) = if wanted == 0 { (both, 0) } else { (0, both) };
        list[stable]["weight"] = json!(to_stable);
        list[canary]["weight"] = json!(to_canary);
        return Ok(());
    }
    let (both, times, common) = if others.is_empty() {
        (100, 1, 1)
    } else {
        let common = others.iter().fold(both, |divisor, index| gcd(divisor, all[*index]));
        let reduced = both / common;
        let times = 100 / gcd(reduced, 100);
        (reduced * times, times, common)
    };
    let greatest = others.iter().map(|index| all[*index] / common * times).fold(both, i64::max);
    if greatest > dialect.most() {
        return Err(Refusal::TooFine { at: at.to_owned(), most: dialect.most() });
    }
    list[stable]["weight"] = json!(both / 100 * (100 - wanted));
    list[canary]["weight"] = json!(both / 100 * wanted);
    for index in others {
        list[index]["weight"] = json!(all[index] / common * times);
    }
    Ok(())
}

/// Takes the canary out. Where the rest is the original in other numbers, it gets its numbers back; else what the
/// canary had goes to stable.
pub(super) fn join(
    list: &mut Vec<Value>,
    dialect: &dyn Dialect,
    names: Names<'_>,
    original: Option<&[Value]>,
) {
    let is = |backend: &Value, service: &str| dialect.named(backend, names.namespace) == Some(service);
    if !list.iter().any(|backend| is(backend, names.canary)) {
        return;
    }
    let Some(stable) = list.iter().position(|backend| is(backend, names.stable)) else {
        // Somebody took stable out. Without the canary nobody would answer here.
        if list.iter().all(|backend| is(backend, names.canary)) {
            list.truncate(1);
            dialect.rename(&mut list[0], names.stable);
        } else {
            list.retain(|backend| !is(backend, names.canary));
        }
        return;
    };
    if let Ok(all) = weights(list, dialect, "") {
        let canaries = list.iter().zip(&all).filter(|(backend, _)| is(backend, names.canary));
        let both = all[stable] + canaries.map(|(_, weight)| weight).sum::<i64>();
        list[stable]["weight"] = json!(both);
    }
    list.retain(|backend| !is(backend, names.canary));
    if let Some(original) = original.filter(|original| in_other_numbers(list, original, dialect, names)) {
        for (backend, before) in list.iter_mut().zip(original) {
            match (backend.as_object_mut(), before.get("weight")) {
                (Some(fields), Some(weight)) => {
                    fields.insert("weight".to_owned(), weight.clone());
                }
                (Some(fields), None) => {
                    fields.remove("weight");
                }
                (None, _) => {}
            }
        }
    }
}

/// Whether two lists name the same backends in the same order, with weights in the same proportions.
pub(super) fn in_other_numbers(
    list: &[Value],
    original: &[Value],
    dialect: &dyn Dialect,
    names: Names<'_>,
) -> bool {
    let same =
        |a: &Value, b: &Value| match (dialect.named(a, names.namespace), dialect.named(b, names.namespace)) {
            (None, None) => without_weight(a) == without_weight(b),
            (a, b) => a == b,
        };
    let (Ok(now), Ok(before)) = (weights(list, dialect, ""), weights(original, dialect, "")) else {
        return false;
    };
    let (now_sum, before_sum): (i64, i64) = (now.iter().sum(), before.iter().sum());
    list.len() == original.len()
        && (now_sum == 0) == (before_sum == 0)
        && list.iter().zip(original).all(|(a, b)| same(a, b))
        && now
            .iter()
            .zip(&before)
            .all(|(a, b)| i128::from(*a) * i128::from(before_sum) == i128::from(*b) * i128::from(now_sum))
}

fn without_weight(backend: &Value) -> Value {
    let mut rest = backend.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.remove("weight");
    }
    rest
}
