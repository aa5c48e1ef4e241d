//! Which version gets which share of the traffic, counted from routes, Services and pods as they are, and what of it
//! must never be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use belay::api::OPERATOR_USER;
use serde_json::{Value, json};

use super::deployments::{int, is_deleting, text};
use super::network::found;
use super::oracle::owner_kind;
use super::pods::is_ready;
use super::server::{Server, Sort, Write};

/// Milliseconds after which a way back does not wait for the gateway any longer.
const PATIENCE: i64 = 30_000;
/// Two shares that differ by less are the same.
const SAME: f64 = 1e-6;

/// Percent by version.
type Shares = BTreeMap<String, f64>;

/// What is known of the traffic.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Callers of the Service meet one version only, and the route is what others and Belay made of it.
    pub guards_callers: bool,
    /// What Services and the route are when nothing is borrowed.
    lent: BTreeMap<(Sort, String), Value>,
    /// The rules of each generation of the present route.
    rules: BTreeMap<i64, Value>,
    /// When each Service last lost its weight in the route, and when it was last taken out of it.
    unweighted: BTreeMap<String, i64>,
    unnamed: BTreeMap<String, i64>,
    /// Versions that serve or served: the first one, and those that were handed over.
    served: BTreeSet<String>,
}

impl Traffic {
    /// As it is before any release.
    pub fn begin(server: &Server) -> Self {
        let sorts = [Sort::Service, Sort::Route];
        let all = sorts.into_iter().flat_map(|sort| server.all(sort).map(move |object| (sort, object)));
        let lent = all.map(|(sort, o)| ((sort, text(o, "/metadata/name").to_owned()), own(o))).collect();
        let sets = server.all(Sort::ReplicaSet);
        let images = sets.map(|rs| text(rs, "/spec/template/spec/containers/0/image").to_owned()).collect();
        let mut traffic = Self { guards_callers: true, lent, served: images, ..Self::default() };
        if let Some(route) = server.get(Sort::Route, "web") {
            traffic.remember(route);
        }
        traffic
    }

    fn is_on(&self) -> bool {
        !self.lent.is_empty()
    }

    fn remember(&mut self, route: &Value) {
        self.rules.insert(int(route, "/metadata/generation"), route["spec"]["rules"].clone());
    }

    /// Takes in a change of the route.
    fn changed(&mut self, write: &Write) {
        let none = Value::Null;
        let of = |object: &Option<Arc<Value>>| {
            object.as_ref().map_or(none.clone(), |o| o["spec"]["rules"].clone())
        };
        let (before, after) = (of(&write.before), of(&write.after));
        for (service, weight) in backends(&before) {
            if !names(&after, service) {
                self.unnamed.insert(service.to_owned(), write.at);
            }
            let weighted = backends(&after).any(|(name, weight)| name == service && weight > 0.0);
            if weight > 0.0 && !weighted {
                self.unweighted.insert(service.to_owned(), write.at);
            }
        }
        match &write.after {
            None => self.rules.clear(),
            Some(route) => self.remember(route),
        }
    }

    /// The rules that the gateway goes by, without what it had the time to forget.
    fn applied(&self, server: &Server) -> Value {
        let Some(route) = server.get(Sort::Route, "web") else { return Value::Null };
        let seen = int(route, "/status/parents/0/conditions/0/observedGeneration");
        let mut rules = self.rules.get(&seen).cloned().unwrap_or_default();
        let forgotten = |left: &BTreeMap<String, i64>, service: &str| {
            left.get(service).is_some_and(|at| server.now >= at + PATIENCE)
        };
        let written = &route["spec"]["rules"];
        for rule in rules.as_array_mut().into_iter().flatten() {
            let Some(list) = rule["backendRefs"].as_array_mut() else { continue };
            list.retain(|b| names(written, text(b, "/name")) || !forgotten(&self.unnamed, text(b, "/name")));
            for backend in list {
                let service = text(backend, "/name");
                let weighted = backends(written).any(|(name, weight)| name == service && weight > 0.0);
                if !weighted && forgotten(&self.unweighted, service) {
                    backend["weight"] = json!(0);
                }
            }
        }
        rules
    }

    /// Judges one write; `resized`: the size of the workload changes. Says what is wrong with it.
    pub fn judge(&mut self, server: &Server, write: &Write, resized: bool) -> Vec<String> {
        if !self.is_on() {
            return Vec::new();
        }
        if write.sort == Sort::Route {
            self.changed(write);
        }
        if write.by != OPERATOR_USER {
            return Vec::new();
        }
        let mut wrong = Vec::new();
        match write.sort {
            Sort::Route | Sort::Service => self.moved(server, write, resized, &mut wrong),
            Sort::ReplicaSet => {
                self.sized(server, write, &mut wrong);
                if let Some(rs) = write.after.as_ref().filter(|rs| owner_kind(rs).is_empty()) {
                    self.served.insert(text(rs, "/spec/template/spec/containers/0/image").to_owned());
                }
            }
            Sort::Release => self.recorded(server, write, &mut wrong),
            _ => {}
        }
        if write.sort == Sort::Service && write.after.is_none() {
            let name = &write.name;
            let made = write.before.as_ref().is_some_and(|s| owner_kind(s) == "Rollout");
            wrong.extend((!made).then(|| format!("Belay deleted Service {name}, which is somebody's")));
            let route = server.get(Sort::Route, "web");
            let named = route.is_some_and(|r| names(&r["spec"]["rules"], name));
            let used = names(&self.applied(server), name);
            let what = format!("Service {name} was deleted, and the route or the gateway names it");
            wrong.extend((named || used).then_some(what));
        }
        wrong.extend(self.standing(server));
        wrong
    }

    /// Lines 1, 2 and 4: who gets more by a write of a route or a Service, may have it and can carry it.
    fn moved(&self, server: &Server, write: &Write, resized: bool, wrong: &mut Vec<String>) {
        let none = json!({});
        let before = write.before.as_deref().unwrap_or(&none);
        let after = write.after.as_deref().unwrap_or(&none);
        let route = server.get(Sort::Route, "web").map_or(&none, |r| &**r);
        let (was, is, was_direct, is_direct) = if write.sort == Sort::Route {
            let now = direct(server, None);
            (
                routed(server, &before["spec"]["rules"], None),
                routed(server, &after["spec"]["rules"], None),
                now.clone(),
                now,
            )
        } else {
            let old = Some((write.name.as_str(), &before["spec"]["selector"]));
            let rules = &route["spec"]["rules"];
            (
                routed(server, rules, old),
                routed(server, rules, None),
                direct(server, old),
                direct(server, None),
            )
        };
        let release = running(server);
        for (was, is, by_route) in [(&was, &is, true), (&was_direct, &is_direct, false)] {
            for (version, share) in is {
                if *share <= was.get(version).copied().unwrap_or(0.0) + SAME {
                    continue;
                }
                let who = if by_route { "the route" } else { "the Service" };
                let permitted = self.permitted(release, version, by_route);
                if *share > permitted + SAME {
                    wrong.push(format!("{who} gives {version} {share} %, {permitted} are permitted"));
                }
                let (need, ready) = (needed(server, release, version, *share), ready(server, version));
                if self.guards_callers && !resized && ready < need {
                    wrong.push(format!(
                        "{who} gives {version} {share} %, and {ready} of {need} pods are ready"
                    ));
                }
            }
        }
        for (service, weight) in backends(&after["spec"]["rules"]) {
            let had = names(&before["spec"]["rules"], service);
            if write.sort == Sort::Route && !had && endpoints(server, service) == 0 {
                wrong.push(format!("Service {service} came into the route, and nobody is behind it"));
            }
            if write.sort == Sort::Route && !had && weight > 0.0 {
                wrong.push(format!("Service {service} came into the route with weight {weight} at once"));
            }
        }
    }

    /// The share in percent that a version may come to. What served once may have all.
    fn permitted(&self, release: Option<&Value>, version: &str, by_route: bool) -> f64 {
        let Some(release) = release.filter(|r| version_of(r, "to") == version) else {
            // What somebody let past the brake is not Belay's.
            let may = self.served.contains(version) || !self.guards_callers;
            return if may { 100.0 } else { 0.0 };
        };
        if text(release, "/status/phase") == "RollingBack" {
            return 0.0;
        }
        let step = usize::try_from(int(release, "/status/step/index")).unwrap();
        let step = release["spec"]["steps"].get(step);
        match step.and_then(|step| step["weight"].as_f64()) {
            None => 100.0,
            // A Service is switched only where no route is.
            Some(_) if !by_route && release["spec"]["traffic"].get("routes").is_some() => 0.0,
            Some(weight) if !by_route && weight < 100.0 => 0.0,
            Some(weight) => weight,
        }
    }

    /// Lines 1 and 4: pods go only when their traffic is gone, and the canary is let go when it has all of it.
    fn sized(&self, server: &Server, write: &Write, wrong: &mut Vec<String>) {
        let (Some(before), name) = (&write.before, &write.name) else { return };
        let (was, is) =
            (int(before, "/spec/replicas"), write.after.as_ref().map_or(0, |rs| int(rs, "/spec/replicas")));
        let version = text(before, "/spec/template/spec/containers/0/image");
        let none = Value::Null;
        let route = server.get(Sort::Route, "web");
        let written = route.map_or(&none, |r| &r["spec"]["rules"]);
        let applied = &self.applied(server);
        let share = |shares: Shares| shares.get(version).copied().unwrap_or(0.0);
        let by_route = share(routed(server, written, None)).max(share(routed(server, applied, None)));
        let now = by_route.max(share(direct(server, None)));
        if is < was {
            let need = needed(server, running(server), version, now);
            if is < need {
                wrong.push(format!("{name} has {is} pods of {need} for the {now} % that it gets"));
            }
        }
        let let_go = write.after.as_ref().is_some_and(|rs| owner_kind(rs).is_empty());
        if let_go && self.guards_callers && was > 0 {
            let all = [direct(server, None)].into_iter().chain(route.map(|_| routed(server, written, None)));
            let all = all.chain(route.map(|_| routed(server, applied, None)));
            let least = all.map(share).fold(100.0, f64::min);
            if least < 100.0 - SAME {
                wrong.push(format!("{name} was handed over with {least} % of the traffic"));
            }
        }
    }

    /// Lines 2, 3 and 4: what the record says of the traffic is so.
    fn recorded(&self, server: &Server, write: &Write, wrong: &mut Vec<String>) {
        let (Some(before), Some(after), name) = (&write.before, &write.after, &write.name) else { return };
        if after["spec"].get("traffic").is_none() {
            return;
        }
        let version = version_of(after, "to");
        let none = Value::Null;
        let written = server.get(Sort::Route, "web").map_or(&none, |r| &r["spec"]["rules"]);
        let by_route = after["spec"]["traffic"].get("routes").is_some();
        let share = |rules: &Value| {
            let all = if by_route { routed(server, rules, None) } else { direct(server, None) };
            all.get(version).copied().unwrap_or(0.0)
        };
        let phase = text(after, "/status/phase");
        let first = phase == "RollingBack" && text(before, "/status/phase") != phase;
        if first && self.guards_callers && share(written) > SAME {
            wrong.push(format!("{name} goes back with {} %", share(written)));
        }
        let (was, is) = (int(before, "/status/step/index"), int(after, "/status/step/index"));
        let said = after.pointer("/status/timeline").and_then(Value::as_array).into_iter().flatten();
        let said = said.rev().find(|e| e["reason"] == "StepPassed").map(|e| text(e, "/message"));
        let person = said.is_some_and(|m| m.contains("because") || m.contains("serves"));
        let asked = after["spec"]["steps"][usize::try_from(was).unwrap()]["weight"].as_f64().unwrap_or(0.0);
        let had = share(&self.applied(server));
        if is > was && !person && self.guards_callers && had < asked - SAME {
            wrong.push(format!("{name}: step {} of {asked} % was passed with {had} %", was + 1));
        }
    }

    /// What must hold at every moment. Says what is wrong.
    pub fn standing(&self, server: &Server) -> Option<String> {
        if !self.is_on() || !self.guards_callers {
            return None;
        }
        let service = server.get(Sort::Service, "web")?;
        // Without a Rollout the workload rolls out by itself.
        server.get(Sort::Rollout, "web")?;
        // Nobody can be where no pod is.
        let mut live = server.all(Sort::Pod).filter(|pod| !is_deleting(pod) && is_ready(pod));
        let anybody = live.any(|pod| self.served.contains(image(pod)));
        let behind = || found(server, &service["spec"]["selector"]);
        let met: BTreeSet<&str> = behind().filter(|pod| is_ready(pod)).map(|pod| image(pod)).collect();
        if met.len() > 1 {
            return Some(format!("callers of the Service meet {met:?}"));
        }
        if anybody && behind().next().is_none() {
            return Some("nobody is behind the Service".to_owned());
        }
        let empty = |name: &str| {
            let service = server.get(Sort::Service, name);
            service.is_none_or(|s| found(server, &s["spec"]["selector"]).next().is_none())
        };
        let route = server.get(Sort::Route, "web");
        for rules in route.map(|r| &r["spec"]["rules"]).into_iter().chain([&self.applied(server)]) {
            let mut used = backends(rules).filter(|(_, weight)| *weight > 0.0);
            if let Some((name, weight)) = used.find(|(name, _)| anybody && empty(name)) {
                return Some(format!("Service {name} has weight {weight}, and nobody is behind it"));
            }
        }
        None
    }

    /// Line 1: the old version keeps all its pods until the new one is handed over.
    pub fn stable_lacks(&self, server: &Server) -> Option<String> {
        let release = running(server).filter(|_| self.is_on())?;
        let to = server.get(Sort::ReplicaSet, text(release, "/spec/to/replicaSet"));
        if to.is_some_and(|rs| owner_kind(rs) != "Rollout") {
            return None;
        }
        let size = int(server.get(Sort::Deployment, "web")?, "/spec/replicas");
        let has = ready(server, version_of(release, "from"));
        (has < size).then(|| format!("{has} of {size} pods of the old version are ready"))
    }

    /// Whether a ReplicaSet is that of the version before one that has been handed over.
    pub fn may_retire(server: &Server, rs: &Value) -> bool {
        let Some(release) = running(server) else { return false };
        let to = server.get(Sort::ReplicaSet, text(release, "/spec/to/replicaSet"));
        to.is_some_and(|rs| owner_kind(rs) == "Deployment")
            && version_of(release, "from") == text(rs, "/spec/template/spec/containers/0/image")
    }

    /// Line 9: when no release runs, everything is as it was. What is wrong with it.
    pub fn borrowed(&self, server: &Server) -> Option<String> {
        for ((sort, name), was) in &self.lent {
            let Some(object) = server.get(*sort, name) else { continue };
            if own(object) != *was {
                return Some(format!("{sort:?} {name} is {}, and was {was}", own(object)));
            }
        }
        let mut services = server.all(Sort::Service);
        let left = services.find(|s| owner_kind(s) == "Rollout").filter(|_| self.is_on())?;
        Some(format!("Service {} is left", text(left, "/metadata/name")))
    }
}

/// What is another's of an object.
fn own(object: &Value) -> Value {
    let meta = &object["metadata"];
    json!({"spec": object["spec"], "labels": meta["labels"], "annotations": meta["annotations"]})
}

fn image(pod: &Value) -> &str {
    text(pod, "/spec/containers/0/image")
}

/// All backends of some rules, with their weights.
fn backends(rules: &Value) -> impl Iterator<Item = (&str, f64)> {
    let rules = rules.as_array().into_iter().flatten();
    let lists = rules.filter_map(|rule| rule["backendRefs"].as_array());
    lists.flatten().map(|b| (text(b, "/name"), b["weight"].as_f64().unwrap_or(1.0)))
}

fn names(rules: &Value, service: &str) -> bool {
    backends(rules).any(|(name, _)| name == service)
}

/// The parts of the live pods behind a Service that are of each version; `old` says what a Service selected before.
fn behind(server: &Server, service: &str, old: Option<(&str, &Value)>) -> Shares {
    let present = server.get(Sort::Service, service).map(|s| &s["spec"]["selector"]);
    let selector = old.filter(|(name, _)| *name == service).map(|(_, selector)| selector).or(present);
    let mut shares = Shares::new();
    let pods: Vec<&str> = selector.into_iter().flat_map(|s| found(server, s)).map(|pod| image(pod)).collect();
    for version in &pods {
        *shares.entry((*version).to_owned()).or_default() += 1.0 / pods.len() as f64;
    }
    shares
}

/// What each version gets of the route's traffic in percent, at most over all rules.
fn routed(server: &Server, rules: &Value, old: Option<(&str, &Value)>) -> Shares {
    let mut most = Shares::new();
    for rule in rules.as_array().into_iter().flatten() {
        let rule = json!([rule]);
        let all: f64 = backends(&rule).map(|(_, weight)| weight).sum();
        let mut shares = Shares::new();
        for (service, weight) in backends(&rule).filter(|(_, weight)| *weight > 0.0) {
            for (version, part) in behind(server, service, old) {
                *shares.entry(version).or_default() += 100.0 * weight / all * part;
            }
        }
        for (version, share) in shares {
            let known = most.entry(version).or_default();
            *known = known.max(share);
        }
    }
    most
}

/// What each version gets of those who call the Service itself.
fn direct(server: &Server, old: Option<(&str, &Value)>) -> Shares {
    behind(server, "web", old).into_iter().map(|(version, part)| (version, 100.0 * part)).collect()
}

/// The release that runs, if its traffic does not go by pods.
fn running(server: &Server) -> Option<&Value> {
    let ended = |r: &Value| ["Promoted", "RolledBack", "Superseded"].contains(&text(r, "/status/phase"));
    let mut all = server.all(Sort::Release).filter(|r| !ended(r));
    all.find(|r| r["spec"].get("traffic").is_some()).map(|r| &**r)
}

/// `v2` of `app=v2`.
fn version_of<'a>(release: &'a Value, which: &str) -> &'a str {
    let image = release["spec"][which]["images"][0].as_str().unwrap_or_default();
    image.split('=').next_back().unwrap_or_default()
}

/// Pods that a share takes.
fn needed(server: &Server, release: Option<&Value>, version: &str, share: f64) -> i64 {
    let size = server.get(Sort::Deployment, "web").map_or(0, |d| int(d, "/spec/replicas"));
    #[expect(clippy::cast_possible_truncation, reason = "a number of pods")]
    let all = (size as f64 * share / 100.0 - SAME).ceil() as i64;
    let release = release.filter(|r| version_of(r, "to") == version);
    let step =
        release.and_then(|r| r["spec"]["steps"].get(usize::try_from(int(r, "/status/step/index")).unwrap()));
    let said = step.and_then(|step| step["replicas"].as_i64());
    said.filter(|_| share < 100.0).map_or(all, |said| all.min(said))
}

fn ready(server: &Server, version: &str) -> i64 {
    let pods = server.all(Sort::Pod).filter(|pod| !is_deleting(pod) && is_ready(pod));
    i64::try_from(pods.filter(|pod| image(pod) == version).count()).unwrap()
}

/// Ready endpoints of a Service, as its slice says.
fn endpoints(server: &Server, service: &str) -> usize {
    let slice = server.get(Sort::Slice, &format!("{service}-slice"));
    let endpoints = slice.and_then(|s| s["endpoints"].as_array()).into_iter().flatten();
    endpoints.filter(|e| e["conditions"]["ready"] == true).count()
}
