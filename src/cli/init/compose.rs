//! The Rollout that `init` writes, as YAML with comments. Pure.

use std::fmt::Write as _;

use super::Findings;
use super::choice::{Choice, field};
use crate::cli::args::StrategyChoice;
use crate::decide::pods_for;

/// The steps that are proposed: weight in percent and least time.
const STEPS: [(i32, &str); 3] = [(5, "2m"), (25, "5m"), (50, "5m")];

/// The Rollout as YAML with comments.
pub(super) fn compose(found: &Findings, strategy: StrategyChoice) -> String {
    let mut text = String::new();
    let name = &found.name;
    // The name of a Rollout is a part of the names of its releases.
    let short: String = name.chars().take(40).collect();
    let short = short.trim_end_matches(['-', '.']);
    let services = if found.services.is_empty() {
        "no Service selects its pods".to_owned()
    } else {
        format!("served by {}", found.services.join(", "))
    };
    let _ = writeln!(
        text,
        "# The policy for changes of the Deployment {name}: {} pods, {services}.",
        found.replicas
    );
    if let Some(scaler) = &found.autoscaler {
        let _ = writeln!(
            text,
            "# The autoscaler {scaler} goes on working; Belay holds its minReplicas during a release."
        );
    }
    if !found.hidden.is_empty() {
        let _ =
            writeln!(text, "# Not looked for, because you may not list them: {}.", found.hidden.join(", "));
    }
    let _ = write!(
        text,
        "apiVersion: belay.dev/v1alpha1\nkind: Rollout\nmetadata:\n  name: {short}\n  namespace: {}\nspec:\n  \
         workloadRef:\n    kind: Deployment\n    name: {name}\n  strategy:\n",
        found.namespace
    );
    match (strategy, &found.choice.service) {
        (StrategyChoice::BlueGreen, Some(service)) => blue_green(&mut text, found, service),
        (StrategyChoice::Auto, Some(service)) if !found.choice.routes.is_empty() => {
            through_routes(&mut text, found, service);
        }
        _ => by_pods(&mut text, found, strategy),
    }
    metrics(&mut text, found);
    text
}

/// What was found and not chosen, as comments.
fn beside(text: &mut String, choice: &Choice) {
    for line in &choice.beside {
        let _ = writeln!(text, "      # {}", line.replace('\n', " "));
    }
}

fn by_pods(text: &mut String, found: &Findings, strategy: StrategyChoice) {
    text.push_str("    canary:\n");
    if strategy == StrategyChoice::Auto {
        if let Some(service) = &found.choice.service {
            let _ = writeln!(
                text,
                "      # No route to Service {service} was found that could be split, so pods make the weight.\n      \
                 # For one switch of the Service instead: belay init {} --strategy blue-green",
                found.name
            );
        }
        beside(text, &found.choice);
    }
    text.push_str("      steps:\n");
    let pods = u32::try_from(found.replicas).unwrap_or(1).max(1);
    for (weight, min) in STEPS {
        // What the cluster will make of it; nothing to say when that is the weight itself.
        let canary = (f64::from(pods) * f64::from(weight) / f64::from(100 - weight)).ceil().max(1.0);
        let real = 100.0 * canary / (f64::from(pods) + canary);
        let _ = writeln!(
            text,
            "      - weight: {weight} # {canary:.0} of {:.0} pods: {real:.0} %",
            f64::from(pods) + canary
        );
        let _ = writeln!(text, "        minDuration: {min}");
    }
    text.push_str("      # - weight: 50\n      #   pause: true # waits for a person: belay approve\n");
}

fn through_routes(text: &mut String, found: &Findings, service: &str) {
    let _ = writeln!(
        text,
        "    canary:\n      # While a release runs, this Service selects one version only: who bypasses the routes never \
         meets\n      # the new one. The canary gets a Service {service}-canary for as long.\n      service: {service}"
    );
    text.push_str("      # Split by weight for a release, and as they were after it.\n");
    routes(text, &found.choice);
    beside(text, &found.choice);
    text.push_str("      steps:\n");
    for (weight, min) in STEPS {
        let pods = pods_for(found.replicas.max(1), weight);
        let plural = if pods == 1 { "" } else { "s" };
        let _ = writeln!(
            text,
            "      - weight: {weight} # {pods} canary pod{plural} beside {}\n        minDuration: {min}",
            found.replicas
        );
    }
    text.push_str(
        "      # - weight: 75\n      #   pause: true # waits for a person: belay approve\n      \
         # Then the new version has all traffic while the old one stands by: the way back is one write.\n      \
         bake: 10m\n",
    );
}

fn blue_green(text: &mut String, found: &Findings, service: &str) {
    let _ = writeln!(
        text,
        "    blueGreen:\n      # Users come by this Service. The new version runs at full size beside the old one before they \
         do.\n      activeService: {service}\n      \
         # previewService: {service}-preview # a Service of the same pods and ports, to look at the new version\n      \
         preview: 5m # so long without users\n      \
         # pauseBeforeSwitch: true # the switch waits for a person: belay approve\n      \
         bake: 10m # all users, and the old version stands by: the way back is one write"
    );
    if !found.choice.routes.is_empty() {
        text.push_str("      # Switched instead of the Service's selector, and as they were after it.\n");
        routes(text, &found.choice);
    }
    beside(text, &found.choice);
}

fn routes(text: &mut String, choice: &Choice) {
    text.push_str("      traffic:\n");
    let mut last = None;
    for way in &choice.routes {
        if last != Some(way.router) {
            let _ = writeln!(text, "        {}:", field(way.router));
            last = Some(way.router);
        }
        let _ = writeln!(text, "        - name: {}", way.name);
    }
}

fn metrics(text: &mut String, found: &Findings) {
    let head = |text: &mut String, off: &str, port: i32, path: &str| {
        let _ = write!(
            text,
            "  {off}analysis:\n  {off}  metrics:\n  {off}    pods:\n  {off}      port: {port}\n  {off}      path: {path}\n  \
             {off}  guards:\n  {off}  - name: errors\n  {off}    ratio:\n  {off}      bad:\n  {off}        metric: \
             http_requests_total\n  {off}        match: 'code=~\"5..\"'\n  {off}      total:\n  {off}        metric: \
             http_requests_total\n  {off}      tolerate: 1.2x + 0.1%\n"
        );
    };
    if let Some((port, path, seen)) = &found.metrics {
        let _ = writeln!(
            text,
            "  # The metrics page was found by {seen}. Put the names of your own counters in."
        );
        head(text, "", *port, path);
    } else {
        text.push_str(
            "  # No metrics page was found, so that a release advances by time only. With one, these lines let it\n  \
             # advance on proof, and catch it when it fails:\n",
        );
        head(text, "# ", 8080, "/metrics");
    }
}
