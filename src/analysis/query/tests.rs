//! The sources against a small local server: what is right, and everything that can be wrong with an answer.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use proptest::prelude::*;

use std::collections::BTreeMap;

use super::{
    Form, MOST_SERIES, PageError, SecretError, SecretValue, Secrets, Series, Target, parse_page, sample,
};
use crate::analysis::source::{Access, PodSource, PrometheusSource};
use crate::analysis::tests::{at, plan, series};
use crate::analysis::{Plan, PodSample, Reading, Sample, Side, Source};
use crate::cluster::http::Http;

/// All events of a pod, as the first guard counts them.
fn total(pod: &PodSample) -> &BTreeMap<String, f64> {
    let Some(Reading::Ratio { total, .. }) = &pod.guards[0] else { panic!("{pod:?}") };
    total
}

mod histograms;
mod secure;
mod web;

/// Has no Secret, and nobody should ask for one.
struct Nothing;

impl Secrets for Nothing {
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        _: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<SecretValue>, SecretError>> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        async move { Err(SecretError::Missing { namespace, name }) }.boxed()
    }
}

/// What the server does with a request.
enum Reply {
    /// Answers with this status and body.
    Say(u16, Vec<u8>),
    /// Answers with an `OpenMetrics` page.
    Open(String),
    /// Accepts the request and says nothing.
    Hang,
    /// Announces a large body and goes on sending it.
    Flood(usize),
}

fn page(text: &str) -> Reply {
    Reply::Say(200, text.as_bytes().to_vec())
}

/// A server on all loopback addresses; `reply` gets the last number of the address that was asked, and the request.
fn serve(reply: impl Fn(u8, &str) -> Reply + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let reply = Arc::new(reply);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let reply = Arc::clone(&reply);
            std::thread::spawn(move || answer(stream, &*reply));
        }
    });
    port
}

fn answer(mut stream: TcpStream, reply: &impl Fn(u8, &str) -> Reply) {
    let IpAddr::V4(ip) = stream.local_addr().unwrap().ip() else { return };
    let mut request = String::new();
    loop {
        let mut buffer = [0; 8192];
        let Ok(read @ 1..) = stream.read(&mut buffer) else { return };
        request.push_str(&String::from_utf8_lossy(&buffer[..read]));
        let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        if body.len() >= length.parse().unwrap() {
            break;
        }
    }
    match reply(ip.octets()[3], &request) {
        Reply::Open(body) => {
            let head = format!(
                "HTTP/1.1 200 X\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(body.as_bytes());
        }
        Reply::Say(status, body) => {
            let head =
                format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body);
        }
        Reply::Hang => std::thread::sleep(Duration::from_secs(30)),
        Reply::Flood(length) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            while stream.write_all(&[b'#'; 8192]).is_ok() {}
        }
    }
}

fn target(number: u8, side: Side) -> Target {
    Target {
        uid: format!("uid-{number:03}"),
        name: format!("web-{number}"),
        namespace: "shop".to_owned(),
        ip: Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, number))),
        side,
        started_at: at(-3600),
    }
}

/// Canary 1 and 2, stable 11 and 12.
fn targets() -> Vec<Target> {
    [(1, Side::Canary), (2, Side::Canary), (11, Side::Stable), (12, Side::Stable)]
        .map(|(number, side)| target(number, side))
        .to_vec()
}

fn from_pods(port: u16) -> Plan {
    let source = PodSource { port, path: "/metrics".to_owned(), secure: false, access: Access::default() };
    Plan { source: Some(Source::Pods(source)), ..plan(&[("errors", "1x")]) }
}

fn pods(sample: Sample) -> Vec<PodSample> {
    assert_eq!(sample.at, at(0));
    sample.outcome.unwrap()
}

fn problem(sample: Sample) -> String {
    sample.outcome.unwrap_err()
}

/// Lines that are made one by one.
fn repeated(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect::<Vec<_>>().concat()
}

const GOOD: &str = r#"# HELP http_requests_total All requests.
# TYPE http_requests_total counter
http_requests_total{method="GET",code="200"} 100
http_requests_total{method="GET",code="503",} 3 1800000000000
http_requests_total{code="500",method="say \"hi\\\" \n"}	2.5e1
http_requests_created{code="500"} NaN
go_goroutines 8
"#;

#[tokio::test]
async fn pods_are_read_and_only_what_matches_counts_as_bad() {
    let port = serve(|_, request| {
        assert!(request.starts_with("GET /metrics HTTP/1.1\r\n"), "{request}");
        page(GOOD)
    });
    let measured = pods(sample(&Http::new(), &Nothing, &from_pods(port), &targets(), at(0)).await);
    let keys = [
        r#"http_requests_total,code="200",method="GET""#,
        r#"http_requests_total,code="503",method="GET""#,
        r#"http_requests_total,code="500",method="say \"hi\\\" \n""#,
    ];
    let expected = Reading::Ratio {
        bad: series(&[(keys[1], 3.0), (keys[2], 25.0)]),
        total: series(&[(keys[0], 100.0), (keys[1], 3.0), (keys[2], 25.0)]),
    };
    assert_eq!(measured.len(), 4);
    for pod in measured {
        assert_eq!((pod.guards, pod.problem), (vec![Some(expected.clone())], None));
    }
}

#[tokio::test]
async fn a_pod_that_fails_has_no_data_and_the_others_have() {
    let port = serve(|number, _| match number {
        1 => page("<html><body>login</body></html>"),
        12 => Reply::Say(500, b"http_requests_total 1".to_vec()),
        _ => page(GOOD),
    });
    let mut all = targets();
    all.push(Target { ip: None, ..target(13, Side::Stable) });
    let measured = pods(sample(&Http::new(), &Nothing, &from_pods(port), &all, at(0)).await);
    let problems: Vec<Option<&str>> = measured.iter().map(|pod| pod.problem.as_deref()).collect();
    let expected = [
        Some(format!("pod web-1: http://127.0.0.1:{port}/metrics: not a metrics page (starts with <html)")),
        None,
        None,
        Some(format!("pod web-12: http://127.0.0.12:{port}/metrics answered 500")),
        Some("pod web-13: it has no address yet".to_owned()),
    ];
    assert_eq!(problems, expected.iter().map(Option::as_deref).collect::<Vec<_>>());
    for pod in &measured {
        assert_eq!(pod.guards[0].is_none(), pod.problem.is_some());
    }
}

#[tokio::test]
async fn a_version_that_fails_altogether_is_no_data_with_the_reason() {
    for (reply, said) in [
        ("html", "not a metrics page (starts with <!doctype)"),
        ("json", "not a metrics page (starts with {)"),
        ("binary", "not UTF-8 text"),
        ("broken", "line 2 of the metrics page: the value is not a number"),
        ("500", "answered 500"),
        ("redirect", "answered 302 (a redirect, which is not followed)"),
        ("denied", "answered 401 (unauthorized): it wants credentials; set auth"),
        ("cut", "the metrics page was cut off"),
        ("old", "its value of http_requests_total is 301 s old"),
        ("future", "its value of http_requests_total is of 121 s in the future"),
        ("many", "http_requests_total has 1002 series on this page, at most 1000 are read"),
        ("flood", "is larger than 2097152 bytes"),
        ("large", "is larger than 2097152 bytes"),
        ("hang", "did not answer within 3 s"),
    ] {
        let port = serve(move |number, _| match (number, reply) {
            (11.., _) => page(GOOD),
            (_, "html") => page("\n <!DOCTYPE html><html>"),
            (_, "json") => page(r#"{"status": "ok"}"#),
            (_, "binary") => Reply::Say(200, vec![0xff, 0xfe, 0x00]),
            (_, "broken") => page("# comment\nhttp_requests_total{code=\"200\"} many\n"),
            (_, "redirect") => Reply::Say(302, Vec::new()),
            (_, "denied") => Reply::Say(401, Vec::new()),
            (_, "cut") => Reply::Open("http_requests_total 5\n".to_owned()),
            (_, "old") => Reply::Open("http_requests_total 5 1799999699.0\n# EOF\n".to_owned()),
            (_, "future") => page("http_requests_total 5 1800000121000\n"),
            (_, "many") => page(&repeated(1002, |i| format!("http_requests_total{{user=\"{i}\"}} 1\n"))),
            (_, "flood") => Reply::Flood(10 << 20),
            (_, "large") => Reply::Say(200, vec![b'\n'; (2 << 20) + 1]),
            (_, "hang") => Reply::Hang,
            _ => Reply::Say(500, Vec::new()),
        });
        let reason = problem(sample(&Http::new(), &Nothing, &from_pods(port), &targets(), at(0)).await);
        assert!(reason.starts_with("no canary pod could be measured: pod web-1: "), "{reason}");
        assert!(reason.contains(said), "{reply}: {reason}");
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let reason = problem(sample(&Http::new(), &Nothing, &from_pods(port), &targets(), at(0)).await);
    assert!(reason.contains("onnection refused"), "nobody listens: {reason}");
}

#[tokio::test]
async fn values_that_are_none_are_handed_on_for_the_engine_to_refuse() {
    let port = serve(|_, _| page("http_requests_total NaN\nhttp_requests_total{a=\"b\"} +Inf\n"));
    let measured = pods(sample(&Http::new(), &Nothing, &from_pods(port), &targets(), at(0)).await);
    let values: Vec<f64> = total(&measured[0]).values().copied().collect();
    assert!(values[0].is_nan() && values[1].is_infinite());
}

#[tokio::test]
async fn young_pods_are_not_asked_and_of_many_stable_pods_the_same_twenty_are() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let port = serve(move |number, _| {
        seen.lock().unwrap().push(number);
        page(GOOD)
    });
    let mut all: Vec<Target> = (100..150).rev().map(|number| target(number, Side::Stable)).collect();
    all.push(Target { started_at: at(-59), ..target(1, Side::Canary) });
    let measured = pods(sample(&Http::new(), &Nothing, &from_pods(port), &all, at(0)).await);
    let mut asked = asked.lock().unwrap().clone();
    asked.sort_unstable();
    assert_eq!(asked, (100..120).collect::<Vec<u8>>());
    assert_eq!(measured.len(), 21, "the young one is there, so that it is known to be warming up");
    assert_eq!(measured.last().map(|pod| (pod.side, pod.guards.clone())), Some((Side::Canary, vec![None])));
}

fn from_prometheus(port: u16) -> Plan {
    let source = PrometheusSource {
        url: format!("http://127.0.0.1:{port}/prefix"),
        pod_label: "pod".to_owned(),
        namespace_label: Some("namespace".to_owned()),
        look_back: Duration::from_mins(2),
        headers: vec![("X-Scope-OrgID".to_owned(), "team-a".to_owned())],
        access: Access::default(),
    };
    Plan { source: Some(Source::Prometheus(source)), ..plan(&[("errors", "1x"), ("again", "2x")]) }
}

/// The query of a request: what the form says, decoded.
fn query(request: &str) -> String {
    let form = request.split_once("\r\n\r\n").unwrap().1;
    let field = form.split('&').find_map(|field| field.strip_prefix("query=")).unwrap();
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// An answer of Prometheus as of `asked`: series by pod, code and value, and by pod when it was sampled.
fn vector(asked: i64, found: &[(&str, &str, &str)], sampled: &[(&str, i64)]) -> Reply {
    let series = found.iter().map(|(pod, code, value)| {
        format!(
            r#"{{"metric": {{"__name__": "http_requests_total", "namespace": "shop", "pod": "{pod}", "code": "{code}"}},
                "value": [{asked}, "{value}"]}}"#
        )
    });
    let times = sampled.iter().map(|(pod, at)| {
        format!(r#"{{"metric": {{"belay_sampled": "at", "pod": "{pod}"}}, "value": [{asked}, "{at}.25"]}}"#)
    });
    let result = series.chain(times).collect::<Vec<_>>().join(",");
    page(&format!(r#"{{"status": "success", "data": {{"resultType": "vector", "result": [{result}]}}}}"#))
}

const NOW: i64 = 1_800_000_000;

#[tokio::test]
async fn prometheus_is_asked_for_the_raw_series_of_the_pods() {
    let queries = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&queries);
    let port = serve(move |_, request| {
        assert!(request.starts_with("POST /prefix/api/v1/query HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("x-scope-orgid: team-a\r\n"), "{request}");
        assert!(!request.contains("time=1"), "the server's own clock counts: {request}");
        assert!(request.contains("&partial_response=false&deny_partial_response=1"), "{request}");
        let query = query(request);
        let mut found = vec![("web-1", "500", "7")];
        if !query.contains("5..") {
            found.extend([("web-1", "200", "93"), ("web-11", "200", "1e3"), ("web-3", "200", "77")]);
            found.push(("web-12", "200", "what"));
        }
        seen.lock().unwrap().push(query);
        vector(NOW, &found, &[("web-1", NOW - 20), ("web-11", NOW - 100), ("web-3", NOW), ("web-12", NOW)])
    });
    let measured = pods(sample(&Http::new(), &Nothing, &from_prometheus(port), &targets(), at(0)).await);
    let pods = r#"namespace="shop",pod=~"web\\-1|web\\-2|web\\-11|web\\-12""#;
    let asked = |selector: &str| {
        format!(
            r#"{selector} or label_replace(min by (pod) (timestamp({selector})), "belay_sampled", "at", "", "")"#
        )
    };
    assert_eq!(
        *queries.lock().unwrap(),
        [
            asked(&format!(r#"http_requests_total{{code=~"5..",{pods}}}"#)),
            asked(&format!("http_requests_total{{{pods}}}"))
        ],
        "bad events first, and each question once though two guards need it"
    );
    let (bad, good) = (r#"http_requests_total,code="500""#, r#"http_requests_total,code="200""#);
    let web1 = Reading::Ratio { bad: series(&[(bad, 7.0)]), total: series(&[(bad, 7.0), (good, 93.0)]) };
    assert_eq!(measured[0].guards, [Some(web1.clone()), Some(web1)]);
    assert_eq!(
        measured[1].guards[0],
        Some(Reading::Ratio { bad: series(&[]), total: series(&[]) }),
        "another pod's is not its own"
    );
    assert_eq!(
        measured[2].guards[0],
        Some(Reading::Ratio { bad: series(&[]), total: series(&[(good, 1000.0)]) })
    );
    assert!(total(&measured[3])[good].is_nan());
}

/// What is said of a pod whose samples are not of now; its errors must not go unseen because they are older than
/// its requests.
#[tokio::test]
async fn samples_that_are_not_of_now_are_no_data_of_their_pod() {
    for (of_bad, times, said) in [
        (
            false,
            vec![("web-2", NOW - 121)],
            "pod web-2: the sample of http_requests_total is 121 s old, lookBack is 120 s",
        ),
        (true, vec![("web-2", NOW - 4000)], "pod web-2: the sample of http_requests_total is 4000 s old"),
        (false, vec![("web-2", NOW + 500)], "is -500 s old"),
        (false, vec![], "pod web-2: the server does not say when http_requests_total was sampled"),
    ] {
        let port = serve(move |_, request| {
            let mut found = vec![("web-2", "500", "7")];
            let bad = query(request).contains("5..");
            let mut sampled = if of_bad == bad { times.clone() } else { vec![("web-2", NOW)] };
            if !bad {
                found.extend([("web-1", "200", "9"), ("web-11", "200", "9"), ("web-12", "200", "9")]);
                sampled.extend([("web-1", NOW), ("web-11", NOW), ("web-12", NOW - 119)]);
            }
            vector(NOW, &found, &sampled)
        });
        let measured = pods(sample(&Http::new(), &Nothing, &from_prometheus(port), &targets(), at(0)).await);
        let of = |name: &str| measured.iter().find(|pod| pod.name == name).unwrap();
        assert_eq!(of("web-2").guards, [None, None], "{said}");
        let problem = of("web-2").problem.as_deref().unwrap();
        assert!(problem.contains(said), "{said}: {problem}");
        assert!(
            measured.iter().filter(|pod| pod.name != "web-2").all(|pod| pod.guards[0].is_some()),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_server_whose_clock_is_wrong_is_no_data() {
    for (off, said) in [(-121, "is 121 s behind the operator's"), (121, "is 121 s ahead of the operator's")] {
        let asked = NOW + off;
        let port = serve(move |_, _| vector(asked, &[("web-1", "200", "9")], &[("web-1", asked)]));
        let reason = problem(sample(&Http::new(), &Nothing, &from_prometheus(port), &targets(), at(0)).await);
        assert!(reason.contains(said), "{reason}");
    }
    let port = serve(move |_, _| {
        let names = ["web-1", "web-2", "web-11", "web-12"];
        vector(NOW - 119, &names.map(|name| (name, "200", "9")), &names.map(|name| (name, NOW - 125)))
    });
    let measured = pods(sample(&Http::new(), &Nothing, &from_prometheus(port), &targets(), at(0)).await);
    assert!(measured.iter().all(|pod| pod.guards[0].is_some()), "clocks differ a little");
}

#[tokio::test]
async fn a_pod_with_series_without_number_is_no_data() {
    let port = serve(move |_, _| {
        let many: Vec<String> = (0..=MOST_SERIES).map(|i| i.to_string()).collect();
        let many: Vec<(&str, &str, &str)> = many.iter().map(|code| ("web-1", code.as_str(), "1")).collect();
        vector(NOW, &many, &[("web-1", NOW)])
    });
    let one = [target(1, Side::Canary)];
    let reason = problem(sample(&Http::new(), &Nothing, &from_prometheus(port), &one, at(0)).await);
    assert!(
        reason.contains("pod web-1: 1001 series of http_requests_total, at most 1000 are read"),
        "{reason}"
    );
}

#[tokio::test]
async fn prometheus_that_fails_is_no_data_with_the_reason() {
    for (reply, said) in [
        ("503", "answered 503: upstream connect error or disconnect"),
        ("html", "did not answer with the JSON of a query: <html>"),
        ("refused", "refused the query (422): query processing would load too many samples"),
        ("matrix", "did not answer with the JSON of a query"),
        ("empty", "has no series of http_requests_total for these pods"),
        ("flood", "is larger than 4194304 bytes"),
        ("hang", "did not answer within 5 s"),
        ("denied", "answered 401 (unauthorized): it wants credentials; set auth: no org id"),
        ("forbidden", "refused the query (403) (forbidden): it wants credentials; set auth: nope"),
        ("native", "pod web-1: http_requests_total is a native histogram; guard it with histogram"),
    ] {
        let port = serve(move |_, _| {
            match reply {
            "503" => Reply::Say(503, format!("upstream connect error\n or disconnect {}", "x".repeat(9999)).into()),
            "html" => page("<html>login</html>"),
            "refused" => Reply::Say(
                422,
                br#"{"status":"error","errorType":"execution","error":"query processing would load too many samples"}"#
                    .to_vec(),
            ),
            "matrix" => page(r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#),
            "flood" => Reply::Flood(10 << 20),
            "hang" => Reply::Hang,
            "denied" => Reply::Say(401, b"no org id".to_vec()),
            "forbidden" => Reply::Say(403, br#"{"status":"error","error":"nope"}"#.to_vec()),
            "native" => {
                let one = |pod: u8| {
                    format!(r#"{{"metric":{{"__name__":"a","pod":"web-{pod}"}},"histogram":[1800000000,{{"count":"1"}}]}}"#)
                };
                let result = [1, 2, 11, 12].map(one).join(",");
                page(&format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#))
            }
            _ => page(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#),
        }
        });
        let reason = problem(sample(&Http::new(), &Nothing, &from_prometheus(port), &targets(), at(0)).await);
        assert!(reason.contains(said), "{reply}: {reason}");
        assert!(reason.len() < 400, "{reason}");
    }
}

#[test]
fn pages_are_read_leniently_where_that_is_safe() {
    let read = |text: &str| parse_page(text.as_bytes(), Form::Text, |name| name == "a_total", |_| true);
    let one = |text: &str| read(text).unwrap().first().map(|series| series.value);
    assert_eq!(one("a_total 1"), Some(1.0));
    assert_eq!(one("a_total{} 1"), Some(1.0));
    assert_eq!(one("a_total { x = \"1\" , } 1.5e+03 123\r\n"), Some(1500.0));
    assert_eq!(
        one("a_total{x=\"{}},#\"} 4 # {trace_id=\"abc\"} 1.0 1520879607.789\n# EOF\na_total 9"),
        Some(4.0)
    );
    assert_eq!(read(""), Ok(Vec::new()), "an empty page is a page without series");
    assert_eq!(read("a_total_more{broken 1\n a_totals 1"), Ok(Vec::new()), "what is not wanted is not read");
    assert!(one("a_total -Inf").unwrap().is_infinite());
    let escaped = read(r#"a_total{x="a\\b\"c\nd\e"} 1"#).unwrap();
    assert_eq!(escaped[0].labels["x"], "a\\b\"c\nd\\e");
    for broken in
        ["a_total", "a_total 1 2x", "a_total{x=\"1\"}", "a_total{x=\"1} 1", "a_total{x} 1", "a_total{x=1} 1"]
    {
        assert!(read(broken).is_err(), "{broken}");
    }
    for broken in
        ["a_total{x=\"1\" y=\"2\"} 1", "a_total{x=\"1\",x=\"2\"} 1", "a_total{1x=\"1\"} 1", "a_total 1x"]
    {
        assert!(read(broken).is_err(), "{broken}");
    }
    assert_eq!(read("a_total{x=\"<html\"} 1").unwrap().len(), 1);
}

#[test]
fn open_metrics_pages_have_rules_of_their_own() {
    let read = |text: &str| {
        let wanted = |name: &str| ["errors", "requests_total", "depth"].contains(&name);
        parse_page(text.as_bytes(), Form::OpenMetrics, wanted, |series| !series.labels.contains_key("no"))
    };
    // The example of the OpenMetrics specification, with names of ours.
    let text = "# TYPE errors counter\n# HELP errors What failed.\nerrors_total{code=\"5\"} 17.0 1800000000.25 # \
        {trace_id=\"KOO5S4vxi0o\"} 0.67 1520879607.7\nerrors_created{code=\"5\"} 1520430000.123\n\
        # TYPE requests counter\nrequests_total 20 # {a=\"b\"} 1\nrequests_total{no=\"\"} 9\nrequests_created 1.5e9\n\
        # TYPE depth gauge\ndepth 3\ndepth_total 4\n# EOF\n";
    let found = read(text).unwrap();
    let found: Vec<(String, f64, Option<f64>)> =
        found.iter().map(|series| (series.key(), series.value, series.at)).collect();
    let expected = [
        ("errors,code=\"5\"".to_owned(), 17.0, Some(1_800_000_000.25)),
        ("requests_total".to_owned(), 20.0, None),
        ("depth".to_owned(), 3.0, None),
    ];
    assert_eq!(found, expected);
    assert_eq!(read(text.strip_suffix("# EOF\n").unwrap()), Err(PageError::Truncated));
    assert_eq!(read("depth 1\n# EO"), Err(PageError::Truncated));
    assert_eq!(read("# EOF"), Ok(Vec::new()));
    // In the older format the suffix belongs to the name, times are in milliseconds, and nothing marks the end.
    let older = parse_page(
        b"# TYPE errors counter\nerrors_total 1\nerrors 2 1800000000250",
        Form::Text,
        |name| name == "errors",
        |_| true,
    );
    let older = older.unwrap();
    assert_eq!((older.len(), older[0].value, older[0].at), (1, 2.0, Some(1_800_000_000.25)));
    let forms = [
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", Form::OpenMetrics),
        ("Application/OpenMetrics-Text", Form::OpenMetrics),
        ("text/plain; version=0.0.4", Form::Text),
        ("", Form::Text),
    ];
    for (content_type, form) in forms {
        assert_eq!(Form::of(content_type), form, "{content_type}");
    }
}

#[test]
fn so_many_series_are_read_and_not_one_more() {
    let page = |count: usize| repeated(count, |i| format!("a{{i=\"{i}\"}} 1\nb{{i=\"{i}\"}} 1\n"));
    let read = |count: usize, kept: fn(&Series) -> bool| {
        parse_page(page(count).as_bytes(), Form::Text, |_| true, kept)
    };
    assert_eq!(read(MOST_SERIES, |_| true).map(|series| series.len()), Ok(2 * MOST_SERIES));
    let expected = PageError::TooManySeries { metric: "a".to_owned(), count: 1234, limit: MOST_SERIES };
    assert_eq!(read(1234, |_| true), Err(expected));
    assert_eq!(
        read(1234, |series| series.labels["i"] == "7").map(|series| series.len()),
        Ok(2),
        "only what is kept"
    );
}

proptest! {
    #[test]
    fn no_page_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), near in r#"a(\{[a-z="\\,é{} ]{0,20}\}?)? ?[0-9eE.+NaInf-]{0,8}[ #\n]{0,3}"#) {
        let _ = parse_page(&bytes, Form::OpenMetrics, |_| true, |_| true);
        let _ = parse_page(near.as_bytes(), Form::Text, |_| true, |_| true);
        let _ = parse_page(format!("a{near}").as_bytes(), Form::Text, |_| true, |_| true);
    }

    #[test]
    fn what_is_written_is_read(value in any::<f64>(), label in any::<String>()) {
        let escaped = label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let text = format!("a{{x=\"{escaped}\"}} {value}\n");
        let read = parse_page(text.as_bytes(), Form::Text, |_| true, |_| true).unwrap();
        prop_assert_eq!(read.len(), 1);
        let Series { name, labels, value: found, .. } = &read[0];
        prop_assert_eq!((name.as_str(), labels["x"].as_str()), ("a", label.as_str()));
        prop_assert!(found.total_cmp(&value).is_eq() || found.is_nan() && value.is_nan());
    }
}
