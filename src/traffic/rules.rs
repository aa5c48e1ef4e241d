//! Routes whose spec has lists of backends: the one algorithm for all of them.

use serde_json::{Value, json};

use super::dialect::{Dialect, Names, Place, session};
use super::ops::Ops;
use super::weights::{self, List};
use super::{Ask, Refusal, Seen, Split, Write};

/// The rules of a place; nothing where the route has none.
fn rules(route: &Value, place: &Place) -> Result<Option<Vec<Value>>, Refusal> {
    match route.pointer(place.at) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(rules)) if place.many => Ok(Some(rules.clone())),
        Some(rule @ Value::Object(_)) if !place.many => Ok(Some(vec![rule.clone()])),
        Some(_) => {
            Err(Refusal::Unreadable { at: place.at.to_owned(), why: "not of the documented type".to_owned() })
        }
    }
}

fn put(route: &mut Value, place: &Place, mut rules: Vec<Value>) {
    if let Some(field) = route.pointer_mut(place.at) {
        *field = if place.many { Value::Array(rules) } else { rules.pop().unwrap_or_default() };
    }
}

fn list<'a>(rule: &'a Value, place: &Place) -> &'a [Value] {
    rule[place.list].as_array().map_or(&[], Vec::as_slice)
}

fn at(place: &Place, index: usize) -> String {
    if place.many {
        format!("{}/{index}/{}", place.at, place.list)
    } else {
        format!("{}/{}", place.at, place.list)
    }
}

/// The rule without what a release adds.
fn bare(dialect: &dyn Dialect, rule: &Value, names: Names<'_>) -> Value {
    let mut bare = rule.clone();
    dialect.unmirror(&mut bare, names);
    dialect.unstick(&mut bare, &session(names.canary));
    bare
}

/// The rule without its backends, too: what the owner says of it.
fn rest(dialect: &dyn Dialect, rule: &Value, place: &Place, names: Names<'_>) -> Value {
    let mut rest = bare(dialect, rule, names);
    if let Some(fields) = rest.as_object_mut() {
        fields.remove(place.list);
        // An empty list of filters says what none says, and is lost when a mirror comes and goes.
        fields.retain(|_, field| field.as_array().is_none_or(|list| !list.is_empty()));
    }
    rest
}

/// Which rules are copies for some kinds of requests: the canary alone, and otherwise as a rule with stable.
fn copies(dialect: &dyn Dialect, rules: &[Value], place: &Place, names: Names<'_>) -> Vec<bool> {
    if !place.many {
        return vec![false; rules.len()];
    }
    let has = |rule: &Value, service: &str| {
        list(rule, place).iter().any(|backend| dialect.named(backend, names.namespace) == Some(service))
    };
    let unmatched = |rule: &Value| {
        let mut rest = rest(dialect, rule, place, names);
        dialect.unmatch(&mut rest);
        rest
    };
    rules
        .iter()
        .map(|rule| {
            list(rule, place).len() == 1
                && has(rule, names.canary)
                && rules.iter().any(|other| has(other, names.stable) && unmatched(other) == unmatched(rule))
        })
        .collect()
}

fn without_copies(dialect: &dyn Dialect, rules: Vec<Value>, place: &Place, names: Names<'_>) -> Vec<Value> {
    let copies = copies(dialect, &rules, place, names);
    rules.into_iter().zip(copies).filter(|(_, copy)| !copy).map(|(rule, _)| rule).collect()
}

pub(super) fn read(
    dialect: &dyn Dialect,
    route: &Value,
    stable: &str,
    canary: &str,
) -> Result<Split, Refusal> {
    let names = Names::of(route, stable, canary);
    dialect.object_to(route)?;
    let mut split = Split::default();
    for place in dialect.places() {
        let Some(all) = rules(route, place)? else { continue };
        let count = all.len();
        let all = without_copies(dialect, all, place, names);
        split.matched |= all.len() < count;
        for (index, rule) in all.iter().enumerate() {
            let at = at(place, index);
            let mut unmirrored = rule.clone();
            dialect.unmirror(&mut unmirrored, names);
            split.mirrored |= unmirrored != *rule;
            match weights::look(list(rule, place), dialect, names, &at)? {
                List::Other | List::Idle => continue,
                List::Canary => return Err(Refusal::Foreign { at, canary: canary.to_owned() }),
                List::Stable => {}
                List::Both(share) => split.canary = split.canary.max(Some(share)),
            }
            split.rules += 1;
            split.sessions |= dialect.sessions(&bare(dialect, rule, names));
        }
    }
    if split.rules == 0 {
        return Err(Refusal::NotNamed { stable: stable.to_owned(), cure: dialect.cure() });
    }
    Ok(split)
}

pub(super) fn patch(dialect: &dyn Dialect, seen: &Seen<'_>, ask: &Ask) -> Result<Option<Write>, Refusal> {
    let off = ask.weight == 0 && ask.matches.is_empty() && ask.mirror.is_none();
    let mut after = seen.route.clone();
    let mut used = 0;
    if !off {
        dialect.object_to(seen.route)?;
    }
    for place in dialect.places() {
        let names = Names::of(seen.route, &ask.stable, &ask.canary);
        match rules(seen.route, place) {
            Ok(Some(all)) => {
                let all = without_copies(dialect, all, place, names);
                let (all, here) = work(dialect, all, place, names, ask, seen, off)?;
                put(&mut after, place, all);
                used += here;
            }
            Ok(None) => {}
            Err(_) if off => {}
            Err(refusal) => return Err(refusal),
        }
    }
    if !off {
        if used == 0 {
            return Err(Refusal::NotNamed { stable: ask.stable.clone(), cure: dialect.cure() });
        }
        dialect.check(&after)?;
    }
    Ok(ops(dialect, seen.route, &after).route())
}

/// Brings the rules of one place to what is asked. Says how many of them name stable.
fn work(
    dialect: &dyn Dialect,
    mut all: Vec<Value>,
    place: &Place,
    names: Names<'_>,
    ask: &Ask,
    seen: &Seen<'_>,
    off: bool,
) -> Result<(Vec<Value>, usize), Refusal> {
    for rule in &mut all {
        *rule = bare(dialect, rule, names);
    }
    let owners = all.clone();
    let (mut copies, mut used) = (Vec::new(), 0);
    for (index, rule) in all.iter_mut().enumerate() {
        let at = at(place, index);
        let Some(list) = rule[place.list].as_array_mut() else { continue };
        match weights::look(list, dialect, names, &at) {
            Ok(List::Other | List::Idle) => continue,
            Ok(List::Stable | List::Both(_)) => {
                weights::split(list, dialect, names, ask.weight, &at)?;
            }
            // Somebody changed what a release wrote. Taking the canary's traffic away does not wait for them.
            Ok(List::Canary) | Err(_) if off => {
                weights::join(list, dialect, names, None);
                continue;
            }
            Ok(List::Canary) => return Err(Refusal::Foreign { at, canary: ask.canary.clone() }),
            Err(refusal) => return Err(refusal),
        }
        used += 1;
        let to = list.iter().find(|backend| dialect.named(backend, names.namespace) == Some(names.canary));
        let to = to.cloned().unwrap_or_default();
        if !ask.matches.is_empty() && place.requests {
            let mut copy = dialect.matched(&at, &owners[index], &owners, &ask.matches)?;
            let mut only = to.clone();
            // Written out because the API server would fill it in.
            only["weight"] = json!(1);
            copy[place.list] = json!([only]);
            copies.push((index, copy));
        }
        if let Some(percent) = ask.mirror {
            dialect.mirror(&at, rule, &to, percent, seen.can)?;
        }
        if let Some(seconds) = ask.sticky().filter(|_| !dialect.sessions(rule)) {
            dialect.stick(rule, &session(names.canary), seconds, seen.can)?;
        }
    }
    if !ask.matches.is_empty() && used > 0 && copies.is_empty() {
        return Err(Refusal::Unable {
            router: dialect.router(),
            what: "choose requests by header, cookie or query in rules for connections",
            cure: "release by weight, or route by HTTP",
        });
    }
    for (index, copy) in copies.into_iter().rev() {
        let to = if dialect.copies_first() { index } else { owners.len() };
        all.insert(to, copy);
    }
    Ok((all, used))
}

pub(super) fn borrowed(
    dialect: &dyn Dialect,
    route: &Value,
    stable: &str,
    canary: &str,
) -> Result<Value, Refusal> {
    let split = read(dialect, route, stable, canary)?;
    if split.canary.is_some() || split.matched || split.mirrored {
        return Err(Refusal::Foreign { at: "the route".to_owned(), canary: canary.to_owned() });
    }
    // A route that cannot be divided must be known before anything is released.
    let ask = Ask { stable: stable.to_owned(), canary: canary.to_owned(), weight: 1, ..Ask::default() };
    patch(dialect, &Seen::route(route), &ask)?;
    let mut fields = serde_json::Map::new();
    for place in dialect.places() {
        let path = if place.many { place.at.to_owned() } else { at(place, 0) };
        if let Some(value) = route.pointer(&path) {
            fields.insert(path, value.clone());
        }
    }
    Ok(Value::Object(fields))
}

pub(super) fn give_back(
    dialect: &dyn Dialect,
    route: &Value,
    original: &Value,
    stable: &str,
    canary: &str,
) -> Option<Write> {
    let names = Names::of(route, stable, canary);
    let mut after = route.clone();
    for place in dialect.places() {
        let Ok(Some(all)) = rules(route, place) else { continue };
        let before: Vec<Value> = if place.many {
            original[place.at].as_array().cloned().unwrap_or_default()
        } else {
            vec![json!({place.list: original[at(place, 0)]})]
        };
        let all = without_copies(dialect, all, place, names);
        let all = all
            .into_iter()
            .enumerate()
            .map(|(index, rule)| returned(dialect, rule, index, &before, place, names))
            .collect();
        put(&mut after, place, all);
    }
    ops(dialect, route, &after).route()
}

/// One rule without the canary: as it was, where that can be told.
fn returned(
    dialect: &dyn Dialect,
    rule: Value,
    index: usize,
    before: &[Value],
    place: &Place,
    names: Names<'_>,
) -> Value {
    let has_canary = list(&rule, place)
        .iter()
        .any(|backend| dialect.named(backend, names.namespace) == Some(names.canary));
    let mut free = bare(dialect, &rule, names);
    if !has_canary && free == rule {
        return rule;
    }
    // Somebody may have moved the rule: one that says the same is it, and failing that the one in its place.
    let says = |other: &Value| rest(dialect, other, place, names);
    let same = says(&rule);
    let alike = |other: &&Value| place.many && says(other) == same;
    let candidates = before
        .get(index)
        .filter(alike)
        .into_iter()
        .chain(before.iter().filter(alike))
        .chain(before.get(index));
    for candidate in candidates {
        let original = list(candidate, place);
        let mut joined = list(&free, place).to_vec();
        weights::join(&mut joined, dialect, names, Some(original));
        if joined == original {
            if alike(&candidate) {
                return candidate.clone();
            }
            free[place.list] = Value::Array(joined);
            return free;
        }
    }
    if let Some(list) = free[place.list].as_array_mut() {
        weights::join(list, dialect, names, before.get(index).map(|rule| self::list(rule, place)));
    }
    free
}

/// The smallest fields in which two states of a route differ.
fn ops(dialect: &dyn Dialect, before: &Value, after: &Value) -> Ops {
    let mut ops = Ops::of(before);
    for place in dialect.places() {
        let (Ok(Some(old)), Ok(Some(new))) = (rules(before, place), rules(after, place)) else { continue };
        if old.len() != new.len() {
            ops.replace(place.at, &Value::Array(old), &Value::Array(new));
            continue;
        }
        for (index, (old, new)) in old.iter().zip(&new).enumerate() {
            let mut but_list = old.clone();
            but_list[place.list] = new[place.list].clone();
            if but_list == *new {
                ops.replace(&at(place, index), &old[place.list], &new[place.list]);
            } else if place.many {
                // A field that comes or goes cannot be tested by itself.
                ops.replace(&format!("{}/{index}", place.at), old, new);
            } else {
                ops.replace(place.at, old, new);
            }
        }
    }
    ops
}
