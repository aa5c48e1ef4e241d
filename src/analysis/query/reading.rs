//! From series to what one pod says to each guard.

use std::collections::BTreeMap;

use super::text::{Series, key};
use crate::analysis::{Buckets, CounterPlan, GuardPlan, Labels, Measured, Plan, Reading};

/// The suffix of the series of a classic histogram, one per bucket.
pub(super) const BUCKET: &str = "_bucket";
/// The label with a bucket's upper edge.
const EDGE: &str = "le";

/// Whether any guard needs the metric of this name.
pub(super) fn is_wanted(plan: &Plan, name: &str) -> bool {
    plan.guards.iter().any(|guard| match &guard.measured {
        Measured::Ratio { bad, total } => bad.metric == name || total.metric == name,
        Measured::Histogram { metric, .. } => name.strip_suffix(BUCKET) == Some(&*metric.metric),
        Measured::Gauge { metric, .. } => metric.metric == name,
        Measured::Check(_) => false,
    })
}

/// Whether any guard counts the series.
pub(super) fn is_counted(plan: &Plan, series: &Series) -> bool {
    let of =
        |counter: &CounterPlan| counter.metric == series.name && counter.matchers.matches(&series.labels);
    plan.guards.iter().any(|guard| match &guard.measured {
        Measured::Ratio { bad, total } => of(bad) || of(total),
        Measured::Gauge { metric, .. } => of(metric),
        // Matchers on the edge itself would take buckets away; they are looked at without it.
        Measured::Histogram { metric, .. } => series.name.strip_suffix(BUCKET) == Some(&*metric.metric),
        Measured::Check(_) => false,
    })
}

/// What the series of one pod's page say, one entry per guard: a reading, or nothing of a check.
pub(super) fn readings(plan: &Plan, page: &[Series]) -> Vec<Option<Reading>> {
    plan.guards.iter().map(|guard| reading(guard, page)).collect()
}

fn reading(guard: &GuardPlan, page: &[Series]) -> Option<Reading> {
    let values = |counter: &CounterPlan| {
        let counted =
            |series: &&Series| counter.metric == series.name && counter.matchers.matches(&series.labels);
        page.iter().filter(counted).map(|series| (series.key(), series.value)).collect()
    };
    Some(match &guard.measured {
        Measured::Check(_) => return None,
        Measured::Ratio { bad, total } => Reading::Ratio { bad: values(bad), total: values(total) },
        Measured::Gauge { metric, .. } => Reading::Gauge(values(metric)),
        Measured::Histogram { metric, .. } => {
            let ours = |series: &&Series| series.name.strip_suffix(BUCKET) == Some(&*metric.metric);
            let buckets = page.iter().filter(ours).map(|series| (series.labels.clone(), series.value));
            Reading::Histogram(classic(metric, buckets))
        }
    })
}

/// Classic histograms by their labels without the edge. A bucket without a readable edge makes its histogram one
/// without the infinite bucket, which is refused by that name.
pub(super) fn classic(
    metric: &CounterPlan,
    buckets: impl Iterator<Item = (Labels, f64)>,
) -> BTreeMap<String, Buckets> {
    let mut found: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (mut labels, count) in buckets {
        let edge = labels.remove(EDGE).and_then(|edge| edge.parse().ok());
        if !metric.matchers.matches(&labels) {
            continue;
        }
        let series = found.entry(key(&metric.metric, &labels)).or_default();
        series.extend(edge.map(|edge: f64| (edge, count)));
    }
    found.into_iter().map(|(name, buckets)| (name, Buckets::classic(buckets))).collect()
}
