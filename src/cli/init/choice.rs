//! Which Service and which routes carry a workload's users: chosen where there is one answer, else told. Pure.

use crate::api::router::Router;
use crate::cli::routes::Way;

/// A Service that selects the workload's pods, and the routes to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Its name.
    pub service: String,
    /// The routes that send traffic to it.
    pub ways: Vec<Way>,
}

/// What carries the users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The Service, if one was chosen.
    pub service: Option<String>,
    /// Routes to it that are split together.
    pub routes: Vec<Way>,
    /// What was not chosen, and why.
    pub beside: Vec<String>,
}

/// Routes of one family are looked after by one router.
fn family(router: Router) -> u8 {
    match router {
        Router::HttpRoute | Router::GrpcRoute => 0,
        Router::VirtualService => 1,
        Router::NginxIngress => 2,
        Router::TraefikService | Router::IngressRoute => 3,
        Router::AlbIngress => 4,
        Router::TrafficSplit => 5,
    }
}

fn name(way: &Way) -> String {
    format!("{} {}", way.router.kind(), way.name)
}

/// Chooses. A Service that has routes goes before one that has none, then one that is called like the workload.
pub fn choose(all: &[Served], workload: &str) -> Choice {
    let mut choice = Choice::default();
    let has_ways = |served: &&Served| served.ways.iter().any(|way| way.refused.is_none());
    let routed: Vec<&Served> = all.iter().filter(has_ways).collect();
    let candidates: Vec<&Served> = if routed.is_empty() { all.iter().collect() } else { routed };
    let served = match candidates.as_slice() {
        [one] => Some(*one),
        several => several.iter().find(|served| served.service == workload).copied(),
    };
    let others = all.iter().filter(|other| served.is_none_or(|served| served.service != other.service));
    for other in others {
        let ways: Vec<String> = other.ways.iter().map(name).collect();
        let by = if ways.is_empty() { String::new() } else { format!(", with {}", ways.join(", ")) };
        choice.beside.push(format!("Service {} selects these pods, too{by}.", other.service));
    }
    let Some(served) = served else {
        if !all.is_empty() {
            choice.beside.push("Which of them users come by could not be told: choose one.".to_owned());
        }
        return choice;
    };
    choice.service = Some(served.service.clone());
    let first = served.ways.iter().find(|way| way.refused.is_none()).map(|way| family(way.router));
    for way in &served.ways {
        match &way.refused {
            Some(why) => choice.beside.push(format!("{} cannot be split: {why}.", name(way))),
            None if Some(family(way.router)) == first => choice.routes.push(way.clone()),
            None => choice.beside.push(format!(
                "{} is of another router. Name it instead, or as well if no request passes both: it would be \
                 split twice.",
                name(way)
            )),
        }
    }
    choice
}

/// The field of `traffic` for a kind.
pub fn field(router: Router) -> &'static str {
    match router {
        Router::HttpRoute => "httpRoutes",
        Router::GrpcRoute => "grpcRoutes",
        Router::VirtualService => "virtualServices",
        Router::NginxIngress => "nginxIngresses",
        Router::TraefikService => "traefikServices",
        Router::IngressRoute => "ingressRoutes",
        Router::AlbIngress => "albIngresses",
        Router::TrafficSplit => "trafficSplits",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(router: Router, name: &str) -> Way {
        Way { router, name: name.to_owned(), refused: None }
    }

    fn served(service: &str, ways: &[Way]) -> Served {
        Served { service: service.to_owned(), ways: ways.to_vec() }
    }

    #[test]
    fn the_service_with_routes_is_the_one() {
        let all = [served("metrics", &[]), served("web", &[way(Router::HttpRoute, "edge")])];
        let choice = choose(&all, "front");
        assert_eq!(choice.service.as_deref(), Some("web"));
        assert_eq!(choice.routes, [way(Router::HttpRoute, "edge")]);
        assert_eq!(choice.beside, ["Service metrics selects these pods, too."]);
    }

    #[test]
    fn one_that_is_called_like_the_workload_goes_first_and_else_nobody_guesses() {
        let all = [
            served("a", &[way(Router::HttpRoute, "a")]),
            served("web", &[way(Router::TrafficSplit, "w"), way(Router::TrafficSplit, "v")]),
        ];
        let choice = choose(&all, "web");
        assert_eq!((choice.service.as_deref(), choice.routes.len()), (Some("web"), 2));
        assert_eq!(choice.beside, ["Service a selects these pods, too, with HTTPRoute a."]);
        let choice = choose(&all, "front");
        assert_eq!((choice.service, choice.routes.len(), choice.beside.len()), (None, 0, 3));
        assert_eq!(choose(&[], "front"), Choice::default());
    }

    #[test]
    fn routes_of_one_router_go_together_and_others_are_told() {
        let mut broken = way(Router::HttpRoute, "broken");
        broken.refused = Some("it names web more than once".to_owned());
        let ways = [
            broken,
            way(Router::HttpRoute, "http"),
            way(Router::GrpcRoute, "grpc"),
            way(Router::NginxIngress, "old"),
        ];
        let choice = choose(&[served("web", &ways)], "web");
        let names: Vec<&str> = choice.routes.iter().map(|way| way.name.as_str()).collect();
        assert_eq!(names, ["http", "grpc"]);
        assert_eq!(choice.beside[0], "HTTPRoute broken cannot be split: it names web more than once.");
        assert!(choice.beside[1].starts_with("Ingress old is of another router."), "{:?}", choice.beside);
    }
}
