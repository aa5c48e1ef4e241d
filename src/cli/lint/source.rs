//! What `lint` says about where the numbers come from, and about the addresses that checks ask: what the operator must
//! be allowed to read, and what is not safe. Pure.

use std::collections::BTreeSet;

use super::checks::{Found, error, note};
use crate::analysis::source::Access;
use crate::analysis::{GuardPlan, Source};
use crate::api::Rollout;
use crate::install::{self, Options};

/// The code of a source that cannot be used.
pub const CODE: &str = "metrics-source";
const FIELD: &str = "spec.analysis.metrics";

/// Somebody who is asked: the field that says so, what is sent along, and whether it is sent in the clear.
struct Asked {
    of: String,
    access: Access,
    in_the_clear: bool,
}

/// Checks the metrics source of a Rollout, if it has one, and the addresses that its checks ask.
pub fn check(rollout: &Rollout, found: &mut Vec<Found>) {
    let Some(analysis) = rollout.spec.analysis.as_ref() else { return };
    let source = match analysis.metrics.as_ref().map(Source::resolve).transpose() {
        Ok(source) => source,
        Err(why) => return found.push(error(CODE, FIELD.to_owned(), why.to_string(), "see the field")),
    };
    let mut asked = Vec::new();
    if let Some(source) = &source {
        let of = match source {
            Source::Pods(_) => format!("{FIELD}.pods"),
            Source::Prometheus(_) => format!("{FIELD}.prometheus"),
        };
        let in_the_clear = source.is_in_the_clear();
        asked.push(Asked { of, access: source.access().clone(), in_the_clear });
    }
    for (i, guard) in analysis.guards.iter().enumerate() {
        // One that cannot be used is told of by itself.
        let Ok(planned) = GuardPlan::resolve(guard) else { continue };
        let Some(web) = planned.measured.check().and_then(|check| check.asks_web()) else { continue };
        let of = format!("spec.analysis.guards[{i}].web");
        asked.push(Asked { of, access: web.access.clone(), in_the_clear: !web.url.starts_with("https://") });
    }
    secrets(rollout, &asked, found);
    for asked in &asked {
        unsafe_ways(asked, found);
    }
    if let Some(Source::Pods(pods)) = &source
        && pods.secure
        && pods.access.server_name.is_none()
        && !pods.access.insecure
    {
        let message =
            "the pods' certificates must name the pods' own addresses, which certificates rarely do"
                .to_owned();
        let help = "say with tls.serverName which name they have";
        found.push(note("pod-certificates", &format!("{FIELD}.pods"), message, help));
    }
}

/// The Role that lets the operator read all Secrets that are needed.
fn secrets(rollout: &Rollout, asked: &[Asked], found: &mut Vec<Found>) {
    let secrets: BTreeSet<&str> = asked.iter().flat_map(|asked| asked.access.secrets()).collect();
    let secrets: Vec<&str> = secrets.into_iter().collect();
    if let Some(Asked { of, .. }) = asked.iter().find(|asked| !asked.access.secrets().is_empty()) {
        let name = rollout.metadata.name.as_deref().unwrap_or_default();
        let namespace = rollout.metadata.namespace.as_deref();
        let role = install::secret_reader(&Options::default(), namespace, name, &secrets);
        let message = format!(
            "the operator reads the Secret {} in this namespace, and may do so only if a Role here says so",
            secrets.join(" and the Secret ")
        );
        let help = format!(
            "whoever administers the namespace applies this, unless something like it is there:\n{}",
            role.trim_end()
        );
        found.push(note("metrics-secrets", of, message, &help));
    }
}

fn unsafe_ways(Asked { of, access, in_the_clear }: &Asked, found: &mut Vec<Found>) {
    if access.insecure {
        let message =
            "whoever answers is trusted: anybody on the way can give the numbers that promote a release, \
                       and read the credentials"
                .to_owned();
        let help = "name the authority with tls.caSecretRef instead";
        found.push(note("insecure", &format!("{of}.tls.insecureSkipVerify"), message, help));
    }
    if access.credentials.is_some() && *in_the_clear {
        let message = "the credentials are sent without TLS: anybody on the way can read them".to_owned();
        let help = "use https";
        found.push(note("credentials-in-the-clear", &format!("{of}.auth"), message, help));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::analysis::SourceError;

    fn codes(metrics: &Value) -> Vec<(&'static str, String, String)> {
        let rollout = serde_json::from_value(json!({
            "apiVersion": "belay.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"workloadRef": {"kind": "Deployment", "name": "web"}, "analysis": {"metrics": metrics}},
        }))
        .unwrap();
        let mut found = Vec::new();
        check(&rollout, &mut found);
        found.into_iter().map(|found| (found.code, found.field, found.help.unwrap_or_default())).collect()
    }

    #[test]
    fn the_role_is_printed_and_what_is_not_safe_is_said() {
        let bearer = json!({"bearer": {"secretRef": {"name": "scraper"}}});
        let found = codes(&json!({"pods": {"port": 1, "auth": bearer}}));
        assert_eq!(
            found.iter().map(|found| found.0).collect::<Vec<_>>(),
            ["metrics-secrets", "credentials-in-the-clear"]
        );
        assert!(
            found[0].2.contains("resourceNames: [scraper]") && found[0].2.contains("namespace: shop"),
            "{found:?}"
        );
        let found =
            codes(&json!({"pods": {"port": 1, "scheme": "https", "tls": {"insecureSkipVerify": true}}}));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].0, found[0].1.as_str()),
            ("insecure", "spec.analysis.metrics.pods.tls.insecureSkipVerify")
        );
        assert_eq!(codes(&json!({"pods": {"port": 1, "scheme": "https"}}))[0].0, "pod-certificates");
        let tls = json!({"caSecretRef": {"name": "ca"}});
        let secure = json!({"prometheus": {"url": "https://p", "auth": bearer, "tls": tls}});
        let found = codes(&secure);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].2.contains("resourceNames: [ca, scraper]"), "{found:?}");
        assert!(codes(&json!({"prometheus": {"url": "http://p"}})).is_empty());
    }

    /// What is refused here the API server refuses, too: the same objects against the schema and its rules.
    #[test]
    fn says_which_field_is_wrong_as_the_schema_does() {
        let resolve = |metrics: Value| -> Result<Source, SourceError> {
            Source::resolve(&serde_json::from_value(metrics).unwrap())
        };
        let crd = install::crd_of("Rollout").unwrap();
        let served = |metrics: &Value| {
            let rollout = json!({
                "apiVersion": "belay.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
                "spec": {"workloadRef": {"kind": "Deployment", "name": "web"}, "analysis": {"metrics": metrics}},
            });
            crate::api::validate::validate(&crd, &rollout)
        };
        let prometheus = |more: Value| {
            let mut prometheus = json!({"url": "https://host"});
            json_patch::merge(&mut prometheus, &more);
            json!({"prometheus": prometheus})
        };
        let header =
            |name: &str, value: &str| prometheus(json!({"headers": [{"name": name, "value": value}]}));
        let pods = |more: Value| {
            let mut pods = json!({"port": 80});
            json_patch::merge(&mut pods, &more);
            json!({"pods": pods})
        };
        let bearer = json!({"bearer": {"secretRef": {"name": "s"}}});
        let both = json!({"bearer": {"secretRef": {"name": "s"}}, "basic": {"secretRef": {"name": "s"}}});
        let twelve: Vec<Value> = (0..12).map(|i| json!({"name": format!("X-{i}"), "value": ""})).collect();
        for good in [
            prometheus(json!({"auth": bearer, "tenant": "a|b", "lookBack": "1s"})),
            header("X-Authorization-Not", "a b"),
            pods(json!({"scheme": "https", "tls": {"insecureSkipVerify": true}, "auth": bearer})),
        ] {
            assert_eq!(served(&good), []);
            resolve(good).unwrap();
        }
        for (metrics, said) in [
            (json!({}), "exactly one of pods and prometheus"),
            (pods(json!({"port": 0})), "pods.port: 0"),
            (pods(json!({"path": "metrics"})), "pods.path"),
            (pods(json!({"tls": {}})), "pods.tls: only with https"),
            (
                pods(json!({"scheme": "http", "tls": {"insecureSkipVerify": true}})),
                "pods.tls: only with https",
            ),
            (pods(json!({"auth": {}})), "pods.auth: exactly one of basic and bearer"),
            (prometheus(json!({"auth": both})), "prometheus.auth: exactly one of basic and bearer"),
            (prometheus(json!({"url": "http://host", "tls": {}})), "prometheus.tls: only with https"),
            (
                prometheus(json!({"tls": {"insecureSkipVerify": true, "serverName": "a"}})),
                "insecureSkipVerify trusts everybody",
            ),
            (
                prometheus(json!({"tls": {"insecureSkipVerify": true, "caSecretRef": {"name": "a"}}})),
                "insecureSkipVerify trusts everybody",
            ),
            (prometheus(json!({"lookBack": "6m"})), "lookBack: 1s to 5m"),
            (prometheus(json!({"lookBack": "999ms"})), "lookBack: 1s to 5m"),
            (prometheus(json!({"tenant": "a/b"})), "prometheus.tenant"),
            (prometheus(json!({"tenant": ""})), "prometheus.tenant"),
            (prometheus(json!({"headers": twelve})), "headers: at most 10"),
            (header("Authorization", "x"), "use `auth`"),
            (header("proxy-authorization", "x"), "use `auth`"),
            (header("COOKIE", "x"), "use `auth`"),
            (header("Host", "x"), "the request itself sets it"),
            (header("Content-Length", "0"), "the request itself sets it"),
            (header("Accept-Encoding", "gzip"), "the request itself sets it"),
            (header("Transfer-Encoding", "chunked"), "the request itself sets it"),
            (header("X Y", "x"), "not the name of a header"),
            (header("X", "a\nb"), "printable ASCII"),
            (header("X", " a"), "printable ASCII"),
        ] {
            let error = resolve(metrics.clone()).unwrap_err().to_string();
            assert!(error.contains(said), "{said}: {error}");
            assert!(!served(&metrics).is_empty(), "the schema takes {metrics}");
        }
        let twice = json!({"tenant": "a", "headers": [{"name": "x-scope-orgid", "value": "b"}]});
        let error = resolve(prometheus(twice)).unwrap_err().to_string();
        assert!(error.contains("it is there twice"), "{error}");
    }
}
