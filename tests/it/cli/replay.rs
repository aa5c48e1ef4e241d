//! `replay` and the pictures of evidence: of a release that was judged by the engine itself, and of streams of counts.

use std::fmt::Write as _;
use std::time::Duration;

use belay::analysis::{
    Buckets, Plan, PodSample, Reading, Sample, Side, Verdict, WhatIf, fold, start_step, verdict,
};
use belay::api::Release;
use belay::api::analysis::Confidence;
use belay::api::evidence::AnalysisState;
use belay::report::guard::GuardReport;
use belay::report::release::ReleaseReport;
use belay::report::replay::ReplayReport;
use belay::report::svg::svg;
use belay::report::{Rendering, Report, Scene, render};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::binary::{belay, text};

fn scene() -> Scene {
    Scene {
        now: "2026-11-22T11:00:00Z".parse().unwrap(),
        zone: jiff::tz::TimeZone::UTC,
        color: false,
        unicode: true,
        width: 100,
        program: "belay".to_owned(),
    }
}

/// Seconds after the first look.
fn at(second: f64) -> Timestamp {
    let first: Timestamp = "2026-11-22T10:01:20Z".parse().unwrap();
    first + SignedDuration::try_from_secs_f64(second).unwrap()
}

fn counter(name: &str, value: f64) -> std::collections::BTreeMap<String, f64> {
    [(name.to_owned(), value)].into()
}

/// Numbers that look random and are always the same.
struct Dice(u64);

impl Dice {
    /// About `mean`, up to twice of it.
    fn roll(&mut self, mean: u64) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = u32::try_from((self.0 >> 33) % (2 * mean + 1)).unwrap();
        f64::from(number)
    }
}

/// The counters of one pod, which only grow.
struct Pod {
    uid: &'static str,
    side: Side,
    bad: f64,
    all: f64,
    slow: f64,
}

impl Pod {
    fn new(uid: &'static str, side: Side) -> Self {
        Self { uid, side, bad: 0.0, all: 1000.0, slow: 0.0 }
    }

    fn sample(&self, guards: usize) -> PodSample {
        let all = self.all;
        let edges = [(0.1, all - 4.0 * self.slow), (0.25, all - self.slow), (f64::INFINITY, all)];
        let readings = [
            Reading::Ratio { bad: counter("500", self.bad), total: counter("all", all) },
            Reading::Histogram([("seconds".to_owned(), Buckets::classic(edges))].into()),
            Reading::Gauge(counter("bytes", 1e6 + self.bad)),
        ];
        PodSample {
            uid: self.uid.to_owned(),
            name: format!("web-{}", self.uid),
            side: self.side,
            started_at: at(-3600.0),
            guards: readings.into_iter().take(guards).map(Some).collect(),
            problem: None,
        }
    }
}

fn guards() -> Value {
    json!([
        {"name": "errors", "ratio": {"bad": {"metric": "http_requests_total", "match": "code=~\"5..\""},
            "total": {"metric": "http_requests_total"}, "tolerate": "1.2x + 0.1%"}},
        {"name": "latency", "histogram": {"metric": "http_request_duration_seconds", "tolerate": "1.2x"}},
        {"name": "memory", "gauge": {"metric": "process_resident_memory_bytes", "tolerate": "1.2x"}},
    ])
}

fn analysis(guards: &Value) -> Value {
    json!({"interval": "5s", "metrics": {"pods": {"port": 8080}}, "guards": guards})
}

fn plan(analysis: &Value, planned: u32) -> Plan {
    Plan::resolve(&serde_json::from_value(analysis.clone()).unwrap(), planned).unwrap()
}

/// Folds `looks` looks; with the look numbered `second_step` the second step begins. From the look `worse_from` on
/// the canary has ten times as many errors. Ends at a rollback. The second of the last look comes along.
fn judged(plan: &Plan, looks: u32, second_step: u32, worse_from: u32) -> (AnalysisState, f64) {
    let mut dice = Dice(7);
    let mut pods = [
        Pod::new("c", Side::Canary),
        Pod::new("s1", Side::Stable),
        Pod::new("s2", Side::Stable),
        Pod::new("s3", Side::Stable),
    ];
    let mut state = AnalysisState::default();
    for number in 0..=looks {
        let second = 5.0 * f64::from(number) + if number % 3 == 1 { 0.123_456 } else { 0.0 };
        let sample = Sample {
            at: at(second),
            outcome: Ok(pods.iter().map(|pod| pod.sample(plan.guards.len())).collect()),
        };
        state = fold(&state, plan, &sample);
        if matches!(verdict(&state, plan), Verdict::Rollback(_)) {
            return (state, second);
        }
        if number == second_step {
            state = start_step(&state);
        }
        for pod in &mut pods {
            let worse = pod.side == Side::Canary && number >= worse_from;
            pod.all += 300.0 + dice.roll(200);
            pod.bad += if worse { dice.roll(20) } else { dice.roll(2) };
            pod.slow += dice.roll(5);
        }
    }
    (state, 5.0 * f64::from(looks))
}

/// A Release with these guards, and with this evidence, ended at that second; its second step began at `second_step`.
fn release(guards: &Value, state: &AnalysisState, second_step: f64, end: f64) -> Release {
    let time = |second: f64| at(second).to_string();
    let entry = |second: f64, reason: &str, step: u32, message: &str| json!({"at": time(second), "reason": reason, "step": step, "message": message});
    serde_json::from_value(json!({
        "apiVersion": "belay.dev/v1alpha1", "kind": "Release",
        "metadata": {"name": "web-7d9f8c6b5a", "namespace": "shop", "uid": "r1"},
        "spec": {
            "rollout": "web", "replicas": 12, "attempt": 1,
            "workload": {"kind": "Deployment", "name": "web", "uid": "w1"},
            "from": {"revision": "6c5f7d9b8a", "replicaSet": "web-6c5f7d9b8a", "images": ["web=web:1"]},
            "to": {"revision": "7d9f8c6b5a", "replicaSet": "web-7d9f8c6b5a", "images": ["web=web:2"]},
            "steps": [
                {"weight": 5, "minDuration": "1m", "maxDuration": "15m"},
                {"weight": 25, "minDuration": "2m", "maxDuration": "30m"},
            ],
            "analysis": analysis(guards), "rollback": {}, "progressDeadline": "10m", "plannedLooks": 540,
        },
        "status": {
            "phase": "RolledBack", "reason": "GuardFailed", "message": "guard errors failed",
            "startedAt": time(-78.0), "finishedAt": time(end + 0.4), "step": {"index": 1},
            "timeline": [
                entry(-78.0, "ReleaseStarted", 1, "release of 7d9f8c6b5a starts; 6c5f7d9b8a serves"),
                entry(second_step, "StepPassed", 1, "proven safe"),
                entry(second_step, "StepStarted", 2, "weight 25 %, 4 canary beside 12 stable pods"),
                entry(end, "RollingBack", 2, "guard errors failed"),
            ],
            "analysis": serde_json::to_value(state).unwrap(),
        },
    }))
    .unwrap()
}

/// A release of three guards that was rolled back in its second step.
fn rolled_back() -> (Release, AnalysisState) {
    let (state, end) = judged(&plan(&analysis(&guards()), 540), 400, 150, 168);
    assert!(end > 840.0 && end < 1200.0, "rolled back at {end}");
    (release(&guards(), &state, 750.0, end), state)
}

fn replayed(release: &Release, what: &WhatIf) -> ReplayReport {
    ReplayReport::new(release, scene().now, what).unwrap()
}

#[test]
fn recorded_looks_give_the_recorded_evidence_bit_by_bit() {
    let (release, state) = rolled_back();
    let report = replayed(&release, &WhatIf::default());
    assert_eq!(report.guards.len(), 3);
    for guard in &report.guards {
        assert!(guard.exact && guard.looks_gone == 0, "{guard:?}");
        assert_eq!(guard.really, guard.then, "{}", guard.name);
    }
    let culprit = report.rolled_back.as_ref().unwrap();
    assert_eq!((culprit.guard.as_str(), culprit.moment), ("errors", report.looks_end));
    assert_eq!(culprit.moment.step, Some(2));
    let full = ReleaseReport::in_full(&release, scene().now);
    for (guard, known) in full.guards.iter().zip(&state.guards) {
        let last = guard.looks.last().unwrap();
        assert_eq!(guard.looks.len(), known.recent.len());
        let bits = [last.strict, last.margin, last.safe].map(f64::to_bits);
        assert_eq!(bits, [known.strict, known.margin, known.safe].map(f64::to_bits), "{}", guard.name);
    }
    assert!(state.guards[0].recent.iter().any(|look| look.dispersion > 1.0), "a release with scattered pods");
}

#[test]
fn another_tolerance_or_confidence_tells_another_story() {
    let (release, _) = rolled_back();
    let lenient =
        WhatIf { guard: Some("errors".to_owned()), tolerate: Some("30x".to_owned()), ..WhatIf::default() };
    let careful = WhatIf { confidence: Some(Confidence::Careful), ..WhatIf::default() };
    let fast = WhatIf { confidence: Some(Confidence::Fast), ..WhatIf::default() };
    insta::assert_snapshot!(
        "replay_same",
        render(&replayed(&release, &WhatIf::default()), Rendering::Text, &scene()).unwrap()
    );
    let lenient = replayed(&release, &lenient);
    assert_eq!((lenient.rolled_back.as_ref(), lenient.guards.len()), (None, 1));
    insta::assert_snapshot!("replay_lenient", lenient.text(&scene()));
    insta::assert_snapshot!("replay_lenient_json", render(&lenient, Rendering::Json, &scene()).unwrap());
    let second = |report: &ReplayReport| report.rolled_back.as_ref().map(|culprit| culprit.moment.second);
    let standard = second(&replayed(&release, &WhatIf::default())).unwrap();
    assert!(second(&replayed(&release, &fast)).unwrap() < standard);
    assert_eq!(second(&replayed(&release, &careful)), None, "the looks end before that");
}

/// One canary pod and one stable pod, so that nothing is learnt of the scatter between pods: then looks of 10 s are
/// exactly those of 5 s put together.
#[test]
fn a_longer_interval_is_what_such_a_release_would_have_seen() {
    let guards = json!([guards()[0].clone()]);
    let every = |step: u32, analysis: &Value, planned: u32| {
        let plan = plan(analysis, planned);
        let mut state = AnalysisState::default();
        for number in (0..=40).step_by(step as usize) {
            let x = f64::from(number);
            let reading = |bad: f64, all: f64| {
                Some(Reading::Ratio { bad: counter("500", bad), total: counter("all", all) })
            };
            let pod = |uid: &str, side, reading| PodSample {
                uid: uid.to_owned(),
                name: uid.to_owned(),
                side,
                started_at: at(-3600.0),
                guards: vec![reading],
                problem: None,
            };
            let canary = pod("c", Side::Canary, reading((x / 7.0).floor(), 250.0 * x));
            let stable = pod("s", Side::Stable, reading((x / 2.0).floor(), 1000.0 * x));
            state = fold(&state, &plan, &Sample { at: at(5.0 * x), outcome: Ok(vec![canary, stable]) });
        }
        state
    };
    let mut slower = analysis(&guards);
    let recorded = every(1, &slower, 540);
    slower["interval"] = json!("10s");
    let expected = &every(2, &slower, 270).guards[0];
    let release = release(&guards, &recorded, 1e6, 200.0);
    let ten = WhatIf { interval: Some(Duration::from_secs(10)), ..WhatIf::default() };
    let told = &replayed(&release, &ten).guards[0].then;
    assert_eq!(expected.looks, 20);
    let values = [told.worse.value, told.beyond_tolerance.value, told.safe.value].map(f64::to_bits);
    assert_eq!(values, [expected.strict, expected.margin, expected.safe].map(f64::to_bits));
}

#[test]
fn it_says_when_older_looks_are_gone() {
    let guards = json!([guards()[0].clone()]);
    let (state, end) = judged(&plan(&analysis(&guards), 540), 400, 150, 1000);
    let release = release(&guards, &state, 750.0, end);
    let report = replayed(&release, &WhatIf::default());
    let guard = &report.guards[0];
    assert_eq!((guard.exact, guard.looks, guard.looks_gone), (false, 360, 40));
    // The first kept look is that at 205 s, and the release started 78 s before the first.
    assert!(
        guard.notes[0].contains("Not exact before 4m43s")
            && guard.notes[0].contains("40 older ones are gone"),
        "{:?}",
        guard.notes
    );
    let full = ReleaseReport::in_full(&release, scene().now);
    assert_eq!(full.guards[0].looks_gone, 40);
    let text = full.text(&scene());
    assert!(text.contains("40 older looks are no longer kept"), "{text}");
}

#[test]
fn evidence_as_a_chart() {
    let (release, _) = rolled_back();
    let full = ReleaseReport::in_full(&release, scene().now);
    insta::assert_snapshot!("explain_chart", full.text(&scene()));
    let plain = full.text(&Scene { unicode: false, ..scene() });
    assert!(plain.is_ascii(), "{plain}");
    insta::assert_snapshot!("explain_chart_ascii", plain);
    for width in [40, 60, 200] {
        let text = full.text(&Scene { width, ..scene() });
        let chart = |line: &&str| line.contains(" of 300") || line.contains(" of 20");
        let widest =
            text.lines().filter(chart).filter(|line| line.contains('▁')).map(|l| l.chars().count()).max();
        assert!(widest.unwrap() <= width.max(54), "{width}: {text}");
    }
    let json: Value = serde_json::from_str(&render(&full, Rendering::Json, &scene()).unwrap()).unwrap();
    let look = &json["guards"][0]["looks"][0];
    for field in ["second", "dispersion", "spread", "strict", "margin", "safe"] {
        assert!(look[field].is_number(), "{field}: {look}");
    }
    assert!(look["counts"][0]["stableTotal"].as_f64().unwrap() > 0.0, "{look}");
    // The status of many releases must not carry the looks of each.
    assert!(ReleaseReport::new(&release, scene().now).guards.iter().all(|guard| guard.looks.is_empty()));
}

/// Every tag is closed in its order; what `rsvg-convert` and browsers need at least.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    for piece in svg.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("{piece}"));
        assert!(!text.contains(['<', '>']), "{text}");
        let name = tag.split_whitespace().next().unwrap().trim_end_matches('/');
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn evidence_as_a_picture() {
    let (mut release, _) = rolled_back();
    let full = ReleaseReport::in_full(&release, scene().now);
    let picture = svg(&full);
    assert_well_formed(&picture);
    assert_eq!(picture, svg(&ReleaseReport::in_full(&release, scene().now)), "the same bytes each time");
    assert_eq!(picture.matches("<polyline").count(), 9, "three curves for each of three guards");
    for words in [
        "<title id=\"title\">",
        "<desc id=\"desc\">",
        "step 1: 5 %",
        "step 2: 25 %",
        "needs 300",
        "both keys at",
    ] {
        assert!(picture.contains(words), "{words}");
    }
    assert!(!picture.contains("<script") && !picture.contains("href"));
    let bad = |guard: &GuardReport| {
        guard.looks.iter().filter(|look| look.counts[guard.worst].canary_bad > 0.0).count()
    };
    // The colour of the canary's bars; one for each look in which something was counted.
    let bars = picture.matches("fill=\"#3b5b92\"/>").count();
    assert_eq!(bars, full.guards.iter().map(bad).sum::<usize>());
    release.status.as_mut().unwrap().message =
        Some("</text><script>alert('1')</script>\u{1b}[31m".to_owned());
    let picture = svg(&ReleaseReport::in_full(&release, scene().now));
    assert_well_formed(&picture);
    assert!(picture.contains("&lt;script&gt;alert(&#39;1&#39;)") && !picture.contains('\u{1b}'));
    release.status.as_mut().unwrap().analysis = None;
    let picture = svg(&ReleaseReport::in_full(&release, scene().now));
    assert_well_formed(&picture);
    assert!(picture.contains("No looks are recorded."));
}

#[test]
fn a_release_in_a_file_needs_no_cluster() {
    let (release, _) = rolled_back();
    let json = serde_json::to_string(&release).unwrap();
    let yaml = serde_saphyr::to_string(&release).unwrap();
    for written in [&json, &yaml] {
        let output = belay(&["replay", "-f", "-", "--confidence", "fast"], written);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let said = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains("confidence fast") && said.contains("by guard errors"), "{said}");
        assert!(said.contains("to the last bit"), "{said}");
    }
    for (args, code, words) in [
        (&["--guard", "nope"][..], 64, "its guards are errors, latency, memory"),
        (&["--tolerate", "2x"], 64, "--guard"),
        (&["--guard", "errors", "--tolerate", "0.5x"], 64, "^ the factor is below 1"),
        (&["--guard", "latency", "--tolerate", "1.5x"], 64, "the release's own buckets"),
        (&["--interval", "7s"], 64, "5s, 10s, 15s"),
        (&["-o", "jsonl"], 64, "replay --looks"),
        (&["-o", "svg"], 64, "explain"),
        (&["--planned-looks", "5"], 64, "--looks"),
    ] {
        let output = belay(&[&["replay", "-f", "-"], args].concat(), &json);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words) && output.stdout.is_empty(), "{args:?}: {said}");
    }
    for (input, words) in
        [("kind: Rollout\n", "its kind is Rollout"), ("a: 1\n", "no kind"), ("a: [", "not YAML")]
    {
        let output = belay(&["replay", "-f", "-"], input);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
    let none = serde_json::to_string(&json!({})).unwrap();
    let mut bare = release.clone();
    bare.status = serde_json::from_str(&none).unwrap();
    let output = belay(&["replay", "-f", "-"], &serde_json::to_string(&bare).unwrap());
    assert!(text(&output.stderr).contains("no looks are recorded"), "{}", text(&output.stderr));
}

fn lines(args: &[&str], input: &str) -> Vec<Value> {
    let output = belay(&[&["replay", "--looks", "-", "-o", "jsonl"], args].concat(), input);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn close(value: f64, expected: f64) {
    assert!((value - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{value} is not {expected}");
}

/// Two looks of 100 requests on both sides: 2 bad against 1, then 1 against 0; tolerated is 1x + 1%. With n = m and
/// r = 1 the design's formula is `ln e = c ln(2κ/(κ+1)) + s ln(2/(κ+1))`, for κ = 4 and the first look ln(1.024), and
/// the points take (κ−1)/(κ+1) off. 12 looks are planned: the stakes are 13/24 and 1/24, a sixth on each bet. The
/// numbers were computed from that with forty digits by another program, and cut to fifteen.
#[test]
fn two_looks_by_hand() {
    let csv = "stream,look,c,nc,s,ns\nx,1,2,100,1,100\nx,2,1,100,0,100\n";
    let said = lines(&["--tolerate", "1x + 1%", "--planned-looks", "3", "--raw"], csv);
    assert_eq!(said.len(), 2);
    let expected = [
        (
            [
                0.105_442_701_809_506,
                0.160_942_724_773_326,
                0.153_734_099_942_042,
                0.023_716_526_617_316,
                -0.353_349_106_969_150,
                -1.062_661_224_382_451,
            ],
            [
                -0.024_992_080_799_189,
                -0.098_316_534_485_932,
                -0.274_837_328_629_386,
                -0.576_283_473_382_683,
                -1.131_126_884_746_928,
                -1.967_423_129_144_355,
            ],
            [0.957_015_850_478_563, 0.789_277_631_241_065, 0.700_424_717_534_118],
        ),
        (
            [
                0.122_602_322_092_332,
                0.230_523_658_611_832,
                0.356_674_943_938_732,
                0.470_003_629_245_735,
                0.575_364_144_903_561,
                0.644_357_016_390_513,
            ],
            [
                -0.007_832_460_516_363,
                -0.028_735_600_647_426,
                -0.071_896_484_632_696,
                -0.129_996_370_754_264,
                -0.202_413_632_874_215,
                -0.260_404_888_371_391,
            ],
            [1.197_251_365_441_88, 0.762_654_973_314_322, 0.655_794_401_512_163],
        ),
    ];
    for (line, (strict, margin, wealth)) in said.iter().zip(expected) {
        assert_eq!((&line["stream"], &line["verdict"]), (&json!("x"), &json!("hold")));
        numbers(&line["ln_e_strict"]).into_iter().zip(strict).for_each(|(a, b)| close(a, b));
        numbers(&line["ln_e_margin"]).into_iter().zip(margin).for_each(|(a, b)| close(a, b));
        let there = ["wealth_strict", "wealth_margin", "safe"].map(|name| line[name].as_f64().unwrap());
        there.into_iter().zip(wealth).for_each(|(a, b)| close(a, b));
    }
    assert_eq!(said[1]["look"], json!(2));
    // A dispersion of 2 halves the logarithms; --raw passes over it.
    let scattered = "stream,look,c,nc,s,ns,dispersion\nx,1,2,100,1,100,2\n";
    let args = ["--tolerate", "1x + 1%", "--planned-looks", "3"];
    let half = numbers(&lines(&args, scattered)[0]["ln_e_strict"]);
    half.iter().zip(expected[0].0).for_each(|(a, b)| close(2.0 * a, b));
    assert_eq!(lines(&[&args[..], &["--raw"]].concat(), scattered)[0], said[0]);
}

/// What a release recorded of one guard, as lines: dispersion and spread are honoured, or not with --raw.
#[test]
fn looks_of_a_release_give_its_evidence_as_a_stream() {
    let guards = json!([guards()[0].clone()]);
    let (state, _) = judged(&plan(&analysis(&guards), 540), 300, 1000, 168);
    let known = &state.guards[0];
    let mut csv = "spread,dispersion,ns,s,nc,c,look,stream\n".to_owned();
    for (number, look) in (1..).zip(known.recent.iter()) {
        let c = look.counts[0];
        let (spread, dispersion) = (look.spread, look.dispersion);
        let _ = writeln!(
            csv,
            "{spread},{dispersion},{},{},{},{},{number},web",
            c.stable_total, c.stable_bad, c.canary_total, c.canary_bad
        );
    }
    let last = |said: &[Value]| {
        let last = said.last().unwrap();
        ["wealth_strict", "wealth_margin", "safe"].map(|name| last[name].as_f64().unwrap().to_bits())
    };
    let said = lines(&["--planned-looks", "540"], &csv);
    assert_eq!(last(&said), [known.strict, known.margin, known.safe].map(f64::to_bits));
    assert_eq!(said.last().unwrap()["verdict"], json!("rollback"));
    assert!(said[..said.len() - 1].iter().all(|line| line["verdict"] != json!("rollback")));
    let raw = lines(&["--planned-looks", "540", "--raw"], &csv);
    assert_ne!(last(&raw), last(&said), "without the dispersion");
    let bare: String =
        csv.lines().map(|line| line.splitn(3, ',').nth(2).unwrap().to_owned() + "\n").collect();
    assert_eq!(last(&lines(&["--planned-looks", "540"], &bare)), last(&raw));
}

#[test]
fn streams_are_judged_each_for_itself() {
    let csv = "\u{feff}stream,look,c,nc,s,ns\r\n\"a,\"\"1\"\"\",1,30,100,1,1000\r\nb,10,0,4000,3,40000\r\n\r\n\"a,\"\"1\"\"\",2,30,100,1,1000\r\n\
               b,11,0,8000,0,80000\r\n\"a,\"\"1\"\"\",5,30,100,1,1000";
    let said = lines(&["--planned-looks", "12"], csv);
    let told: Vec<(&str, u64, &str)> = said
        .iter()
        .map(|line| {
            (
                line["stream"].as_str().unwrap(),
                line["look"].as_u64().unwrap(),
                line["verdict"].as_str().unwrap(),
            )
        })
        .collect();
    let a = "a,\"1\"";
    assert_eq!(
        told,
        [(a, 1, "hold"), ("b", 10, "advance"), (a, 2, "hold"), ("b", 11, "advance"), (a, 5, "rollback")]
    );
    let alone = lines(
        &["--planned-looks", "12"],
        "stream,look,c,nc,s,ns\nb,10,0,4000,3,40000\nb,11,0,8000,0,80000\n",
    );
    assert_eq!([&said[1], &said[3]], [&alone[0], &alone[1]]);
    let file = std::env::temp_dir().join(format!("belay-looks-{}.csv", std::process::id()));
    std::fs::write(&file, csv).unwrap();
    let path = file.to_str().unwrap();
    let summary = belay(&["replay", "--looks", path], "");
    // Two passes over a file: the longest stream has 3 looks, and at least 12 are planned.
    let planned = belay(&["replay", "--looks", path, "-o", "jsonl"], "");
    std::fs::remove_file(&file).unwrap();
    insta::assert_snapshot!("replay_streams", text(&summary.stdout));
    assert_eq!(
        text(&planned.stdout).lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).collect::<Vec<_>>(),
        said
    );
    assert!(lines(&["--planned-looks", "12"], "stream,look,c,nc,s,ns\n").is_empty());
}

#[test]
fn a_bad_line_is_named_with_its_column_and_a_cure() {
    let head = "stream,look,c,nc,s,ns\nx,1,2,100,1,100\n";
    let long = format!("{head}x,2,1,{},0,100\n", "1".repeat(70_000));
    let many: String = std::iter::once("stream,look,c,nc,s,ns\n".to_owned())
        .chain((0..=10_000).map(|n| format!("s{n},1,0,1,0,1\n")))
        .collect();
    let row = |line: &str| format!("{head}{line}\n");
    let optional = |line: &str| format!("stream,look,c,nc,s,ns,dispersion\n{line}\n");
    for (input, printed, place, words) in [
        (String::new(), 0, "line 1, column 1", "there is no header"),
        ("x,1,2,100,1,100\n".to_owned(), 0, "line 1, column 1", "no column \"x\""),
        ("stream,look,c,nc,s\n".to_owned(), 0, "line 1, column 1", "the column ns is missing"),
        ("stream,look,c,nc,s,ns,c\n".to_owned(), 0, "line 1, column 23", "twice"),
        ("stream,look,c,nc,s,ns,dispertion\n".to_owned(), 0, "line 1, column 23", "\"dispertion\""),
        (row("x,2,one,100,1,100"), 1, "line 3, column 5", "c: \"one\" is not a number"),
        (row("x,2,1,-100,1,100"), 1, "line 3, column 7", "nc: \"-100\""),
        (row("x,2,1,100,NaN,100"), 1, "line 3, column 11", "s: \"NaN\""),
        (row("x,2,1,100,1,inf"), 1, "line 3, column 13", "ns: \"inf\""),
        (row("x,2,1,1e300,1,1"), 1, "line 3, column 7", "1e18"),
        (row("x,2,,100,1,100"), 1, "line 3, column 5", "c: \"\""),
        (row("x,1,1,100,1,100"), 1, "line 3, column 3", "comes after its look 1"),
        (row("x,0,1,100,1,100"), 1, "line 3, column 3", "sort the lines"),
        (row("x,1.5,1,100,1,100"), 1, "line 3, column 3", "not a whole number"),
        (row("x,+5,1,100,1,100"), 1, "line 3, column 3", "not a whole number"),
        (row("x,2,1,100,1"), 1, "line 3, column 11", "5 fields, where the header has 6"),
        (row("ü,2,1,100,1,100,7"), 1, "line 3, column 17", "7 fields"),
        (row(",2,1,100,1,100"), 1, "line 3, column 1", "name each stream"),
        (row("\"x,2,1,100,1,100"), 1, "line 3, column 1", "quote is not closed"),
        (optional("x,1,2,100,1,100,0.9"), 0, "line 2, column 17", "--raw"),
        (long, 1, "line 3, column 1", "longer than 65536 bytes"),
        (many, 10_000, "line 10002, column 1", "more than 10000 streams"),
    ] {
        let output = belay(&["replay", "--looks", "-", "--planned-looks", "12", "-o", "jsonl"], &input);
        let said: Value = serde_json::from_slice(&output.stderr).unwrap();
        let why = said["error"]["why"].as_str().unwrap();
        let all = format!("{why} {}", said["error"]["next"]);
        assert_eq!(output.status.code(), Some(1), "{all}");
        assert!(why.starts_with(place) && all.contains(words), "{place} {words}: {all}");
        assert!(!said["error"]["next"].as_array().unwrap().is_empty(), "{why}: no cure");
        assert_eq!(text(&output.stdout).lines().count(), printed, "{why}");
    }
    let raw = belay(
        &["replay", "--looks", "-", "--planned-looks", "12", "--raw"],
        &optional("x,1,2,100,1,100,0.9"),
    );
    assert_eq!(raw.status.code(), Some(0));
    for (args, code, words) in [
        (&["--looks", "-"][..], 64, "--planned-looks"),
        (&["--looks", "no-such.csv"], 1, "failed to read no-such.csv"),
        (&["--looks", "-", "--planned-looks", "0"], 64, "1..=1000000"),
        (&["--looks", "-", "--tolerate", "1.2"], 64, "^ no x after the factor"),
        (&["--looks", "-", "--guard", "errors"], 64, "cannot be used"),
        (&["--looks", "-", "--interval", "10s"], 64, "cannot be used"),
    ] {
        let output = belay(&[&["replay"], args].concat(), "");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
}
