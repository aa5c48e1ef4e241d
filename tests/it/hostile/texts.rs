//! Hostile texts: metrics pages, answers of a Prometheus, tolerances, matchers.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use belay::analysis::query::{Form, SecretError, SecretValue, Secrets, Target, parse_page, sample};
use belay::analysis::{Matchers, Plan, Side, Tolerance};
use belay::cluster::http::Http;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A page of wanted series, with something broken somewhere.
fn any_page() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("http_requests_total{code=\"500\",path=\"/a\\\"b\\\\\"} 3 1700000000000".to_owned()),
        Just("http_requests_total 1e300".to_owned()),
        Just("http_requests_total{code=\"200\"} NaN # {trace=\"x\"} 1".to_owned()),
        Just("# EOF".to_owned()),
        Just("http_requests_total{".to_owned()),
        Just("http_requests_total{a=\"\\".to_owned()),
        "http_requests_total[{}=,\"\\\\a-z0-9 ]{0,30}",
        ".{0,30}",
    ];
    let text = prop::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n").into_bytes());
    prop_oneof![4 => text, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_page_is_read_or_refused(page in any_page(), open in any::<bool>()) {
        let form = if open { Form::OpenMetrics } else { Form::Text };
        if let Ok(series) = parse_page(&page, form, |name| name.starts_with("http_requests"), |_| true) {
            for one in series {
                prop_assert!(one.name.starts_with("http_requests"));
                prop_assert!(!one.key().is_empty());
            }
        }
    }

    #[test]
    fn a_tolerance_that_is_read_can_be_written_and_tolerates_something_finite(
        text in prop_oneof!["[0-9.x+% -]{0,16}", "[1-9][0-9]{0,30}x( \\+ [0-9]{1,30}%)?", ".{0,20}"],
    ) {
        if let Ok(tolerance) = text.parse::<Tolerance>() {
            prop_assert!(tolerance.factor >= 1.0 && tolerance.factor.is_finite());
            prop_assert!((0.0..1.0).contains(&tolerance.points));
            let again: Tolerance = tolerance.to_string().parse().unwrap();
            prop_assert!((again.factor - tolerance.factor).abs() <= tolerance.factor * 1e-9);
        }
    }

    #[test]
    fn matchers_are_read_or_refused_and_read_the_same_again(
        text in prop_oneof!["([a-z]{1,4}(=|!=|=~|!~)\"[a-z0-9.|()*\\\\\"]{0,8}\",?){0,3}", ".{0,30}"],
        value in ".{0,10}",
    ) {
        if let Ok(matchers) = text.parse::<Matchers>() {
            let labels = [("a".to_owned(), value)].into();
            let again: Matchers = matchers.to_string().parse().unwrap();
            prop_assert_eq!(again.matches(&labels), matchers.matches(&labels), "{} and {}", matchers, again);
        }
    }
}

/// The source here wants none.
struct NoSecrets;

impl Secrets for NoSecrets {
    fn read<'a>(
        &'a self,
        _: &'a str,
        name: &'a str,
        _: &'a [&'a str],
    ) -> futures::future::BoxFuture<'a, Result<Vec<SecretValue>, SecretError>> {
        let missing = SecretError::Missing { namespace: "shop".to_owned(), name: name.to_owned() };
        Box::pin(async move { Err(missing) })
    }
}

fn plan(url: &str) -> Plan {
    let analysis = json!({
        "warmUp": "0s", "metrics": {"prometheus": {"url": url}},
        "guards": [{"name": "errors", "ratio": {
            "bad": {"metric": "e"}, "total": {"metric": "t"}, "tolerate": "1.2x",
        }}],
    });
    Plan::resolve(&serde_json::from_value(analysis).unwrap(), 12).unwrap()
}

/// Answers of a server that speaks the API of Prometheus, nearly.
fn any_answer() -> impl Strategy<Value = Vec<u8>> {
    let good = json!({"status": "success", "data": {"resultType": "vector", "result": [
        {"metric": {"__name__": "t", "pod": "p1", "namespace": "shop"}, "value": [1_700_000_000.0, "5"]},
        {"metric": {"__name__": "t", "pod": "p2"}, "value": [1_700_000_000.0, "7"]},
        {"metric": {"belay_sampled": "at", "pod": "p1"}, "value": [1_700_000_000.0, "1699999999.5"]},
        {"metric": {"belay_sampled": "at", "pod": "p2"}, "value": [1_700_000_000.0, "1699999999.5"]},
    ]}});
    let changed = super::any_changes().prop_map(move |changes| super::changed(&good, &changes));
    let bytes = |value: Value| value.to_string().into_bytes();
    let cut = changed.prop_flat_map(move |value| {
        let bytes = bytes(value);
        let length = bytes.len();
        (Just(bytes), prop_oneof![2 => Just(length), 1 => 0..=length])
    });
    cut.prop_map(|(bytes, length)| bytes[..length].to_vec())
}

#[test]
fn whatever_a_server_answers_is_a_sample_or_a_reason() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer: Arc<Mutex<Vec<u8>>> = Arc::default();
    let served = answer.clone();
    let (url, http) = runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(move || async move { served.lock().unwrap().clone() });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (url, Http::new())
    });
    let plan = plan(&url);
    let now: Timestamp = "2023-11-14T22:13:20Z".parse().unwrap();
    let target = |name: &str, side| Target {
        uid: name.into(),
        name: name.into(),
        namespace: "shop".into(),
        ip: None,
        side,
        started_at: Timestamp::UNIX_EPOCH,
    };
    let targets = [target("p1", Side::Canary), target("p2", Side::Stable)];
    let (samples, reasons) = (Cell::new(0), Cell::new(0));
    proptest!(ProptestConfig::with_cases(300), |(bytes in any_answer())| {
        answer.lock().unwrap().clone_from(&bytes);
        let sample = runtime.block_on(sample(&http, &NoSecrets, &plan, &targets, now));
        match &sample.outcome {
            Ok(_) => samples.set(samples.get() + 1),
            Err(reason) => {
                reasons.set(reasons.get() + 1);
                prop_assert!(reason.len() < 1000, "{}", reason);
            }
        }
        let state = belay::analysis::fold(&belay::api::evidence::AnalysisState::default(), &plan, &sample);
        belay::analysis::verdict(&state, &plan);
    });
    let (samples, reasons) = (samples.get(), reasons.get());
    assert!(samples > 10 && reasons > 10, "{samples} samples and {reasons} reasons");
}
