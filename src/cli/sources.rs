//! What `doctor` checks of a metrics source, and of the addresses that checks ask: whether the operator may read the Secrets that it names.
//!
//! May touch: access reviews. Must never: read a Secret.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, ResourceAttributes, SubjectAccessReviewSpec,
};
use kube::Api;
use kube::ResourceExt;
use kube::api::PostParams;

use super::doctor::may;
use super::failure::{Failure, Kind};
use super::session::Cluster;
use crate::analysis::source::Access;
use crate::analysis::{GuardPlan, Source};
use crate::api::Rollout;
use crate::install;
use crate::report::checks::{CheckResult, ChecksReport};

/// Checks the source of a Rollout, if it has one, and the addresses that its checks ask. `user`: the operator's account; `operator`: its namespace.
pub async fn check(
    cluster: &Cluster,
    rollout: &Rollout,
    user: &str,
    operator: &str,
    report: &mut ChecksReport,
) {
    let Some(analysis) = &rollout.spec.analysis else { return };
    let mut asked: Vec<(String, Access)> = Vec::new();
    if let Some(Ok(source)) = analysis.metrics.as_ref().map(Source::resolve) {
        asked.push(("its metrics source".to_owned(), source.access().clone()));
    }
    for planned in analysis.guards.iter().filter_map(|guard| GuardPlan::resolve(guard).ok()) {
        let web = planned.measured.check().and_then(|check| check.asks_web());
        asked.extend(web.map(|web| (format!("its check {}", planned.name), web.access.clone())));
    }
    let secrets: BTreeSet<&str> = asked.iter().flat_map(|(_, access)| access.secrets()).collect();
    let namespace = rollout.namespace().unwrap_or_default();
    let name = format!("{namespace}/{}", rollout.name_any());
    for (whose, _) in asked.iter().filter(|(_, access)| access.insecure) {
        let detail = format!("insecureSkipVerify: whoever answers for {whose} is trusted");
        let cure = "name the authority with tls.caSecretRef instead";
        report.add(&name, CheckResult::Warning, detail, Some(cure));
    }
    for secret in &secrets {
        let of = asked.iter().find(|(_, access)| access.secrets().contains(secret));
        let whose = of.map_or("", |(whose, _)| whose);
        match may_read(cluster, user, &namespace, secret).await {
            Ok(true) => {
                let detail = format!("the operator may read the Secret {secret} of {whose}");
                report.add(&name, CheckResult::Ok, detail, None);
            }
            Ok(false) => {
                let role = install::secret_reader_name(&rollout.name_any());
                let detail = format!("{user} may not read the Secret {secret} of {whose}");
                let cure = format!(
                    "kubectl -n {namespace} create role {role} --verb=get --resource=secrets {}; \
                     kubectl -n {namespace} create rolebinding {role} --role={role} --serviceaccount={operator}:belay",
                    secrets
                        .iter()
                        .map(|name| format!("--resource-name={name}"))
                        .collect::<Vec<_>>()
                        .join(" "),
                );
                report.add(&name, CheckResult::Broken, detail, Some(&cure));
            }
            Err(failure) => {
                let why = failure.why.unwrap_or(failure.what);
                let detail = format!("whether the operator may read the Secret {secret} is not known: {why}");
                report.add(&name, CheckResult::Skipped, detail, failure.hints.first().map(String::as_str));
            }
        }
    }
}

/// Asks for the whole cluster, and if that is not permitted, in the namespace alone.
async fn may_read(cluster: &Cluster, user: &str, namespace: &str, secret: &str) -> Result<bool, Failure> {
    let right = ("get", "", "secrets", "");
    match may(cluster, user, Some(namespace.to_owned()), Some(secret), &right).await {
        Err(failure) if failure.kind == Kind::Forbidden => {}
        done => return done,
    }
    let review = LocalSubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            groups: Some(super::doctor::groups()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some("get".to_owned()),
                resource: Some("secrets".to_owned()),
                namespace: Some(namespace.to_owned()),
                name: Some(secret.to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        },
        ..Default::default()
    };
    let api: Api<LocalSubjectAccessReview> = Api::namespaced(cluster.client.clone(), namespace);
    let done =
        cluster.ask("ask what the operator may do", api.create(&PostParams::default(), &review)).await?;
    Ok(done.status.is_some_and(|status| status.allowed))
}
