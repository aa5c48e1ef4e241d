//! One route of a release: what it gives the canary, and the write that changes it.

use serde_json::{Value, json};

use crate::api;
use crate::api::release::{PlannedRoute, PlannedTraffic};
use crate::api::router::Router;
use crate::decide::effect::{Effect, Marks};
use crate::decide::observation::{Loan, Observation, Route};
use crate::traffic::{self as routers, Ask, Seen, Split, Uptake, Write};

/// A route that exists, and what the router has beside it for the canary.
#[derive(Clone, Copy)]
pub(super) struct Road<'a> {
    pub planned: &'a PlannedRoute,
    pub route: &'a Route,
    /// The object that Belay makes beside it, where the router wants one.
    pub companion: Option<&'a Route>,
    stable: &'a str,
    canary: &'a str,
}

impl<'a> Road<'a> {
    /// A planned route, if it is there.
    pub fn find(obs: &'a Observation, plan: &'a PlannedTraffic, planned: &'a PlannedRoute) -> Option<Self> {
        let named = |name: &str| {
            obs.routes.iter().find(|route| {
                route.router == planned.router
                    && route.id.namespace == planned.namespace
                    && route.id.name == name
                    && !route.deleting
            })
        };
        let canary = plan.canary_service.as_deref().unwrap_or_default();
        let companion = routers::companion(planned.router, &planned.name, canary);
        Some(Self {
            planned,
            route: named(&planned.name)?,
            companion: companion.as_deref().and_then(named),
            stable: &plan.service,
            canary,
        })
    }

    /// For messages.
    pub fn name(&self) -> String {
        name(self.planned)
    }

    fn seen(&self) -> Seen<'a> {
        Seen { companion: self.companion.map(|c| &c.object), ..Seen::route(&self.route.object) }
    }

    /// What the route does with the canary now, or why it is not understood.
    pub fn split(&self) -> Result<Split, String> {
        routers::read(self.planned.router, &self.seen(), self.stable, self.canary).map_err(|r| r.to_string())
    }

    /// The canary's share in percent; `None` where it is not there.
    pub fn share(&self) -> Option<i32> {
        self.split().ok().and_then(|split| split.canary)
    }

    /// Whether the router has taken up the route as it is now.
    pub fn uptake(&self) -> Uptake {
        routers::taken_up(self.planned.router, &self.seen())
    }

    /// What a release may change of it.
    pub fn borrowed(&self) -> Result<Value, String> {
        routers::borrowed(self.planned.router, &self.seen(), self.stable, self.canary)
            .map_err(|r| r.to_string())
    }

    /// Whether it can be asked for, and what it takes.
    pub fn patch(&self, ask: &Ask) -> Result<Option<Write>, String> {
        routers::patch(self.planned.router, &self.seen(), ask).map_err(|r| r.to_string())
    }

    /// Whether the route is as it is asked for.
    pub fn is_as_asked(&self, ask: &Ask) -> bool {
        self.patch(ask).is_ok_and(|write| write.is_none())
    }

    /// The object that carries the marks of a release: the companion, where the router has one.
    pub fn lent(&self) -> Option<&'a Route> {
        if routers::companion(self.planned.router, "", "").is_some() {
            self.companion
        } else {
            Some(self.route)
        }
    }

    /// What it carries of a release.
    pub fn loan(&self) -> Option<&'a Loan> {
        self.lent().map(|route| &route.loan)
    }

    /// The effect of a write.
    pub fn effect(&self, write: Write, weight: i32, marks: Marks, owner: &Value) -> Effect {
        let router = self.planned.router;
        match write {
            Write::Route(ops) => {
                Effect::SplitRoute { router, route: self.route.id.clone(), ops, weight, marks }
            }
            Write::Companion(ops) => {
                let id = self.companion.map_or_else(|| self.route.id.clone(), |c| c.id.clone());
                Effect::SplitRoute { router, route: id, ops, weight, marks }
            }
            Write::Create(mut object) => {
                object["metadata"]["namespace"] = json!(self.planned.namespace);
                object["metadata"]["ownerReferences"] = json!([owner]);
                if let Some((release, loan)) = marks.borrow {
                    object["metadata"]["labels"][api::RELEASE_LABEL] = json!(release);
                    object["metadata"]["annotations"][api::BORROWED_ANNOTATION] = json!(loan);
                }
                Effect::CreateRoute { router, object }
            }
            Write::Delete => {
                let id = self.companion.map_or_else(|| self.route.id.clone(), |c| c.id.clone());
                Effect::DeleteRoute { router, route: id }
            }
        }
    }
}

/// The name of a route for messages.
pub(super) fn name(planned: &PlannedRoute) -> String {
    format!("{} {}/{}", planned.router.kind(), planned.namespace, planned.name)
}

/// The write that takes the canary out of a route, and takes off what a release wrote on it.
pub(super) fn give_back(router: Router, route: &Route, stable: &str, canary: &str) -> Effect {
    if routers::companion(router, "", "").is_some() {
        // What carries the loan is the companion itself.
        return Effect::DeleteRoute { router, route: route.id.clone() };
    }
    let seen = Seen::route(&route.object);
    let ops = match routers::give_back(router, &seen, &route.loan.original, stable, canary) {
        Some(Write::Route(ops)) => ops,
        // There is nothing of it in there any more; what Belay wrote beside its rules goes all the same.
        _ => Vec::new(),
    };
    Effect::ReturnRoute { router, route: route.id.clone(), ops, loan: route.loan.clone() }
}
