//! Metric names that are known: what common libraries and meshes call requests, failures and latency.
//!
//! Purpose: a table; each entry names the page that documents it. Must never: guess. Where a series does not tell pods
//! apart, the entry says so, and a canary by pods cannot be judged by it.

/// A known set of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// What it is called in a guard.
    pub name: &'static str,
    /// What counts requests: the failed ones, and all.
    pub errors: Errors,
    /// What measures the time to an answer.
    pub latency: Latency,
    /// What its series tell apart.
    pub tells: Tells,
}

/// Counters of failed and of all requests; matchers as in `PromQL`, without braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errors {
    /// Name of the counter.
    pub metric: &'static str,
    /// Which of its series are failures.
    pub bad: &'static str,
    /// Which of its series are requests to the workload; empty for all.
    pub total: &'static str,
}

/// A histogram of the time to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Name of the histogram, without `_bucket`.
    pub metric: &'static str,
    /// Which of its series are requests to the workload; empty for all.
    pub matchers: &'static str,
    /// What it counts in.
    pub unit: Unit,
}

/// What a histogram counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// What the series of a preset tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// Pods: each has a page of its own.
    Pods(Page),
    /// Services or backends: they come from a proxy before them, which does not say which pod answered.
    Services {
        /// The label that names the Service or backend.
        label: &'static str,
    },
}

/// Where a pod shows these metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The port; nothing where that is the application's own choice.
    pub port: Option<u16>,
    /// The path.
    pub path: &'static str,
}

/// Why a preset cannot be used.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum PresetError {
    /// None of this name.
    #[error("there is no preset {name:?}; known are {}", names().join(", "))]
    Unknown {
        /// What was given.
        name: String,
    },
    /// Its series do not tell pods apart.
    #[error(
        "the preset {name} tells Services apart (by the label {label}), not pods; that needs a canary with a Service \
         of its own, which a canary by pods does not have. Use the pods' own metrics (http, otel-http) or a mesh's \
         (istio, linkerd)"
    )]
    NotByPod {
        /// Its name.
        name: &'static str,
        /// The label.
        label: &'static str,
    },
}

const OWN_PAGE: Tells = Tells::Pods(Page { port: None, path: "/metrics" });

/// All that are known.
pub const PRESETS: &[Preset] = &[
    // The naming that Prometheus' own documentation uses for HTTP services, with the label `code` as in the HTTP
    // middleware of its Go library (promhttp.InstrumentHandlerCounter): https://prometheus.io/docs/practices/naming/,
    // https://pkg.go.dev/github.com/prometheus/client_golang/prometheus/promhttp. Whoever says `status` instead names
    // the counters in the guard.
    Preset {
        name: "http",
        errors: Errors { metric: "http_requests_total", bad: r#"code=~"5..""#, total: "" },
        latency: Latency { metric: "http_request_duration_seconds", matchers: "", unit: Unit::Seconds },
        tells: OWN_PAGE,
    },
    // http.server.request.duration, a histogram in seconds with http.response.status_code
    // (https://opentelemetry.io/docs/specs/semconv/http/http-metrics/), as Prometheus shows it: dots become
    // underscores and the unit is appended
    // (https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/). There is no counter of
    // requests beside it: the histogram's `_count` is one.
    Preset {
        name: "otel-http",
        errors: Errors {
            metric: "http_server_request_duration_seconds_count",
            bad: r#"http_response_status_code=~"5..""#,
            total: "",
        },
        latency: Latency {
            metric: "http_server_request_duration_seconds",
            matchers: "",
            unit: Unit::Seconds,
        },
        tells: OWN_PAGE,
    },
    // https://istio.io/latest/docs/reference/config/metrics/: `reporter` is destination for what the server's own
    // proxy reports; `response_code` 0 is a request that was broken off, which is nobody's failure for sure, so only
    // 5xx count. The page with the application's metrics merged in is
    // https://istio.io/latest/docs/ops/integrations/prometheus/.
    Preset {
        name: "istio",
        errors: Errors {
            metric: "istio_requests_total",
            bad: r#"reporter="destination",response_code=~"5..""#,
            total: r#"reporter="destination""#,
        },
        latency: Latency {
            metric: "istio_request_duration_milliseconds",
            matchers: r#"reporter="destination""#,
            unit: Unit::Milliseconds,
        },
        tells: Tells::Pods(Page { port: Some(15020), path: "/stats/prometheus" }),
    },
    // https://linkerd.io/2/reference/proxy-metrics/: `classification` is success or failure, `direction` is inbound
    // for requests to the pod; the proxy's metrics port is 4191. What is asked of that port counts as inbound, too
    // (`target_addr`), among it each look of ours, and would water the share of failures down.
    Preset {
        name: "linkerd",
        errors: Errors {
            metric: "response_total",
            bad: r#"direction="inbound",target_addr!~".*:4191",classification="failure""#,
            total: r#"direction="inbound",target_addr!~".*:4191""#,
        },
        latency: Latency {
            metric: "response_latency_ms",
            matchers: r#"direction="inbound",target_addr!~".*:4191""#,
            unit: Unit::Milliseconds,
        },
        tells: Tells::Pods(Page { port: Some(4191), path: "/metrics" }),
    },
    // Envoy's, on its page at port 8002 (https://projectcontour.io/docs/main/guides/prometheus/); clusters are
    // Services: https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats
    // (`upstream_rq_xx` counts by class, as label `envoy_response_code_class`; `upstream_rq_time` is in ms).
    Preset {
        name: "contour",
        errors: Errors {
            metric: "envoy_cluster_upstream_rq_xx",
            bad: r#"envoy_response_code_class="5""#,
            total: "",
        },
        latency: Latency { metric: "envoy_cluster_upstream_rq_time", matchers: "", unit: Unit::Milliseconds },
        tells: Tells::Services { label: "envoy_cluster_name" },
    },
    // https://kubernetes.github.io/ingress-nginx/user-guide/monitoring/
    Preset {
        name: "nginx",
        errors: Errors { metric: "nginx_ingress_controller_requests", bad: r#"status=~"5..""#, total: "" },
        latency: Latency {
            metric: "nginx_ingress_controller_request_duration_seconds",
            matchers: "",
            unit: Unit::Seconds,
        },
        tells: Tells::Services { label: "service" },
    },
    // https://doc.traefik.io/traefik/observability/metrics/overview/
    Preset {
        name: "traefik",
        errors: Errors { metric: "traefik_service_requests_total", bad: r#"code=~"5..""#, total: "" },
        latency: Latency {
            metric: "traefik_service_request_duration_seconds",
            matchers: "",
            unit: Unit::Seconds,
        },
        tells: Tells::Services { label: "service" },
    },
];

/// The names of all presets.
pub fn names() -> Vec<&'static str> {
    PRESETS.iter().map(|preset| preset.name).collect()
}

/// The preset of this name, whatever its series tell apart.
pub fn find(name: &str) -> Result<&'static Preset, PresetError> {
    let found = PRESETS.iter().find(|preset| preset.name == name);
    found.ok_or_else(|| PresetError::Unknown { name: name.to_owned() })
}

/// The preset of this name for a canary by pods.
pub fn by_pod(name: &str) -> Result<&'static Preset, PresetError> {
    let preset = find(name)?;
    match preset.tells {
        Tells::Pods(_) => Ok(preset),
        Tells::Services { label } => Err(PresetError::NotByPod { name: preset.name, label }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Matchers;
    use crate::analysis::query::{Form, parse_page};

    /// Lines as the page that documents the preset has them, or as its program prints them, each with what it is:
    /// `bad`, `good`, or `other` for what is no request to the workload.
    const DOCUMENTED: &[(&str, &str)] = &[
        (
            "http",
            r#"bad http_requests_total{code="500",method="get"} 3
               good http_requests_total{code="200",method="get"} 1027
               good http_requests_total{code="404",method="get"} 3
               latency http_request_duration_seconds_bucket{le="0.05"} 24054"#,
        ),
        (
            "otel-http",
            r#"bad http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="503",http_route="/",url_scheme="http"} 2
               good http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="200",http_route="/",url_scheme="http"} 9
               latency http_server_request_duration_seconds_bucket{http_request_method="GET",http_response_status_code="200",le="0.005"} 9"#,
        ),
        (
            "istio",
            r#"bad istio_requests_total{reporter="destination",source_workload="a",destination_workload="web",request_protocol="http",response_code="503",response_flags="UF"} 1
               good istio_requests_total{reporter="destination",source_workload="a",destination_workload="web",request_protocol="http",response_code="200",response_flags="-"} 8
               other istio_requests_total{reporter="source",source_workload="web",destination_workload="db",request_protocol="http",response_code="503",response_flags="UH"} 5
               latency istio_request_duration_milliseconds_bucket{reporter="destination",response_code="200",le="0.5"} 3"#,
        ),
        (
            "linkerd",
            r#"bad response_total{direction="inbound",target_addr="10.42.0.9:8080",tls="true",status_code="503",classification="failure"} 7
               good response_total{direction="inbound",target_addr="10.42.0.9:8080",tls="true",status_code="200",classification="success"} 70
               other response_total{direction="inbound",target_addr="0.0.0.0:4191",tls="no_identity",status_code="200",classification="success"} 9
               other response_total{direction="outbound",target_addr="10.42.0.7:80",status_code="503",classification="failure"} 2
               latency response_latency_ms_bucket{direction="inbound",target_addr="10.42.0.9:8080",status_code="200",le="1"} 3"#,
        ),
        (
            "contour",
            r#"bad envoy_cluster_upstream_rq_xx{envoy_response_code_class="5",envoy_cluster_name="default_web_80"} 2
               good envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="default_web_80"} 20
               latency envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="default_web_80",le="0.5"} 0"#,
        ),
        (
            "nginx",
            r#"bad nginx_ingress_controller_requests{ingress="web",namespace="shop",service="web",status="502"} 2
               good nginx_ingress_controller_requests{ingress="web",namespace="shop",service="web",status="200"} 20
               latency nginx_ingress_controller_request_duration_seconds_bucket{ingress="web",namespace="shop",service="web",status="200",le="0.005"} 2"#,
        ),
        (
            "traefik",
            r#"bad traefik_service_requests_total{code="500",method="GET",protocol="http",service="web@kubernetes"} 2
               good traefik_service_requests_total{code="200",method="GET",protocol="http",service="web@kubernetes"} 20
               latency traefik_service_request_duration_seconds_bucket{code="200",method="GET",protocol="http",service="web@kubernetes",le="0.1"} 2"#,
        ),
    ];

    #[test]
    fn each_preset_finds_what_its_documentation_shows() {
        assert_eq!(DOCUMENTED.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names());
        for (name, lines) in DOCUMENTED {
            let Preset { errors, latency, tells, .. } = find(name).unwrap();
            let matchers = |text: &str| text.parse::<Matchers>().unwrap();
            for line in lines.lines() {
                let (kind, line) = line.trim().split_once(' ').unwrap();
                let found = parse_page(line.as_bytes(), Form::Text, |_| true, |_| true).unwrap().remove(0);
                if kind == "latency" {
                    assert_eq!(found.name, format!("{}_bucket", latency.metric));
                    assert!(matchers(latency.matchers).matches(&found.labels), "{name}: {line}");
                } else {
                    assert_eq!(found.name, errors.metric);
                    let (bad, total) = (matchers(errors.bad), matchers(errors.total));
                    assert_eq!(bad.matches(&found.labels), kind == "bad", "{name}: {line}");
                    assert_eq!(total.matches(&found.labels), kind != "other", "{name}: {line}");
                }
                if let Tells::Services { label } = tells {
                    assert!(found.labels.contains_key(*label), "{name}: {line}");
                }
            }
            let milliseconds = latency.metric.ends_with("_milliseconds")
                || latency.metric.ends_with("_ms")
                || latency.metric.starts_with("envoy_");
            assert_eq!(latency.unit == Unit::Milliseconds, milliseconds, "{name}");
        }
    }

    #[test]
    fn a_canary_by_pods_is_judged_by_what_tells_pods_apart() {
        for name in ["http", "otel-http", "istio", "linkerd"] {
            assert_eq!(by_pod(name).map(|preset| preset.name), Ok(name));
        }
        for name in ["contour", "nginx", "traefik"] {
            let error = by_pod(name).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("a canary with a Service of its own"), "{error}");
        }
        let error = by_pod("datadog").unwrap_err().to_string();
        assert!(
            error.contains("\"datadog\"") && error.contains("http, otel-http, istio, linkerd"),
            "{error}"
        );
    }
}
