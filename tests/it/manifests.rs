//! The committed manifests are the ones that the code makes, and ask for no more than they need.

use std::collections::BTreeSet;
use std::path::PathBuf;

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
    let found: BTreeSet<String> =
        std::fs::read_dir(folder()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected, "manifests/ holds generated files only");
}

#[test]
fn the_files_hold_every_object_once_and_read_back_unchanged() {
    let mut read: Vec<Value> =
        install::files().unwrap().iter().flat_map(|(_, yaml)| documents(yaml)).collect();
    let mut built = install::objects(&install::Options::default());
    read.sort_by_key(install::reference);
    built.sort_by_key(install::reference);
    assert_eq!(read, built);
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

#[test]
fn a_server_without_policies_gets_all_but_them() {
    let all = install::objects(&install::Options::default());
    let some = install::without_policies(all.clone());
    assert_eq!(all.len() - some.len(), 4);
    assert!(some.iter().all(|o| !install::reference(o).starts_with("Mutating")));
}
