//! Histograms: buckets of a page, and of a server in both forms.

use super::*;
use crate::analysis::Buckets;
use crate::analysis::tests::plan_of;

fn guards() -> Plan {
    plan_of(&serde_json::json!([{
        "name": "latency", "histogram": {"metric": "took_seconds", "match": r#"route="/""#, "tolerate": "1.2x"},
    }]))
}

fn read(pod: &PodSample) -> &BTreeMap<String, Buckets> {
    let Some(Reading::Histogram(series)) = &pod.guards[0] else { panic!("{pod:?}") };
    series
}

#[tokio::test]
async fn the_buckets_of_a_page_are_one_histogram_for_each_series() {
    let port = serve(|_, _| {
        page(
            "took_seconds_bucket{route=\"/\",code=\"200\",le=\"0.1\"} 3\n\
             took_seconds_bucket{route=\"/\",code=\"200\",le=\"+Inf\"} 5\n\
             took_seconds_bucket{route=\"/\",code=\"500\",le=\"+Inf\"} 2\n\
             took_seconds_bucket{route=\"/\",code=\"500\",le=\"0.1\"} 1\n\
             took_seconds_bucket{route=\"/other\",code=\"200\",le=\"+Inf\"} 9\n\
             took_seconds_sum{route=\"/\",code=\"200\"} 1.5\n\
             took_seconds_count{route=\"/\",code=\"200\"} 5\n",
        )
    });
    let plan = Plan { source: from_pods(port).source, ..guards() };
    let measured = pods(sample(&Http::new(), &Nothing, &plan, &targets(), at(0)).await);
    let of = |code: &str| read(&measured[0])[&format!(r#"took_seconds,code="{code}",route="/""#)].clone();
    assert_eq!(read(&measured[0]).len(), 2, "the other route does not count");
    assert_eq!(of("200"), Buckets { upper: vec![(0.1, 3.0)], total: Some(5.0), schema: None });
    assert_eq!(of("500"), Buckets { upper: vec![(0.1, 1.0)], total: Some(2.0), schema: None });
}

/// The JSON of Prometheus' documentation of its HTTP API: `[time, {count, sum, buckets: [[rule, left, right, count]]}]`.
#[tokio::test]
async fn a_server_tells_classic_and_native_histograms_and_the_native_one_counts() {
    let queries = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&queries);
    let port = serve(move |_, request| {
        seen.lock().unwrap().push(query(request));
        let of = |pod: &str, name: &str, rest: &str| {
            format!(
                r#"{{"metric": {{"__name__": "{name}", "namespace": "shop", "pod": "{pod}", "route": "/"{rest}}}"#
            )
        };
        // Schema 3: an eighth of a doubling is 1.0905; the bucket between is empty and left out.
        let native = format!(
            r#"{}, "histogram": [{NOW}, {{"count": "10", "sum": "12.5", "buckets": [
                [3, "-0.001", "0.001", "1"], [0, "1", "1.0905077326652577", "4"],
                [0, "1.189207115002721", "1.2968395546510096", "5"]]}}]}}"#,
            of("web-1", "took_seconds", "")
        );
        let classic = |le: &str, count: u32| {
            let head = of("web-11", "took_seconds_bucket", &format!(r#", "le": "{le}""#));
            format!(r#"{head}, "value": [{NOW}, "{count}"]}}"#)
        };
        let both = format!(
            r#"{}, "value": [{NOW}, "10"]}}"#,
            of("web-1", "took_seconds_bucket", r#", "le": "+Inf""#)
        );
        let sampled = |pod: &str| {
            format!(r#"{{"metric": {{"belay_sampled": "at", "pod": "{pod}"}}, "value": [{NOW}, "{NOW}"]}}"#)
        };
        let result =
            [native, both, classic("0.5", 6), classic("+Inf", 8), sampled("web-1"), sampled("web-11")]
                .join(",");
        page(&format!(r#"{{"status": "success", "data": {{"resultType": "vector", "result": [{result}]}}}}"#))
    });
    let plan = Plan { source: from_prometheus(port).source, ..guards() };
    let measured = pods(sample(&Http::new(), &Nothing, &plan, &targets(), at(0)).await);
    let queries = queries.lock().unwrap();
    assert_eq!(queries.len(), 1, "one question for both forms: {queries:?}");
    assert!(queries[0].starts_with(r#"{__name__=~"took_seconds(_bucket)?",route="/","#), "{queries:?}");
    let key = r#"took_seconds,route="/""#;
    let native = &read(&measured[0])[key];
    assert_eq!((native.schema, native.total), (Some(3), Some(10.0)));
    let expected = [(0.001, 1.0), (1.090_507_732_665_257_7, 5.0), (1.296_839_554_651_009_6, 10.0)];
    assert_eq!(native.upper, expected, "counts up to each edge");
    let classic = measured.iter().find(|pod| pod.name == "web-11").unwrap();
    assert_eq!(read(classic)[key], Buckets { upper: vec![(0.5, 6.0)], total: Some(8.0), schema: None });
}
