//! The committed manifests are the ones that the code makes, and ask for no more than they need.

use std::collections::BTreeSet;
use std::path::PathBuf;

use belay::api::BrakeForm;
use belay::install;
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

/// The documents of a YAML stream.
pub fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

#[test]
fn committed_files_are_current() {
    let files = install::files().unwrap();
    for (name, content) in &files {
        let committed = std::fs::read_to_string(folder().join(name)).unwrap_or_default();
        assert!(
            committed == *content,
            "manifests/{name} is stale; run `make manifests` and commit what it writes"
        );
    }
    let expected: BTreeSet<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |folder: PathBuf, prefix: &str| -> Vec<String> {
        let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
        files.filter(|f| f != "webhook").map(|f| format!("{prefix}{f}")).collect()
    };
    let mut found = names(folder(), "");
    found.extend(names(folder().join("webhook"), "webhook/"));
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "manifests/ holds generated files only");
}

#[test]
fn the_files_hold_every_object_once_and_read_back_unchanged() {
    let files = install::files().unwrap();
    let (webhook, policy): (Vec<_>, Vec<_>) =
        files.iter().partition(|(name, _)| name.starts_with("webhook/"));
    // The webhook's files stand beside two of the others.
    let both = ["crds.yaml", "namespace.yaml"];
    let shared = files.iter().filter(|(name, _)| both.contains(name));
    let webhook = webhook.into_iter().chain(shared).collect::<Vec<_>>();
    for (files, options) in [(policy, install::Options::default()), (webhook, webhook_options())] {
        let mut read: Vec<Value> = files.iter().flat_map(|(_, yaml)| documents(yaml)).collect();
        let mut built = install::objects(&options);
        read.sort_by_key(install::reference);
        built.sort_by_key(install::reference);
        assert_eq!(read, built);
    }
}

fn webhook_options() -> install::Options {
    install::Options { brake: BrakeForm::Webhook, ..install::Options::default() }
}

#[test]
fn every_object_has_what_a_cluster_needs_to_take_it() {
    for object in install::objects(&install::Options::default()) {
        let name = install::reference(&object);
        assert!(object["apiVersion"].is_string() && object["kind"].is_string(), "{name}");
        assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/name"], "belay", "{name}");
    }
}

#[test]
fn another_namespace_is_followed_everywhere() {
    let options = install::Options::in_namespace("elsewhere");
    let text = install::render_yaml(&install::objects(&options)).unwrap();
    assert!(!text.contains("belay-system"), "the default namespace is still named");
    assert!(text.contains("system:serviceaccount:elsewhere:belay"));
}

#[test]
fn roles_ask_for_no_wildcard_and_no_secret() {
    let objects = install::objects(&install::Options::default());
    let roles: Vec<&Value> =
        objects.iter().filter(|o| o["kind"] == "ClusterRole" || o["kind"] == "Role").collect();
    assert_eq!(roles.len(), 4);
    for role in roles {
        let name = install::reference(role);
        for rule in role["rules"].as_array().unwrap() {
            let mut words = rule.as_object().unwrap().values().flat_map(|v| v.as_array().unwrap());
            assert!(words.all(|w| w != "*"), "{name}: {rule}");
            for resource in rule["resources"].as_array().unwrap() {
                let resource = resource.as_str().unwrap();
                let forbidden =
                    ["secrets", "configmaps", "serviceaccounts", "nodes", "pods/exec", "pods/log"];
                assert!(!forbidden.contains(&resource), "{name}: {rule}");
            }
            for verb in rule["verbs"].as_array().unwrap() {
                assert!(
                    !["escalate", "bind", "impersonate"].contains(&verb.as_str().unwrap()),
                    "{name}: {rule}"
                );
            }
        }
    }
}

#[test]
fn the_operator_runs_with_nothing_it_does_not_need() {
    let objects = install::objects(&install::Options::default());
    let deployment = objects.iter().find(|o| o["kind"] == "Deployment").unwrap();
    assert_eq!(deployment["spec"]["strategy"]["type"], "Recreate");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
    assert!(container["resources"]["limits"]["memory"].is_string());
}

fn webhooks() -> Vec<Value> {
    let objects = install::objects(&webhook_options());
    let configuration = objects.iter().find(|o| o["kind"] == "MutatingWebhookConfiguration").unwrap();
    configuration["webhooks"].as_array().unwrap().clone()
}

#[test]
fn the_webhook_form_has_no_policy_and_all_else() {
    let kinds = |options: &install::Options| -> BTreeSet<String> {
        install::objects(options).iter().map(|o| o["kind"].as_str().unwrap().to_owned()).collect()
    };
    let (policy, webhook) = (kinds(&install::Options::default()), kinds(&webhook_options()));
    let only: Vec<_> = policy.difference(&webhook).collect();
    assert_eq!(only, ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"]);
    let only: Vec<_> = webhook.difference(&policy).collect();
    assert_eq!(only, ["MutatingWebhookConfiguration", "PodDisruptionBudget", "Secret"]);
    let all: BTreeSet<String> = install::all_objects(&webhook_options())
        .iter()
        .map(|o| o["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(all, policy.union(&webhook).cloned().collect());
}

#[test]
fn a_webhook_that_is_not_answered_stops_changes() {
    for webhook in webhooks() {
        assert_eq!(webhook["failurePolicy"], "Fail");
        assert_eq!(webhook["sideEffects"], "None");
        assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
        assert!(webhook["timeoutSeconds"].as_u64().unwrap() <= 5);
        assert_eq!(webhook["clientConfig"]["service"]["name"], "belay-webhook");
    }
    assert_eq!(webhooks()[0]["objectSelector"]["matchExpressions"][0]["key"], "belay.dev/rollout");
    assert_eq!(webhooks()[0]["rules"][0]["resources"], serde_json::json!(["deployments"]));
}

#[test]
fn a_webhook_is_always_answered_by_one_of_two_operators() {
    let objects = install::objects(&webhook_options());
    let deployment = &objects.iter().find(|o| o["kind"] == "Deployment").unwrap()["spec"];
    assert_eq!(deployment["replicas"], 2);
    assert_eq!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let budget = objects.iter().find(|o| o["kind"] == "PodDisruptionBudget").unwrap();
    assert_eq!(budget["spec"]["minAvailable"], 1);
    assert_eq!(budget["spec"]["selector"], deployment["selector"]);
}

#[test]
fn the_webhook_may_read_its_own_secret_and_no_other() {
    let objects = install::objects(&webhook_options());
    let rules: Vec<&Value> = objects
        .iter()
        .filter(|o| o["kind"] == "ClusterRole" || o["kind"] == "Role")
        .flat_map(|role| role["rules"].as_array().unwrap())
        .collect();
    let secrets: Vec<_> =
        rules.iter().filter(|r| r["resources"].as_array().unwrap().contains(&"secrets".into())).collect();
    assert_eq!(secrets.len(), 1);
    assert_eq!(secrets[0]["resourceNames"], serde_json::json!(["belay-webhook"]));
    assert!(!secrets[0]["verbs"].as_array().unwrap().contains(&"create".into()));
    let brakes = rules
        .iter()
        .filter(|r| r["resources"].as_array().unwrap().contains(&"mutatingwebhookconfigurations".into()));
    assert!(
        brakes.map(|r| &r["resourceNames"]).all(|names| *names == serde_json::json!(["zz-brake.belay.dev"]))
    );
}
