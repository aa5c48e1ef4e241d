//! How many canary pods a weight takes, and what weight whole pods can reach.

/// Canary pods for a share of `weight` percent beside `stable` pods that all stay: `ceil(N·w / (100 − w))`,
/// at least one when there is anything to serve, and never more than stable itself.
pub fn canary_pods(stable: i32, weight: i32) -> i32 {
    if stable <= 0 || weight <= 0 {
        return 0;
    }
    if weight >= 50 {
        return stable;
    }
    let (n, w) = (i64::from(stable), i64::from(weight));
    let pods = (n * w + (100 - w) - 1) / (100 - w);
    i32::try_from(pods).unwrap_or(i32::MAX).clamp(1, stable)
}

/// Canary pods that carry `weight` percent of the traffic of `all` pods, where a router sets the weight:
/// `ceil(N·w / 100)`, at least one when there is anything to serve.
pub fn pods_for(all: i32, weight: i32) -> i32 {
    if all <= 0 || weight <= 0 {
        return 0;
    }
    let pods = (i64::from(all) * i64::from(weight.min(100)) + 99) / 100;
    i32::try_from(pods).unwrap_or(i32::MAX)
}

/// Share of the canary in percent, rounded, when pods share the traffic evenly.
pub fn share(stable: i32, canary: i32) -> i32 {
    let (s, c) = (i64::from(stable.max(0)), i64::from(canary.max(0)));
    if s + c == 0 {
        return 0;
    }
    i32::try_from((200 * c + (s + c)) / (2 * (s + c))).unwrap_or(100)
}

/// By how many points a reachable weight may miss the one asked for before it is worth telling.
pub const TOLERATED_MISS: i32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_of_the_design() {
        // stable pods, weight, canary pods, share reached: worked out by hand.
        for (n, w, c, s) in [
            (3, 10, 1, 25),
            (5, 5, 1, 17),
            (5, 25, 2, 29),
            (5, 50, 5, 50),
            (100, 5, 6, 6),
            (100, 25, 34, 25),
            (1, 1, 1, 50),
            (0, 50, 0, 0),
        ] {
            assert_eq!(canary_pods(n, w), c, "{n} pods at {w} %");
            assert_eq!(share(n, c), s, "{c} beside {n}");
        }
    }

    #[test]
    fn pods_behind_a_router() {
        for (n, w, c) in
            [(3, 10, 1), (10, 25, 3), (10, 100, 10), (1, 1, 1), (0, 50, 0), (7, 0, 0), (200, 1, 2)]
        {
            assert_eq!(pods_for(n, w), c, "{w} % of {n} pods");
        }
    }

    proptest! {
        #[test]
        fn fewest_pods_that_reach_the_weight(n in 1..2000i32, w in 1..=50i32) {
            let c = canary_pods(n, w);
            let reaches = |c: i32| i64::from(c) * 100 >= i64::from(w) * i64::from(n + c);
            prop_assert!(reaches(c));
            prop_assert!(c == 1 || !reaches(c - 1));
            prop_assert!(c <= n);
        }

        #[test]
        fn more_weight_never_takes_fewer_pods(n in 0..2000i32, w in 1..50i32) {
            prop_assert!(canary_pods(n, w) <= canary_pods(n, w + 1));
        }
    }
}
